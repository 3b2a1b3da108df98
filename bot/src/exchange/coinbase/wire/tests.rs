use serde_json::{Value, json};

use super::message::UserOrder;
use super::*;
use crate::exchange::{FutureDetails, NewOrder, OrderKind, OrderState, OrderStatus, Placed, Product, Side};

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn future() -> Value {
    json!({
        "product_id": "BIP-20DEC30-CDE",
        "price": "68930",
        "base_increment": "1",
        "quote_increment": "0.01",
        "price_increment": "5",
        "base_min_size": "1",
        "quote_min_size": "",
        "base_currency_id": "",
        "quote_currency_id": "USD",
        "product_venue": "FCM",
        "fcm_trading_session_details": {
            "is_session_open": true, "open_time": "2026-04-05T22:00:00Z", "close_time": "2026-04-10T21:00:00Z",
            "maintenance": null,
        },
        "future_product_details": {
            "contract_size": "0.01", "contract_root_unit": "BTC", "contract_expiry_type": "EXPIRING",
            "funding_rate": "0.000013", "perpetual_details": {"funding_rate": ""},
        },
        "a_field_of_tomorrow": {"x": 1},
    })
}

fn product(wire: Value, now: &str) -> Result<Product, String> {
    serde_json::from_value::<WireProduct>(wire).unwrap().into_product(at(now))
}

#[test]
fn a_future_is_counted_in_contracts_and_its_tick_is_the_price_increment() {
    let product = product(future(), "2026-04-07T12:00:00Z").unwrap();
    assert_eq!(product.base_currency, "BTC");
    assert_eq!((product.price_increment, product.size_increment, product.unit_base), (dec("5"), dec("1"), dec("0.01")));
    assert!(product.tradable);
    let details = product.future.unwrap();
    assert_eq!((details.session_open, details.reopens_at), (true, None));
}

#[test]
fn a_future_shows_the_index_of_its_underlying_if_the_exchange_does() {
    let index = |index_price: Value| {
        let mut wire = future();
        wire["future_product_details"]["index_price"] = index_price;
        product(wire, "2026-04-07T12:00:00Z").unwrap().future.unwrap().index
    };
    assert_eq!(index("68912.34".into()), Some(dec("68912.34")));
    assert_eq!([index("".into()), index("0".into()), index(Value::Null)], [None; 3]);
    let details = product(future(), "2026-04-07T12:00:00Z").unwrap().future.unwrap();
    assert_eq!(details.index, None);
    // A recording of a version that did not know of it is read as before.
    let recorded = serde_json::to_value(&details).unwrap();
    assert!(recorded.get("index").is_none());
    assert_eq!(serde_json::from_value::<FutureDetails>(recorded).unwrap(), details);
}

#[test]
fn a_closed_session_says_when_it_opens_again() {
    let mut wire = future();
    wire["fcm_trading_session_details"] =
        json!({"is_session_open": false, "open_time": "2026-04-10T22:00:00Z", "maintenance": {"end_time": null}});
    let reopens_at = |now: &str| product(wire.clone(), now).unwrap().future.unwrap().reopens_at;
    assert_eq!(reopens_at("2026-04-10T21:30:00Z"), Some(at("2026-04-10T22:00:00Z")));
    assert_eq!(reopens_at("2026-04-10T22:30:00Z"), None, "a time that is past says nothing");
}

#[test]
fn a_future_without_session_details_is_not_taken_for_open() {
    let mut wire = future();
    wire["fcm_trading_session_details"] = Value::Null;
    assert!(!product(wire, "2026-04-07T12:00:00Z").unwrap().future.unwrap().session_open);
}

#[test]
fn a_product_without_a_tick_is_refused() {
    let mut wire = future();
    wire["price_increment"] = "".into();
    let error = product(wire, "2026-04-07T12:00:00Z").unwrap_err();
    assert!(error.contains("price_increment of BIP-20DEC30-CDE"), "{error}");
}

