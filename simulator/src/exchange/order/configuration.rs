//! The twelve order configurations of Coinbase, and the terms that each comes down to.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};

use super::Side;
use crate::exchange::rejection::{Reason, Rejection};

/// The one key of `order_configuration`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfiguration {
    MarketMarketIoc(Market),
    MarketMarketFok(Market),
    SorLimitIoc(Limit),
    LimitLimitGtc(LimitGtc),
    LimitLimitGtd(LimitGtd),
    LimitLimitFok(Limit),
    StopLimitStopLimitGtc(StopLimit),
    StopLimitStopLimitGtd(StopLimitGtd),
    TriggerBracketGtc(Bracket),
    TriggerBracketGtd(BracketGtd),
    TwapLimitGtd(Twap),
    ScaledLimitGtc(Scaled),
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

/// Which way the price must go to trigger a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StopDirection {
    #[default]
    #[serde(rename = "UNKNOWN_STOP_DIRECTION")]
    Unknown,
    #[serde(rename = "STOP_DIRECTION_STOP_UP")]
    Up,
    #[serde(rename = "STOP_DIRECTION_STOP_DOWN")]
    Down,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopLimit {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub stop_price: Option<Decimal>,
    pub stop_direction: StopDirection,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopLimitGtd {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub stop_price: Option<Decimal>,
    pub end_time: Option<Timestamp>,
    pub stop_direction: StopDirection,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bracket {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub stop_trigger_price: Option<Decimal>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BracketGtd {
    #[serde(deserialize_with = "decimal_string")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub stop_trigger_price: Option<Decimal>,
    pub end_time: Option<Timestamp>,
}

/// Slices of equal size at equal distances in time. `bucket_duration` is in seconds with an `s`: `300s`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Twap {
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub quote_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub base_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub limit_price: Option<Decimal>,
    pub start_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    pub number_buckets: String,
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub bucket_size: Option<Decimal>,
    pub bucket_duration: String,
}

/// Limit orders over a range of prices, listed or described.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scaled {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<LimitGtc>,
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub quote_size: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string", skip_serializing_if = "Option::is_none")]
    pub base_size: Option<Decimal>,
    pub num_orders: u32,
    #[serde(deserialize_with = "decimal_string")]
    pub min_price: Option<Decimal>,
    #[serde(deserialize_with = "decimal_string")]
    pub max_price: Option<Decimal>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub price_distribution: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size_distribution: String,
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

/// When and at which prices an order works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// At once.
    Direct,
    /// As a limit order once the price was reached.
    Stop { price: Decimal, direction: StopDirection },
    /// At its limit, until the stop price is reached; then at up to 5 % worse than that.
    Bracket { stop: Decimal },
    /// In slices.
    Twap { start: Timestamp, buckets: u32, interval: SignedDuration },
    /// At several prices at once.
    Scaled,
}

/// What every configuration comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub size: Size,
    /// Absent for a market order; the worst of several.
    pub limit_price: Option<Decimal>,
    pub time_in_force: TimeInForce,
    pub post_only: bool,
    pub reduce_only: bool,
    pub plan: Plan,
}

impl Terms {
    fn limit(base: Option<Decimal>, price: Option<Decimal>, time_in_force: TimeInForce) -> Result<Self, Rejection> {
        Ok(Self {
            size: Size::Base(required(base, "base_size")?),
            limit_price: Some(required(price, "limit_price")?),
            time_in_force,
            post_only: false,
            reduce_only: false,
            plan: Plan::Direct,
        })
    }
}

impl OrderConfiguration {
    /// # Errors
    /// `InvalidRequest` when a required field is absent or two exclude each other.
    pub fn terms(&self, side: Side) -> Result<Terms, Rejection> {
        use TimeInForce::{FillOrKill, GoodUntilCancelled, ImmediateOrCancel};
        match self {
            Self::MarketMarketIoc(m) => market(m, ImmediateOrCancel),
            Self::MarketMarketFok(m) => market(m, FillOrKill),
            Self::SorLimitIoc(l) => Terms::limit(l.base_size, l.limit_price, ImmediateOrCancel),
            Self::LimitLimitFok(l) => Terms::limit(l.base_size, l.limit_price, FillOrKill),
            Self::LimitLimitGtc(l) => {
                let terms = Terms::limit(l.base_size, l.limit_price, GoodUntilCancelled)?;
                Ok(Terms { post_only: l.post_only, ..terms })
            }
            Self::LimitLimitGtd(l) => {
                let terms = Terms::limit(l.base_size, l.limit_price, until(l.end_time)?)?;
                Ok(Terms { post_only: l.post_only, ..terms })
            }
            Self::StopLimitStopLimitGtc(l) => {
                let terms = Terms::limit(l.base_size, l.limit_price, GoodUntilCancelled)?;
                Ok(Terms { plan: stop(l.stop_price, l.stop_direction)?, ..terms })
            }
            Self::StopLimitStopLimitGtd(l) => {
                let terms = Terms::limit(l.base_size, l.limit_price, until(l.end_time)?)?;
                Ok(Terms { plan: stop(l.stop_price, l.stop_direction)?, ..terms })
            }
            Self::TriggerBracketGtc(b) => {
                let terms = Terms::limit(b.base_size, b.limit_price, GoodUntilCancelled)?;
                Ok(Terms { plan: bracket(b.stop_trigger_price)?, ..terms })
            }
            Self::TriggerBracketGtd(b) => {
                let terms = Terms::limit(b.base_size, b.limit_price, until(b.end_time)?)?;
                Ok(Terms { plan: bracket(b.stop_trigger_price)?, ..terms })
            }
            Self::TwapLimitGtd(t) => t.terms(),
            Self::ScaledLimitGtc(s) => s.terms(side),
        }
    }
}

