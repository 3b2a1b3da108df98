//! What spot buys take of the futures collateral before the exchange shows it: spot is bought out of the same cash.

use std::time::Duration;

use rust_decimal::Decimal;

use super::Engine;
use super::reconcile::FILL_SETTLES;
use crate::exchange::{OrderState, Product, Side};

/// What spot buys have cost that the collateral as last read may not show, and when each was heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct Spending(Vec<(Duration, Decimal)>);

impl Spending {
    /// The collateral was read from `started` on: it shows what had settled by then.
    pub(super) fn collateral_read(&mut self, started: Duration) {
        self.0.retain(|(at, _)| *at + FILL_SETTLES > started);
    }

    /// All of it, in quote currency.
    pub(super) fn quote(&self) -> Decimal {
        self.0.iter().map(|(_, quote)| *quote).sum()
    }
}

impl Engine {
    /// Takes in what the venue shows of an order, and notes what it has cost if it buys spot. What was sold is left out:
    /// it becomes collateral with the next reading. Returns the id if anything changed.
    pub(super) fn apply_seen(&mut self, seen: &OrderState, now: Duration) -> Option<String> {
        let before = self.spot_cash();
        let changed = self.orders.apply(seen);
        let spent = before - self.spot_cash();
        if changed.is_some() && seen.product == self.id.spot_product && spent > Decimal::ZERO {
            self.spending.0.push((now, spent));
        }
        changed
    }

    fn spot_cash(&self) -> Decimal {
        self.orders.cash_quote(&self.id.spot_product, Decimal::ONE) - self.orders.fees_quote()
    }

    /// What spot buys take of the collateral that it does not show yet: those filled since it was read, and those that
    /// may still fill.
    pub(super) fn spot_cost_quote(&self, spot: &Product) -> Decimal {
        let buys = self.orders.live().filter(|order| order.order.product == spot.id && order.order.side == Side::Buy);
        let price = |limit: Option<Decimal>| limit.or(self.spot.last_mid).unwrap_or_default();
        let outstanding = buys.map(|order| order.remaining() * price(order.order.limit_price())).sum::<Decimal>();
        self.spending.quote() + outstanding * spot.unit_base
    }
}
