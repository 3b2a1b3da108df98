//! What the WebSockets tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::client::Simulator;
use super::{BIP, BTC, market, resting};

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