#[test]
fn a_product_that_takes_no_orders_is_not_tradable() {
    for flag in ["is_disabled", "trading_disabled", "cancel_only", "post_only", "auction_mode", "view_only"] {
        let mut wire = future();
        wire[flag] = true.into();
        assert!(!product(wire, "2026-04-07T12:00:00Z").unwrap().tradable, "{flag}");
    }
}

fn order(kind: OrderKind) -> (&'static [&'static str], Value) {
    let order = NewOrder {
        client_order_id: "c-1".to_owned(),
        product: "BTC-USD".to_owned(),
        side: Side::Sell,
        size: dec("0.10"),
        kind,
    };
    new_order(&order, true)
}

#[test]
fn every_kind_of_order_has_the_body_that_coinbase_asks_for() {
    let limit_price = dec("68930.00");
    let expires_at = at("2026-04-07T12:02:00Z");
    let (path, body) = order(OrderKind::PostOnly { limit_price, expires_at });
    assert_eq!(path, ["orders"]);
    assert_eq!((&body["side"], &body["product_id"]), (&"SELL".into(), &"BTC-USD".into()));
    let gtd =
        json!({"base_size": "0.1", "limit_price": "68930", "end_time": "2026-04-07T12:02:00Z", "post_only": true});
    assert_eq!(body["order_configuration"], json!({"limit_limit_gtd": gtd}));

    let (_, body) = order(OrderKind::ImmediateOrCancel { limit_price });
    let ioc = json!({"base_size": "0.1", "limit_price": "68930"});
    assert_eq!(body["order_configuration"], json!({"sor_limit_ioc": ioc}));

    let (_, body) = order(OrderKind::Market);
    assert_eq!(body["order_configuration"], json!({"market_market_ioc": {"base_size": "0.1"}}));

    let (path, body) = order(OrderKind::ClosePosition);
    assert_eq!(path, ["orders", "close_position"]);
    assert_eq!(body, json!({"client_order_id": "c-1", "product_id": "BTC-USD", "size": "0.1"}));
}

fn placed(wire: Value) -> Result<Placed, String> {
    serde_json::from_value::<CreateOrder>(wire).unwrap().into_placed()
}

#[test]
fn an_accepted_order_has_its_id() {
    let wire = json!({"success": true, "success_response": {"order_id": "o-1", "side": "BUY"}});
    assert_eq!(placed(wire), Ok(Placed::Accepted { order_id: "o-1".to_owned() }));
    placed(json!({"success": true, "success_response": {"order_id": ""}})).unwrap_err();
    placed(json!({"success": true})).unwrap_err();
}

#[test]
fn a_rejection_carries_the_most_specific_reason() {
    for (error, preview, new_order, expected) in [
        ("INSUFFICIENT_FUND", "UNKNOWN_PREVIEW_FAILURE_REASON", "UNKNOWN_FAILURE_REASON", "INSUFFICIENT_FUND"),
        ("UNKNOWN_FAILURE_REASON", "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL", "", "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL"),
        ("", "", "UNTRADABLE_PRODUCT", "UNTRADABLE_PRODUCT"),
        ("", "", "", "UNKNOWN_FAILURE_REASON"),
    ] {
        let response = json!({
            "error": error, "message": "m", "preview_failure_reason": preview, "new_order_failure_reason": new_order,
        });
        let rejected = Placed::Rejected { reason: expected.to_owned(), message: "m".to_owned() };
        assert_eq!(placed(json!({"success": false, "error_response": response})), Ok(rejected));
    }
}

#[test]
fn a_duplicate_id_leaves_the_order_unknown() {
    for field in ["error", "new_order_failure_reason"] {
        placed(json!({"success": false, "error_response": {field: "DUPLICATE_CLIENT_ORDER_ID"}})).unwrap_err();
    }
}

