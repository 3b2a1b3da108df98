//! What clients are shown of the market: stale, crossed and empty books, and what Coinbase does not document.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::desk::Desk;
use super::faults::{clear, desk, fault, level2};
use super::{BIP, BTC, paused};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stale_book_is_silent_and_a_crossed_one_shows_a_bid_above_the_offer() {
    paused(async {
        let desk = desk();
        let mut socket = level2(&desk).await;
        let of_book = |frames: Vec<Value>| frames.into_iter().filter(|f| f["channel"] == "l2_data").collect::<Vec<_>>();
        fault(&desk, json!({"kind": "stale_book", "product_id": BTC, "for": "20s"})).await;
        sleep(SECOND / 2).await;
        socket.drain().await; // what was on its way
        sleep(18 * SECOND).await;
        assert_eq!(of_book(socket.drain().await).len(), 0);
        sleep(3 * SECOND).await;
        assert!(!of_book(socket.drain().await).is_empty(), "what was held back is sent");

        desk.admin("POST", "/market", Some(json!({"frozen": true}))).await;
        fault(&desk, json!({"kind": "crossed_book", "product_id": BTC, "for": "10s"})).await;
        sleep(SECOND).await;
        let crossing = of_book(socket.drain().await).pop().unwrap()["events"][0]["updates"][0].clone();
        assert_eq!(crossing["side"], "bid");
        sleep(10 * SECOND).await;
        let back = of_book(socket.drain().await).pop().unwrap()["events"][0]["updates"][0].clone();
        assert_eq!((&back["price_level"], &back["new_quantity"]), (&crossing["price_level"], &json!("0")));
    });
}

/// Best bid and best offer, by each way that a client may see them.
async fn best_prices(desk: &Desk) -> Vec<(String, [f64; 2])> {
    let price = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let touch = |book: &Value| [price(&book["bids"][0]["price"]), price(&book["asks"][0]["price"])];
    let best = |shown: &Value| [price(&shown["best_bid"]), price(&shown["best_ask"])];
    let mut seen = Vec::new();
    for path in [format!("/product_book?product_id={BTC}"), format!("/product_book?product_id={BTC}&limit=1")] {
        seen.push((path.clone(), touch(&desk.get(&path).await["pricebook"])));
    }
    let several = desk.get(&format!("/best_bid_ask?product_ids={BTC}")).await;
    seen.push(("best_bid_ask".to_owned(), touch(&several["pricebooks"][0])));
    seen.push(("trades".to_owned(), best(&desk.get(&format!("/products/{BTC}/ticker?limit=1")).await)));
    for channel in ["ticker", "ticker_batch", "level2"] {
        let mut socket = desk.web_socket("/ws").await;
        socket.subscribe(channel, &[BTC], None).await;
        sleep(SECOND / 5).await; // at most eight connections a second
        let frame = socket.drain().await.remove(0);
        let event = &frame["events"][0];
        let shown = if channel == "level2" {
            let of = |side: &str| {
                let updates = event["updates"].as_array().unwrap().iter().filter(|u| u["side"] == side);
                updates.map(|u| price(&u["price_level"])).collect::<Vec<_>>()
            };
            [of("bid").into_iter().fold(f64::MIN, f64::max), of("offer").into_iter().fold(f64::MAX, f64::min)]
        } else {
            best(&event["tickers"][0])
        };
        seen.push((channel.to_owned(), shown));
    }
    seen
}

