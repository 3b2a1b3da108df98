//! The order book of one product, kept from the venue's level2 messages.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::exchange::{Side, Touch};

/// Levels a side may have. Coinbase's deepest books have some ten thousands; more is not a book but an attack.
const MAX_LEVELS: usize = 250_000;

/// Nothing is traded below; what a smaller price divides would leave the range of a Decimal.
const LEAST_PRICE: Decimal = rust_decimal::dec!(0.0000000001);

/// One price level as the venue tells it: the quantity is absolute, and zero removes the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Buy for a bid, Sell for an offer.
    pub side: Side,
    pub price: Decimal,
    pub quantity: Decimal,
}

/// Why a level cannot be in a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    #[error("a level at price {0}: a price must be at least {LEAST_PRICE}")]
    Price(Decimal),
    #[error("a level with quantity {0}: a quantity must not be negative")]
    Quantity(Decimal),
    #[error("an update came before the snapshot")]
    NoSnapshot,
    #[error("the book has more than {MAX_LEVELS} levels on one side")]
    TooDeep,
}

/// Price levels of one product. Unknown until the first snapshot and after [`OrderBook::clear`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderBook {
    known: bool,
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
}

impl OrderBook {
    /// Replaces the whole book.
    ///
    /// # Errors
    /// A level is not possible; the book is then unknown.
    pub fn snapshot(&mut self, levels: impl IntoIterator<Item = Level>) -> Result<(), BookError> {
        self.clear();
        self.known = true;
        self.update(levels)
    }

    /// Sets levels to their new absolute quantities.
    ///
    /// # Errors
    /// A level is not possible, or there is no snapshot yet; the book is then unknown.
    pub fn update(&mut self, levels: impl IntoIterator<Item = Level>) -> Result<(), BookError> {
        let result = levels.into_iter().try_for_each(|level| self.set(level));
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn set(&mut self, level: Level) -> Result<(), BookError> {
        if !self.known {
            return Err(BookError::NoSnapshot);
        }
        if level.price < LEAST_PRICE {
            return Err(BookError::Price(level.price));
        }
        if level.quantity < Decimal::ZERO {
            return Err(BookError::Quantity(level.quantity));
        }
        let side = match level.side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        };
        if level.quantity.is_zero() {
            side.remove(&level.price);
        } else {
            side.insert(level.price, level.quantity);
        }
        if side.len() > MAX_LEVELS { Err(BookError::TooDeep) } else { Ok(()) }
    }

    /// Forgets everything: the book is unknown until the next snapshot.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether it is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Quantity at a price.
    #[must_use]
    pub fn quantity(&self, side: Side, price: Decimal) -> Decimal {
        let levels = if side == Side::Buy { &self.bids } else { &self.asks };
        levels.get(&price).copied().unwrap_or_default()
    }

