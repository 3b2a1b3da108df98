//! Coinbase Advanced Trade's REST endpoints, under `/api/v3/brokerage`.

mod accounts;
mod futures;
mod orders;
mod products;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::Uri;
use axum::middleware;
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::App;
use super::caller;
use super::error::ApiError;

pub fn router(app: Arc<App>) -> Router<Arc<App>> {
    let public = Router::new()
        .route("/time", get(products::time))
        .route("/market/products", get(products::list))
        .route("/market/products/{product_id}", get(products::get))
        .route("/market/product_book", get(products::book))
        .layer(middleware::from_fn_with_state(app.clone(), caller::public));
    let private = Router::new()
        .route("/products", get(products::list))
        .route("/products/{product_id}", get(products::get))
        .route("/product_book", get(products::book))
        .route("/best_bid_ask", get(products::best_bid_ask))
        .route("/accounts", get(accounts::list))
        .route("/accounts/{uuid}", get(accounts::get))
        .route("/portfolios", get(accounts::portfolios))
        .route("/key_permissions", get(accounts::key_permissions))
        .route("/transaction_summary", get(accounts::transaction_summary))
        .route("/cfm/balance_summary", get(futures::balance_summary))
        .route("/cfm/positions", get(futures::positions))
        .route("/cfm/positions/{product_id}", get(futures::position))
        .route("/orders", post(orders::create))
        .route("/orders/batch_cancel", post(orders::batch_cancel))
        .route("/orders/close_position", post(orders::close_position))
        .route("/orders/historical/batch", get(orders::list))
        .route("/orders/historical/fills", get(orders::fills))
        .route("/orders/historical/{order_id}", get(orders::get))
        .layer(middleware::from_fn_with_state(app, caller::authenticated));
    public.merge(private).fallback(unknown)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("no endpoint {}", uri.path()))
}

/// Reads a JSON body strictly.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::from_json(&error))
}
