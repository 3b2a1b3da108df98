//! The administrative interface, `/_simulator/`: the exchange's own truth for tests, and faults.
//!
//! Guarded by the token in `admin.token`; no API key opens it.

mod faults;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::App;
use super::caller::bearer;
use super::error::ApiError;
use super::shapes::{decimal, order as order_shape};
use crate::exchange::NewOrder;
use crate::exchange::book::Side;
use crate::exchange::order::{LimitGtc, Market, OrderConfiguration};

/// Events in one journal reply.
const MAX_EVENTS: usize = 2_000;

type Reply = Result<Json<Value>, ApiError>;

pub fn router(app: Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/clock", get(clock))
        .route("/journal", get(journal))
        .route("/portfolios", get(portfolios))
        .route("/portfolios/{uuid}", get(portfolio))
        .route("/place", post(place))
        .route("/market", get(market).post(set_market))
        .route("/faults", get(faults::active).post(faults::set))
        .route("/scenario", get(faults::scenario).post(faults::set_scenario))
        .layer(middleware::from_fn_with_state(app, administrator))
}

async fn administrator(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let authorized = bearer(request.headers()).is_some_and(|token| same(token, &app.admin_token));
    if authorized { next.run(request).await } else { ApiError::Unauthorized.into_response() }
}

/// Compares without telling by its duration where the texts differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

async fn clock(State(app): State<Arc<App>>) -> Json<Value> {
    let now = app.clock.now();
    Json(json!({"monotonic_ns": now.monotonic_ns, "boottime_ns": now.boottime_ns, "time": now.time}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalQuery {
    portfolio: Option<Uuid>,
    #[serde(default)]
    after: u64,
}

async fn journal(State(app): State<Arc<App>>, Query(query): Query<JournalQuery>) -> Json<Value> {
    let (events, last): (Vec<_>, u64) = {
        let (state, _) = app.lock();
        let journal = &state.exchange.journal;
        (journal.after(query.after, query.portfolio).take(MAX_EVENTS).cloned().collect(), journal.last())
    };
    // A full page ends at its last event; otherwise everything so far was considered.
    let next = events.last().filter(|_| events.len() == MAX_EVENTS).map_or(last, |e| e.seq);
    Json(json!({"events": events, "next": next}))
}

async fn portfolios(State(app): State<Arc<App>>) -> Json<Value> {
    let (state, _) = app.lock();
    let clients = state.exchange.portfolios.values().filter(|p| !p.participant);
    let list: Vec<Value> = clients.map(|p| json!({"uuid": p.id, "name": p.name})).collect();
    Json(json!({"portfolios": list}))
}

async fn portfolio(State(app): State<Arc<App>>, Path(uuid): Path<Uuid>) -> Reply {
    let (state, _) = app.lock();
    let exchange = &state.exchange;
    let portfolio = exchange.portfolios.get(&uuid).ok_or_else(|| ApiError::NotFound("portfolio not found".into()))?;
    let open: Vec<Value> =
        exchange.open_orders_of(uuid).map(|o| order_shape::order(&exchange.markets[o.market].product, o)).collect();
    let positions: serde_json::Map<String, Value> = exchange
        .markets
        .iter()
        .enumerate()
        .map(|(i, m)| (m.product.id.clone(), json!(decimal(exchange.position(uuid, i)))))
        .collect();
    let balances: serde_json::Map<String, Value> = portfolio
        .balances
        .iter()
        .map(|(currency, b)| (currency.clone(), json!({"total": decimal(b.total), "hold": decimal(b.hold)})))
        .collect();
    let funding: serde_json::Map<String, Value> = portfolio
        .positions
        .iter()
        .map(|(i, p)| {
            let state = json!({"accrued": decimal(p.funding_accrued), "settled": decimal(p.funding_settled)});
            (exchange.markets[*i].product.id.clone(), state)
        })
        .collect();
    Ok(Json(json!({
        "uuid": uuid,
        "name": portfolio.name,
        "open_orders": open,
        "positions": positions,
        "balances": balances,
        "funding": funding,
        "fees": decimal(portfolio.fees),
        "volume": decimal(portfolio.volume),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    portfolio: Uuid,
    product_id: String,
    side: Side,
    size: Decimal,
    /// A limit price; a market order when absent.
    price: Option<Decimal>,
    #[serde(default)]
    market: bool,
    /// Default: `foreign-<uuid>`.
    client_order_id: Option<String>,
}

/// Places an order that the portfolio's bot did not send.
async fn place(State(app): State<Arc<App>>, bytes: Bytes) -> Reply {
    let request: Place = read(&bytes)?;
    let configuration = match (request.price, request.market) {
        (Some(price), false) => OrderConfiguration::LimitLimitGtc(LimitGtc {
            base_size: Some(request.size),
            limit_price: Some(price),
            post_only: false,
        }),
        (None, true) => {
            OrderConfiguration::MarketMarketIoc(Market { base_size: Some(request.size), ..Default::default() })
        }
        _ => return Err(ApiError::InvalidArgument("give either price or \"market\": true".into())),
    };
    let mut new = NewOrder {
        client_order_id: request.client_order_id.unwrap_or_default(),
        product_id: request.product_id,
        side: request.side,
        configuration: configuration.clone(),
        closing: false,
    };
    let reply = app.command(|state, now| {
        if new.client_order_id.is_empty() {
            new.client_order_id = format!("foreign-{}", state.exchange.new_uuid());
        }
        match state.exchange.place(now, request.portfolio, new) {
            Ok(placed) => {
                let order = state
                    .exchange
                    .order(placed.order_id)
                    .map(|o| order_shape::order(&state.exchange.markets[o.market].product, o));
                json!({"success": true, "order": order})
            }
            Err(rejection) => order_shape::rejected(&rejection, Some(&configuration)),
        }
    });
    Ok(Json(reply))
}

async fn market(State(app): State<Arc<App>>) -> Json<Value> {
    let (state, _) = app.lock();
    Json(json!({"frozen": state.exchange.frozen}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMarket {
    frozen: bool,
}

/// Freezes the markets: prices stand still and nobody but clients trades. Clock, expiries and funding go on.
async fn set_market(State(app): State<Arc<App>>, bytes: Bytes) -> Reply {
    let request: SetMarket = read(&bytes)?;
    let (mut state, _) = app.lock();
    state.exchange.frozen = request.frozen;
    Ok(Json(json!({"frozen": state.exchange.frozen})))
}

fn read<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::InvalidArgument(error.to_string()))
}
