//! Fault scripts made from a seed: which faults, when, and how bad.

use jiff::SignedDuration;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::server::faults::request::parse_duration;

/// How a random script is made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Random {
    /// Mean time between two faults.
    every: String,
    /// No fault lasts beyond this time.
    until: String,
    /// Longest fault.
    longest: String,
    /// Only these kinds; all of the repertoire when absent.
    #[serde(default)]
    kinds: Vec<String>,
}

/// Kinds that a random script may use. Not among them: faults that name a key or a portfolio.
pub const REPERTOIRE: [&str; 22] = [
    "rest_unavailable",
    "rest_error",
    "drop_replies",
    "drop_requests",
    "latency",
    "clock_skew",
    "maintenance",
    "websocket_refused",
    "websocket_disconnect",
    "websocket_silent",
    "duplicate_frames",
    "reorder_frames",
    "sequence_gap",
    "stale_book",
    "crossed_book",
    "session_closed",
    "price_gap",
    "funding_spike",
    "reject_orders",
    "partial_fills",
    "slow_cancels",
    "key_revoked",
];

impl Random {
    /// The steps of the script.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn steps(&self, rng: &mut ChaCha8Rng) -> Result<Vec<Map<String, Value>>, String> {
        let milliseconds = |text: &str| {
            let duration = parse_duration(text)?;
            u64::try_from(duration.as_millis()).map_err(|_| format!("{text:?} is too long"))
        };
        let (every, until, longest) =
            (milliseconds(&self.every)?, milliseconds(&self.until)?, milliseconds(&self.longest)?.max(1));
        if every < 100 || until / every > super::MAX_STEPS as u64 {
            return Err("random: every must be at least 100ms, and until not so many times longer".into());
        }
        let kinds: Vec<&str> = match self.kinds.as_slice() {
            [] => REPERTOIRE.to_vec(),
            some => some.iter().map(String::as_str).collect(),
        };
        if let Some(unknown) = kinds.iter().find(|kind| !REPERTOIRE.contains(kind)) {
            return Err(format!("random: {unknown} cannot be part of a random script"));
        }
        let mut steps = Vec::new();
        let mut at = 0;
        loop {
            // Uniform around the mean: no two at once, no long pause.
            at += rng.random_range(every / 2..=every + every / 2);
            if at >= until {
                return Ok(steps);
            }
            let lasting = rng.random_range(1..=longest).min(until - at);
            let kind = kinds[rng.random_range(0..kinds.len())];
            let mut step = parameters(kind, rng);
            step.insert("kind".into(), json!(kind));
            step.insert("at".into(), json!(text(at)));
            step.insert("for".into(), json!(text(lasting)));
            steps.push(step);
        }
    }
}

fn text(milliseconds: u64) -> String {
    SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX)).to_string()
}

/// Parameters of a kind, drawn.
fn parameters(kind: &str, rng: &mut ChaCha8Rng) -> Map<String, Value> {
    let mut one_of = |values: &[Value]| values[rng.random_range(0..values.len())].clone();
    let value = match kind {
        "rest_error" => {
            let statuses = [401, 403, 429, 500, 502, 503, 504].map(Value::from);
            json!({"status": one_of(&statuses), "rate": one_of(&[json!(0.1), json!(0.5), json!(1.0)])})
        }
        "drop_replies" => {
            let endpoints = [Value::Null, json!("POST /orders/batch_cancel"), json!("GET /orders/historical")];
            json!({"endpoint": one_of(&endpoints), "count": one_of(&[json!(1), json!(3)])})
        }
        "drop_requests" => json!({"count": one_of(&[json!(1), json!(3)])}),
        "latency" => json!({
            "distribution": "exponential",
            "milliseconds": one_of(&[json!(50), json!(200), json!(1000)]),
            "max_milliseconds": 5000,
        }),
        "clock_skew" => json!({"milliseconds": one_of(&[-90_000, -3_000, 3_000, 90_000].map(Value::from))}),
        "websocket_disconnect" => json!({"count": one_of(&[json!(1), Value::Null])}),
        "duplicate_frames" | "reorder_frames" | "sequence_gap" => {
            json!({"rate": one_of(&[json!(0.02), json!(0.2)])})
        }
        "price_gap" => json!({"bps": one_of(&[-300, -50, 50, 300].map(Value::from))}),
        "funding_spike" => json!({"funding_rate": one_of(&["-0.0005", "0.0005", "0.002"].map(Value::from))}),
        "reject_orders" => {
            let reasons = ["INSUFFICIENT_FUND", "UNTRADABLE_PRODUCT", "INVALID_LIMIT_PRICE_POST_ONLY"];
            json!({"reason": one_of(&reasons.map(Value::from)), "rate": 0.5})
        }
        "partial_fills" => json!({"percent": one_of(&[10, 50, 90].map(Value::from))}),
        "slow_cancels" => json!({"milliseconds": one_of(&[500, 5_000].map(Value::from))}),
        _ => json!({}),
    };
    let object = if let Value::Object(object) = value { object } else { Map::new() };
    object.into_iter().filter(|(_, value)| !value.is_null()).collect()
}