fn wire_order(changes: Value) -> Result<OrderState, String> {
    let mut wire = json!({
        "order_id": "o-1", "client_order_id": "c-1", "product_id": "BTC-USD", "side": "BUY", "status": "OPEN",
        "order_configuration": {"limit_limit_gtd": {"base_size": "0.5", "limit_price": "1"}},
        "filled_size": "", "average_filled_price": "", "total_fees": "", "pending_cancel": false,
        "created_time": "2026-04-07T12:00:00.123456Z",
    });
    for (field, value) in changes.as_object().unwrap() {
        wire[field] = value.clone();
    }
    serde_json::from_value::<Order>(wire).unwrap().try_into()
}

#[test]
fn an_order_without_fills_has_empty_strings_for_zero() {
    let state = wire_order(json!({})).unwrap();
    assert_eq!((state.filled, state.average_price, state.fees_quote), (Decimal::ZERO, Decimal::ZERO, Decimal::ZERO));
    assert_eq!((state.status, state.size), (OrderStatus::Open, Some(dec("0.5"))));
}

#[test]
fn an_average_price_may_have_more_digits_than_a_decimal() {
    let long = "68930.123456789012345678901234567890123456789";
    let state = wire_order(json!({"average_filled_price": long, "total_fees": "1E-7"})).unwrap();
    assert_eq!(state.average_price.round_dp(9), dec("68930.123456789"));
    assert_eq!(state.fees_quote, dec("0.0000001"));
}

#[test]
fn a_status_that_is_not_known_is_not_terminal() {
    for (wire, expected) in [
        ("PENDING", OrderStatus::Pending),
        ("QUEUED", OrderStatus::Pending),
        ("CANCEL_QUEUED", OrderStatus::Cancelling),
        ("EXPIRED", OrderStatus::Expired),
        ("UNKNOWN_ORDER_STATUS", OrderStatus::Unknown),
        ("SOMETHING_NEW", OrderStatus::Unknown),
    ] {
        assert_eq!(wire_order(json!({"status": wire})).unwrap().status, expected);
    }
    assert_eq!(wire_order(json!({"pending_cancel": true})).unwrap().status, OrderStatus::Cancelling);
    let filled = wire_order(json!({"pending_cancel": true, "status": "FILLED"})).unwrap();
    assert_eq!(filled.status, OrderStatus::Filled);
}

#[test]
fn an_order_without_a_side_is_an_error() {
    wire_order(json!({"side": "UNKNOWN_ORDER_SIDE"})).unwrap_err();
}

#[test]
fn a_short_position_is_negative() {
    let wire = json!({"positions": [
        {"product_id": "A", "side": "SHORT", "number_of_contracts": "3"},
        {"product_id": "B", "side": "LONG", "number_of_contracts": "2"},
    ]});
    let contracts = serde_json::from_value::<Positions>(wire).unwrap().contracts().unwrap();
    assert_eq!((contracts["A"], contracts["B"]), (dec("-3"), dec("2")));
    let odd = json!({"positions": [{"product_id": "A", "side": "UNKNOWN", "number_of_contracts": "3"}]});
    serde_json::from_value::<Positions>(odd).unwrap().contracts().unwrap_err();
}