    /// Price and quantity of a side's levels, best first.
    pub fn levels(&self, side: Side) -> impl Iterator<Item = (Decimal, Decimal)> + '_ {
        let (bids, asks) = match side {
            Side::Buy => (Some(self.bids.iter().rev()), None),
            Side::Sell => (None, Some(self.asks.iter())),
        };
        let bids = bids.into_iter().flatten();
        bids.chain(asks.into_iter().flatten()).map(|(price, quantity)| (*price, *quantity))
    }

    /// The best prices. None while the book is unknown, a side is empty, or the sides cross (which a venue's book
    /// never does, so ours is wrong).
    #[must_use]
    pub fn touch(&self) -> Option<Touch> {
        let (&best_bid, _) = self.bids.last_key_value()?;
        let (&best_ask, _) = self.asks.first_key_value()?;
        (best_bid < best_ask).then_some(Touch { best_bid, best_ask })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level(side: Side, price: i64, quantity: i64) -> Level {
        Level { side, price: price.into(), quantity: quantity.into() }
    }

    fn bid(price: i64, quantity: i64) -> Level {
        level(Side::Buy, price, quantity)
    }

    fn ask(price: i64, quantity: i64) -> Level {
        level(Side::Sell, price, quantity)
    }

    fn touch(best_bid: i64, best_ask: i64) -> Option<Touch> {
        Some(Touch { best_bid: best_bid.into(), best_ask: best_ask.into() })
    }

    #[test]
    fn the_touch_is_the_highest_bid_and_the_lowest_offer() {
        let mut book = OrderBook::default();
        book.snapshot([bid(98, 1), bid(99, 2), ask(101, 1), ask(102, 5)]).unwrap();
        assert_eq!(book.touch(), touch(99, 101));
        book.update([bid(99, 0), ask(100, 1)]).unwrap();
        assert_eq!(book.touch(), touch(98, 100));
    }

    #[test]
    fn a_quantity_replaces_the_one_before_it() {
        let mut book = OrderBook::default();
        book.snapshot([bid(98, 5), ask(101, 5)]).unwrap();
        book.update([bid(98, 2)]).unwrap();
        let mut other = OrderBook::default();
        other.snapshot([bid(98, 2), ask(101, 5)]).unwrap();
        assert_eq!(book, other);
    }

    /// Invariant 10. Proven by mutation: one side being enough for a price.
    #[test]
    fn a_book_with_an_empty_side_has_no_touch() {
        let mut book = OrderBook::default();
        assert_eq!(book.touch(), None);
        book.snapshot([bid(98, 5)]).unwrap();
        assert_eq!(book.touch(), None);
    }

    #[test]
    fn an_update_without_a_snapshot_is_refused() {
        let mut book = OrderBook::default();
        assert_eq!(book.update([bid(98, 5)]), Err(BookError::NoSnapshot));
        book.snapshot([bid(98, 5), ask(99, 1)]).unwrap();
        book.clear();
        assert_eq!(book.update([bid(98, 5)]), Err(BookError::NoSnapshot));
    }

    #[test]
    fn an_impossible_level_makes_the_book_unknown() {
        for wrong in [bid(0, 1), ask(-5, 1), bid(98, -1)] {
            let mut book = OrderBook::default();
            book.snapshot([bid(98, 5), ask(99, 1)]).unwrap();
            book.update([wrong]).unwrap_err();
            assert_eq!(book, OrderBook::default());
        }
    }

    /// Levels whose bids are all below 100 and whose offers are all at or above it, so that a venue could send them.
    fn consistent() -> impl Strategy<Value = Vec<Level>> {
        let level = (1..200i64, 0..4i64)
            .prop_map(|(price, quantity)| level(if price < 100 { Side::Buy } else { Side::Sell }, price, quantity));
        prop::collection::vec(level, 0..40)
    }

    proptest! {
        #[test]
        fn consistent_updates_never_cross_the_book(snapshot in consistent(), updates in prop::collection::vec(consistent(), 0..8)) {
            let mut book = OrderBook::default();
            book.snapshot(snapshot.iter().copied()).unwrap();
            for update in &updates {
                book.update(update.iter().copied()).unwrap();
                if let Some(touch) = book.touch() {
                    prop_assert!(touch.best_bid < touch.best_ask);
                }
            }
            // Absolute quantities: only the last word on each level counts, so a snapshot of those is the same book.
            let mut last = BTreeMap::new();
            for level in snapshot.iter().chain(updates.iter().flatten()) {
                last.insert(level.price, *level);
            }
            let mut rebuilt = OrderBook::default();
            rebuilt.snapshot(last.values().copied()).unwrap();
            prop_assert_eq!(&rebuilt, &book);
            // Seeing an update twice changes nothing.
            if let Some(update) = updates.last() {
                book.update(update.iter().copied()).unwrap();
                prop_assert_eq!(rebuilt, book);
            }
        }

        #[test]
        fn a_touch_is_never_crossed(levels in prop::collection::vec((any::<bool>(), 1..50i64, 0..3i64), 0..60)) {
            let mut book = OrderBook::default();
            let side = |buy| if buy { Side::Buy } else { Side::Sell };
            book.snapshot(levels.into_iter().map(|(buy, price, quantity)| level(side(buy), price, quantity))).unwrap();
            if let Some(touch) = book.touch() {
                prop_assert!(touch.best_bid < touch.best_ask);
            }
        }
    }
}
