//! Behaviours of the exchange that can be switched: what Coinbase does not document, and what it does on a bad day.

use jiff::SignedDuration;
use rust_decimal::Decimal;

use super::book::Quantity;
use super::order::{Order, Status, Terms, TimeInForce};
use super::rejection::{Reason, Rejection};
use super::{Exchange, Now};

/// The default is the behaviour that was observed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// A repeated client_order_id is refused instead of answered with the old order.
    pub refuse_duplicates: bool,
    /// limit_limit_gtd is refused, on all products or on those of these markets.
    pub refuse_gtd: Vec<Option<usize>>,
    /// close_position closes everything whatever size it is given.
    pub close_position_ignores_size: bool,
    /// The orders of a future are cancelled when its session closes.
    pub close_cancels_orders: bool,
    /// liquidation_buffer_percentage is from 0 to 1 instead of 0 to 100.
    pub liquidation_buffer_as_fraction: bool,
    /// An order that executes at once gets at most this percentage of its size; the rest is cancelled.
    pub partial_fill_percent: Option<u8>,
    /// An accepted cancel takes this long instead of the usual.
    pub cancel_delay: Option<SignedDuration>,
    /// The same of an edit.
    pub edit_delay: Option<SignedDuration>,
}

impl Exchange {
    /// Notes that a behaviour took effect.
    pub(super) fn behaved(&mut self, kind: &'static str) {
        *self.behaviour_struck.entry(kind).or_default() += 1;
    }

    pub(super) fn refuses_duplicates(&self) -> bool {
        self.settings.refuse_duplicates || self.behaviour.refuse_duplicates
    }

    /// How long an accepted cancel takes to happen.
    pub fn cancel_delay(&self) -> SignedDuration {
        self.behaviour.cancel_delay.unwrap_or(self.settings.cancel_delay)
    }

    /// How long an accepted edit takes to happen.
    pub fn edit_delay(&self) -> SignedDuration {
        self.behaviour.edit_delay.unwrap_or(self.settings.cancel_delay)
    }

    pub(super) fn check_behaviour(&self, market: usize, terms: &Terms) -> Result<(), Rejection> {
        let dated = matches!(terms.time_in_force, TimeInForce::GoodUntilDate(_));
        if dated && self.behaviour.refuse_gtd.iter().any(|of| of.is_none_or(|m| m == market)) {
            let message = "limit_limit_gtd is not available for this product";
            return Err(Rejection::new(Reason::UnsupportedOrderConfiguration, message));
        }
        Ok(())
    }

    /// What an order may get of what it wants: everything, or the share that the behaviour leaves it.
    pub(super) fn obtainable(&self, owner: uuid::Uuid, market: usize, terms: &Terms, wanted: Quantity) -> Quantity {
        let Some(percent) = self.behaviour.partial_fill_percent.filter(|_| self.is_client(owner)) else {
            return wanted;
        };
        if terms.time_in_force != TimeInForce::ImmediateOrCancel {
            return wanted; // what rests must not cross the book, and fill or kill has no part
        }
        let share = Decimal::new(i64::from(percent), 2);
        match wanted {
            Quantity::Base(size) => {
                let product = &self.markets[market].product;
                Quantity::Base(product.round_size(size * share).max(product.base_increment.min(size)))
            }
            Quantity::Quote { budget, increment } => Quantity::Quote { budget: budget * share, increment },
        }
    }

    /// Cancels what rests in closed sessions, where the behaviour wants that.
    pub(super) fn empty_closed_sessions(&mut self, now: Now) {
        if !self.behaviour.close_cancels_orders {
            return;
        }
        let closed = |order: &Order| self.markets[order.market].is_closed(now.time) && self.is_client(order.portfolio);
        let open = self.portfolios.values().flat_map(|portfolio| portfolio.open.iter());
        let orders: Vec<_> = open.copied().filter(|n| self.orders.get(n).is_some_and(closed)).collect();
        for number in orders {
            self.close(now, number, Status::Cancelled, "the session closed");
        }
    }

    /// Moves a product's index, and with it all prices, by so many basis points. A future's is its spot product's.
    pub fn jump_index(&mut self, market: usize, bps: i32) {
        let factor = Decimal::ONE + Decimal::new(i64::from(bps), 4);
        let future = self.markets.get(market).and_then(|m| m.product.future.as_ref());
        let spot = future.map_or(Some(market), |terms| self.market_index(&terms.spot_product));
        if let Some(market) = spot.and_then(|index| self.markets.get_mut(index)) {
            market.index = (market.index * factor).round_dp(4).max(market.product.price_increment);
        }
    }
}
