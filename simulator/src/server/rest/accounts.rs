//! Accounts, portfolios, key permissions and fees.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};
use uuid::Uuid;

use super::query::{Pairs, Parameters, parse};
use crate::exchange::Now;
use crate::exchange::portfolio::Portfolio;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::faults::kind::FaultKind;
use crate::server::shapes::account;
use crate::server::{App, State as Everything};

/// Accounts per page when no limit is given, and at most.
const DEFAULT_PAGE: usize = 49;
const MAX_PAGE: usize = 250;

type Reply = Result<Json<Value>, ApiError>;

pub async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["limit", "cursor", "retail_portfolio_id"])?;
    let limit = query.parse::<usize>("limit")?.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let cursor = query.parse::<usize>("cursor")?.unwrap_or(0);
    let (mut state, now) = app.lock();
    let prefix = type_prefix(&mut state, now);
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    let currencies: Vec<&String> = portfolio.balances.keys().collect();
    let account = |currency: &&String| account::account(&state.exchange, portfolio, currency, prefix);
    let page: Vec<Value> = currencies.iter().skip(cursor).take(limit).map(account).collect();
    let next = cursor + page.len();
    let has_next = next < currencies.len();
    let cursor = if has_next { next.to_string() } else { String::new() };
    Ok(Json(json!({"size": page.len(), "accounts": page, "has_next": has_next, "cursor": cursor})))
}

pub async fn get(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, Path(uuid): Path<String>) -> Reply {
    let wanted: Uuid = parse("account_uuid", &uuid)?;
    let (mut state, now) = app.lock();
    let prefix = type_prefix(&mut state, now);
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    let currency = portfolio.balances.keys().find(|c| account::account_id(portfolio.id, c) == wanted);
    let currency = currency.ok_or_else(|| ApiError::NotFound(format!("account {wanted} not found")))?;
    Ok(Json(json!({"account": account::account(&state.exchange, portfolio, currency, prefix)})))
}

pub async fn key_permissions(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({
        "can_view": caller.can_view,
        "can_trade": caller.can_trade,
        "can_transfer": caller.can_transfer,
        "portfolio_uuid": caller.portfolio,
        "portfolio_type": "DEFAULT",
    }))
}

pub async fn transaction_summary(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    pairs: Pairs,
) -> Reply {
    let query = Parameters::new(pairs, &["product_type", "contract_expiry_type", "product_venue"])?;
    let (state, _) = app.lock();
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    let future = query.one("product_type") == Some("FUTURE") || query.one("product_venue") == Some("FCM");
    let settings = &state.exchange.settings;
    let rates = if future { settings.future_fees } else { settings.spot_fees };
    Ok(Json(account::transaction_summary(&state.exchange, portfolio, rates)))
}

/// How the types of accounts begin; both forms were seen.
fn type_prefix(state: &mut Everything, now: Now) -> &'static str {
    if state.faults.is_on(&FaultKind::ShortAccountTypes {}, None, now.time) { "" } else { "ACCOUNT_TYPE_" }
}

/// The caller's portfolio; every key in accounts.json has one.
pub fn own<'a>(
    portfolios: &'a std::collections::BTreeMap<Uuid, Portfolio>,
    caller: &Caller,
) -> Result<&'a Portfolio, ApiError> {
    portfolios.get(&caller.portfolio).ok_or_else(|| ApiError::NotFound("portfolio not found".into()))
}
