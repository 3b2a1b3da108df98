//! Futures balances and positions (`/cfm`).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::accounts::own;
use super::body;
use super::query::{Pairs, Parameters, parse};
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::futures;

type Reply = Result<Json<Value>, ApiError>;

const STANDARD: &str = "INTRADAY_MARGIN_SETTING_STANDARD";
const INTRADAY: &str = "INTRADAY_MARGIN_SETTING_INTRADAY";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleSweep {
    #[serde(default)]
    usd_amount: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarginSetting {
    #[serde(default)]
    setting: String,
}

pub async fn balance_summary(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Reply {
    let (state, _) = app.lock();
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    Ok(Json(futures::balance_summary(&state.exchange, portfolio)))
}

pub async fn positions(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Reply {
    let (state, _) = app.lock();
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    let open = portfolio.positions.iter().filter(|(_, p)| !p.contracts.is_zero());
    let positions: Vec<Value> = open.map(|(i, p)| futures::position(&state.exchange, *i, p)).collect();
    Ok(Json(json!({"positions": positions})))
}

pub async fn position(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(product_id): Path<String>,
) -> Reply {
    let (state, _) = app.lock();
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    let index = state.exchange.market_index(&product_id);
    let position = index.and_then(|i| portfolio.positions.get(&i).map(|p| (i, p)));
    let (index, position) = position
        .filter(|(_, p)| !p.contracts.is_zero())
        .ok_or_else(|| ApiError::NotFound("position not found".into()))?;
    Ok(Json(json!({"position": futures::position(&state.exchange, index, position)})))
}

pub async fn sweeps(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Reply {
    let (state, now) = app.lock();
    let pending = state.exchange.pending_sweep(now, caller.portfolio);
    Ok(Json(json!({"sweeps": pending.map(futures::sweep).into_iter().collect::<Vec<_>>()})))
}

pub async fn schedule_sweep(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let ScheduleSweep { usd_amount } = body(&bytes)?;
    let amount = if usd_amount.is_empty() { None } else { Some(parse::<Decimal>("usd_amount", &usd_amount)?) };
    app.command(|state, now| state.exchange.schedule_sweep(now, caller.portfolio, amount))?;
    Ok(Json(json!({"success": true})))
}

pub async fn cancel_sweep(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Reply {
    let cancelled = app.command(|state, now| state.exchange.cancel_sweep(now, caller.portfolio));
    Ok(Json(json!({"success": cancelled})))
}

pub async fn margin_setting(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Reply {
    let (state, _) = app.lock();
    let portfolio = own(&state.exchange.portfolios, &caller)?;
    Ok(Json(json!({"setting": if portfolio.intraday_margin { INTRADAY } else { STANDARD }})))
}

pub async fn set_margin_setting(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Reply {
    let MarginSetting { setting } = body(&bytes)?;
    let intraday = match setting.as_str() {
        STANDARD => false,
        INTRADAY => true,
        _ => return Err(ApiError::InvalidArgument(format!("setting must be {STANDARD} or {INTRADAY}"))),
    };
    app.command(|state, _| {
        if let Some(portfolio) = state.exchange.portfolios.get_mut(&caller.portfolio) {
            portfolio.intraday_margin = intraday;
        }
    });
    Ok(Json(json!({})))
}

pub async fn margin_window(State(app): State<Arc<App>>, pairs: Pairs) -> Reply {
    Parameters::new(pairs, &["margin_profile_type"])?;
    let (state, _) = app.lock();
    Ok(Json(futures::margin_window(&state.exchange)))
}
