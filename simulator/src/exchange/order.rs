//! Orders: what a client asks for, and what has become of it.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use strum::Display;
use uuid::Uuid;

use super::book::{OrderNumber, Side};
use super::rejection::{Reason, Rejection};

/// The one key of `order_configuration`. Later configurations (stop, bracket, TWAP) are further variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfiguration {
    MarketMarketIoc(Market),
    SorLimitIoc(Limit),
    LimitLimitGtc(LimitGtc),
    LimitLimitGtd(LimitGtd),
    LimitLimitFok(Limit),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Market {
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub quote_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub base_size: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce_only: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitGtc {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    pub post_only: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitGtd {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    pub end_time: Option<Timestamp>,
    pub post_only: bool,
}

/// A decimal in a string: digits with an optional fraction. `""` means absent, as in protobuf.
fn decimal_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 40 || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(serde::de::Error::custom(format!("invalid decimal \"{}\"", text.escape_default())));
    }
    let parsed = text.parse().map_err(|_| serde::de::Error::custom(format!("invalid decimal \"{text}\"")))?;
    Ok(Some(parsed))
}

/// How long an order lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeInForce {
    GoodUntilCancelled,
    GoodUntilDate(Timestamp),
    ImmediateOrCancel,
    FillOrKill,
}

/// Size of an order: base (or contracts), or for a market buy an amount of quote currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Base(Decimal),
    Quote(Decimal),
}

/// What every configuration comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub size: Size,
    /// Absent for a market order.
    pub limit_price: Option<Decimal>,
    pub time_in_force: TimeInForce,
    pub post_only: bool,
    pub reduce_only: bool,
}

impl OrderConfiguration {
    /// # Errors
    /// `InvalidRequest` when a required field is absent or two exclude each other.
    pub fn terms(&self) -> Result<Terms, Rejection> {
        let required = |value: Option<Decimal>, field: &str| {
            value.ok_or_else(|| Rejection::new(Reason::InvalidRequest, format!("order_configuration needs {field}")))
        };
        let limit = |base: Option<Decimal>, price: Option<Decimal>, time_in_force, post_only| {
            Ok(Terms {
                size: Size::Base(required(base, "base_size")?),
                limit_price: Some(required(price, "limit_price")?),
                time_in_force,
                post_only,
                reduce_only: false,
            })
        };
        match self {
            Self::MarketMarketIoc(m) => Ok(Terms {
                size: match (m.base_size, m.quote_size) {
                    (Some(base), None) => Size::Base(base),
                    (None, Some(quote)) => Size::Quote(quote),
                    _ => {
                        return Err(Rejection::new(
                            Reason::InvalidRequest,
                            "market_market_ioc needs exactly one of base_size and quote_size",
                        ));
                    }
                },
                limit_price: None,
                time_in_force: TimeInForce::ImmediateOrCancel,
                post_only: false,
                reduce_only: m.reduce_only.unwrap_or(false),
            }),
            Self::SorLimitIoc(l) => limit(l.base_size, l.limit_price, TimeInForce::ImmediateOrCancel, false),
            Self::LimitLimitFok(l) => limit(l.base_size, l.limit_price, TimeInForce::FillOrKill, false),
            Self::LimitLimitGtc(l) => limit(l.base_size, l.limit_price, TimeInForce::GoodUntilCancelled, l.post_only),
            Self::LimitLimitGtd(l) => {
                let end = l.end_time.ok_or_else(|| {
                    Rejection::new(Reason::InvalidRequest, "limit_limit_gtd needs end_time, an RFC 3339 time")
                })?;
                limit(l.base_size, l.limit_price, TimeInForce::GoodUntilDate(end), l.post_only)
            }
        }
    }
}

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
    /// It rests in the book.
    pub resting: bool,
    /// Placed to close a position.
    pub closing: bool,
}

impl Order {
    pub fn remaining(&self) -> Decimal {
        (self.size - self.filled_size).max(Decimal::ZERO)
    }
}
