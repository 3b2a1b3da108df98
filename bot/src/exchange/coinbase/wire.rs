//! Coinbase's JSON, and how it becomes the types of [`crate::exchange`]. Further fields in replies are ignored; a value
//! that cannot be read is an error, never a guess.

mod account;
mod fill;
mod message;
mod order;
mod product;

use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de};

pub use self::account::{Account, BalanceSummary, Positions, TransactionSummary};
pub use self::fill::WireFill;
pub use self::message::{Level2Event, Message, TradesEvent, UserEvent};
pub use self::order::{Cancels, CreateOrder, OneOrder, Order, UNSUPPORTED, new_order};
pub use self::product::WireProduct;
use crate::exchange::KeyPermissions;

/// A decimal in a string; `""` and null are zero.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    parse_decimal(&text).map_err(de::Error::custom)
}

/// An amount that is owned or stands behind a position: an empty one is not zero, or a guard would see a loss of everything.
fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" => Err(de::Error::custom("an amount is empty")),
        text => parse_decimal(text).map_err(de::Error::custom),
    }
}

/// Largest number that is taken as an amount, a price or a size. Beyond it is nothing that this bot trades, and the
/// product of two of these, and a sum of very many, is still far from the end of a [`Decimal`].
const MOST: Decimal = rust_decimal::dec!(1_000_000_000_000);
/// Longest text of a number: more digits than a [`Decimal`] holds, cut off by it, are still a number.
const LONGEST: usize = 128;

fn parse_decimal(text: &str) -> Result<Decimal, String> {
    if text.is_empty() {
        return Ok(Decimal::ZERO);
    }
    let refused = |why: &str| format!("{:?} {why}", arbbot_crds::conditions::shorten(text, 40));
    if text.len() > LONGEST {
        return Err(refused("is too long for a decimal"));
    }
    let value = Decimal::from_str(text)
        .or_else(|_| Decimal::from_scientific(text))
        .map_err(|error| refused(&format!("is not a decimal: {error}")))?;
    if value.abs() > MOST { Err(refused("is beyond every amount")) } else { Ok(value) }
}

/// A time in RFC 3339; `""` and null mean that there is none.
fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(de::Error::custom),
        _ => Ok(None),
    }
}

/// null is the same as absent.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// GET /time.
#[derive(Deserialize)]
pub struct Time {
    #[serde(rename = "epochMillis")]
    epoch_millis: String,
}

impl Time {
    pub fn timestamp(&self) -> Result<Timestamp, String> {
        let millis: i64 = self.epoch_millis.parse().map_err(|_| "epochMillis is not a number".to_owned())?;
        Timestamp::from_millisecond(millis).map_err(|error| error.to_string())
    }
}

/// GET /key_permissions.
#[derive(Deserialize)]
pub struct Permissions {
    can_view: bool,
    can_trade: bool,
    can_transfer: bool,
    portfolio_uuid: String,
}

impl From<Permissions> for KeyPermissions {
    fn from(wire: Permissions) -> Self {
        let Permissions { can_view, can_trade, can_transfer, portfolio_uuid } = wire;
        Self { portfolio: portfolio_uuid, can_view, can_trade, can_transfer }
    }
}

/// One page of a list.
#[derive(Deserialize)]
pub struct Page<T> {
    /// `orders` of GET /orders/historical/batch, `accounts` of GET /accounts.
    #[serde(alias = "orders", alias = "accounts", alias = "fills")]
    pub items: Vec<T>,
    /// Absent in the list of fills: there a cursor says that there is more.
    has_next: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    pub cursor: String,
}

impl<T> Page<T> {
    /// Whether another page follows.
    pub fn has_next(&self) -> bool {
        self.has_next.unwrap_or(!self.cursor.is_empty() && !self.items.is_empty())
    }
}

/// The body of a reply that is not 2xx, in any of the shapes that were seen.
#[derive(Default, Deserialize)]
pub struct ErrorBody {
    #[serde(default, deserialize_with = "nullable")]
    error: String,
    #[serde(default, deserialize_with = "nullable")]
    message: String,
    #[serde(default, deserialize_with = "nullable")]
    error_details: String,
    #[serde(default, deserialize_with = "nullable")]
    errors: Vec<InnerError>,
}

#[derive(Deserialize)]
struct InnerError {
    #[serde(default, deserialize_with = "nullable")]
    id: String,
    #[serde(default, deserialize_with = "nullable")]
    message: String,
}

impl ErrorBody {
    /// Everything it says, once, short enough for a condition.
    pub fn read(body: &[u8]) -> String {
        let Ok(error) = serde_json::from_slice::<Self>(body) else {
            let text = String::from_utf8_lossy(body);
            let printable: String = text.chars().filter(|c| !c.is_control()).collect();
            return arbbot_crds::conditions::shorten(&printable, 200).to_owned();
        };
        let inner = error.errors.into_iter().flat_map(|inner| [inner.id, inner.message]);
        let mut said: Vec<String> = Vec::new();
        for text in [error.error, error.message, error.error_details].into_iter().chain(inner) {
            if !text.is_empty() && !said.contains(&text) {
                said.push(text);
            }
        }
        arbbot_crds::conditions::shorten(&said.join(": "), 400).to_owned()
    }
}

#[cfg(test)]
mod tests;
