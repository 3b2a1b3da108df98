//! Coinbase Advanced Trade's REST endpoints, under `/api/v3/brokerage`.

mod accounts;
mod futures;
mod history;
mod intx;
mod orders;
mod portfolios;
mod preview;
mod products;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;
use axum::middleware;
use axum::routing::{any, get, post};
use serde::de::DeserializeOwned;

use super::App;
use super::caller;
use super::error::ApiError;

pub fn router(app: Arc<App>) -> Router<Arc<App>> {
    let public = Router::new()
        .route("/time", get(products::time))
        .route("/market/products", get(products::list))
        .route("/market/products/{product_id}", get(products::get))
        .route("/market/products/{product_id}/candles", get(products::candles))
        .route("/market/products/{product_id}/ticker", get(products::trades))
        .route("/market/product_book", get(products::book))
        .layer(middleware::from_fn_with_state(app.clone(), caller::public));
    let private = Router::new()
        .route("/products", get(products::list))
        .route("/products/{product_id}", get(products::get))
        .route("/products/{product_id}/candles", get(products::candles))
        .route("/products/{product_id}/ticker", get(products::trades))
        .route("/product_book", get(products::book))
        .route("/best_bid_ask", get(products::best_bid_ask))
        .route("/accounts", get(accounts::list))
        .route("/accounts/{uuid}", get(accounts::get))
        .route("/portfolios", get(portfolios::list).post(portfolios::create))
        .route("/portfolios/move_funds", post(portfolios::move_funds))
        .route("/portfolios/{uuid}", get(portfolios::get).put(portfolios::edit).delete(portfolios::delete))
        .route("/key_permissions", get(accounts::key_permissions))
        .route("/transaction_summary", get(accounts::transaction_summary))
        .route("/cfm/balance_summary", get(futures::balance_summary))
        .route("/cfm/positions", get(futures::positions))
        .route("/cfm/positions/{product_id}", get(futures::position))
        .route("/cfm/sweeps", get(futures::sweeps).delete(futures::cancel_sweep))
        .route("/cfm/sweeps/schedule", post(futures::schedule_sweep))
        .route("/cfm/intraday/margin_setting", get(futures::margin_setting).post(futures::set_margin_setting))
        .route("/cfm/intraday/current_margin_window", get(futures::margin_window))
        .route("/intx/{*path}", any(intx::deprecated))
        .route("/orders", post(orders::create))
        .route("/orders/preview", post(preview::order))
        .route("/orders/edit", post(preview::edit))
        .route("/orders/edit_preview", post(preview::edit_preview))
        .route("/orders/batch_cancel", post(orders::batch_cancel))
        .route("/orders/close_position", post(orders::close_position))
        .route("/orders/historical/batch", get(history::orders))
        .route("/orders/historical/fills", get(history::fills))
        .route("/orders/historical/{order_id}", get(history::order))
        .layer(middleware::from_fn_with_state(app, caller::authenticated));
    public.merge(private).fallback(unknown)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("no endpoint {}", uri.path()))
}

/// Reads a JSON body strictly; nothing at all is an empty message.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    let bytes = if bytes.is_empty() { &Bytes::from_static(b"{}") } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| ApiError::from_json(&error))
}
