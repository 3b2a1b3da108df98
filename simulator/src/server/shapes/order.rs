//! Orders and fills as REST shows them.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decimal;
use crate::exchange::Exchange;
use crate::exchange::order::{Edit, Order, OrderConfiguration, Plan, Size, Status, TimeInForce};
use crate::exchange::portfolio::Fill;
use crate::exchange::product::Product;
use crate::exchange::rejection::Rejection;

pub fn order(product: &Product, order: &Order) -> Value {
    let future = product.is_future();
    let buying = order.side == crate::exchange::book::Side::Buy;
    let after_fees = if buying { order.filled_value + order.fees } else { order.filled_value - order.fees };
    let edit =
        |e: &Edit| json!({"price": decimal(e.price), "size": decimal(e.size), "replace_accept_timestamp": e.time});
    let edits: Vec<Value> = order.edits.iter().map(edit).collect();
    json!({
        "order_id": order.id,
        "product_id": product.id,
        "user_id": order.portfolio,
        "order_configuration": order.configuration,
        "side": order.side,
        "client_order_id": order.client_order_id,
        "status": order.status,
        "time_in_force": time_in_force(order),
        "created_time": order.created,
        "completion_percentage": decimal(completion(order)),
        "filled_size": decimal(order.filled_size),
        "average_filled_price": decimal(average_price(product, order)),
        "fee": "",
        "number_of_fills": order.fills.to_string(),
        "filled_value": decimal(order.filled_value),
        "pending_cancel": order.status == Status::CancelQueued,
        "size_in_quote": matches!(order.terms.size, Size::Quote(_)),
        "total_fees": decimal(order.fees),
        "size_inclusive_of_fees": matches!(order.terms.size, Size::Quote(_)),
        "total_value_after_fees": decimal(after_fees),
        "trigger_status": trigger_status(order),
        "order_type": order_type(order),
        "reject_reason": "REJECT_REASON_UNSPECIFIED",
        "settled": order.status.is_terminal(),
        "product_type": if future { "FUTURE" } else { "SPOT" },
        "reject_message": "",
        "cancel_message": order.cancel_message,
        "order_placement_source": "RETAIL_ADVANCED",
        "outstanding_hold_amount": decimal(order.hold),
        "is_liquidation": order.liquidation,
        "last_fill_time": order.last_fill,
        "edit_history": edits,
        "leverage": "",
        "margin_type": "UNKNOWN_MARGIN_TYPE",
        "retail_portfolio_id": order.portfolio,
        "originating_order_id": "",
        "attached_order_id": "",
        "attached_order_configuration": Value::Null,
        "last_update_time": order.last_update,
    })
}

pub fn time_in_force(order: &Order) -> &'static str {
    match order.terms.time_in_force {
        TimeInForce::GoodUntilCancelled => "GOOD_UNTIL_CANCELLED",
        TimeInForce::GoodUntilDate(_) => "GOOD_UNTIL_DATE_TIME",
        TimeInForce::ImmediateOrCancel => "IMMEDIATE_OR_CANCEL",
        TimeInForce::FillOrKill => "FILL_OR_KILL",
    }
}

pub fn order_type(order: &Order) -> &'static str {
    match order.terms.plan {
        _ if order.liquidation => "LIQUIDATION",
        Plan::Stop { .. } => "STOP_LIMIT",
        Plan::Bracket { .. } => "BRACKET",
        Plan::Twap { .. } => "TWAP",
        Plan::Scaled => "SCALED",
        Plan::Direct if order.terms.limit_price.is_some() => "LIMIT",
        Plan::Direct => "MARKET",
    }
}

pub fn trigger_status(order: &Order) -> &'static str {
    match order.terms.plan {
        Plan::Stop { .. } | Plan::Bracket { .. } if order.triggered => "STOP_TRIGGERED",
        Plan::Stop { .. } | Plan::Bracket { .. } => "STOP_PENDING",
        _ => "INVALID_ORDER_TYPE",
    }
}

/// Filled share in percent.
pub fn completion(order: &Order) -> Decimal {
    (order.filled_size * Decimal::ONE_HUNDRED).checked_div(order.size).unwrap_or_default().round_dp(2)
}

/// Average fill price per base unit; 0 when unfilled.
pub fn average_price(product: &Product, order: &Order) -> Decimal {
    let base = order.filled_size * product.multiplier();
    order.filled_value.checked_div(base).unwrap_or_default()
}

pub fn accepted(order: &Order, product_id: &str, configuration: &OrderConfiguration) -> Value {
    json!({
        "success": true,
        "success_response": {
            "order_id": order.id,
            "product_id": product_id,
            "side": order.side,
            "client_order_id": order.client_order_id,
            "attached_order_id": "",
        },
        "order_configuration": configuration,
    })
}

pub fn rejected(rejection: &Rejection, configuration: Option<&OrderConfiguration>) -> Value {
    json!({
        "success": false,
        "error_response": {
            "error": rejection.reason,
            "message": rejection.message,
            "error_details": "",
            "preview_failure_reason": rejection.reason.preview(),
            "new_order_failure_reason": rejection.reason.new_order(),
        },
        // An object even when there is nothing to echo (close_position): the SDK unpacks it.
        "order_configuration": configuration.map_or_else(|| json!({}), |c| json!(c)),
    })
}

pub fn fill(exchange: &Exchange, portfolio: Uuid, fill: &Fill) -> Value {
    json!({
        "entry_id": format!("{}-{}", fill.trade_id, fill.order),
        "trade_id": fill.trade_id.to_string(),
        "order_id": fill.order,
        "trade_time": fill.time,
        "trade_type": "FILL",
        "price": decimal(fill.price),
        "size": decimal(fill.size),
        "commission": decimal(fill.commission),
        "product_id": exchange.markets[fill.market].product.id,
        "sequence_timestamp": fill.time,
        "liquidity_indicator": if fill.maker { "MAKER" } else { "TAKER" },
        "size_in_quote": false,
        "user_id": portfolio,
        "side": fill.side,
        "retail_portfolio_id": portfolio,
    })
}
