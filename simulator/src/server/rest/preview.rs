//! Previews of orders and of edits, and edits.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::orders::refused_option;
use super::query::parse;
use super::{accounts::own, body};
use crate::exchange::NewOrder;
use crate::exchange::book::Side;
use crate::exchange::edit::{Change, EditFailure, EditRefused};
use crate::exchange::order::{OrderConfiguration, Size, Terms};
use crate::exchange::preview::Preview;
use crate::server::App;
use crate::server::caller::Caller;
use crate::server::error::ApiError;
use crate::server::shapes::preview as shape;

type Reply = Result<Json<Value>, ApiError>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreviewOrder {
    #[serde(default)]
    product_id: String,
    side: Side,
    order_configuration: OrderConfiguration,
    #[serde(default)]
    leverage: String,
    #[serde(default)]
    margin_type: String,
    #[serde(default, rename = "retail_portfolio_id")]
    _retail_portfolio_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditOrder {
    #[serde(default)]
    order_id: String,
    #[serde(default)]
    price: String,
    #[serde(default)]
    size: String,
}

impl EditOrder {
    fn read(bytes: &Bytes) -> Result<(Option<Uuid>, Change), ApiError> {
        let request: Self = body(bytes)?;
        if request.order_id.is_empty() {
            return Err(ApiError::InvalidArgument("order_id is required".into()));
        }
        let decimal =
            |field, text: &str| if text.is_empty() { Ok(None) } else { parse::<Decimal>(field, text).map(Some) };
        let change = Change { size: decimal("size", &request.size)?, price: decimal("price", &request.price)? };
        Ok((request.order_id.parse().ok(), change))
    }
}

pub async fn order(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let request: PreviewOrder = body(&bytes)?;
    if request.product_id.is_empty() {
        return Err(ApiError::InvalidArgument("product_id is required".into()));
    }
    let refused = refused_option(&request.leverage, &request.margin_type)?;
    let new = NewOrder {
        client_order_id: String::new(),
        product_id: request.product_id,
        side: request.side,
        configuration: request.order_configuration,
        closing: false,
    };
    let (state, now) = app.lock();
    let exchange = &state.exchange;
    let portfolio = own(&exchange.portfolios, &caller)?;
    let preview = match refused {
        Some(rejection) => Err(rejection),
        None => exchange.preview(now, caller.portfolio, &new),
    };
    let market = exchange.market_index(&new.product_id);
    Ok(Json(shape::order(exchange, portfolio, market, new.side, preview, now.time)))
}

pub async fn edit(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let (id, change) = EditOrder::read(&bytes)?;
    let result = app.command(|state, now| match id {
        Some(id) => state.exchange.edit(now, caller.portfolio, id, change).map(|()| id),
        None => Err(EditRefused::from(EditFailure::OrderNotFound)),
    });
    Ok(Json(shape::edited(result)))
}

pub async fn edit_preview(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, bytes: Bytes) -> Reply {
    let (id, change) = EditOrder::read(&bytes)?;
    let (state, _) = app.lock();
    let exchange = &state.exchange;
    let id = id.unwrap_or_default();
    let checked = exchange.check_edit(caller.portfolio, id, change);
    let preview = checked.map(|(_, rung)| match exchange.order(id) {
        Some(order) => {
            let terms = Terms { size: Size::Base(rung.remaining), limit_price: Some(rung.price), ..order.terms };
            let preview = exchange.preview_of(order.market, caller.portfolio, order.side, &terms, &[rung]);
            (order.market, order.side, preview)
        }
        None => (0, Side::Buy, Preview::default()),
    });
    Ok(Json(match preview {
        Ok((market, side, preview)) => shape::edit(Some((&exchange.markets[market], side, preview)), &[]),
        Err(refused) => shape::edit(None, &[refused]),
    }))
}
