//! Time, products and books. Public and private paths give the same answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::query::{Pairs, Parameters};
use crate::exchange::Exchange;
use crate::server::App;
use crate::server::error::ApiError;
use crate::server::shapes;

/// Levels per side when no limit is given.
const DEFAULT_DEPTH: usize = 50;

type Reply = Result<Json<Value>, ApiError>;

pub async fn time(State(app): State<Arc<App>>) -> Json<Value> {
    let now = app.clock.shown();
    Json(json!({
        "iso": now,
        "epochSeconds": now.as_second().to_string(),
        "epochMillis": now.as_millisecond().to_string(),
    }))
}

pub async fn list(State(app): State<Arc<App>>, pairs: Pairs) -> Reply {
    let known = [
        "limit",
        "offset",
        "product_type",
        "product_ids",
        "contract_expiry_type",
        "expiring_contract_status",
        "get_tradability_status",
        "get_all_products",
        "products_sort_order",
    ];
    let query = Parameters::new(pairs, &known)?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(usize::MAX);
    let offset = query.parse::<usize>("offset")?.unwrap_or(0);
    let kind = query.one("product_type");
    let expiry = query.one("contract_expiry_type");
    let ids = query.all("product_ids");
    let (state, now) = app.lock();
    let exchange = &state.exchange;
    let wanted = exchange.markets.iter().enumerate().filter(|(_, m)| {
        let future = m.product.is_future();
        let kind_fits = match kind {
            Some("SPOT") => !future,
            Some("FUTURE") => future,
            Some("UNKNOWN_PRODUCT_TYPE") | None => true,
            Some(_) => false,
        };
        let expiry_fits = match expiry {
            Some("EXPIRING") => future,
            Some("UNKNOWN_CONTRACT_EXPIRY_TYPE") | None => true,
            Some(_) => false,
        };
        kind_fits && expiry_fits && (ids.is_empty() || ids.contains(&m.product.id.as_str()))
    });
    let products: Vec<Value> = wanted
        .skip(offset)
        .take(limit)
        .map(|(i, _)| shapes::product::product(exchange, i, state.book(i), now.time))
        .collect();
    Ok(Json(json!({"num_products": products.len(), "products": products})))
}

pub async fn get(State(app): State<Arc<App>>, Path(product_id): Path<String>) -> Reply {
    let (state, now) = app.lock();
    let index = find(&state.exchange, &product_id)?;
    Ok(Json(shapes::product::product(&state.exchange, index, state.book(index), now.time)))
}

/// Names and lengths in seconds of the candles that can be asked for.
const GRANULARITIES: [(&str, i64); 9] = [
    ("ONE_MINUTE", 60),
    ("FIVE_MINUTE", 300),
    ("FIFTEEN_MINUTE", 900),
    ("THIRTY_MINUTE", 1_800),
    ("ONE_HOUR", 3_600),
    ("TWO_HOUR", 7_200),
    ("FOUR_HOUR", 14_400),
    ("SIX_HOUR", 21_600),
    ("ONE_DAY", 86_400),
];
/// Candles per reply, and the longest range in candles.
const MAX_CANDLES: i64 = 350;
/// Trades per reply.
const MAX_TRADES: usize = 1_000;

pub async fn candles(State(app): State<Arc<App>>, Path(product_id): Path<String>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["start", "end", "granularity", "limit"])?;
    let required = |key: &str| ApiError::InvalidArgument(format!("{key} is required"));
    let start: i64 = query.parse("start")?.ok_or_else(|| required("start"))?;
    let end: i64 = query.parse("end")?.ok_or_else(|| required("end"))?;
    let name = query.one("granularity").ok_or_else(|| required("granularity"))?;
    let seconds = GRANULARITIES.iter().find(|(known, _)| *known == name).map(|(_, seconds)| *seconds);
    let seconds = seconds.ok_or_else(|| ApiError::InvalidArgument("granularity is unknown".into()))?;
    let limit = query.parse::<i64>("limit")?.unwrap_or(MAX_CANDLES).clamp(1, MAX_CANDLES);
    if start < 0 || end < start || end.saturating_sub(start) / seconds > MAX_CANDLES {
        let message = format!("start and end must span at most {MAX_CANDLES} candles");
        return Err(ApiError::InvalidArgument(message));
    }
    let (state, _) = app.lock();
    let market = &state.exchange.markets[find(&state.exchange, &product_id)?];
    let bars = market.history.candles(seconds, start, end, usize::try_from(limit).unwrap_or_default());
    Ok(Json(json!({"candles": bars.iter().map(shapes::product::candle).collect::<Vec<_>>()})))
}

/// The endpoint that Coinbase calls ticker: the last trades and the best prices.
pub async fn trades(State(app): State<Arc<App>>, Path(product_id): Path<String>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["limit", "start", "end"])?;
    let limit = query.parse::<usize>("limit")?.ok_or_else(|| ApiError::InvalidArgument("limit is required".into()))?;
    let (start, end) = (query.parse("start")?, query.parse("end")?);
    let (state, _) = app.lock();
    let index = find(&state.exchange, &product_id)?;
    let market = &state.exchange.markets[index];
    let trades = market.history.trades(start, end, limit.clamp(1, MAX_TRADES));
    Ok(Json(shapes::product::market_trades(market, state.book(index), &trades)))
}

pub async fn book(State(app): State<Arc<App>>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["product_id", "limit", "aggregation_price_increment"])?;
    let product_id =
        query.one("product_id").ok_or_else(|| ApiError::InvalidArgument("product_id is required".into()))?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(DEFAULT_DEPTH);
    let aggregation: Option<Decimal> = query.parse("aggregation_price_increment")?;
    let (state, now) = app.lock();
    let index = find(&state.exchange, product_id)?;
    let market = &state.exchange.markets[index];
    let tick = market.product.price_increment;
    if aggregation.is_some_and(|step| step < tick || !(step % tick).is_zero()) {
        let message = format!("aggregation_price_increment must be a multiple of {tick}");
        return Err(ApiError::InvalidArgument(message));
    }
    Ok(Json(shapes::product::product_book(market, state.book(index), limit, aggregation, now.time)))
}

pub async fn best_bid_ask(State(app): State<Arc<App>>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["product_ids"])?;
    let ids = query.all("product_ids");
    let (state, now) = app.lock();
    let markets = state.exchange.markets.iter().enumerate();
    let books: Vec<Value> = markets
        .filter(|(_, m)| ids.is_empty() || ids.contains(&m.product.id.as_str()))
        .map(|(index, m)| shapes::product::pricebook(m, state.book(index), 1, now.time))
        .collect();
    Ok(Json(json!({"pricebooks": books})))
}

fn find(exchange: &Exchange, product_id: &str) -> Result<usize, ApiError> {
    let shown: String = product_id.chars().take(64).collect();
    exchange.market_index(product_id).ok_or_else(|| ApiError::NotFound(format!("product {shown} not found")))
}
