//! Coinbase's JSON, and how it becomes the types of [`crate::exchange`]. Further fields in replies are ignored; a value
//! that cannot be read is an error, never a guess.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use crate::exchange::{
    FutureDetails, KeyPermissions, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Product, Side,
};

/// A decimal in a string; `""` and null are zero.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    parse_decimal(&text).map_err(de::Error::custom)
}

/// A decimal in a string, where `""`, null and absence mean that there is none.
fn decimal_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => parse_decimal(&text).map(Some).map_err(de::Error::custom),
        _ => Ok(None),
    }
}

fn parse_decimal(text: &str) -> Result<Decimal, String> {
    if text.is_empty() {
        return Ok(Decimal::ZERO);
    }
    Decimal::from_str(text)
        .or_else(|_| Decimal::from_scientific(text))
        .map_err(|error| format!("{:?} is not a decimal: {error}", arbbot_crds::conditions::shorten(text, 40)))
}

/// A time in RFC 3339; `""` and null mean that there is none.
fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => text.parse().map(Some).map_err(de::Error::custom),
        _ => Ok(None),
    }
}

/// null is the same as absent.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
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

/// GET /products/{id}.
#[derive(Deserialize)]
pub struct WireProduct {
    product_id: String,
    #[serde(deserialize_with = "decimal")]
    price_increment: Decimal,
    #[serde(deserialize_with = "decimal")]
    base_increment: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    base_min_size: Decimal,
    #[serde(default, deserialize_with = "decimal")]
    quote_min_size: Decimal,
    #[serde(default, deserialize_with = "nullable")]
    base_currency_id: String,
    #[serde(default, deserialize_with = "nullable")]
    quote_currency_id: String,
    #[serde(default, deserialize_with = "nullable")]
    is_disabled: bool,
    #[serde(default, deserialize_with = "nullable")]
    trading_disabled: bool,
    #[serde(default, deserialize_with = "nullable")]
    cancel_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    post_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    auction_mode: bool,
    #[serde(default, deserialize_with = "nullable")]
    view_only: bool,
    #[serde(default, deserialize_with = "nullable")]
    product_venue: String,
    fcm_trading_session_details: Option<Session>,
    future_product_details: Option<Future>,
}

#[derive(Deserialize)]
struct Session {
    is_session_open: bool,
    #[serde(default, deserialize_with = "time_or_none")]
    open_time: Option<Timestamp>,
    maintenance: Option<Maintenance>,
}

#[derive(Deserialize)]
struct Maintenance {
    #[serde(default, deserialize_with = "time_or_none")]
    end_time: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Future {
    #[serde(deserialize_with = "decimal")]
    contract_size: Decimal,
    #[serde(default, deserialize_with = "nullable")]
    contract_root_unit: String,
    /// The one inside perpetual_details is always empty on the US exchange.
    #[serde(default, deserialize_with = "decimal_or_none")]
    funding_rate: Option<Decimal>,
}

impl WireProduct {
    /// Where the product trades: CBE (spot), FCM (US derivatives), INTX (ended).
    pub fn venue(&self) -> &str {
        &self.product_venue
    }

    /// `now` in venue time.
    pub fn into_product(self, now: Timestamp) -> Result<Product, String> {
        // Post-only and auction phases take no order that completes a hedge.
        let closed = self.is_disabled
            || self.trading_disabled
            || self.cancel_only
            || self.post_only
            || self.auction_mode
            || self.view_only;
        let positive = |name: &str, value: Decimal| {
            if value > Decimal::ZERO {
                Ok(value)
            } else {
                Err(format!("{name} of {} is not positive", self.product_id))
            }
        };
        let price_increment = positive("price_increment", self.price_increment)?;
        let size_increment = positive("base_increment", self.base_increment)?;
        let unit_base = match &self.future_product_details {
            Some(future) => positive("contract_size", future.contract_size)?,
            None => Decimal::ONE,
        };
        let session = self.fcm_trading_session_details;
        let future = self.future_product_details.as_ref().map(|future| FutureDetails {
            // A future without session details is not known to be open.
            session_open: session.as_ref().is_some_and(|session| session.is_session_open),
            reopens_at: session.as_ref().and_then(|session| session.reopens_at(now)),
            funding_rate: future.funding_rate,
        });
        let root = self.future_product_details.map(|future| future.contract_root_unit);
        Ok(Product {
            base_currency: root.unwrap_or(self.base_currency_id),
            quote_currency: self.quote_currency_id,
            price_increment,
            size_increment,
            min_size: self.base_min_size.max(size_increment),
            min_notional_quote: self.quote_min_size,
            unit_base,
            tradable: !closed,
            future,
            id: self.product_id,
        })
    }
}

impl Session {
    fn reopens_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_session_open {
            return None;
        }
        let maintenance = self.maintenance.as_ref().and_then(|maintenance| maintenance.end_time);
        // The later of what is still to come: a session that opens inside a maintenance opens after it.
        self.open_time.into_iter().chain(maintenance).filter(|time| *time > now).max()
    }
}

