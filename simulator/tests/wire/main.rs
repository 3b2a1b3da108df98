//! The real binary over TLS, as clients see it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod client;
mod docs;
mod requests;
mod web_sockets;

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
    let pid = rustix::process::Pid::from_child(&simulator.process.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        if let Some(status) = simulator.process.child.try_wait().unwrap() {
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
