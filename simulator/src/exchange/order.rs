//! Orders: what a client asks for, and what has become of it.

pub mod configuration;
mod ladder;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::Display;
use uuid::Uuid;

use super::book::{OrderNumber, Side};
pub use configuration::{LimitGtc, Market, OrderConfiguration, Plan, Size, StopDirection, Terms, TimeInForce};

/// Coinbase's order states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Display)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Pending,
    Open,
    Filled,
    Cancelled,
    Expired,
    Failed,
    Queued,
    CancelQueued,
    EditQueued,
    UnknownOrderStatus,
}

impl Status {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Filled | Self::Cancelled | Self::Expired | Self::Failed)
    }
}

/// An order the exchange accepted.
#[derive(Debug, Clone)]
pub struct Order {
    pub number: OrderNumber,
    pub id: Uuid,
    pub client_order_id: String,
    pub portfolio: Uuid,
    /// Index of the product's market.
    pub market: usize,
    pub side: Side,
    pub configuration: OrderConfiguration,
    pub terms: Terms,
    /// Size in base units or contracts; for an order by quote amount it becomes known as it fills.
    pub size: Decimal,
    pub status: Status,
    pub created: Timestamp,
    pub last_fill: Option<Timestamp>,
    pub last_update: Timestamp,
    pub filled_size: Decimal,
    /// Quote value of what filled.
    pub filled_value: Decimal,
    pub fees: Decimal,
    pub fills: u32,
    pub cancel_message: String,
    /// What the order still reserves of its spot balance (quote for a buy, base for a sell).
    pub hold: Decimal,
    /// The limit prices it works at with what remains at each; none for a market order, several for a scaled one.
    pub rungs: Vec<Rung>,
    /// The rung that is matching now.
    pub rung: usize,
    /// Its rungs rest in the book.
    pub resting: bool,
    /// Its stop price was reached.
    pub triggered: bool,
    /// Buckets of a TWAP that are done.
    pub buckets: u32,
    pub edits: Vec<Edit>,
    /// Placed to close a position.
    pub closing: bool,
    /// Placed by the exchange because the equity fell below the maintenance margin.
    pub liquidation: bool,
}

/// A price that an order works at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    pub price: Decimal,
    pub remaining: Decimal,
}

/// What an order was before an edit.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    pub price: Decimal,
    pub size: Decimal,
    pub time: Timestamp,
}

impl Order {
    pub fn remaining(&self) -> Decimal {
        (self.size - self.filled_size).max(Decimal::ZERO)
    }
}
