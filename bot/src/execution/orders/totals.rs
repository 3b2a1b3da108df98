//! Sums over orders that have ended, so that nobody adds them up at every tick.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::Order;

#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// By product.
    sums: BTreeMap<String, Sums>,
    fees_quote: Decimal,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    owned: Decimal,
    cash: Decimal,
}

impl Totals {
    pub fn add(&mut self, order: &Order) {
        let sums = self.sums.entry(order.order.product.clone()).or_default();
        sums.owned += order.owned();
        sums.cash += order.cash();
        self.fees_quote += order.fees_quote;
    }

    /// Undoes [`Self::add`].
    pub fn take_away(&mut self, order: &Order) {
        let sums = self.sums.entry(order.order.product.clone()).or_default();
        sums.owned -= order.owned();
        sums.cash -= order.cash();
        self.fees_quote -= order.fees_quote;
    }

    /// Signed sum of the fills of a product.
    #[must_use]
    pub fn owned(&self, product: &str) -> Decimal {
        self.sums.get(product).copied().unwrap_or_default().owned
    }

    /// What the fills of a product brought in at a unit of one, fees excluded.
    #[must_use]
    pub fn cash(&self, product: &str) -> Decimal {
        self.sums.get(product).copied().unwrap_or_default().cash
    }

    /// Fees paid, in quote currency.
    #[must_use]
    pub fn fees_quote(&self) -> Decimal {
        self.fees_quote
    }
}
