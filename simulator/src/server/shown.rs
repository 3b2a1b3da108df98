//! The books that clients are shown: the exchange's own, but while a fault has them stand still, cross or be empty.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, dec};
use uuid::Uuid;

use super::State;
use super::faults::kind::FaultKind;
use crate::exchange::book::{Book, Side};
use crate::exchange::{Exchange, Market, Now};

/// How far the bid of `crossed_book` is above the best offer, in price increments.
const CROSSED_BY: Decimal = dec!(10);

/// Books that differ from the exchange's own, by market.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<usize, Book>);

/// Every level of a book, with its size or, where it is gone, none.
pub(super) fn levels(book: &Book, gone: bool) -> Vec<(Side, Decimal, Decimal)> {
    let side = |side| book.depth(side, usize::MAX).into_iter().map(move |(price, size)| (side, price, size));
    let shown = |(side, price, size)| (side, price, if gone { Decimal::ZERO } else { size });
    side(Side::Buy).chain(side(Side::Sell)).map(shown).collect()
}

impl Shown {
    /// The book of a market as clients are shown it.
    pub fn book<'a>(&'a self, exchange: &'a Exchange, market: usize) -> &'a Book {
        self.0.get(&market).unwrap_or(&exchange.markets[market].book)
    }
}

impl State {
    /// The book of a market as clients are shown it.
    pub fn book(&self, market: usize) -> &Book {
        self.shown.book(&self.exchange, market)
    }

    /// Whether a market's book is shown empty, because its session is closed.
    pub(super) fn is_emptied(&mut self, index: usize, now: Now) -> bool {
        let market = &self.exchange.markets[index];
        let product = Some(market.product.id.as_str());
        market.is_closed(now.time) && self.faults.is_on(&FaultKind::ClosedBookIsEmpty {}, product, now.time)
    }

    /// Brings what is shown in line with the faults that are on.
    pub(super) fn show_books(&mut self, now: Now) {
        for (index, market) in self.exchange.markets.iter().enumerate() {
            let product = Some(market.product.id.as_str());
            if self.faults.is_on(&FaultKind::StaleBook {}, product, now.time) {
                self.shown.0.entry(index).or_insert_with(|| market.book.clone());
                continue;
            }
            self.shown.0.remove(&index);
            let empty = self.faults.is_on(&FaultKind::ClosedBookIsEmpty {}, product, now.time);
            if empty && market.is_closed(now.time) {
                self.shown.0.insert(index, Book::default());
                continue;
            }
            let crossed = self.faults.is_on(&FaultKind::CrossedBook {}, product, now.time);
            if let Some(price) = crossing_bid(market).filter(|_| crossed) {
                let mut book = market.book.clone();
                book.add(Side::Buy, price, 0, Uuid::nil(), market.product.base_min_size);
                self.shown.0.insert(index, book);
            }
        }
    }
}

/// The bid that the fault `crossed_book` shows.
pub(super) fn crossing_bid(market: &Market) -> Option<Decimal> {
    market.book.best(Side::Sell).map(|ask| ask + market.product.price_increment * CROSSED_BY)
}
