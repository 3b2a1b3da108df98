//! One product's market: its book, its prices, its session.

use std::sync::Arc;

use jiff::Timestamp;
use market_recording::Quote;
use rust_decimal::Decimal;

use super::book::Book;
use super::funding::Funding;
use super::history::History;
use super::product::{Listing, Product};
use super::session::Span;

/// One listed product with its book and prices.
#[derive(Debug)]
pub struct Market {
    /// Shared, so that replies can be written after the lock is released.
    pub product: Arc<Product>,
    pub book: Book,
    /// Spot index price of the base currency, in quote currency.
    pub index: Decimal,
    pub last_price: Decimal,
    /// Size and quote value traded since the start.
    pub volume: Decimal,
    pub volume_value: Decimal,
    pub low: Decimal,
    pub high: Decimal,
    /// Futures only.
    pub funding: Option<Funding>,
    /// While set and in the future, the session is closed until then (a fault).
    pub closed_until: Option<Timestamp>,
    /// The weekly break that is on or next; futures only.
    pub weekly_break: Option<Span>,
    /// Mark price of the last daily settlement.
    pub settlement_price: Decimal,
    /// Lowest and highest price since stops were last looked at.
    pub(super) traded: Option<(Decimal, Decimal)>,
    /// What the recording that is replayed says now.
    pub(super) recorded: Option<Quote>,
    pub history: History,
}

impl Market {
    pub(super) fn new(listing: Listing, funding_rate: Decimal, now: Timestamp) -> Self {
        Self {
            funding: listing.product.future.as_ref().map(|_| Funding::new(now, funding_rate)),
            product: Arc::new(listing.product),
            book: Book::default(),
            index: listing.start_price,
            last_price: listing.start_price,
            volume: Decimal::ZERO,
            volume_value: Decimal::ZERO,
            low: listing.start_price,
            high: listing.start_price,
            closed_until: None,
            weekly_break: None,
            settlement_price: listing.start_price,
            traded: None,
            recorded: None,
            history: History::default(),
        }
    }

    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.reopens(now).is_some()
    }

    /// When a closed session opens; `None` while it is open.
    pub fn reopens(&self, now: Timestamp) -> Option<Timestamp> {
        let fault = self.closed_until.filter(|until| now < *until);
        let weekly = self.weekly_break.filter(|span| span.contains(now)).map(|span| span.end);
        fault.max(weekly)
    }

    /// Price that positions are valued at: the middle of the book, or the last trade while a side is empty.
    pub fn mark(&self) -> Decimal {
        self.book.mid().unwrap_or(self.last_price)
    }
}