#[test]
fn a_stale_and_a_crossed_book_are_shown_everywhere_and_end_everywhere() {
    paused(async {
        let desk = desk();
        sleep(SECOND).await;
        fault(&desk, json!({"kind": "stale_book", "product_id": BTC})).await;
        let before = best_prices(&desk).await;
        let first = before[0].1;
        assert!(before.iter().all(|(_, shown)| *shown == first), "{before:?}");
        fault(&desk, json!({"kind": "price_gap", "product_id": BTC, "bps": 500})).await;
        sleep(10 * SECOND).await;
        assert_eq!(best_prices(&desk).await, before);
        let last = desk.get(&format!("/products/{BTC}")).await["price"].as_str().unwrap().parse::<f64>().unwrap();
        assert!(last > first[1] * 1.03, "it trades on: {last}");
        clear(&desk).await;
        assert!(best_prices(&desk).await.iter().all(|(_, [bid, ask])| bid < ask && *bid > first[1]));

        desk.admin("POST", "/market", Some(json!({"frozen": true}))).await;
        fault(&desk, json!({"kind": "crossed_book", "product_id": BTC})).await;
        let crossed = best_prices(&desk).await;
        assert!(crossed.iter().all(|(_, [bid, ask])| bid > ask), "{crossed:?}");
        clear(&desk).await;
        sleep(SECOND).await;
        let after = best_prices(&desk).await;
        assert!(after.iter().all(|(_, [bid, ask])| bid < ask), "{after:?}");
    });
}

#[test]
fn what_coinbase_does_not_document_can_be_either_way() {
    paused(async {
        let desk = desk();
        let resting = json!({"limit_limit_gtc": {"base_size": "1", "limit_price": "50000", "post_only": true}});
        let working = async || desk.open_orders().await.len();
        let close = json!({"kind": "session_closed", "product_id": BIP, "for": "10s"});
        desk.order("rests", BIP, "BUY", resting.clone()).await;
        fault(&desk, close.clone()).await;
        sleep(5 * SECOND).await;
        assert_eq!(working().await, 1, "observed: orders rest while a session is closed");
        fault(&desk, json!({"kind": "close_cancels_orders"})).await;
        sleep(SECOND).await;
        assert_eq!(working().await, 0);
        clear(&desk).await;

        let mut socket = desk.web_socket("/ws").await;
        socket.subscribe("level2", &[BIP], None).await;
        fault(&desk, json!({"kind": "closed_book_is_empty"})).await;
        let best = async || desk.get(&format!("/best_bid_ask?product_ids={BIP}")).await["pricebooks"][0].clone();
        assert_eq!(best().await["bids"].as_array().unwrap().len(), 1, "the session is open");
        fault(&desk, close).await;
        sleep(3 * SECOND).await;
        assert_eq!((&best().await["bids"], &best().await["asks"]), (&json!([]), &json!([])));
        assert_eq!(kept(&socket.drain().await).len(), 0, "a book kept from level2 is empty, too");
        sleep(10 * SECOND).await;
        assert_eq!(best().await["bids"].as_array().unwrap().len(), 1, "it opens again");
        socket.subscribe("level2", &[BIP], None).await;
        sleep(SECOND).await;
        assert!(kept(&socket.drain().await).len() > 10);
        clear(&desk).await;

        let kind = async || desk.get("/accounts").await["accounts"][0]["type"].clone();
        assert_eq!(kind().await, "ACCOUNT_TYPE_CRYPTO");
        fault(&desk, json!({"kind": "short_account_types"})).await;
        assert_eq!(kind().await, "CRYPTO");
        let buffer = async || {
            let summary = desk.get("/cfm/balance_summary").await;
            summary["balance_summary"]["liquidation_buffer_percentage"].as_str().unwrap().parse::<f64>().unwrap()
        };
        assert_eq!(buffer().await, 100.0);
        fault(&desk, json!({"kind": "liquidation_buffer_as_fraction"})).await;
        assert_eq!(buffer().await, 1.0);
    });
}

/// The levels that a client who follows level2 has.
fn kept(frames: &[Value]) -> BTreeSet<String> {
    let mut levels = BTreeSet::new();
    for event in frames.iter().filter(|f| f["channel"] == "l2_data").flat_map(|f| f["events"].as_array().unwrap()) {
        if event["type"] == "snapshot" {
            levels.clear();
        }
        for update in event["updates"].as_array().unwrap() {
            let level = format!("{} {}", update["side"], update["price_level"]);
            if update["new_quantity"] == "0" {
                levels.remove(&level)
            } else {
                levels.insert(level)
            };
        }
    }
    levels
}
