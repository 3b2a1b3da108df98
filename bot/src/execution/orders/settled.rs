//! What orders that ended long ago have left: their sums, and which they were, in a few bytes. A bot runs for months; its
//! memory must not grow with every order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rust_decimal::Decimal;

use super::{ClientOrderId, Order};

/// The sums over one product's orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Signed sum of the fills.
    pub owned: Decimal,
    /// What the fills brought in at a unit of one, fees excluded.
    pub cash: Decimal,
}

impl Sums {
    /// What an order adds.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        let owned = order.filled * order.order.side.sign();
        Self { owned, cash: -owned * order.average_price }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { owned: self.owned + other.owned, cash: self.cash + other.cash }
    }
}

/// The orders that are no longer kept one by one.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    sums: BTreeMap<String, Sums>,
    fees_quote: Decimal,
    /// Sequence numbers by epoch. An epoch's orders follow each other, so there are few ranges.
    ids: BTreeMap<i64, Vec<RangeInclusive<u64>>>,
}

impl Settled {
    /// Takes an order in.
    pub fn take(&mut self, id: ClientOrderId, order: &Order) {
        let sums = self.sums.entry(order.order.product.clone()).or_default();
        *sums = sums.plus(Sums::of(order));
        self.fees_quote += order.fees_quote;
        let ranges = self.ids.entry(id.epoch).or_default();
        let at = ranges.partition_point(|range| *range.end() < id.sequence);
        ranges.insert(at, id.sequence..=id.sequence);
        ranges.dedup_by(|next, before| {
            let follows = *next.start() <= before.end().saturating_add(1);
            if follows {
                *before = *before.start()..=*next.end().max(before.end());
            }
            follows
        });
    }

    /// Whether the order was taken in: what the venue says of it is in the sums.
    #[must_use]
    pub fn contains(&self, id: ClientOrderId) -> bool {
        self.ids.get(&id.epoch).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&id.sequence)))
    }

    /// The sums of a product.
    #[must_use]
    pub fn sums(&self, product: &str) -> Sums {
        self.sums.get(product).copied().unwrap_or_default()
    }

    /// Fees paid, in quote currency.
    #[must_use]
    pub fn fees_quote(&self) -> Decimal {
        self.fees_quote
    }

    #[cfg(test)]
    pub fn ranges(&self) -> usize {
        self.ids.values().map(Vec::len).sum()
    }
}
