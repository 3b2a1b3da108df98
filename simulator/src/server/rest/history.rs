//! Orders and fills of the past and of this moment.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::own;
use super::query::{Pairs, Parameters, parse};
use crate::exchange::order::Order;
use crate::exchange::product::Product;
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::order as shape;

/// Orders or fills per page when no limit is given, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

type Reply = Result<Json<Value>, ApiError>;

/// Which orders are listed.
struct Filter<'a> {
    ids: Vec<Uuid>,
    products: Vec<&'a str>,
    states: Vec<&'a str>,
    types: Vec<&'a str>,
    lives: Vec<&'a str>,
    assets: Vec<&'a str>,
    side: Option<&'a str>,
    kind: Option<&'a str>,
    source: Option<&'a str>,
    expiry: Option<&'a str>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl<'a> Filter<'a> {
    const KNOWN: [&'static str; 16] = [
        "order_ids",
        "product_ids",
        "product_type",
        "order_status",
        "order_types",
        "order_side",
        "order_placement_source",
        "contract_expiry_type",
        "asset_filters",
        "time_in_forces",
        "start_date",
        "end_date",
        "limit",
        "cursor",
        "retail_portfolio_id",
        "sort_by",
    ];

    fn new(query: &'a Parameters) -> Result<Self, ApiError> {
        let known = |key: &'static str| query.one(key).filter(|value| !value.starts_with("UNKNOWN"));
        Ok(Self {
            ids: query.all("order_ids").into_iter().map(|id| parse("order_ids", id)).collect::<Result<_, _>>()?,
            products: query.all("product_ids"),
            states: query.all("order_status"),
            types: query.all("order_types"),
            lives: query.all("time_in_forces"),
            assets: query.all("asset_filters"),
            side: known("order_side"),
            kind: known("product_type"),
            source: known("order_placement_source"),
            expiry: known("contract_expiry_type"),
            start: query.parse("start_date")?,
            end: query.parse("end_date")?,
        })
    }

    fn fits(&self, product: &Product, order: &Order) -> bool {
        let among = |wanted: &[&str], value: &str| wanted.is_empty() || wanted.contains(&value);
        let future = product.is_future();
        self.start.is_none_or(|t| order.created >= t)
            && self.end.is_none_or(|t| order.created < t)
            && (self.ids.is_empty() || self.ids.contains(&order.id))
            && among(&self.products, &product.id)
            && among(&self.states, &order.status.to_string())
            && among(&self.types, shape::order_type(order))
            && among(&self.lives, shape::time_in_force(order))
            && among(&self.assets, &product.base)
            && self.side.is_none_or(|s| s == order.side.to_string())
            && self.kind.is_none_or(|k| k == if future { "FUTURE" } else { "SPOT" })
            && self.source.is_none_or(|s| s == "RETAIL_ADVANCED")
            && self.expiry.is_none_or(|e| future && e == "EXPIRING")
    }
}

pub async fn orders(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &Filter::KNOWN)?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let cursor = query.parse::<u64>("cursor")?;
    let filter = Filter::new(&query)?;
    // Copied under the lock and written after it: a long list must not delay anybody's cancel.
    let (found, cursor) = {
        let (state, _) = app.lock();
        let orders = state.exchange.orders_of(caller.portfolio);
        let with_product = orders.map(|o| (&state.exchange.markets[o.market].product, o));
        let fitting = with_product.filter(|(product, order)| filter.fits(product, order));
        let (page, cursor) = match query.one("sort_by") {
            None | Some("UNKNOWN_SORT_BY") => by_number(fitting, cursor, limit),
            Some(key @ ("LIMIT_PRICE" | "LAST_FILL_TIME")) => sorted(fitting, key, cursor, limit),
            Some(_) => return Err(ApiError::InvalidArgument("sort_by must be LIMIT_PRICE or LAST_FILL_TIME".into())),
        };
        (page.into_iter().map(|(product, order)| (product.clone(), order.clone())).collect::<Vec<_>>(), cursor)
    };
    let orders: Vec<Value> = found.iter().map(|(product, order)| shape::order(product, order)).collect();
    Ok(Json(json!({"orders": orders, "sequence": "0", "has_next": !cursor.is_empty(), "cursor": cursor})))
}

