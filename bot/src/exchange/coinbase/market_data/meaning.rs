//! What comes, in the words of a recording. Pure.

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::super::websocket::Channels;
use super::Raw;
use crate::exchange::{Link, Touch, VenueEvent};

/// What something means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The best prices; None while the exchange shows none.
    Touch {
        product: String,
        touch: Option<Touch>,
    },
    /// Nobody knows any price after this moment until the next touch.
    Unknown {
        since: Timestamp,
    },
    Facts(Facts),
}

/// What REST shows of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub product: String,
    /// Its rules, without what changes all the time.
    pub rules: Value,
    /// Funding rate per hour of the hour that ended last, and when that was.
    pub funding: Option<(Decimal, Option<Timestamp>)>,
}

/// Fields of a product that are rules: its own, of its session, and of its future.
const RULES: [&str; 12] = [
    "base_currency_id",
    "quote_currency_id",
    "product_type",
    "product_venue",
    "base_increment",
    "price_increment",
    "base_min_size",
    "base_max_size",
    "quote_min_size",
    "status",
    "trading_disabled",
    "view_only",
];
const SESSION: [&str; 1] = ["is_session_open"];
const FUTURE: [&str; 7] = [
    "contract_code",
    "contract_expiry",
    "contract_size",
    "contract_root_unit",
    "funding_interval",
    "intraday_margin_rate",
    "overnight_margin_rate",
];

impl Facts {
    /// Reads a reply of `GET /products/{id}`.
    ///
    /// # Errors
    /// It is not that product, or cannot be read.
    pub fn read(product: &str, text: &str) -> Result<Self, String> {
        let shown: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if shown["product_id"] != product {
            return Err(format!("it is not the product {product}"));
        }
        let mut rules = pick(&shown, &RULES);
        for (part, names) in [("fcm_trading_session_details", &SESSION[..]), ("future_product_details", &FUTURE[..])] {
            if shown[part].is_object() {
                rules.insert(part.to_owned(), Value::Object(pick(&shown[part], names)));
            }
        }
        let future = &shown["future_product_details"];
        let funding = match future["funding_rate"].as_str() {
            None | Some("") => None,
            Some(text) => {
                let rate: Decimal = text.parse().map_err(|_| format!("funding_rate {text:?} is not a decimal"))?;
                if rate.abs() >= Decimal::ONE {
                    return Err(format!("funding_rate {rate} is not a rate per hour"));
                }
                Some((rate, future["funding_time"].as_str().and_then(|time| time.parse().ok())))
            }
        };
        Ok(Self { product: product.to_owned(), rules: Value::Object(rules), funding })
    }
}

fn pick(object: &Value, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), object.get(*name)?.clone()))).collect()
}

/// Reads what comes, one after the other.
#[derive(Debug)]
pub struct Interpreter {
    products: Vec<String>,
    /// Of the connection that is open.
    channels: Channels,
}

impl Interpreter {
    #[must_use]
    pub fn new(products: &[String]) -> Self {
        Self { products: products.to_vec(), channels: Channels::new(Link::MarketWebSocket, products) }
    }

    /// What it means.
    ///
    /// # Errors
    /// It cannot be understood, or something before it is missing.
    pub fn meanings(&mut self, raw: &Raw) -> Result<Vec<Meaning>, String> {
        match raw {
            Raw::Connected => {
                self.channels = Channels::new(Link::MarketWebSocket, &self.products);
                Ok(Vec::new())
            }
            Raw::Frame { text } => {
                let touch = |event| match event {
                    VenueEvent::Touch { product, touch } => Some(Meaning::Touch { product, touch }),
                    _ => None,
                };
                Ok(self.channels.hear(text)?.events.into_iter().filter_map(touch).collect())
            }
            Raw::Lost { since, .. } => Ok(vec![Meaning::Unknown { since: *since }]),
            Raw::Reply { product, text } => Ok(vec![Meaning::Facts(Facts::read(product, text)?)]),
            Raw::Unanswered { .. } => Ok(Vec::new()),
        }
    }
}
