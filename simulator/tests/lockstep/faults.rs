//! What each fault does, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::desk::{Desk, Socket};
use super::{BIP, BTC, paused};

const SECOND: Duration = Duration::from_secs(1);

pub fn desk() -> Desk {
    Desk::open(3, Duration::from_millis(100))
}

pub async fn fault(desk: &Desk, fault: Value) {
    desk.admin("POST", "/faults", Some(fault)).await;
}

pub async fn clear(desk: &Desk) {
    fault(desk, json!({"clear": true})).await;
}

fn market(size: &str) -> Value {
    json!({"market_market_ioc": {"base_size": size}})
}

pub async fn level2(desk: &Desk) -> Socket {
    let mut socket = desk.web_socket("/ws").await;
    socket.subscribe("level2", &[BTC], None).await;
    socket.subscribe("heartbeats", &[], None).await;
    sleep(SECOND).await;
    socket.drain().await;
    socket
}

fn numbers(frames: &[Value]) -> Vec<u64> {
    frames.iter().map(|f| f["sequence_num"].as_u64().unwrap()).collect()
}

#[test]
fn rest_errors_are_of_the_endpoint_and_the_share_they_name() {
    paused(async {
        let desk = desk();
        for status in [401, 403, 404, 429, 500, 502, 503, 504] {
            fault(&desk, json!({"kind": "rest_error", "status": status, "endpoint": "GET /accounts"})).await;
            assert_eq!(desk.status("GET", "/accounts").await, status);
            assert_eq!(desk.status("GET", "/portfolios").await, 200);
            clear(&desk).await;
        }
        fault(&desk, json!({"kind": "rest_error", "status": 500, "rate": 0.5})).await;
        let mut failed = 0;
        for _ in 0..100 {
            failed += u32::from(desk.status("GET", "/accounts").await == 500);
            sleep(SECOND / 10).await;
        }
        assert!((30..70).contains(&failed), "{failed}");
    });
}

#[test]
fn a_lost_reply_is_not_a_lost_order_and_a_lost_request_is_nothing() {
    paused(async {
        let desk = desk();
        let body =
            json!({"client_order_id": "x", "product_id": BIP, "side": "BUY", "order_configuration": market("1")});
        for (kind, position) in [("drop_requests", "0"), ("drop_replies", "1")] {
            fault(&desk, json!({"kind": kind, "count": 1})).await;
            let lost = timeout(20 * SECOND, desk.post("/orders", body.clone())).await;
            assert!(lost.is_err(), "{kind}");
            assert_eq!(desk.position(BIP).await, position, "{kind}");
        }
        fault(&desk, json!({"kind": "drop_replies", "endpoint": "POST /orders/batch_cancel", "count": 1})).await;
        let resting = json!({"limit_limit_gtc": {"base_size": "0.01", "limit_price": "50000"}});
        let id = desk.order("rest", BTC, "BUY", resting).await["success_response"]["order_id"].clone();
        let cancel = json!({"order_ids": [id]});
        assert!(timeout(20 * SECOND, desk.post("/orders/batch_cancel", cancel)).await.is_err());
        assert!(desk.open_orders().await.is_empty());
    });
}

