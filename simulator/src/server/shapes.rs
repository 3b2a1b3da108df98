//! JSON as Coinbase writes it: decimals are strings, `""` where there is nothing to say.

pub mod account;
pub mod futures;
pub mod market_data;
pub mod order;
pub mod preview;
pub mod product;
pub mod user;

use rust_decimal::Decimal;
use serde_json::{Value, json};

/// A decimal as the wire shows it: at most 8 places, no trailing zeros.
pub fn decimal(value: Decimal) -> String {
    value.round_dp(8).normalize().to_string()
}

/// An amount of USD.
pub fn usd(value: Decimal) -> Value {
    json!({"value": decimal(value), "currency": "USD"})
}
