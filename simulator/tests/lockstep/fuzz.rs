//! Bytes that nobody would send never panic the exchange: REST bodies, tokens, WebSocket messages, administration.
//!
//! A panic in a handler would leave the request without a reply; one under the lock would poison it; one in a
//! connection would leave it registered.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::desk::{ADMIN, Desk};
use super::{BIP, BTC};

const CASES: u32 = 300;

/// A desk that all cases of a test share.
fn desk(runtime: &Runtime) -> Desk {
    runtime.block_on(async { Desk::open(5, Duration::from_millis(500)) })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn run<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, test: impl Fn(T) -> Result<(), TestCaseError>) {
    // No file of past failures: the strategy prints what failed, and that belongs into a test of its own.
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
        .run(strategy, test)
        .unwrap();
}

/// Messages that are right.
fn valid_bodies() -> Vec<(&'static str, Value)> {
    let order = |configuration: Value| json!({"client_order_id": "x", "product_id": BTC, "side": "BUY", "order_configuration": configuration});
    let limit = json!({"base_size": "0.01", "limit_price": "70000", "post_only": false});
    let dated =
        json!({"base_size": "1", "limit_price": "60000", "end_time": "2026-11-17T00:00:00Z", "post_only": true});
    vec![
        ("/orders", order(json!({"market_market_ioc": {"quote_size": "100"}}))),
        ("/orders", order(json!({"limit_limit_gtc": limit}))),
        ("/orders", order(json!({"limit_limit_gtd": dated}))),
        ("/orders", order(json!({"sor_limit_ioc": {"base_size": "0.5", "limit_price": "90000"}}))),
        ("/orders", order(json!({"limit_limit_fok": {"base_size": "3", "limit_price": "90000"}}))),
        ("/orders/preview", order(json!({"market_market_ioc": {"base_size": "1"}}))),
        ("/orders/batch_cancel", json!({"order_ids": ["00000000-0000-0000-0000-000000000001", "x"]})),
        ("/orders/close_position", json!({"client_order_id": "c", "product_id": BIP, "size": "1"})),
        ("/orders/edit", json!({"order_id": "00000000-0000-0000-0000-000000000001", "price": "1", "size": "1"})),
        ("/cfm/sweeps/schedule", json!({"usd_amount": "5"})),
        ("/cfm/intraday/margin_setting", json!({"setting": "INTRADAY_MARGIN_SETTING_STANDARD"})),
    ]
}

/// Values that parsers and arithmetic stumble over.
fn nasty() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!("")),
        Just(json!("0")),
        Just(json!("-0.0")),
        Just(json!("NaN")),
        Just(json!("1e999")),
        Just(json!("79228162514264337593543950335")),
        Just(json!("0.0000000000000000000000000001")),
        Just(json!("99999999999999999999999999999999999999999")),
        Just(json!("9999-12-31T23:59:59Z")),
        Just(json!("-009999-01-01T00:00:00Z")),
        Just(json!("a".repeat(5_000))),
        Just((0..200).fold(json!(0), |inner, _| json!([inner]))),
        "\\PC{0,40}".prop_map(Value::String),
        any::<f64>().prop_map(|number| json!(number)),
        "[0-9]{1,30}(\\.[0-9]{1,30})?".prop_map(Value::String),
    ]
}

/// Replaces the leaf with this number, counted through the whole message.
fn replace(value: &mut Value, leaf: &mut usize, with: &Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, leaf, with)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, leaf, with)),
        other => {
            if *leaf == 0 {
                *other = with.clone();
            }
            *leaf = leaf.wrapping_sub(1);
        }
    }
}

/// Cuts, doubles and overwrites bytes.
fn mangled(bytes: &[u8], edits: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, what, byte) in edits {
        let at = at % (bytes.len() + 1);
        match what % 4 {
            0 => bytes.insert(at, *byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] = *byte,
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes.truncate(60_000);
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    proptest::collection::vec(any::<(usize, u8, u8)>(), 1..6)
}

/// A message: right, with one wrong leaf, with mangled bytes, or nothing but noise.
fn body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let message = (0..valid_bodies().len()).prop_map(|index| valid_bodies().swap_remove(index));
    prop_oneof![
        3 => (message.clone(), 0usize..8, nasty()).prop_map(|((path, mut body), mut leaf, with)| {
            replace(&mut body, &mut leaf, &with);
            (path, body.to_string().into_bytes())
        }),
        2 => (message.clone(), edits())
            .prop_map(|((path, body), edits)| (path, mangled(body.to_string().as_bytes(), &edits))),
        1 => (message, proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|((path, _), noise)| (path, noise)),
    ]
}

#[test]
fn no_rest_body_panics_the_exchange() {
    let runtime = runtime();
    let desk = desk(&runtime);
    run(&body(), |(path, body)| {
        let (status, reply) = runtime.block_on(async {
            sleep(Duration::from_millis(100)).await; // below the limit of requests
            desk.try_post_bytes(path, &body).await
        });
        prop_assert!(matches!(status, 200 | 400 | 403 | 404 | 405 | 422), "{path} answers {status}: {reply}");
        prop_assert!(!desk.simulator.app.has_panicked());
        Ok(())
    });
}

