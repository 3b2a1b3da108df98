//! Order entry, cancel, and the history of orders and fills.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::own;
use super::body;
use super::query::{Pairs, Parameters, parse};
use crate::exchange::book::Side;
use crate::exchange::order::{Order, OrderConfiguration};
use crate::exchange::product::Product;
use crate::exchange::rejection::Rejection;
use crate::exchange::{Exchange, NewOrder, Placed};
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::order as shape;

/// Orders or fills per page when no limit is given, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Orders in one batch_cancel.
const MAX_CANCELS: usize = 100;
const MAX_CLIENT_ORDER_ID: usize = 128;
/// A withheld reply ends then, if the client is still there.
const WITHHELD: Duration = Duration::from_secs(60);

type Reply = Result<Json<Value>, ApiError>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateOrder {
    #[serde(default)]
    client_order_id: String,
    #[serde(default)]
    product_id: String,
    side: Side,
    order_configuration: OrderConfiguration,
    #[serde(default)]
    leverage: String,
    #[serde(default)]
    margin_type: String,
    /// Deprecated; the key says which portfolio.
    #[serde(default)]
    retail_portfolio_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchCancel {
    #[serde(default)]
    order_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClosePosition {
    #[serde(default)]
    client_order_id: String,
    #[serde(default)]
    product_id: String,
    #[serde(default)]
    size: String,
}

pub async fn create(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let request: CreateOrder = body(&bytes)?;
    check_ids(&request.client_order_id, &request.product_id)?;
    if !matches!(request.leverage.as_str(), "" | "1" | "1.0") {
        return Err(ApiError::InvalidArgument("leverage is not available on this venue".into()));
    }
    if !matches!(request.margin_type.as_str(), "" | "CROSS") {
        return Err(ApiError::InvalidArgument("margin_type must be CROSS".into()));
    }
    if !request.retail_portfolio_id.is_empty() && request.retail_portfolio_id != caller.portfolio.to_string() {
        return Err(ApiError::MissingScopes);
    }
    let new = NewOrder {
        client_order_id: request.client_order_id,
        product_id: request.product_id,
        side: request.side,
        configuration: request.order_configuration,
        closing: false,
    };
    let configuration = new.configuration.clone();
    let (reply, lost) = app.command(|state, now| {
        let result = match state.faults.rejects(caller.portfolio, &new.product_id, now.time) {
            Some(reason) => Err(state.exchange.refuse(now, caller.portfolio, &new, reason)),
            None => state.exchange.place(now, caller.portfolio, new).map(|placed| (placed, configuration.clone())),
        };
        let lost = result.is_ok() && state.faults.drops_reply(caller.portfolio, now.time);
        (placed_reply(&state.exchange, result, Some(&configuration)), lost)
    });
    deliver(reply, lost).await
}

pub async fn close_position(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let request: ClosePosition = body(&bytes)?;
    check_ids(&request.client_order_id, &request.product_id)?;
    let size: Option<Decimal> = if request.size.is_empty() { None } else { Some(parse("size", &request.size)?) };
    let (reply, lost) = app.command(|state, now| {
        let exchange = &mut state.exchange;
        let result = exchange.close_position(now, caller.portfolio, request.client_order_id, request.product_id, size);
        let lost = result.is_ok() && state.faults.drops_reply(caller.portfolio, now.time);
        (placed_reply(&state.exchange, result, None), lost)
    });
    deliver(reply, lost).await
}

pub async fn batch_cancel(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let request: BatchCancel = body(&bytes)?;
    if request.order_ids.is_empty() || request.order_ids.len() > MAX_CANCELS {
        return Err(ApiError::InvalidArgument(format!("order_ids must have 1 to {MAX_CANCELS} entries")));
    }
    let (results, delay) = app.command(|state, now| {
        let results: Vec<Value> = request
            .order_ids
            .iter()
            .map(|id| {
                let requested = match id.parse() {
                    Ok(uuid) => state.exchange.request_cancel(now, caller.portfolio, uuid).map_err(|e| e.to_string()),
                    Err(_) => Err("UNKNOWN_CANCEL_ORDER".to_owned()),
                };
                let reason = requested.as_ref().err().map_or("UNKNOWN_CANCEL_FAILURE_REASON", String::as_str);
                json!({"success": requested.is_ok(), "failure_reason": reason, "order_id": id})
            })
            .collect();
        (results, state.exchange.cancel_delay())
    });
    // Performed when due, not at the next market tick: cancels are what a kill waits for.
    tokio::spawn(async move {
        let real = Duration::try_from(delay).unwrap_or_default() + Duration::from_micros(100);
        tokio::time::sleep(real).await;
        app.command(|state, now| state.exchange.advance(now));
    });
    Ok(Json(json!({"results": results})))
}

pub async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, pairs: Pairs) -> Reply {
    let known = [
        "order_ids",
        "product_ids",
        "product_type",
        "order_status",
        "order_side",
        "start_date",
        "end_date",
        "limit",
        "cursor",
        "retail_portfolio_id",
        "sort_by",
    ];
    let query = Parameters::new(pairs, &known)?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let cursor = query.parse::<u64>("cursor")?.unwrap_or(u64::MAX);
    let start: Option<Timestamp> = query.parse("start_date")?;
    let end: Option<Timestamp> = query.parse("end_date")?;
    let (ids, products, states) = (query.all("order_ids"), query.all("product_ids"), query.all("order_status"));
    let (side, kind) = (query.one("order_side"), query.one("product_type"));
    let ids: Vec<Uuid> = ids.into_iter().map(|id| parse("order_ids", id)).collect::<Result<_, _>>()?;
    let fits = |product: &Product, order: &Order| {
        let type_name = if product.is_future() { "FUTURE" } else { "SPOT" };
        order.number < cursor
            && start.is_none_or(|t| order.created >= t)
            && end.is_none_or(|t| order.created < t)
            && (ids.is_empty() || ids.contains(&order.id))
            && (products.is_empty() || products.contains(&product.id.as_str()))
            && (states.is_empty() || states.contains(&order.status.to_string().as_str()))
            && side.is_none_or(|s| s == order.side.to_string())
            && kind.is_none_or(|k| k == type_name)
    };
    // Copied under the lock and written after it: a long list must not delay anybody's cancel.
    let mut found: Vec<(Arc<Product>, Order)> = {
        let (state, _) = app.lock();
        let orders = state.exchange.orders_of(caller.portfolio);
        let with_product = orders.map(|o| (&state.exchange.markets[o.market].product, o));
        let fitting = with_product.filter(|(product, order)| fits(product, order)).take(limit + 1);
        fitting.map(|(product, order)| (product.clone(), order.clone())).collect()
    };
    let has_next = found.len() > limit;
    found.truncate(limit);
    let cursor =
        if has_next { found.last().map(|(_, o)| o.number.to_string()).unwrap_or_default() } else { String::new() };
    let orders: Vec<Value> = found.iter().map(|(product, order)| shape::order(product, order)).collect();
    Ok(Json(json!({"orders": orders, "sequence": "0", "has_next": has_next, "cursor": cursor})))
}

pub async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(order_id): Path<String>,
) -> Reply {
    let id: Uuid = parse("order_id", &order_id)?;
    let (state, _) = app.lock();
    let order = state.exchange.order(id).filter(|o| o.portfolio == caller.portfolio);
    let order = order.ok_or_else(|| ApiError::NotFound(format!("order with this orderID {id} not found")))?;
    Ok(Json(json!({"order": shape::order(&state.exchange.markets[order.market].product, order)})))
}

