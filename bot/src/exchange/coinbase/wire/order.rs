//! Orders: placing, cancelling, and how REST shows them.

use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{decimal, nullable, parse_decimal, time_or_none};
use crate::exchange::{NewOrder, OrderKind, OrderState, OrderStatus, Placed, Side};

/// What the venue answers where a product does not know a kind of order.
pub const UNSUPPORTED: &str = "UNSUPPORTED_ORDER_CONFIGURATION";

/// The body of an order, and the path under the API's root that it goes to. `expires`: whether an order that rests
/// does so only until its time, which not every product may know.
pub fn new_order(order: &NewOrder, expires: bool) -> (&'static [&'static str], Value) {
    let size = plain(order.size);
    let configuration = match order.kind {
        OrderKind::PostOnly { limit_price, .. } if !expires => json!({"limit_limit_gtc": {
            "base_size": size,
            "limit_price": plain(limit_price),
            "post_only": true,
        }}),
        OrderKind::PostOnly { limit_price, expires_at } => json!({"limit_limit_gtd": {
            "base_size": size,
            "limit_price": plain(limit_price),
            "end_time": expires_at.to_string(),
            "post_only": true,
        }}),
        OrderKind::GoodTillCancelled { limit_price, post_only } => json!({"limit_limit_gtc": {
            "base_size": size,
            "limit_price": plain(limit_price),
            "post_only": post_only,
        }}),
        OrderKind::ImmediateOrCancel { limit_price } => {
            json!({"sor_limit_ioc": {"base_size": size, "limit_price": plain(limit_price)}})
        }
        OrderKind::Market => json!({"market_market_ioc": {"base_size": size}}),
        OrderKind::ClosePosition => {
            let body = json!({"client_order_id": order.client_order_id, "product_id": order.product, "size": size});
            return (&["orders", "close_position"], body);
        }
    };
    let body = json!({
        "client_order_id": order.client_order_id,
        "product_id": order.product,
        "side": order.side.to_string(),
        "order_configuration": configuration,
    });
    (&["orders"], body)
}

/// A decimal as Coinbase writes it: no exponent, no trailing zeros.
fn plain(value: Decimal) -> String {
    value.normalize().to_string()
}

/// POST /orders and /orders/close_position.
#[derive(Deserialize)]
pub struct CreateOrder {
    success: bool,
    success_response: Option<CreateSuccess>,
    error_response: Option<CreateError>,
}

#[derive(Deserialize)]
struct CreateSuccess {
    order_id: String,
}

#[derive(Default, Deserialize)]
struct CreateError {
    #[serde(default, deserialize_with = "nullable")]
    error: String,
    #[serde(default, deserialize_with = "nullable")]
    message: String,
    #[serde(default, deserialize_with = "nullable")]
    error_details: String,
    #[serde(default, deserialize_with = "nullable")]
    preview_failure_reason: String,
    #[serde(default, deserialize_with = "nullable")]
    new_order_failure_reason: String,
}

/// What says that an order of this client_order_id exists already.
const DUPLICATE: &str = "DUPLICATE_CLIENT_ORDER_ID";

impl CreateOrder {
    /// The business answer; an error where it leaves open whether the order is at the venue.
    pub fn into_placed(self) -> Result<Placed, String> {
        if self.success {
            let order_id = self.success_response.map(|success| success.order_id).unwrap_or_default();
            return if order_id.is_empty() {
                Err("success without an order_id".to_owned())
            } else {
                Ok(Placed::Accepted { order_id })
            };
        }
        let error = self.error_response.unwrap_or_default();
        // Each field has an own value for "not this one"; the others are the venue's most specific word.
        let reasons = [error.new_order_failure_reason, error.preview_failure_reason, error.error];
        if reasons.iter().any(|reason| reason == DUPLICATE) {
            return Err(format!("{DUPLICATE}: the order may be there; the list of orders tells"));
        }
        let specific = reasons.iter().find(|reason| !reason.is_empty() && !reason.starts_with("UNKNOWN_"));
        let reason = specific.cloned().unwrap_or_else(|| "UNKNOWN_FAILURE_REASON".to_owned());
        let message = if error.message.is_empty() { error.error_details } else { error.message };
        Ok(Placed::Rejected { reason, message })
    }
}

/// GET /orders/historical/{order_id}.
#[derive(Deserialize)]
pub struct OneOrder {
    pub order: Order,
}

/// An order as REST shows it.
#[derive(Deserialize)]
pub struct Order {
    order_id: String,
    #[serde(default, deserialize_with = "nullable")]
    client_order_id: String,
    product_id: String,
    side: String,
    status: String,
    #[serde(default, deserialize_with = "nullable")]
    pending_cancel: bool,
    #[serde(default, deserialize_with = "decimal")]
    filled_size: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    average_filled_price: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    total_fees: Decimal,
    #[serde(default)]
    order_configuration: Value,
    #[serde(default, deserialize_with = "time_or_none")]
    created_time: Option<Timestamp>,
}

impl TryFrom<Order> for OrderState {
    type Error = String;

    fn try_from(order: Order) -> Result<Self, String> {
        let status = match status(&order.status) {
            OrderStatus::Open | OrderStatus::Pending if order.pending_cancel => OrderStatus::Cancelling,
            status => status,
        };
        Ok(Self {
            side: side(&order.side, &order.order_id)?,
            size: ordered_size(&order.order_configuration),
            status,
            order_id: order.order_id,
            client_order_id: order.client_order_id,
            product: order.product_id,
            filled: order.filled_size,
            average_price: order.average_filled_price,
            fees_quote: order.total_fees,
            created_at: order.created_time,
        })
    }
}

/// The base_size inside the one configuration of an order.
fn ordered_size(configuration: &Value) -> Option<Decimal> {
    let (_, inner) = configuration.as_object()?.iter().find(|(_, inner)| inner.is_object())?;
    parse_decimal(inner.get("base_size")?.as_str()?).ok().filter(|size| *size > Decimal::ZERO)
}

pub(super) fn side(text: &str, order_id: &str) -> Result<Side, String> {
    Side::from_str(text).map_err(|_| format!("order {order_id} has the side {text:?}"))
}

pub(super) fn status(text: &str) -> OrderStatus {
    match text {
        "PENDING" | "QUEUED" => OrderStatus::Pending,
        "OPEN" | "EDIT_QUEUED" => OrderStatus::Open,
        "CANCEL_QUEUED" => OrderStatus::Cancelling,
        "FILLED" => OrderStatus::Filled,
        "CANCELLED" => OrderStatus::Cancelled,
        "EXPIRED" => OrderStatus::Expired,
        "FAILED" => OrderStatus::Failed,
        _ => OrderStatus::Unknown,
    }
}

/// POST /orders/batch_cancel.
#[derive(Deserialize)]
pub struct Cancels {
    pub results: Vec<Cancel>,
}

#[derive(Deserialize)]
pub struct Cancel {
    pub success: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub failure_reason: String,
    pub order_id: String,
}
