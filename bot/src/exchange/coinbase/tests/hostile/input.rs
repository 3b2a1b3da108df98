//! Replies and messages as they should be, and what is only like them.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Replies as they should be, one for each call.
pub(super) fn valid() -> Vec<Value> {
    let order = json!({
        "order_id": "o-1", "client_order_id": "c-1", "product_id": "BTC-USD", "side": "BUY", "status": "OPEN",
        "order_configuration": {"limit_limit_gtd": {"base_size": "0.5", "limit_price": "1"}}, "filled_size": "0.25",
        "average_filled_price": "68930.12", "total_fees": "1.5", "created_time": "2026-04-07T12:00:00.123456Z",
    });
    let amount = json!({"value": "1000000.5", "currency": "USD"});
    let account = json!({"uuid": "u", "currency": "USD", "available_balance": amount, "hold": amount});
    let future = json!({
        "product_id": "BIP-20DEC30-CDE", "price_increment": "5", "base_increment": "1", "base_min_size": "1",
        "quote_min_size": "", "base_currency_id": "", "quote_currency_id": "USD", "product_venue": "FCM",
        "fcm_trading_session_details": {"is_session_open": false, "open_time": "2026-04-07T12:00:00Z",
            "maintenance": {"start_time": "", "end_time": "2026-04-07T12:00:00Z"}},
        "future_product_details": {"contract_size": "0.01", "contract_root_unit": "BTC"},
    });
    vec![
        json!({"iso": "2026-04-07T12:00:00Z", "epochSeconds": "1775563200", "epochMillis": "1775563200000"}),
        json!({"can_view": true, "can_trade": true, "can_transfer": false, "portfolio_uuid": "p"}),
        future,
        json!({"order": order}),
        json!({"orders": [order, order], "has_next": true, "cursor": "next"}),
        json!({"accounts": [account], "has_next": false, "cursor": ""}),
        json!({"positions": [{"product_id": "BIP-20DEC30-CDE", "side": "SHORT", "number_of_contracts": "3"}]}),
        json!({"balance_summary": {"total_usd_balance": amount, "unrealized_pnl": amount}}),
        json!({"success": true, "success_response": {"order_id": "o-1"}, "error_response": null}),
        json!({"success": false, "error_response": {"error": "INSUFFICIENT_FUND", "message": "m"}}),
        json!({"results": [{"success": true, "failure_reason": "", "order_id": "o-1"}]}),
        json!({"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}),
    ]
}

/// Messages as they should be.
pub(super) fn messages() -> Vec<Value> {
    let message = |sequence: u64, channel: &str, event: Value| {
        json!({"channel": channel, "client_id": "", "timestamp": "2026-04-07T12:00:00Z",
            "sequence_num": sequence, "events": [event]})
    };
    let level = |side: &str, price: &str| json!({"side": side, "price_level": price, "new_quantity": "0.5"});
    vec![
        message(0, "subscriptions", json!({"subscriptions": {"level2": ["BTC-USD"], "user": ["u"]}})),
        message(1, "heartbeats", json!({"current_time": "t", "heartbeat_counter": 1})),
        message(
            2,
            "l2_data",
            json!({"type": "snapshot", "product_id": "BTC-USD", "updates": [level("bid", "99"), level("offer", "101")]}),
        ),
        message(3, "l2_data", json!({"type": "update", "product_id": "BTC-USD", "updates": [level("offer", "100.5")]})),
        message(
            4,
            "user",
            json!({"type": "snapshot", "orders": [{"order_id": "o", "client_order_id": "c", "product_id": "BTC-USD",
                "order_side": "BUY", "status": "OPEN", "cumulative_quantity": "0.1", "avg_price": "1"}]}),
        ),
        json!({"type": "error", "message": "authentication failure"}),
    ]
}

/// A value that nobody expects.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[-+]?[0-9]{0,40}[.]?[0-9]{0,40}([eE][-+]?[0-9]{1,12})?".prop_map(Value::from),
        Just(json!("79228162514264337593543950335")),
        Just(json!("1e28")),
        Just(json!("-999999999999")),
        Just(json!("0.0000000000000000000000000001")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[[[[]]]]]])),
        Just(json!("9".repeat(1000))),
        Just(json!("9999-12-31T23:59:59.999999999Z")),
        Just(json!("-9999-01-01T00:00:00Z")),
    ]
}

/// Puts a value somewhere into another.
fn replace(value: &mut Value, path: &[prop::sample::Index], odd: Value) {
    let Some((index, rest)) = path.split_first() else {
        *value = odd;
        return;
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let at = index.index(fields.len());
            if let Some((_, field)) = fields.iter_mut().nth(at) {
                replace(field, rest, odd);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = index.index(items.len());
            replace(&mut items[at], rest, odd);
        }
        _ => *value = odd,
    }
}

/// Something like one of these, or nothing of the kind.
pub(super) fn like(good: Vec<Value>) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (
        prop::sample::select(good.clone()),
        prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..5), odd()), 0..4),
    )
        .prop_map(|(mut value, changes)| {
            for (path, odd) in changes {
                replace(&mut value, &path, odd);
            }
            value.to_string().into_bytes()
        });
    let broken =
        (prop::sample::select(good), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6))
            .prop_map(|(value, changes)| {
                let mut bytes = value.to_string().into_bytes();
                for (index, byte, how) in changes {
                    let at = index.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                    match how {
                        0 if !bytes.is_empty() => bytes[at] = byte,
                        1 => bytes.insert(at, byte),
                        _ => bytes.truncate(at),
                    }
                }
                bytes
            });
    prop_oneof![4 => mutated, 2 => broken, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}
