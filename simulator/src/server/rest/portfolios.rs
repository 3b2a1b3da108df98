//! Portfolios: what they hold, and those that a client makes besides its own.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::body;
use super::query::{Pairs, Parameters, parse};
use crate::exchange::Exchange;
use crate::exchange::portfolio::Portfolio;
use crate::exchange::transfer::TransferError;
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::account;

const MAX_NAME: usize = 100;

type Reply = Result<Json<Value>, ApiError>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Funds {
    #[serde(default)]
    value: String,
    #[serde(default)]
    currency: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveFunds {
    funds: Funds,
    #[serde(default)]
    source_portfolio_uuid: String,
    #[serde(default)]
    target_portfolio_uuid: String,
}

impl From<TransferError> for ApiError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::NotFound => Self::NotFound(error.to_string()),
            _ => Self::InvalidArgument(error.to_string()),
        }
    }
}

pub async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, pairs: Pairs) -> Reply {
    let query = Parameters::new(pairs, &["portfolio_type"])?;
    let kind = query.one("portfolio_type").filter(|kind| *kind != "UNDEFINED");
    let (state, _) = app.lock();
    let shown = state.exchange.portfolios_of(caller.portfolio).filter(|p| kind.is_none_or(|k| k == account::kind(p)));
    let portfolios: Vec<Value> = shown.map(account::portfolio).collect();
    Ok(Json(json!({"portfolios": portfolios})))
}

pub async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(uuid): Path<String>,
    pairs: Pairs,
) -> Reply {
    Parameters::new(pairs, &["currency"])?;
    let id = parse("portfolio_uuid", &uuid)?;
    let (state, _) = app.lock();
    let portfolio = find(&state.exchange, &caller, id)?;
    Ok(Json(json!({"breakdown": account::breakdown(&state.exchange, portfolio)})))
}

pub async fn create(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let name = named(&bytes)?;
    app.command(|state, now| {
        let id = state.exchange.create_portfolio(now, caller.portfolio, &name)?;
        Ok(Json(json!({"portfolio": account::portfolio(find(&state.exchange, &caller, id)?)})))
    })
}

pub async fn edit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(uuid): Path<String>,
    bytes: Bytes,
) -> Reply {
    let id = parse("portfolio_uuid", &uuid)?;
    let name = named(&bytes)?;
    app.command(|state, _| {
        find(&state.exchange, &caller, id)?;
        if let Some(portfolio) = state.exchange.portfolios.get_mut(&id) {
            portfolio.name = name;
        }
        Ok(Json(json!({"portfolio": account::portfolio(find(&state.exchange, &caller, id)?)})))
    })
}

pub async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(uuid): Path<String>,
) -> Reply {
    let id = parse("portfolio_uuid", &uuid)?;
    app.command(|state, _| state.exchange.delete_portfolio(caller.portfolio, id))?;
    Ok(Json(json!({})))
}

pub async fn move_funds(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    if !caller.can_transfer {
        return Err(ApiError::MissingScopes);
    }
    let request: MoveFunds = body(&bytes)?;
    let amount: Decimal = parse("funds.value", &request.funds.value)?;
    let from = parse("source_portfolio_uuid", &request.source_portfolio_uuid)?;
    let to = parse("target_portfolio_uuid", &request.target_portfolio_uuid)?;
    let currency = request.funds.currency;
    app.command(|state, _| state.exchange.move_funds(caller.portfolio, from, to, &currency, amount))?;
    Ok(Json(json!({"source_portfolio_uuid": from, "target_portfolio_uuid": to})))
}

fn find<'a>(exchange: &'a Exchange, caller: &Caller, id: Uuid) -> Result<&'a Portfolio, ApiError> {
    let portfolio = exchange.portfolios.get(&id).filter(|p| p.creator == caller.portfolio);
    portfolio.ok_or_else(|| TransferError::NotFound.into())
}

fn named(bytes: &Bytes) -> Result<String, ApiError> {
    let Named { name } = body(bytes)?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(ApiError::InvalidArgument(format!("name is required and has at most {MAX_NAME} characters")));
    }
    Ok(name)
}
