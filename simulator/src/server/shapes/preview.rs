//! Previews of orders and edits, and the outcome of an edit.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decimal;
use super::futures::liquidation_buffer;
use crate::exchange::book::Side;
use crate::exchange::edit::EditRefused;
use crate::exchange::portfolio::Portfolio;
use crate::exchange::preview::Preview;
use crate::exchange::rejection::Rejection;
use crate::exchange::{Exchange, Market};

/// The reply of `/orders/preview`; a refused order has its reason among `errs` and amounts of 0.
pub fn order(
    exchange: &Exchange,
    portfolio: &Portfolio,
    market: Option<usize>,
    side: Side,
    preview: Result<Preview, Rejection>,
    now: Timestamp,
) -> Value {
    let market = market.map(|index| &exchange.markets[index]);
    let future = market.is_some_and(|m| m.product.is_future());
    let errors: Vec<String> = preview.as_ref().err().map(|r| r.reason.in_preview()).into_iter().collect();
    let preview = preview.unwrap_or_default();
    let buffer = if future { liquidation_buffer(exchange, portfolio) } else { String::new() };
    let mut reply = amounts(market, side, &preview);
    let more = json!({
        "errs": errors,
        "warning": [],
        "is_max": false,
        "order_margin_total": if future { decimal(preview.margin.round_dp(2)) } else { String::new() },
        "leverage": if future { "1" } else { "" },
        "long_leverage": if future { "1" } else { "" },
        "short_leverage": if future { "1" } else { "" },
        "preview_id": Uuid::new_v5(&portfolio.id, now.to_string().as_bytes()),
        "current_liquidation_buffer": buffer,
        "projected_liquidation_buffer": buffer,
        "max_leverage": if future { "10" } else { "" },
        "pnl_configuration": Value::Null,
    });
    extend(&mut reply, more);
    reply
}

/// The reply of `/orders/edit_preview`.
pub fn edit(preview: Option<(&Market, Side, Preview)>, errors: &[EditRefused]) -> Value {
    let (market, side, preview) = match preview {
        Some((market, side, preview)) => (Some(market), side, preview),
        None => (None, Side::Buy, Preview::default()),
    };
    let mut reply = amounts(market, side, &preview);
    let margin = decimal(preview.margin.round_dp(2));
    extend(&mut reply, json!({"errors": errors.iter().map(failure).collect::<Vec<_>>(), "order_margin_total": margin}));
    reply
}

/// The reply of `/orders/edit`.
pub fn edited(result: Result<Uuid, EditRefused>) -> Value {
    match result {
        Ok(id) => json!({"success": true, "success_response": {"order_id": id}, "errors": []}),
        Err(refused) => json!({
            "success": false,
            "error_response": {"error_details": "", "edit_order_failure_reason": refused.failure.to_string()},
            "errors": [failure(&refused)],
        }),
    }
}

fn failure(refused: &EditRefused) -> Value {
    let preview = refused.rule.map_or_else(|| "UNKNOWN_PREVIEW_FAILURE_REASON".to_owned(), |rule| rule.in_preview());
    json!({"edit_failure_reason": refused.failure.to_string(), "preview_failure_reason": preview})
}

fn amounts(market: Option<&Market>, side: Side, preview: &Preview) -> Value {
    let best = |side| market.and_then(|m| m.book.best(side)).map(decimal).unwrap_or_default();
    let total = match side {
        Side::Buy => preview.quote_size + preview.commission,
        Side::Sell => preview.quote_size - preview.commission,
    };
    json!({
        "order_total": decimal(total),
        "commission_total": decimal(preview.commission),
        "quote_size": decimal(preview.quote_size),
        "base_size": decimal(preview.base_size),
        "best_bid": best(Side::Buy),
        "best_ask": best(Side::Sell),
        "average_filled_price": decimal(preview.average_price),
        "est_average_filled_price": decimal(preview.average_price),
        "slippage": decimal((preview.slippage * Decimal::ONE_HUNDRED).round_dp(6)),
    })
}

fn extend(reply: &mut Value, more: Value) {
    if let (Value::Object(reply), Value::Object(more)) = (reply, more) {
        reply.extend(more);
    }
}
