//! Events of the `user` WebSocket channel: cumulative order state and positions.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{decimal, order as order_shape};
use crate::exchange::Exchange;
use crate::exchange::book::OrderNumber;
use crate::exchange::order::{Order, Plan, TimeInForce};

/// Orders per snapshot message.
const BATCH: usize = 50;

/// Open orders of one market or of all, in messages of fifty with the positions; fewer than fifty, perhaps none, in
/// the last, which is how a client knows it.
pub fn snapshot(exchange: &Exchange, portfolio: Uuid, market: Option<usize>) -> Vec<String> {
    let open = exchange.open_orders_of(portfolio).filter(|o| market.is_none_or(|m| m == o.market));
    let orders: Vec<Value> = open.map(|o| user_order(exchange, o)).collect();
    let positions = positions(exchange, portfolio);
    let message = |orders: &[Value]| json!([{"type": "snapshot", "orders": orders, "positions": positions}]);
    let mut messages: Vec<String> = orders.chunks(BATCH).map(|batch| message(batch).to_string()).collect();
    if orders.len().is_multiple_of(BATCH) {
        messages.push(message(&[]).to_string());
    }
    messages
}

/// One changed order and the positions after it; no order when it is not kept any more.
pub fn update(exchange: &Exchange, portfolio: Uuid, number: OrderNumber) -> String {
    let order: Vec<Value> = exchange.order_by_number(number).map(|o| user_order(exchange, o)).into_iter().collect();
    let positions = positions(exchange, portfolio);
    json!([{"type": "update", "orders": order, "positions": positions}]).to_string()
}

fn user_order(exchange: &Exchange, order: &Order) -> Value {
    let product = &exchange.markets[order.market].product;
    let end_time = match order.terms.time_in_force {
        TimeInForce::GoodUntilDate(end) => end.to_string(),
        _ => String::from("0001-01-01T00:00:00Z"),
    };
    let leaves = if order.status.is_terminal() { String::from("0") } else { decimal(order.remaining()) };
    json!({
        "order_id": order.id,
        "client_order_id": order.client_order_id,
        "product_id": product.id,
        "status": order.status,
        "order_side": order.side,
        "order_type": words(order_shape::order_type(order)),
        "time_in_force": order_shape::time_in_force(order),
        "creation_time": order.created,
        "end_time": end_time,
        "start_time": "0001-01-01T00:00:00Z",
        "cumulative_quantity": decimal(order.filled_size),
        "leaves_quantity": leaves,
        "avg_price": decimal(order_shape::average_price(product, order)),
        "limit_price": order.terms.limit_price.map(decimal).unwrap_or_default(),
        "stop_price": stop_price(order).map(decimal).unwrap_or_default(),
        "total_fees": decimal(order.fees),
        "filled_value": decimal(order.filled_value),
        "total_value_after_fees": decimal(order.filled_value + order.side.sign() * order.fees),
        "number_of_fills": order.fills.to_string(),
        "completion_percentage": decimal(order_shape::completion(order)),
        "outstanding_hold_amount": decimal(order.hold),
        "post_only": order.terms.post_only.to_string(),
        "cancel_reason": order.cancel_message,
        "reject_reason": "",
        "product_type": if product.is_future() { "FUTURE" } else { "SPOT" },
        "contract_expiry_type": if product.is_future() { "EXPIRING" } else { "UNKNOWN_CONTRACT_EXPIRY_TYPE" },
        "risk_managed_by": if product.is_future() { "MANAGED_BY_FCM" } else { "UNKNOWN_RISK_MANAGEMENT_TYPE" },
        "trigger_status": order_shape::trigger_status(order),
        "retail_portfolio_id": order.portfolio,
        "leverage": "",
    })
}

/// `STOP_LIMIT` as this channel has it: `Stop Limit`.
fn words(name: &str) -> String {
    let word = |word: &str| word.chars().take(1).chain(word.to_lowercase().chars().skip(1)).collect::<String>();
    name.split('_').map(word).collect::<Vec<_>>().join(" ")
}

fn stop_price(order: &Order) -> Option<Decimal> {
    match order.terms.plan {
        Plan::Stop { price, .. } | Plan::Bracket { stop: price } => Some(price),
        _ => None,
    }
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