pub async fn fills(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, pairs: Pairs) -> Reply {
    let known = [
        "order_ids",
        "order_id",
        "trade_ids",
        "product_ids",
        "product_id",
        "start_sequence_timestamp",
        "end_sequence_timestamp",
        "retail_portfolio_id",
        "limit",
        "cursor",
        "sort_by",
    ];
    let query = Parameters::new(pairs, &known)?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    // A page starts below the fill that ended the last one, as "<trade>": a trade gives a portfolio one fill.
    let cursor = query.parse::<u64>("cursor")?.unwrap_or(u64::MAX);
    let start: Option<Timestamp> = query.parse("start_sequence_timestamp")?;
    let end: Option<Timestamp> = query.parse("end_sequence_timestamp")?;
    let both = |one: &str, many: &str| [query.all(one), query.all(many)].concat();
    let (orders, products, trades) =
        (both("order_id", "order_ids"), both("product_id", "product_ids"), query.all("trade_ids"));
    let (state, _) = app.lock();
    let exchange = &state.exchange;
    let portfolio = own(&exchange.portfolios, &caller)?;
    let newest_first = portfolio.fills.iter().rev().filter(|f| {
        f.trade_id < cursor
            && start.is_none_or(|t| f.time >= t)
            && end.is_none_or(|t| f.time < t)
            && (orders.is_empty() || orders.contains(&f.order.to_string().as_str()))
            && (trades.is_empty() || trades.contains(&f.trade_id.to_string().as_str()))
            && (products.is_empty() || products.contains(&exchange.markets[f.market].product.id.as_str()))
    });
    let mut found: Vec<_> = newest_first.take(limit + 1).collect();
    let has_next = found.len() > limit;
    found.truncate(limit);
    let cursor =
        if has_next { found.last().map(|f| f.trade_id.to_string()).unwrap_or_default() } else { String::new() };
    let fills: Vec<Value> = found.into_iter().map(|f| shape::fill(exchange, portfolio.id, f)).collect();
    Ok(Json(json!({"fills": fills, "cursor": cursor})))
}

fn placed_reply(
    exchange: &Exchange,
    result: Result<(Placed, OrderConfiguration), Rejection>,
    asked: Option<&OrderConfiguration>,
) -> Value {
    match result {
        Ok((placed, _)) => match exchange.order(placed.order_id) {
            Some(order) => shape::accepted(order, &exchange.markets[order.market].product.id, &order.configuration),
            // An order is found right after it was placed; only its portfolio's history could have dropped it.
            None => json!({"success": true, "success_response": {"order_id": placed.order_id}}),
        },
        Err(rejection) => shape::rejected(&rejection, asked),
    }
}

/// Sends the reply, or (a fault) lets the client wait for it in vain.
async fn deliver(reply: Value, lost: bool) -> Reply {
    if lost {
        tokio::time::sleep(WITHHELD).await;
        return Err(ApiError::GatewayTimeout);
    }
    Ok(Json(reply))
}

fn check_ids(client_order_id: &str, product_id: &str) -> Result<(), ApiError> {
    if client_order_id.is_empty() || client_order_id.len() > MAX_CLIENT_ORDER_ID {
        let message = format!("client_order_id is required and has at most {MAX_CLIENT_ORDER_ID} characters");
        return Err(ApiError::InvalidArgument(message));
    }
    if product_id.is_empty() {
        return Err(ApiError::InvalidArgument("product_id is required".into()));
    }
    Ok(())
}