#[test]
fn no_query_panics_the_exchange() {
    let runtime = runtime();
    let desk = desk(&runtime);
    let paths = [
        "/products",
        "/product_book",
        "/best_bid_ask",
        "/accounts",
        "/orders/historical/batch",
        "/orders/historical/fills",
        "/transaction_summary",
        "/market/products",
        "/products/BTC-USD/candles",
        "/products/BTC-USD/ticker",
        "/cfm/positions/x",
        "/cfm/intraday/current_margin_window",
    ];
    let names = "limit|cursor|product_id|product_ids|order_ids|start_date|end_date|start|end|granularity|offset|\
                 start_sequence_timestamp|order_status|product_type|[a-z_]{1,9}";
    let value = "[0-9]{1,25}|-[0-9]{1,25}|[A-Za-z0-9%+._:-]{0,30}|ONE_MINUTE|BTC-USD";
    let query = proptest::collection::vec((names, value), 0..4);
    run(&(0..paths.len(), query), |(path, query)| {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let path = format!("{}?{}", paths[path], query.join("&"));
        let status = runtime.block_on(async {
            sleep(Duration::from_millis(100)).await;
            desk.status("GET", &path).await
        });
        prop_assert!(matches!(status, 200 | 400 | 403 | 404), "{path} answers {status}");
        prop_assert!(!desk.simulator.app.has_panicked());
        Ok(())
    });
}

#[test]
fn no_token_panics_the_exchange() {
    let runtime = runtime();
    let desk = desk(&runtime);
    let path = "/api/v3/brokerage/accounts";
    let good = runtime.block_on(async { desk.token(Some(&format!("GET localhost{path}"))) });
    let claim = (prop_oneof![Just("nbf"), Just("exp"), Just("sub"), Just("iss"), Just("uri")], nasty());
    let token = prop_oneof![
        edits().prop_map(move |edits| Err(mangled(good.as_bytes(), &edits))),
        "[!-~]{0,300}".prop_map(|text| Err(text.into_bytes())),
        claim.prop_map(Ok), // signed by the right key
    ];
    run(&token, |token| {
        let token = match token {
            Ok((name, value)) => runtime.block_on(async { desk.token_with(name, value) }),
            // A header has only printable characters; a client could not send another.
            Err(bytes) => bytes.into_iter().map(|b| char::from(b'!' + b % 94)).collect(),
        };
        let (status, _) = runtime.block_on(desk.send("GET", path, &token, None));
        prop_assert!(matches!(status, 401 | 429), "{status} for {token}");
        prop_assert!(!desk.simulator.app.has_panicked());
        Ok(())
    });
}

#[test]
fn no_web_socket_message_panics_the_exchange() {
    let runtime = runtime();
    let desk = desk(&runtime);
    let valid = |jwt: &str| {
        json!({"type": "subscribe", "channel": "ticker", "product_ids": [BTC, BIP], "jwt": jwt}).to_string()
    };
    let text = prop_oneof![
        (0usize..5, nasty()).prop_map(move |(leaf, with)| {
            let mut message: Value = serde_json::from_str(&valid("")).unwrap();
            replace(&mut message, &mut leaf.clone(), &with);
            message.to_string().into_bytes()
        }),
        edits().prop_map(move |edits| mangled(valid("x.y.z").as_bytes(), &edits)),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    // The frames of the protocol itself, too.
    let raw = any::<bool>();
    run(&(proptest::collection::vec(text, 1..4), raw), |(messages, raw)| {
        runtime.block_on(async {
            sleep(Duration::from_millis(200)).await; // below the limit of connections
            let mut socket = desk.web_socket("/ws").await;
            for message in &messages {
                let _ = socket.send_bytes(message, raw).await;
            }
            sleep(Duration::from_millis(50)).await;
            drop(socket);
            sleep(Duration::from_millis(50)).await;
        });
        prop_assert_eq!(desk.connections(), 0);
        prop_assert!(!desk.simulator.app.has_panicked());
        Ok(())
    });
}

#[test]
fn no_administration_panics_the_exchange() {
    let runtime = runtime();
    let desk = desk(&runtime);
    let portfolio = desk.accounts.portfolios[0].uuid;
    let bodies = move || {
        vec![
            (
                "/faults",
                json!({"kind": "latency", "distribution": "uniform", "milliseconds": 1, "max_milliseconds": 2, "for": "1s"}),
            ),
            (
                "/faults",
                json!({"kind": "price_gap", "product_id": BTC, "bps": 10, "seconds": 1, "count": 1, "rate": 0.5}),
            ),
            ("/faults", json!({"kind": "clock_skew", "milliseconds": 5, "portfolio": portfolio, "seconds": 1})),
            ("/faults", json!({"kind": "funding_spike", "funding_rate": "0.1", "seconds": 1})),
            (
                "/scenario",
                json!({"seed": 1, "steps": [{"at": "1s", "every": "2s", "until": "3s", "jitter": "1s", "kind": "maintenance", "for": "1s"}]}),
            ),
            ("/scenario", json!({"random": {"every": "1s", "until": "1m", "longest": "1s", "kinds": ["stale_book"]}})),
            ("/place", json!({"portfolio": portfolio, "product_id": BTC, "side": "BUY", "size": "1", "price": "5"})),
            ("/market", json!({"frozen": true})),
        ]
    };
    let count = bodies().len();
    let message = (0..count, 0usize..10, nasty(), edits(), any::<bool>());
    run(&message, |(index, mut leaf, with, edits, noise)| {
        let (path, mut body) = bodies().swap_remove(index);
        replace(&mut body, &mut leaf, &with);
        let bytes = if noise { mangled(body.to_string().as_bytes(), &edits) } else { body.to_string().into_bytes() };
        let path = format!("/_simulator{path}");
        let (status, reply) = runtime.block_on(async {
            let reply = desk.send("POST", &path, ADMIN, Some(&bytes)).await;
            sleep(Duration::from_secs(2)).await; // scenarios begin, faults end
            reply
        });
        prop_assert!(matches!(status, 200 | 400), "{path} answers {status}: {reply}");
        prop_assert!(!desk.simulator.app.has_panicked());
        Ok(())
    });
}
