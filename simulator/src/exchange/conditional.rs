//! Orders that wait: stops and brackets for a price, slices of a TWAP for their time.

use rust_decimal::Decimal;

use super::book::{OrderNumber, Quantity, Side};
use super::order::{Order, Plan, Rung, Status, StopDirection};
use super::place::STOP_BAND;
use super::{Exchange, Market, Now};

impl Exchange {
    /// Sets to work every stop and bracket whose price was traded since the last call; one may set off the next.
    pub(super) fn run_triggers(&mut self, now: Now) {
        loop {
            let due: Vec<OrderNumber> = self
                .conditionals
                .iter()
                .filter(|n| self.orders.get(n).is_none_or(|o| o.status.is_terminal() || self.is_triggered(now, o)))
                .copied()
                .collect();
            for market in &mut self.markets {
                market.traded = None;
            }
            if due.is_empty() {
                return;
            }
            for number in due {
                self.conditionals.remove(&number);
                self.trigger(now, number);
            }
        }
    }

    fn is_triggered(&self, now: Now, order: &Order) -> bool {
        let market = &self.markets[order.market];
        let Some((low, high)) = market.traded.filter(|_| !market.is_closed(now.time)) else { return false };
        match order.terms.plan {
            Plan::Stop { price, direction: StopDirection::Up } => high >= price,
            Plan::Stop { price, .. } => low <= price,
            Plan::Bracket { stop } if order.side == Side::Buy => high >= stop,
            Plan::Bracket { stop } => low <= stop,
            Plan::Direct | Plan::Twap { .. } | Plan::Scaled => false,
        }
    }

    fn trigger(&mut self, now: Now, number: OrderNumber) {
        let Some(order) = self.orders.get_mut(&number).filter(|o| o.status == Status::Open) else { return };
        order.triggered = true;
        order.last_update = now.time;
        if let Plan::Bracket { stop } = order.terms.plan {
            let (market, side, remaining) = (order.market, order.side, order.remaining());
            let price = stopped_price(&self.markets[market], side, stop);
            for rung in order.rungs.drain(..) {
                self.markets[market].book.remove(side, rung.price, number);
            }
            order.rungs.push(Rung { price, remaining });
            order.resting = false;
        }
        self.execute(now, number);
    }

    /// Sends the slices of TWAP orders that are due.
    pub(super) fn run_slices(&mut self, now: Now) {
        while let Some((due, number)) = self.slices.first().copied().filter(|(due, _)| *due <= now.time) {
            self.slices.remove(&(due, number));
            let Some(order) = self.orders.get_mut(&number).filter(|o| o.status == Status::Open) else { continue };
            let Plan::Twap { buckets, interval, .. } = order.terms.plan else { continue };
            order.buckets += 1;
            let market = &self.markets[order.market];
            // What earlier slices did not get goes into the later ones.
            let left = buckets.saturating_sub(order.buckets) + 1;
            let share = order.remaining().checked_div(Decimal::from(left)).unwrap_or_default();
            let last = order.buckets >= buckets;
            let size = if last { order.remaining() } else { market.product.round_size(share) };
            let limit = order.terms.limit_price;
            if let Ok(next) = due.checked_add(interval)
                && !last
            {
                self.slices.insert((next, number));
            }
            if !market.is_closed(now.time) && !size.is_zero() {
                self.work(now, number, limit, Quantity::Base(size));
            }
        }
    }
}

/// Limit of a bracket whose stop was reached.
fn stopped_price(market: &Market, side: Side, stop: Decimal) -> Decimal {
    let product = &market.product;
    match side {
        Side::Buy => product.round_price(stop * (Decimal::ONE + STOP_BAND)) + product.price_increment,
        Side::Sell => product.round_price(stop * (Decimal::ONE - STOP_BAND)).max(product.price_increment),
    }
}