fn market(m: &Market, time_in_force: TimeInForce) -> Result<Terms, Rejection> {
    let size = match (m.base_size, m.quote_size) {
        (Some(base), None) => Size::Base(base),
        (None, Some(quote)) => Size::Quote(quote),
        _ => return Err(invalid("a market order needs exactly one of base_size and quote_size")),
    };
    let reduce_only = m.reduce_only.unwrap_or(false);
    Ok(Terms { size, limit_price: None, time_in_force, post_only: false, reduce_only, plan: Plan::Direct })
}

impl Twap {
    fn terms(&self) -> Result<Terms, Rejection> {
        let end = required(self.end_time, "end_time, an RFC 3339 time")?;
        let start = required(self.start_time, "start_time, an RFC 3339 time")?;
        let span = end.duration_since(start);
        let duration = self.bucket_duration.strip_suffix('s').and_then(|text| text.parse::<i64>().ok());
        let buckets = match (self.number_buckets.parse::<u32>().ok(), duration) {
            (Some(buckets), _) => Some(buckets),
            (None, Some(seconds)) => span.as_secs().checked_div(seconds).and_then(|n| u32::try_from(n).ok()),
            _ => None,
        };
        let buckets = buckets.filter(|n| (1..=1_000).contains(n)).ok_or_else(|| {
            invalid("twap_limit_gtd needs number_buckets from 1 to 1000, or a bucket_duration like 300s")
        })?;
        let interval = duration.map_or(span / i32::try_from(buckets).unwrap_or(1), SignedDuration::from_secs);
        if span <= SignedDuration::ZERO || interval <= SignedDuration::ZERO {
            return Err(invalid("twap_limit_gtd needs an end_time after its start_time"));
        }
        let terms = Terms::limit(self.base_size, self.limit_price, TimeInForce::GoodUntilDate(end))?;
        Ok(Terms { plan: Plan::Twap { start, buckets, interval }, ..terms })
    }
}

impl Scaled {
    fn terms(&self, side: Side) -> Result<Terms, Rejection> {
        let worst = |low: Option<Decimal>, high: Option<Decimal>| if side == Side::Buy { high } else { low };
        let (size, price) = if self.orders.is_empty() {
            (self.base_size, worst(self.min_price, self.max_price))
        } else {
            let prices = || self.orders.iter().filter_map(|o| o.limit_price);
            let mut sizes = self.orders.iter().filter_map(|o| o.base_size);
            let total = sizes.try_fold(Decimal::ZERO, |sum, size| sum.checked_add(size));
            (total, worst(prices().min(), prices().max()))
        };
        let terms = Terms::limit(size, price, TimeInForce::GoodUntilCancelled)?;
        Ok(Terms { post_only: self.orders.iter().any(|o| o.post_only), plan: Plan::Scaled, ..terms })
    }
}

fn stop(price: Option<Decimal>, direction: StopDirection) -> Result<Plan, Rejection> {
    if direction == StopDirection::Unknown {
        return Err(invalid("stop_direction must be STOP_DIRECTION_STOP_UP or STOP_DIRECTION_STOP_DOWN"));
    }
    Ok(Plan::Stop { price: required(price, "stop_price")?, direction })
}

fn bracket(stop: Option<Decimal>) -> Result<Plan, Rejection> {
    Ok(Plan::Bracket { stop: required(stop, "stop_trigger_price")? })
}

fn until(end: Option<Timestamp>) -> Result<TimeInForce, Rejection> {
    Ok(TimeInForce::GoodUntilDate(required(end, "end_time, an RFC 3339 time")?))
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, Rejection> {
    value.ok_or_else(|| invalid(format!("order_configuration needs {field}")))
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(Reason::InvalidRequest, message)
}