#[test]
fn a_late_reply_is_as_late_as_it_should_be() {
    paused(async {
        let desk = desk();
        fault(
            &desk,
            json!({"kind": "latency", "distribution": "uniform", "milliseconds": 300, "max_milliseconds": 500}),
        )
        .await;
        for _ in 0..20 {
            let start = Instant::now();
            desk.status("GET", "/accounts").await;
            assert!((300..=501).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn a_skewed_clock_refuses_fresh_tokens_and_a_changed_key_shows_another_portfolio() {
    paused(async {
        let desk = desk();
        for skew in [-90_000, 150_000] {
            fault(&desk, json!({"kind": "clock_skew", "milliseconds": skew, "for": "1m"})).await;
            assert_eq!(desk.status("GET", "/accounts").await, 401, "{skew}");
            sleep(61 * SECOND).await;
            assert_eq!(desk.status("GET", "/accounts").await, 200, "{skew}");
        }
        let (key, other) = (desk.accounts.keys[0].name.clone(), desk.accounts.portfolios[1].uuid);
        fault(&desk, json!({"kind": "portfolio_changed", "key": key, "to": other})).await;
        assert_eq!(desk.get("/key_permissions").await["portfolio_uuid"], json!(other));
    });
}

#[test]
fn maintenance_closes_everything_and_ends() {
    paused(async {
        let desk = desk();
        let mut socket = level2(&desk).await;
        fault(&desk, json!({"kind": "maintenance", "for": "5m"})).await;
        timeout(SECOND, socket.closed()).await.unwrap();
        assert_eq!(desk.status("GET", "/accounts").await, 503);
        assert_eq!(desk.try_web_socket("/ws").await.err(), Some(503));
        sleep(301 * SECOND).await;
        assert_eq!(desk.status("GET", "/accounts").await, 200);
        level2(&desk).await;
    });
}

#[test]
fn frames_are_doubled_swapped_and_lost() {
    paused(async {
        let desk = desk();
        let mut socket = level2(&desk).await;
        let sorted = |numbers: &[u64]| numbers.windows(2).all(|w| w[0] + 1 == w[1]);

        fault(&desk, json!({"kind": "duplicate_frames", "rate": 0.3})).await;
        sleep(10 * SECOND).await;
        let mut heard = numbers(&socket.drain().await);
        let all = heard.len();
        heard.dedup();
        assert!(heard.len() < all && sorted(&heard));
        clear(&desk).await;
        sleep(SECOND / 2).await;
        socket.drain().await; // what was on its way, perhaps twice

        fault(&desk, json!({"kind": "reorder_frames", "rate": 0.3})).await;
        sleep(10 * SECOND).await;
        clear(&desk).await;
        sleep(SECOND).await;
        let mut heard = numbers(&socket.drain().await);
        assert!(!sorted(&heard));
        heard.sort_unstable();
        assert!(sorted(&heard), "nothing is lost: {heard:?}");

        fault(&desk, json!({"kind": "sequence_gap", "count": 1})).await;
        sleep(5 * SECOND).await;
        // From the last one heard before: the first frame may be the one that is lost.
        let before = heard.last().copied();
        let heard: Vec<u64> = before.into_iter().chain(numbers(&socket.drain().await)).collect();
        assert_eq!(
            heard.windows(2).filter(|w| w[0] + 2 == w[1]).count() + usize::from(!sorted(&heard)),
            2,
            "{heard:?}"
        );

        fault(&desk, json!({"kind": "websocket_silent", "for": "5m"})).await;
        sleep(SECOND / 2).await;
        socket.drain().await; // what was on its way
        sleep(299 * SECOND).await;
        assert_eq!(numbers(&socket.drain().await), [0; 0]);
        assert_eq!(desk.connections(), 1, "it stays open");
        sleep(3 * SECOND).await;
        assert!(!socket.drain().await.is_empty());
    });
}

#[test]
fn prices_jump_and_funding_spikes() {
    paused(async {
        let desk = desk();
        let price = |product: Value| product["price"].as_str().unwrap().parse::<f64>().unwrap();
        let before = price(desk.get(&format!("/products/{BIP}")).await);
        fault(&desk, json!({"kind": "price_gap", "product_id": BTC, "bps": -800})).await;
        sleep(20 * SECOND).await;
        let after = price(desk.get(&format!("/products/{BIP}")).await);
        assert!((0.90..0.94).contains(&(after / before)), "{before} {after}");
        fault(&desk, json!({"kind": "funding_spike", "product_id": BIP, "funding_rate": "0.002"})).await;
        sleep(3600 * SECOND).await;
        let product = desk.get(&format!("/products/{BIP}")).await;
        assert_eq!(product["future_product_details"]["funding_rate"], "0.002");
    });
}

#[test]
fn orders_are_refused_filled_in_part_and_cancelled_late() {
    paused(async {
        let desk = desk();
        fault(&desk, json!({"kind": "reject_orders", "reason": "UNTRADABLE_PRODUCT", "product_id": BIP, "count": 1}))
            .await;
        let refused = desk.order("a", BIP, "BUY", market("10")).await;
        assert_eq!(refused["error_response"]["error"], "UNTRADABLE_PRODUCT");

        fault(&desk, json!({"kind": "partial_fills", "percent": 40})).await;
        desk.order("b", BIP, "BUY", market("10")).await;
        assert_eq!(desk.position(BIP).await, "4");
        clear(&desk).await;

        fault(&desk, json!({"kind": "close_position_ignores_size"})).await;
        let close = json!({"client_order_id": "c", "product_id": BIP, "size": "1"});
        desk.post("/orders/close_position", close).await;
        assert_eq!(desk.position(BIP).await, "0");

        fault(&desk, json!({"kind": "slow_cancels", "milliseconds": 5000})).await;
        let resting = json!({"limit_limit_gtc": {"base_size": "0.01", "limit_price": "50000"}});
        let id = desk.order("d", BTC, "BUY", resting.clone()).await["success_response"]["order_id"].clone();
        desk.post("/orders/batch_cancel", json!({"order_ids": [id]})).await;
        sleep(4 * SECOND).await;
        assert_eq!(desk.open_orders().await.len(), 1);
        sleep(2 * SECOND).await;
        assert_eq!(desk.open_orders().await.len(), 0);
    });
}

#[test]
fn undocumented_behaviour_can_be_the_other_one() {
    paused(async {
        let desk = desk();
        let first = desk.order("same", BIP, "BUY", market("1")).await;
        let again = desk.order("same", BIP, "BUY", market("1")).await;
        assert_eq!(again["success_response"]["order_id"], first["success_response"]["order_id"]);
        fault(&desk, json!({"kind": "refuse_duplicates"})).await;
        let again = desk.order("same", BIP, "BUY", market("1")).await;
        assert_eq!(again["error_response"]["error"], "DUPLICATE_CLIENT_ORDER_ID");

        fault(&desk, json!({"kind": "refuse_gtd", "product_id": BIP})).await;
        let dated = |price| json!({"limit_limit_gtd": {"base_size": "1", "limit_price": price, "end_time": "2026-11-17T00:00:00Z"}});
        let refused = desk.order("g", BIP, "BUY", dated("60000")).await;
        assert_eq!(refused["error_response"]["error"], "UNSUPPORTED_ORDER_CONFIGURATION");
        assert_eq!(desk.order("h", BTC, "BUY", dated("50000")).await["success"], true);

        fault(&desk, json!({"kind": "numeric_heartbeats"})).await;
        let mut socket = level2(&desk).await;
        sleep(3 * SECOND).await;
        let beats = socket.drain().await.into_iter().filter(|f| f["channel"] == "heartbeats");
        for beat in beats {
            assert!(beat["events"][0]["heartbeat_counter"].is_u64(), "{beat}");
        }
    });
}

/// An hour of random faults on a client that goes on regardless. Returns the journal's hash.
async fn an_hour_of_faults(seed: u64) -> String {
    let desk = Desk::open(seed, SECOND);
    let script = "random: {every: 20s, until: 55m, longest: 30s}";
    desk.send("POST", "/_simulator/scenario", super::desk::ADMIN, Some(script.as_bytes())).await;
    let mut kinds = BTreeSet::new();
    for number in 0..360 {
        let side = if number % 2 == 0 { "BUY" } else { "SELL" };
        let body = json!({
            "client_order_id": number.to_string(), "product_id": BIP, "side": side,
            "order_configuration": market("2"),
        });
        let _ = timeout(5 * SECOND, desk.try_post("/orders", &body)).await;
        sleep(10 * SECOND).await;
        for fault in desk.admin("GET", "/faults", None).await["faults"].as_array().unwrap() {
            kinds.insert(fault["kind"].as_str().unwrap().to_owned());
        }
    }
    assert!(kinds.len() > 8, "{kinds:?}");
    let off = desk.admin("GET", "/faults", None).await;
    assert_eq!((&off["faults"], &off["closed_sessions"]), (&json!([]), &json!([])));
    assert!(off["struck"].as_object().unwrap().len() > 8, "{off}");
    assert_eq!(desk.status("GET", "/accounts").await, 200, "the faults are over");
    desk.journal_hash().await
}

#[test]
fn the_same_seed_gives_the_same_faults_and_the_same_hour() {
    let mut hashes = Vec::new();
    for seed in [1, 1, 2] {
        paused(async { hashes.push(an_hour_of_faults(seed).await) });
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}
