//! The books that clients are shown: the exchange's own, but while a fault has them stand still or cross.

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

    /// Brings what is shown in line with the faults that are on.
    pub(super) fn show_books(&mut self, now: Now) {
        for (index, market) in self.exchange.markets.iter().enumerate() {
            let product = Some(market.product.id.as_str());
            if self.faults.is_on(&FaultKind::StaleBook {}, product, now.time) {
                self.shown.0.entry(index).or_insert_with(|| market.book.clone());
                continue;
            }
            self.shown.0.remove(&index);
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
