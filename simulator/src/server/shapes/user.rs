//! Events of the `user` WebSocket channel: cumulative order state and positions.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{decimal, order as order_shape};
use crate::exchange::Exchange;
use crate::exchange::book::OrderNumber;
use crate::exchange::order::Order;

/// Orders per snapshot event.
const BATCH: usize = 50;

/// Open orders and positions, in batches; one event even when there are none.
pub fn snapshot(exchange: &Exchange, portfolio: Uuid) -> String {
    let orders: Vec<Value> = exchange.open_orders_of(portfolio).map(|o| user_order(exchange, o)).collect();
    let positions = positions(exchange, portfolio);
    let event = |orders: &[Value]| json!({"type": "snapshot", "orders": orders, "positions": positions});
    let events: Vec<Value> =
        if orders.is_empty() { vec![event(&[])] } else { orders.chunks(BATCH).map(event).collect() };
    Value::Array(events).to_string()
}

/// One changed order and the positions after it; `None` when the order is not kept any more.
pub fn update(exchange: &Exchange, portfolio: Uuid, number: OrderNumber) -> Option<String> {
    let order = user_order(exchange, exchange.order_by_number(number)?);
    let positions = positions(exchange, portfolio);
    Some(json!([{"type": "update", "orders": [order], "positions": positions}]).to_string())
}

fn user_order(exchange: &Exchange, order: &Order) -> Value {
    let product = &exchange.markets[order.market].product;
    let leaves = if order.status.is_terminal() { String::from("0") } else { decimal(order.remaining()) };
    json!({
        "order_id": order.id,
        "client_order_id": order.client_order_id,
        "product_id": product.id,
        "status": order.status,
        "order_side": order.side,
        "order_type": if order.terms.limit_price.is_some() { "Limit" } else { "Market" },
        "time_in_force": order_shape::time_in_force(order),
        "creation_time": order.created,
        "end_time": "0001-01-01T00:00:00Z",
        "start_time": "0001-01-01T00:00:00Z",
        "cumulative_quantity": decimal(order.filled_size),
        "leaves_quantity": leaves,
        "avg_price": decimal(order_shape::average_price(product, order)),
        "limit_price": order.terms.limit_price.map(decimal).unwrap_or_default(),
        "stop_price": "",
        "total_fees": decimal(order.fees),
        "filled_value": decimal(order.filled_value),
        "total_value_after_fees": decimal(order.filled_value + order.side.sign() * order.fees),
        "number_of_fills": order.fills.to_string(),
        "completion_percentage": decimal(order_shape::completion(order)),
        "outstanding_hold_amount": decimal(order.hold),
        "post_only": order.terms.post_only.to_string(),
        "cancel_reason": order.cancel_message,
        "reject_Reason": "",
        "product_type": if product.is_future() { "FUTURE" } else { "SPOT" },
        "contract_expiry_type": if product.is_future() { "EXPIRING" } else { "UNKNOWN_CONTRACT_EXPIRY_TYPE" },
        "risk_managed_by": if product.is_future() { "MANAGED_BY_FCM" } else { "UNKNOWN_RISK_MANAGEMENT_TYPE" },
        "trigger_status": "INVALID_ORDER_TYPE",
        "retail_portfolio_id": order.portfolio,
        "leverage": "",
    })
}

fn positions(exchange: &Exchange, portfolio: Uuid) -> Value {
    let held = exchange.portfolios.get(&portfolio).map(|p| &p.positions);
    let expiring: Vec<Value> = held
        .into_iter()
        .flatten()
        .map(|(index, position)| {
            let market = &exchange.markets[*index];
            let size = market.product.multiplier();
            json!({
                "product_id": market.product.id,
                "side": if position.contracts.is_sign_negative() { "SHORT" } else { "LONG" },
                "number_of_contracts": decimal(position.contracts.abs()),
                "realized_pnl": decimal(position.realized_pnl),
                "unrealized_pnl": decimal(position.unrealized_pnl(size, market.mark())),
                "entry_price": decimal(position.average_entry(size)),
            })
        })
        .collect();
    json!({"perpetual_futures_positions": [], "expiring_futures_positions": expiring})
}
