//! Futures balances and positions (`/cfm`).

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::accounts::own;
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::futures;

type Reply = Result<Json<Value>, ApiError>;

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
