//! Messages of the WebSockets.

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use super::order::{side, status};
use super::{decimal, nullable, time_or_none};
use crate::exchange::{OrderState, Side};
use crate::market::book::Level;

/// A WebSocket message: an envelope with events, or an error.
#[derive(Deserialize)]
pub struct Message {
    #[serde(default, deserialize_with = "nullable")]
    pub channel: String,
    /// Counts the messages of a connection, over all its channels.
    pub sequence_num: Option<u64>,
    #[serde(default, deserialize_with = "nullable")]
    pub events: Vec<Value>,
    /// Only on errors.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
}

/// An event of the channel `l2_data`.
#[derive(Deserialize)]
pub struct Level2Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub product_id: String,
    #[serde(default, deserialize_with = "nullable")]
    updates: Vec<Level2Update>,
}

#[derive(Deserialize)]
struct Level2Update {
    side: String,
    #[serde(deserialize_with = "decimal")]
    price_level: Decimal,
    #[serde(deserialize_with = "decimal")]
    new_quantity: Decimal,
}

impl Level2Event {
    pub fn levels(&self) -> Result<Vec<Level>, String> {
        let level = |update: &Level2Update| {
            let side = match update.side.as_str() {
                "bid" => Side::Buy,
                "offer" => Side::Sell,
                other => return Err(format!("a level with the side {other:?}")),
            };
            Ok(Level { side, price: update.price_level, quantity: update.new_quantity })
        };
        self.updates.iter().map(level).collect()
    }
}

/// An event of the channel `market_trades`.
#[derive(Deserialize)]
pub struct TradesEvent {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub trades: Vec<Trade>,
}

#[derive(Deserialize)]
pub struct Trade {
    pub product_id: String,
    #[serde(deserialize_with = "decimal")]
    pub price: Decimal,
    #[serde(deserialize_with = "decimal")]
    pub size: Decimal,
    #[serde(default, deserialize_with = "time_or_none")]
    pub time: Option<Timestamp>,
}

/// An event of the channel `user`.
#[derive(Deserialize)]
pub struct UserEvent {
    #[serde(default, deserialize_with = "nullable")]
    pub orders: Vec<UserOrder>,
}

/// An order as the channel `user` shows it: its sizes are cumulative, the size ordered is not there.
#[derive(Deserialize)]
pub struct UserOrder {
    order_id: String,
    #[serde(default, deserialize_with = "nullable")]
    client_order_id: String,
    product_id: String,
    order_side: String,
    status: String,
    #[serde(default, deserialize_with = "decimal")]
    cumulative_quantity: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    avg_price: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    total_fees: Decimal,
    #[serde(default, deserialize_with = "time_or_none")]
    creation_time: Option<Timestamp>,
}

impl TryFrom<UserOrder> for OrderState {
    type Error = String;

    fn try_from(order: UserOrder) -> Result<Self, String> {
        Ok(Self {
            side: side(&order.order_side, &order.order_id)?,
            status: status(&order.status),
            order_id: order.order_id,
            client_order_id: order.client_order_id,
            product: order.product_id,
            filled: order.cumulative_quantity,
            average_price: order.avg_price,
            fees_quote: order.total_fees,
            size: None,
            created_at: order.creation_time,
        })
    }
}
