//! Order entry and cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::query::parse;
use crate::exchange::book::Side;
use crate::exchange::order::OrderConfiguration;
use crate::exchange::rejection::{Reason, Rejection};
use crate::exchange::{Exchange, NewOrder, Placed};
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::order as shape;

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
    /// Orders of one portfolio never trade with each other here, whatever this says.
    #[serde(default, rename = "self_trade_prevention_id")]
    _self_trade_prevention_id: String,
    #[serde(default, rename = "preview_id")]
    _preview_id: String,
    #[serde(default)]
    attached_order_configuration: Option<OrderConfiguration>,
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
    if !request.retail_portfolio_id.is_empty() && request.retail_portfolio_id != caller.portfolio.to_string() {
        return Err(ApiError::MissingScopes);
    }
    let refused = refused_option(&request.leverage, &request.margin_type)?;
    let attached = request
        .attached_order_configuration
        .map(|_| Rejection::new(Reason::UnsupportedOrderConfiguration, "attached orders are not available here"));
    let refused = refused.or(attached);
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
            None if refused.is_some() => {
                let rejection = refused.unwrap_or_else(|| Rejection::new(Reason::InvalidRequest, ""));
                Err(state.exchange.reject(now, caller.portfolio, &new, rejection))
            }
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

/// Leverage and margin are fixed on this venue: cross margin, and no leverage to choose.
pub fn refused_option(leverage: &str, margin_type: &str) -> Result<Option<Rejection>, ApiError> {
    let leverage: Option<Decimal> = if leverage.is_empty() { None } else { Some(parse("leverage", leverage)?) };
    if leverage.is_some_and(|leverage| leverage != Decimal::ONE) {
        return Ok(Some(Rejection::new(Reason::InvalidLeverage, "leverage cannot be chosen on this venue")));
    }
    match margin_type {
        "" | "CROSS" | "UNKNOWN_MARGIN_TYPE" => Ok(None),
        "ISOLATED" => Ok(Some(Rejection::new(Reason::InvalidMarginType, "margin_type must be CROSS"))),
        _ => Err(ApiError::InvalidArgument("margin_type must be CROSS or ISOLATED".into())),
    }
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