/// An order with its product.
type Listed<'a> = (&'a Arc<Product>, &'a Order);

/// Newest first; the cursor is the last number of the page before.
fn by_number<'a>(
    orders: impl Iterator<Item = Listed<'a>>,
    cursor: Option<u64>,
    limit: usize,
) -> (Vec<Listed<'a>>, String) {
    let below = cursor.unwrap_or(u64::MAX);
    let mut page: Vec<Listed> = orders.filter(|(_, o)| o.number < below).take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let cursor = page.last().filter(|_| more).map(|(_, o)| o.number.to_string());
    (page, cursor.unwrap_or_default())
}

/// By a price or a time, highest first; the cursor counts what was listed before.
fn sorted<'a>(
    orders: impl Iterator<Item = Listed<'a>>,
    key: &str,
    cursor: Option<u64>,
    limit: usize,
) -> (Vec<Listed<'a>>, String) {
    let mut all: Vec<Listed> = orders.collect();
    if key == "LIMIT_PRICE" {
        all.sort_by_key(|(_, o)| std::cmp::Reverse(o.terms.limit_price.unwrap_or(Decimal::ZERO)));
    } else {
        all.sort_by_key(|(_, o)| std::cmp::Reverse(o.last_fill));
    }
    let skip = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
    let end = skip.saturating_add(limit);
    let cursor = if end < all.len() { end.to_string() } else { String::new() };
    (all.into_iter().skip(skip).take(limit).collect(), cursor)
}

pub async fn order(
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
    let cursor = query.parse::<u64>("cursor")?;
    let start: Option<Timestamp> = query.parse("start_sequence_timestamp")?;
    let end: Option<Timestamp> = query.parse("end_sequence_timestamp")?;
    let both = |one: &str, many: &str| [query.all(one), query.all(many)].concat();
    let (orders, products, trades) =
        (both("order_id", "order_ids"), both("product_id", "product_ids"), query.all("trade_ids"));
    let (state, _) = app.lock();
    let exchange = &state.exchange;
    let portfolio = own(&exchange.portfolios, &caller)?;
    let fitting = portfolio.fills.iter().rev().filter(|f| {
        start.is_none_or(|t| f.time >= t)
            && end.is_none_or(|t| f.time < t)
            && (orders.is_empty() || orders.contains(&f.order.to_string().as_str()))
            && (trades.is_empty() || trades.contains(&f.trade_id.to_string().as_str()))
            && (products.is_empty() || products.contains(&exchange.markets[f.market].product.id.as_str()))
    });
    let (found, cursor) = match query.one("sort_by") {
        // A page starts below the fill that ended the last one: a trade gives a portfolio one fill.
        None | Some("UNKNOWN_SORT_BY" | "TRADE_TIME") => {
            let below = cursor.unwrap_or(u64::MAX);
            let mut page: Vec<_> = fitting.filter(|f| f.trade_id < below).take(limit + 1).collect();
            let more = page.len() > limit;
            page.truncate(limit);
            let cursor = page.last().filter(|_| more).map(|f| f.trade_id.to_string());
            (page, cursor.unwrap_or_default())
        }
        Some("PRICE") => {
            let mut all: Vec<_> = fitting.collect();
            all.sort_by_key(|f| std::cmp::Reverse(f.price));
            let skip = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
            let end = skip.saturating_add(limit);
            let cursor = if end < all.len() { end.to_string() } else { String::new() };
            (all.into_iter().skip(skip).take(limit).collect(), cursor)
        }
        Some(_) => return Err(ApiError::InvalidArgument("sort_by must be PRICE or TRADE_TIME".into())),
    };
    let fills: Vec<Value> = found.into_iter().map(|f| shape::fill(exchange, portfolio.id, f)).collect();
    Ok(Json(json!({"fills": fills, "cursor": cursor})))
}