/// The body of an order, and the path under the API's root that it goes to.
pub fn new_order(order: &NewOrder) -> (&'static [&'static str], Value) {
    let size = plain(order.size);
    let configuration = match order.kind {
        OrderKind::PostOnly { limit_price, expires_at } => json!({"limit_limit_gtd": {
            "base_size": size,
            "limit_price": plain(limit_price),
            "end_time": expires_at.to_string(),
            "post_only": true,
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

/// One page of a list.
#[derive(Deserialize)]
pub struct Page<T> {
    /// `orders` of GET /orders/historical/batch, `accounts` of GET /accounts.
    #[serde(alias = "orders", alias = "accounts")]
    pub items: Vec<T>,
    #[serde(default, deserialize_with = "nullable")]
    pub has_next: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub cursor: String,
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

fn side(text: &str, order_id: &str) -> Result<Side, String> {
    Side::from_str(text).map_err(|_| format!("order {order_id} has the side {text:?}"))
}

fn status(text: &str) -> OrderStatus {
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

/// An account: what is there of one currency.
#[derive(Deserialize)]
pub struct Account {
    pub currency: String,
    available_balance: Amount,
    #[serde(default, deserialize_with = "nullable")]
    hold: Amount,
}

impl Account {
    /// What is available and what is held.
    pub fn total(&self) -> Decimal {
        self.available_balance.value + self.hold.value
    }
}

#[derive(Default, Deserialize)]
struct Amount {
    #[serde(deserialize_with = "decimal")]
    value: Decimal,
}

/// GET /cfm/positions.
#[derive(Deserialize)]
pub struct Positions {
    #[serde(default, deserialize_with = "nullable")]
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    product_id: String,
    #[serde(default, deserialize_with = "nullable")]
    side: String,
    #[serde(deserialize_with = "decimal")]
    number_of_contracts: Decimal,
}

impl Positions {
    /// Signed contracts by product.
    pub fn contracts(self) -> Result<BTreeMap<String, Decimal>, String> {
        let signed = |position: Position| {
            let contracts = position.number_of_contracts.abs();
            match position.side.as_str() {
                "LONG" => Ok((position.product_id, contracts)),
                "SHORT" => Ok((position.product_id, -contracts)),
                _ if contracts.is_zero() => Ok((position.product_id, contracts)),
                side => Err(format!("the position in {} has the side {side:?}", position.product_id)),
            }
        };
        self.positions.into_iter().map(signed).collect()
    }
}

/// GET /cfm/balance_summary.
#[derive(Deserialize)]
pub struct BalanceSummary {
    balance_summary: Balance,
}

#[derive(Deserialize)]
struct Balance {
    total_usd_balance: Amount,
    unrealized_pnl: Amount,
}

impl BalanceSummary {
    /// What stands behind the futures: all USD (the venue moves spot cash to futures by itself) and the unrealised
    /// profit or loss. Not `available_margin`: it moves with every resting order.
    pub fn collateral(&self) -> Decimal {
        self.balance_summary.total_usd_balance.value + self.balance_summary.unrealized_pnl.value
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
    pub fn levels(&self) -> Result<Vec<crate::market::book::Level>, String> {
        let level = |update: &Level2Update| {
            let side = match update.side.as_str() {
                "bid" => Side::Buy,
                "offer" => Side::Sell,
                other => return Err(format!("a level with the side {other:?}")),
            };
            Ok(crate::market::book::Level { side, price: update.price_level, quantity: update.new_quantity })
        };
        self.updates.iter().map(level).collect()
    }
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

#[cfg(test)]
mod tests;
