//! The real binary over TLS, as clients see it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod client;
mod docs;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use client::{Key, PATIENCE, Simulator};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

const BTC: &str = "BTC-USD";
const BIP: &str = "BIP-20DEC30-CDE";

fn resting(size: &str, price: &str) -> Value {
    json!({"limit_limit_gtc": {"base_size": size, "limit_price": price, "post_only": true}})
}

fn market(size: &str) -> Value {
    json!({"market_market_ioc": {"base_size": size}})
}

/// Polls until the value satisfies the condition.
async fn eventually(simulator: &Simulator, key: &Key, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, value) = simulator.get(key, path).await;
        if wanted(&value) {
            return value;
        }
        assert!(Instant::now() < deadline, "{path} stayed {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually_status(simulator: &Simulator, key: &Key, path: &str, wanted: u16) {
    let deadline = Instant::now() + PATIENCE;
    while simulator.get(key, path).await.0 != wanted {
        assert!(Instant::now() < deadline, "{path} does not answer {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_placed_is_listed_filled_and_shows_in_position_and_balance() {
    let simulator = Simulator::start(&[]);
    let key = simulator.key("key.json");

    let order = simulator.order(&key, "spot", BTC, "BUY", market("0.07")).await;
    let id = order["success_response"]["order_id"].as_str().unwrap();
    let (_, found) = simulator.get(&key, &format!("/orders/historical/{id}")).await;
    assert_eq!((&found["order"]["status"], &found["order"]["filled_size"]), (&json!("FILLED"), &json!("0.07")));
    let (_, fills) = simulator.get(&key, &format!("/orders/historical/fills?order_ids={id}")).await;
    let sizes = fills["fills"].as_array().unwrap().iter().map(|f| f["size"].as_str().unwrap());
    assert_eq!(sizes.map(|s| s.parse::<Decimal>().unwrap()).sum::<Decimal>(), "0.07".parse().unwrap());
    let (_, accounts) = simulator.get(&key, "/accounts").await;
    let btc = accounts["accounts"].as_array().unwrap().iter().find(|a| a["currency"] == "BTC").unwrap();
    assert_eq!(btc["available_balance"], json!({"value": "0.07", "currency": "BTC"}));
    let (_, account) = simulator.get(&key, &format!("/accounts/{}", btc["uuid"].as_str().unwrap())).await;
    assert_eq!(account["account"]["currency"], "BTC");

    simulator.order(&key, "future", BIP, "SELL", market("7")).await;
    let (_, position) = simulator.get(&key, &format!("/cfm/positions/{BIP}")).await;
    assert_eq!(position["position"]["side"], "SHORT");
    assert_eq!(position["position"]["number_of_contracts"], "7");
    let close = json!({"client_order_id": "close", "product_id": BIP});
    let (_, closed) = simulator.post(&key, "/orders/close_position", close).await;
    assert_eq!(closed["success"], true, "{closed}");
    let again = json!({"client_order_id": "again", "product_id": BIP});
    let (_, again) = simulator.post(&key, "/orders/close_position", again).await;
    assert_eq!(again["error_response"]["error"], "CANNOT_CLOSE_ZERO_POSITION");
    let (_, positions) = simulator.get(&key, "/cfm/positions").await;
    assert_eq!(positions["positions"], json!([]));

    let (_, listed) = simulator.get(&key, "/orders/historical/batch?limit=2").await;
    assert_eq!((listed["orders"].as_array().unwrap().len(), &listed["has_next"]), (2, &json!(true)));
    let next = format!("/orders/historical/batch?limit=2&cursor={}", listed["cursor"].as_str().unwrap());
    let (_, rest) = simulator.get(&key, &next).await;
    assert_eq!((rest["orders"].as_array().unwrap().len(), &rest["has_next"]), (1, &json!(false)));
}

#[tokio::test]
async fn a_cancel_is_journaled_on_this_hosts_clock() {
    let simulator = Simulator::start(&[]);
    let (key, portfolio) = (simulator.key("keys/1.json"), simulator.portfolio(1));
    let order = simulator.order(&key, "a", BTC, "BUY", resting("0.1", "60000")).await;
    let id = order["success_response"]["order_id"].clone();
    let before = simulator.admin(Method::GET, "/clock", None).await["monotonic_ns"].as_u64().unwrap();
    let cancel = json!({"order_ids": [id, "nonsense"]});
    let (_, reply) = simulator.post(&key, "/orders/batch_cancel", cancel).await;
    assert_eq!(reply["results"][0]["success"], true);
    assert_eq!(reply["results"][1]["failure_reason"], "UNKNOWN_CANCEL_ORDER");
    let path = format!("/orders/historical/{}", id.as_str().unwrap());
    eventually(&simulator, &key, &path, |o| o["order"]["status"] == "CANCELLED").await;

    let journal = simulator.admin(Method::GET, &format!("/journal?portfolio={portfolio}&after=0"), None).await;
    let events = journal["events"].as_array().unwrap();
    let kinds: Vec<_> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["order_accepted", "cancel_requested", "order_cancelled"]);
    assert_eq!((&events[1]["open_orders"], &events[2]["open_orders"]), (&json!(1), &json!(0)));
    let cancelled = events[2]["monotonic_ns"].as_u64().unwrap();
    assert!(cancelled > before && cancelled < before + 2_000_000_000);
    let next = journal["next"].as_u64().unwrap();
    let more = simulator.admin(Method::GET, &format!("/journal?portfolio={portfolio}&after={next}"), None).await;
    assert_eq!(more["events"], json!([]));
}

#[tokio::test]
async fn tokens_that_are_not_exactly_right_are_refused() {
    let simulator = Simulator::start(&[]);
    let (key, other) = (simulator.key("key.json"), simulator.key("keys/1.json"));
    let path = "/api/v3/brokerage/accounts";
    let uri = format!("GET {}{path}", simulator.address);
    let with = |field: &str, value: Value| {
        let mut claims = key.claims();
        claims["uri"] = json!(uri);
        claims[field] = value;
        key.token(&claims)
    };
    let now = jiff::Timestamp::now().as_second();
    let forged = {
        let mut claims = key.claims();
        claims["uri"] = json!(uri);
        other.token_as(&key.name, &claims)
    };
    let bad = [
        ("no token", None),
        ("not a token", Some("x.y.z".to_owned())),
        ("another path", Some(key.rest_token("GET", &simulator.address, "/products"))),
        ("another method", Some(key.rest_token("POST", &simulator.address, "/accounts"))),
        ("another host", Some(key.rest_token("GET", "api.coinbase.com", "/accounts"))),
        ("expired", Some(with("exp", json!(now - 60)))),
        ("from the future", Some(with("nbf", json!(now + 60)))),
        ("too long", Some(with("exp", json!(now + 3600)))),
        ("another issuer", Some(with("iss", json!("me")))),
        ("another subject", Some(with("sub", json!("me")))),
        ("another key", Some(forged)),
    ];
    for (what, token) in bad {
        let (status, body, _) = simulator.send(Method::GET, path, token.as_deref(), None).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthenticated")), "{what}");
    }
    let (status, _) = simulator.get(&key, "/accounts?limit=1").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn keys_do_what_their_permissions_say() {
    let simulator = Simulator::start(&[]);
    let viewer = simulator.key("keys/view-only.json");
    let (_, permissions) = simulator.get(&viewer, "/key_permissions").await;
    assert_eq!((&permissions["can_view"], &permissions["can_trade"]), (&json!(true), &json!(false)));
    let order = json!({"client_order_id": "x", "product_id": BTC, "side": "BUY", "order_configuration": market("1")});
    let (status, refused) = simulator.post(&viewer, "/orders", order).await;
    assert_eq!((status, &refused["error_details"]), (403, &json!("Missing required scopes")));
    let (_, transfer) = simulator.get(&simulator.key("keys/transfer.json"), "/key_permissions").await;
    assert_eq!(transfer["can_transfer"], true);
    assert_eq!(transfer["portfolio_uuid"], simulator.portfolio(0));
    // No API key opens the administrative interface.
    let token = simulator.key("key.json").rest_token("GET", &simulator.address, "/accounts");
    let (status, ..) = simulator.send(Method::GET, "/_simulator/clock", Some(&token), None).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let simulator = Simulator::start(&["--rate-limit", "0"]);
    let key = simulator.key("key.json");
    let order = |change: fn(&mut Value)| {
        let mut order =
            json!({"client_order_id": "x", "product_id": BTC, "side": "BUY", "order_configuration": market("1")});
        change(&mut order);
        order
    };
    let cases = [
        (order(|o| o["reduceOnly"] = json!(true)), "unknown field \"reduceOnly\""),
        (order(|o| o["order_configuration"]["market_market_ioc"]["foo"] = json!(1)), "unknown field \"foo\""),
        (order(|o| o["order_configuration"] = json!({"bracket": {}})), "unknown field \"bracket\""),
        (order(|o| o["order_configuration"] = json!({"market_market_ioc": {"base_size": 1}})), "expected a string"),
        (order(|o| o["order_configuration"] = json!({"market_market_ioc": {"base_size": "-1"}})), "invalid decimal"),
        (order(|o| o["side"] = json!("HOLD")), "invalid value for enum field: \"HOLD\""),
        (order(|o| o["client_order_id"] = json!("")), "client_order_id is required"),
    ];
    for (body, expected) in cases {
        let (status, reply) = simulator.post(&key, "/orders", body).await;
        assert_eq!(status, 400, "{reply}");
        assert!(reply["error_details"].as_str().unwrap().contains(expected), "{reply}");
    }
    let (status, reply) = simulator.get(&key, "/orders/historical/batch?order_state=OPEN").await;
    assert_eq!((status, &reply["message"]), (400, &json!("unknown query parameter order_state")));
}

#[test]
fn a_get_whose_body_comes_late_keeps_its_connection() {
    let simulator = Simulator::start(&[]);
    let mut stream = simulator.connect();
    for _ in 0..3 {
        let head = "GET /api/v3/brokerage/time HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.flush().unwrap();
        // Not waiting for anything: this is the pause between the packets of the official SDK.
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"{}").unwrap();
        stream.flush().unwrap();
        let mut reply = [0; 4096];
        let length = stream.read(&mut reply).unwrap();
        let reply = std::str::from_utf8(&reply[..length]).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
}

#[tokio::test]
async fn more_than_thirty_requests_a_second_are_limited_per_portfolio() {
    let simulator = Simulator::start(&[]);
    let (key, other) = (simulator.key("key.json"), simulator.key("keys/1.json"));
    let token = key.rest_token("GET", &simulator.address, "/key_permissions");
    let path = "/api/v3/brokerage/key_permissions";
    let requests = (0..60).map(|_| simulator.send(Method::GET, path, Some(&token), None));
    let replies = futures::future::join_all(requests).await;
    let (_, body, headers) = replies.iter().find(|r| r.0 == 429).unwrap();
    assert_eq!(body["errors"][0]["id"], "rate_limit_exceeded");
    assert_eq!(headers["x-ratelimit-limit"], "30");
    assert!(replies.iter().filter(|r| r.0 == 200).count() >= 30);
    assert_eq!(simulator.get(&other, "/key_permissions").await.0, 200);
}

#[tokio::test]
async fn a_book_kept_from_level2_is_complete_and_never_crossed() {
    let simulator = Simulator::start(&[]);
    let key = simulator.key("key.json");
    let mut socket = simulator.web_socket("/ws").await;
    socket.subscribe("level2", &[BIP], None).await;
    let mut book: BTreeMap<(String, Decimal), Decimal> = BTreeMap::new();
    let mut expected_sequence = 0;
    let mut updates = 0;
    // A far order of our own marks the moment of comparison.
    simulator.order(&key, "marker", BIP, "BUY", resting("3", "10000")).await;
    while updates < 15 || !book.contains_key(&("bid".into(), Decimal::from(10_000))) {
        let frame = socket.next().await.unwrap();
        assert_eq!(frame["sequence_num"], expected_sequence);
        expected_sequence += 1;
        if frame["channel"] != "l2_data" {
            continue;
        }
        for event in frame["events"].as_array().unwrap() {
            updates += usize::from(event["type"] == "update");
            for update in event["updates"].as_array().unwrap() {
                let decimal = |field: &str| update[field].as_str().unwrap().parse::<Decimal>().unwrap();
                let level = (update["side"].as_str().unwrap().to_owned(), decimal("price_level"));
                match decimal("new_quantity") {
                    size if size.is_zero() => book.remove(&level),
                    size => book.insert(level, size),
                };
            }
        }
        let best = |side: &str| book.keys().filter(|k| k.0 == side).map(|k| k.1).collect::<Vec<_>>();
        assert!(best("bid").last() < best("offer").first(), "crossed: {book:?}");
    }
}

#[tokio::test]
async fn the_user_channel_tells_an_orders_whole_life() {
    let simulator = Simulator::start(&[]);
    let key = simulator.key("key.json");
    simulator.order(&key, "before", BTC, "BUY", resting("0.1", "60000")).await;
    let mut socket = simulator.web_socket("/ws/user").await;
    socket.subscribe("user", &[], None).await;
    let refused = socket.next().await.unwrap();
    assert_eq!(refused, json!({"type": "error", "message": "authentication failure"}));
    socket.subscribe("user", &[], Some(key.token(&key.claims()))).await;
    socket.subscribe("heartbeats", &[], None).await;
    let snapshot = &socket.until(|f| f["channel"] == "user").await.pop().unwrap()["events"][0];
    assert_eq!((&snapshot["type"], snapshot["orders"].as_array().unwrap().len()), (&json!("snapshot"), 1));
    assert_eq!(snapshot["orders"][0]["client_order_id"], "before");

    simulator.order(&key, "sell", BIP, "SELL", market("3")).await;
    let status = |f: &Value, id: &str, status: &str| {
        let order = &f["events"][0]["orders"][0];
        f["channel"] == "user" && order["client_order_id"] == id && order["status"] == status
    };
    let filled = socket.until(|f| status(f, "sell", "FILLED")).await.pop().unwrap();
    assert_eq!(filled["events"][0]["orders"][0]["cumulative_quantity"], "3");
    let position = &filled["events"][0]["positions"]["expiring_futures_positions"][0];
    assert_eq!((&position["side"], &position["number_of_contracts"]), (&json!("SHORT"), &json!("3")));
    let (_, open) = simulator.get(&key, "/orders/historical/batch?order_status=OPEN").await;
    let cancel = json!({"order_ids": [open["orders"][0]["order_id"]]});
    simulator.post(&key, "/orders/batch_cancel", cancel).await;
    let last = socket.until(|f| status(f, "before", "CANCELLED")).await.pop().unwrap();
    assert_eq!(last["events"][0]["orders"][0]["leaves_quantity"], "0");
    socket.until(|f| f["channel"] == "heartbeats").await;
}

#[tokio::test]
async fn a_socket_that_subscribes_to_nothing_is_closed() {
    let simulator = Simulator::start(&[]);
    let mut socket = simulator.web_socket("/ws").await;
    let start = Instant::now();
    assert_eq!(socket.next().await, None);
    assert!(start.elapsed() >= Duration::from_secs(4));
}

#[tokio::test]
async fn faults_hit_whom_they_name_until_they_are_cleared() {
    let simulator = Simulator::start(&[]);
    let (key, other) = (simulator.key("key.json"), simulator.key("keys/1.json"));
    let portfolio = simulator.portfolio(0);
    let fault = |body: Value| simulator.admin(Method::POST, "/faults", Some(body));

    fault(json!({"kind": "rest_unavailable", "portfolio": portfolio})).await;
    assert_eq!(simulator.get(&key, "/accounts").await.0, 503);
    assert_eq!(simulator.get(&other, "/accounts").await.0, 200);
    fault(json!({"clear": true})).await;
    assert_eq!(simulator.get(&key, "/accounts").await.0, 200);

    fault(json!({"kind": "key_revoked", "key": key.name})).await;
    assert_eq!(simulator.get(&key, "/accounts").await.0, 401);
    assert_eq!(simulator.get(&simulator.key("keys/view-only.json"), "/accounts").await.0, 200);
    fault(json!({"clear": true})).await;

    fault(json!({"kind": "session_closed", "seconds": 600})).await;
    let refused = simulator.order(&key, "closed", BIP, "SELL", market("1")).await;
    assert_eq!(refused["error_response"]["error"], "INVALID_FCM_TRADING_SESSION");
    let (_, product) = simulator.get(&key, &format!("/products/{BIP}")).await;
    assert_eq!(product["fcm_trading_session_details"]["is_session_open"], false);
    fault(json!({"clear": true})).await;

    fault(json!({"kind": "drop_replies", "portfolio": portfolio, "count": 1})).await;
    let body = json!({"client_order_id": "lost", "product_id": BTC, "side": "BUY", "order_configuration": resting("0.1", "60000")});
    let lost = simulator.post(&key, "/orders", body.clone());
    assert!(tokio::time::timeout(Duration::from_millis(500), lost).await.is_err(), "the reply is lost");
    let (_, open) = simulator.get(&key, "/orders/historical/batch?order_status=OPEN").await;
    assert_eq!(open["orders"][0]["client_order_id"], "lost");
    let (_, again) = simulator.post(&key, "/orders", body).await;
    assert_eq!(again["success_response"]["order_id"], open["orders"][0]["order_id"]);
}

#[tokio::test]
async fn a_foreign_order_is_placed_in_the_named_portfolio() {
    let simulator = Simulator::start(&[]);
    let portfolio = simulator.portfolio(1);
    let body = json!({"portfolio": portfolio, "product_id": BTC, "side": "BUY", "size": "0.1", "price": "50000"});
    let placed = simulator.admin(Method::POST, "/place", Some(body)).await;
    assert!(placed["order"]["client_order_id"].as_str().unwrap().starts_with("foreign-"));
    let truth = simulator.admin(Method::GET, &format!("/portfolios/{portfolio}"), None).await;
    assert_eq!(truth["open_orders"].as_array().unwrap().len(), 1);
    assert_eq!(truth["positions"][BTC], "0");
}

#[tokio::test]
async fn sigterm_ends_it_within_a_second_even_with_a_socket_open() {
    let mut simulator = Simulator::start(&[]);
    let mut socket = simulator.web_socket("/ws").await;
    socket.subscribe("level2", &[BTC], None).await;
    socket.next().await.unwrap();
    let pid = rustix::process::Pid::from_child(&simulator.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        if let Some(status) = simulator.child.try_wait().unwrap() {
            assert!(status.success());
            return;
        }
        assert!(Instant::now() < deadline, "still running");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn init_keeps_a_complete_directory_and_serve_needs_only_its_flat_files() {
    let simulator = Simulator::start(&["--dns-name", "exchange.example", "--dns-name", "10.1.2.3"]);
    let read = |file: &str| std::fs::read(simulator.data_dir.path().join(file)).unwrap();
    let before = (read("ca.crt"), read("key.json"), read("accounts.json"));
    let init = std::process::Command::new(env!("CARGO_BIN_EXE_exchange-simulator"))
        .args(["init", "--accounts", "7", "--data-dir"])
        .arg(simulator.data_dir.path())
        .status()
        .unwrap();
    assert!(init.success());
    assert_eq!(before, (read("ca.crt"), read("key.json"), read("accounts.json")));
    assert_eq!(read("key.json"), read("keys/0.json"));

    let flat = tempfile::tempdir().unwrap();
    for file in ["server.crt", "server.key", "accounts.json", "admin.token"] {
        std::fs::write(flat.path().join(file), read(file)).unwrap();
    }
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_exchange-simulator"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(flat.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(second.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("listening"));
    second.kill().unwrap();
    second.wait().unwrap();
}
