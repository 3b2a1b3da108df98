//! An accepted order at work: it matches, then rests, waits or ends.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::book::{Quantity, Taker};
use super::journal::Kind;
use super::order::{Order, Plan, Size, Status, TimeInForce};
use super::place::Checked;
use super::{Exchange, NewOrder, Now};

impl Exchange {
    /// Takes an order that passed every rule into the books.
    pub(super) fn accept(
        &mut self,
        now: Now,
        portfolio: Uuid,
        new: NewOrder,
        checked: Checked,
        liquidation: bool,
    ) -> Uuid {
        let Checked { market, terms, rungs } = checked;
        let number = self.next_number;
        self.next_number += 1;
        let client = self.is_client(portfolio);
        let id = if client { self.new_uuid() } else { Uuid::from_u128(u128::from(number)) };
        let hold = self.hold(market, portfolio, new.side, &terms, &rungs);
        let product = &self.markets[market].product;
        let held_currency = super::settle::held_currency(new.side, &product.base, &product.quote).to_owned();
        let order = Order {
            number,
            id,
            client_order_id: new.client_order_id,
            portfolio,
            market,
            side: new.side,
            configuration: new.configuration,
            terms,
            size: if let Size::Base(size) = terms.size { size } else { Decimal::ZERO },
            status: Status::Open,
            created: now.time,
            last_fill: None,
            last_update: now.time,
            filled_size: Decimal::ZERO,
            filled_value: Decimal::ZERO,
            fees: Decimal::ZERO,
            fills: 0,
            cancel_message: String::new(),
            hold,
            rungs,
            rung: 0,
            resting: false,
            triggered: false,
            buckets: 0,
            edits: Vec::new(),
            closing: new.closing,
            liquidation,
        };
        if let Some(owner) = self.portfolios.get_mut(&portfolio) {
            owner.balance_mut(&held_currency).hold += hold;
            owner.open.insert(number);
            if client {
                owner.client_order_ids.insert(order.client_order_id.clone(), id);
                owner.history.push_back(number);
            }
        }
        if client {
            self.numbers.insert(id, number);
        }
        self.orders.insert(number, order);
        self.record(now, Kind::OrderAccepted, number, "");
        if let TimeInForce::GoodUntilDate(end) = terms.time_in_force {
            self.expiries.insert((end, number));
        }
        match terms.plan {
            Plan::Stop { .. } => {
                self.conditionals.insert(number);
            }
            Plan::Bracket { .. } => {
                self.conditionals.insert(number);
                self.execute(now, number);
            }
            Plan::Twap { start, .. } => {
                self.slices.insert((start.max(now.time), number));
                self.run_slices(now);
            }
            Plan::Direct | Plan::Scaled => self.execute(now, number),
        }
        self.trim_history(portfolio);
        id
    }

    /// Matches an order at each of its prices, and rests, cancels or completes what is left of it.
    pub(super) fn execute(&mut self, now: Now, number: u64) {
        let Some(order) = self.orders.get(&number) else { return };
        let (terms, rungs) = (order.terms, order.rungs.clone());
        if rungs.is_empty() {
            let quantity = match terms.size {
                Size::Base(_) => Quantity::Base(order.remaining()),
                // The amount includes the fee, as on Coinbase.
                Size::Quote(amount) => Quantity::Quote {
                    budget: amount.checked_div(Decimal::ONE + self.settings.spot_fees.taker).unwrap_or_default(),
                    increment: self.markets[order.market].product.base_increment,
                },
            };
            self.work(now, number, None, quantity);
        }
        for (i, rung) in rungs.iter().enumerate() {
            let Some(order) = self.orders.get_mut(&number).filter(|o| !o.status.is_terminal()) else { return };
            order.rung = i;
            self.work(now, number, Some(rung.price), Quantity::Base(rung.remaining));
        }
        let Some(order) = self.orders.get_mut(&number).filter(|o| !o.status.is_terminal()) else { return };
        match terms.time_in_force {
            TimeInForce::GoodUntilCancelled | TimeInForce::GoodUntilDate(_) if !order.rungs.is_empty() => {
                order.resting = true;
                let (market, side, owner) = (order.market, order.side, order.portfolio);
                for rung in order.rungs.iter().filter(|r| !r.remaining.is_zero()) {
                    self.markets[market].book.add(side, rung.price, number, owner, rung.remaining);
                }
            }
            _ => self.close(now, number, Status::Cancelled, "immediate or cancel: the rest was not available"),
        }
    }

    /// Takes what the book offers up to a limit. An order that meets one of its own owner is cancelled.
    pub(super) fn work(&mut self, now: Now, number: u64, limit: Option<Decimal>, quantity: Quantity) {
        let Some(order) = self.orders.get(&number) else { return };
        let (market, side, owner, terms) = (order.market, order.side, order.portfolio, order.terms);
        let wanted = quantity;
        let quantity = self.obtainable(owner, market, &terms, wanted);
        if quantity != wanted {
            self.behaved("partial_fills");
        }
        let taker = Taker { side, owner, limit, quantity };
        let book = &mut self.markets[market].book;
        if terms.time_in_force == TimeInForce::FillOrKill {
            let available: Decimal = book.preview(taker).iter().map(|(_, size)| size).sum();
            if Size::Base(available) != terms.size {
                self.close(now, number, Status::Cancelled, "fill or kill: not enough to fill it at once");
                return;
            }
        }
        let taken = book.take(taker);
        if let Size::Quote(_) = terms.size
            && let Some(order) = self.orders.get_mut(&number)
        {
            order.size = taken.matches.iter().map(|m| m.size).sum();
        }
        for matched in &taken.matches {
            self.settle(now, number, *matched);
        }
        if taken.self_trade {
            self.close(now, number, Status::Cancelled, "self-trade prevention: cancel newest");
        }
    }
}
