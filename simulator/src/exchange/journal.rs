//! The exchange's own record of what happened, for tests and measurements. Bots cannot see it.

use std::collections::VecDeque;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use super::Now;
use super::book::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    OrderAccepted,
    OrderRejected,
    EditRequested,
    OrderEdited,
    /// An accepted edit that had become impossible.
    EditRefused,
    CancelRequested,
    OrderCancelled,
    OrderExpired,
    Fill,
    PositionChanged,
}

/// One event. Sizes are base units for spot and contracts for futures.
#[derive(Debug, Clone, Serialize)]
pub struct JournalEvent {
    pub seq: u64,
    /// `CLOCK_MONOTONIC` of this host when the command that caused it took effect.
    pub monotonic_ns: u64,
    pub boottime_ns: u64,
    /// The exchange's time.
    pub time: Timestamp,
    pub portfolio: Uuid,
    pub kind: Kind,
    /// Absent for a rejected order, which never got one.
    pub order_id: Option<Uuid>,
    pub client_order_id: String,
    pub product_id: String,
    pub side: Side,
    pub size: Decimal,
    /// Limit price of an order (absent for market orders), or the price of a fill.
    pub price: Option<Decimal>,
    /// Filled size of the order so far; for a fill, of this fill.
    pub filled: Decimal,
    /// Signed position in the product after the event: contracts, or base units for spot.
    pub position: Decimal,
    /// Orders of the portfolio that are not terminal after the event.
    pub open_orders: usize,
    /// Why an order was rejected or cancelled.
    pub reason: String,
}

#[derive(Debug)]
pub struct Journal {
    /// Events kept; older ones are dropped so that a long run stays bounded in memory.
    capacity: usize,
    events: VecDeque<JournalEvent>,
    last: u64,
}

impl Journal {
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), events: VecDeque::new(), last: 0 }
    }

    /// Events that are kept.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Appends an event, giving it its sequence number and times.
    pub fn push(&mut self, now: Now, mut event: JournalEvent) {
        self.last += 1;
        event.seq = self.last;
        event.monotonic_ns = now.monotonic_ns;
        event.boottime_ns = now.boottime_ns;
        event.time = now.time;
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Sequence number of the newest event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Events with a sequence number above `after`, oldest first, of one portfolio or of all.
    pub fn after(&self, after: u64, portfolio: Option<Uuid>) -> impl Iterator<Item = &JournalEvent> {
        let start = self.events.partition_point(|e| e.seq <= after);
        self.events.range(start..).filter(move |e| portfolio.is_none_or(|p| p == e.portfolio))
    }
}