#[test]
fn an_error_of_any_shape_is_told_in_one_line() {
    for (body, expected) in [
        (r#"{"error":"unknown","error_details":"proto: x","message":"proto: x"}"#, "unknown: proto: x"),
        (
            r#"{"errors":[{"id":"rate_limit_exceeded","message":"Too many requests"}]}"#,
            "rate_limit_exceeded: Too many requests",
        ),
        ("<html>\n502</html>", "<html>502</html>"),
        ("", ""),
    ] {
        assert_eq!(ErrorBody::read(body.as_bytes()), expected);
    }
}

#[test]
fn a_user_order_is_cumulative() {
    let wire = json!({
        "order_id": "o-1", "client_order_id": "c-1", "product_id": "BTC-USD", "order_side": "SELL",
        "status": "FILLED", "cumulative_quantity": "0.5", "leaves_quantity": "0", "avg_price": "68930.5",
        "total_fees": "1.2", "number_of_fills": "2", "creation_time": "2026-04-07T12:00:00Z",
    });
    let state: OrderState = serde_json::from_value::<UserOrder>(wire).unwrap().try_into().unwrap();
    assert_eq!((state.side, state.status), (Side::Sell, OrderStatus::Filled));
    assert_eq!((state.filled, state.average_price, state.fees_quote), (dec("0.5"), dec("68930.5"), dec("1.2")));
}

#[test]
fn fees_that_are_not_there_are_not_zero() {
    let fees = |maker: &str, taker: &str| {
        let tier = json!({"pricing_tier": "Advanced", "maker_fee_rate": maker, "taker_fee_rate": taker});
        serde_json::from_value::<TransactionSummary>(json!({"fee_tier": tier})).unwrap().maker_and_taker()
    };
    assert_eq!(fees("0.0008", "0.0018"), Ok((dec("0.0008"), dec("0.0018"))));
    assert_eq!(fees("0", "0.0005"), Ok((dec("0"), dec("0.0005"))), "a promotion");
    for (maker, taker) in [("", "0.0018"), ("0.0008", ""), ("8", "0.0018"), ("0.0008", "x")] {
        assert!(fees(maker, taker).is_err(), "{maker:?} {taker:?}");
    }
}

#[test]
fn the_terms_of_a_future_are_those_of_the_dearer_margin_window() {
    let mut wire = future();
    let details = &mut wire["future_product_details"];
    details["funding_time"] = json!("2026-04-07T12:00:00Z");
    details["intraday_margin_rate"] = json!({"long_margin_rate": "0.1", "short_margin_rate": "0.1"});
    details["overnight_margin_rate"] = json!({"long_margin_rate": "0.25", "short_margin_rate": "0.306"});
    let terms = product(wire, "2026-04-07T12:30:00Z").unwrap().future.unwrap().terms;
    assert_eq!((terms.long_margin, terms.short_margin), (dec("0.25"), dec("0.306")));
    assert_eq!((terms.funding_rate, terms.funding_time), (dec("0.000013"), Some(at("2026-04-07T12:00:00Z"))));
    let unsaid = product(future(), "2026-04-07T12:30:00Z").unwrap().future.unwrap().terms;
    assert_eq!((unsaid.short_margin, unsaid.funding_time), (dec("1"), None));
}

/// Fails when an empty amount is zero (mutation: `decimal` in place of `amount` in wire/account.rs).
#[test]
fn an_empty_balance_collateral_or_position_is_an_error_and_not_nothing() {
    use super::account::{Account, BalanceSummary, Positions};
    let account = |value: &str| {
        let of = |value: &str| json!({"value": value, "currency": "USD"});
        let account = json!({"currency": "USD", "available_balance": of(value), "hold": of("1")});
        serde_json::from_value::<Account>(account).map(|account| account.total())
    };
    assert_eq!(account("2").unwrap(), dec("3"));
    assert!(account("").is_err());
    let collateral = |usd: &str, unrealized: &str| {
        let summary = json!({"total_usd_balance": {"value": usd}, "unrealized_pnl": {"value": unrealized}});
        let summary = serde_json::from_value::<BalanceSummary>(json!({"balance_summary": summary}));
        summary.map(|summary| summary.collateral())
    };
    assert_eq!(collateral("5", "-1").unwrap(), dec("4"));
    assert!(collateral("", "0").is_err() && collateral("5", "").is_err());
    let position = json!({"product_id": "BIP", "side": "SHORT", "number_of_contracts": ""});
    assert!(serde_json::from_value::<Positions>(json!({"positions": [position]})).is_err());
}
