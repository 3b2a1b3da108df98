//! A fault as it is asked for: one flat object, over HTTP or in a scenario.

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::kind::FaultKind;

/// What a fault is limited to. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Only this portfolio; all when absent.
    pub portfolio: Option<Uuid>,
    /// Only this key.
    pub key: Option<String>,
    /// Only this product; every product (every future for `session_closed`) when absent.
    pub product_id: Option<String>,
    /// Only requests to this endpoint, as `/orders` or `POST /orders`: a path below `/api/v3/brokerage`, or its beginning.
    pub endpoint: Option<String>,
    /// Only frames of this channel, as it arrives (`l2_data`, `user`).
    pub channel: Option<String>,
    /// How long, in seconds; until cleared when absent.
    pub seconds: Option<u32>,
    /// How long, as `90s` or `2m`; the same as `seconds`.
    #[serde(rename = "for", deserialize_with = "duration")]
    pub lasting: Option<SignedDuration>,
    /// How many requests, frames or connections it strikes; without limit when absent.
    pub count: Option<u32>,
    /// Share of requests or frames that it strikes, 0 to 1.
    pub rate: Option<f64>,
}

/// A fault asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRequest {
    pub kind: FaultKind,
    pub scope: Scope,
}

const SCOPE: [&str; 9] = ["portfolio", "key", "product_id", "endpoint", "channel", "seconds", "for", "count", "rate"];

impl FaultRequest {
    /// Reads a fault from an object that has nothing else in it.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn from_object(mut object: Map<String, Value>) -> Result<Self, String> {
        let scope: Map<String, Value> =
            SCOPE.iter().filter_map(|name| object.remove_entry(*name)).filter(|(_, value)| !value.is_null()).collect();
        let scope: Scope = serde_json::from_value(Value::Object(scope)).map_err(|e| e.to_string())?;
        let kind: FaultKind = serde_json::from_value(Value::Object(object)).map_err(|e| e.to_string())?;
        kind.check()?;
        if scope.rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            return Err("rate must be from 0 to 1".into());
        }
        if scope.lasting.is_some() && scope.seconds.is_some() {
            return Err("give seconds or for, not both".into());
        }
        let endless = scope.lasting.is_none() && scope.seconds.is_none();
        match kind {
            FaultKind::SessionClosed {} if endless => {
                Err("session_closed needs seconds or for: when it opens again".into())
            }
            FaultKind::PortfolioChanged { .. } if scope.key.is_none() => Err("portfolio_changed needs key".into()),
            _ => Ok(Self { kind, scope }),
        }
    }
}

impl Scope {
    /// How long it lasts; `None` until cleared.
    pub fn duration(&self) -> Option<SignedDuration> {
        self.lasting.or(self.seconds.map(|seconds| SignedDuration::from_secs(i64::from(seconds))))
    }
}

/// `10s`, `1m30s`, `500ms`; never negative.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let duration: SignedDuration = text.parse().map_err(|error| format!("{text:?} is not a duration: {error}"))?;
    if duration.is_negative() { Err(format!("{text:?} is negative")) } else { Ok(duration) }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SignedDuration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}
