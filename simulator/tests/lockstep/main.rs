//! The exchange without a socket and on a virtual clock: everything in one runtime whose time is paused.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod desk;
mod faults;
mod fuzz;
mod shown;
mod web_socket;

use std::time::Duration;

use desk::Desk;
use jiff::{SignedDuration, ToSpan};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const BTC: &str = "BTC-USD";
const BIP: &str = "BIP-20DEC30-CDE";

fn paused(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future);
}

/// A day of trading: an order of each kind every ten minutes, heard on both WebSockets. Returns the journal's hash.
async fn a_day(seed: u64) -> String {
    let desk = Desk::open(seed, Duration::from_secs(5));
    let mut user = desk.web_socket("/ws/user").await;
    user.subscribe("user", &[], Some(desk.token(None))).await;
    user.subscribe("heartbeats", &[], None).await;
    let start = desk.now();
    let mut number = 0;
    while desk.now() < start + 24.hours() {
        number += 1;
        let side = if number % 2 == 0 { "SELL" } else { "BUY" };
        let market = json!({"market_market_ioc": {"base_size": "1"}});
        let reply = desk.order(&format!("future-{number}"), BIP, side, market).await;
        assert_eq!(reply["success"], true, "{reply}");
        let resting = json!({"limit_limit_gtc": {"base_size": "0.01", "limit_price": "50000", "post_only": true}});
        let reply = desk.order(&format!("spot-{number}"), BTC, "BUY", resting).await;
        let id = reply["success_response"]["order_id"].clone();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let reply = desk.post("/orders/batch_cancel", json!({"order_ids": [id]})).await;
        assert_eq!(reply["results"][0]["success"], true, "{reply}");
    }
    let heard = user.drain().await;
    let beats = heard.iter().filter(|f| f["channel"] == "heartbeats").count();
    assert!((86_000..=86_500).contains(&beats), "{beats} heartbeats in a day");
    desk.journal_hash().await
}

#[test]
fn a_day_passes_in_seconds_and_the_same_seed_gives_the_same_journal() {
    // Of this thread, which runs everything: how busy the machine is otherwise must not matter.
    let cpu_seconds = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
    let begin = cpu_seconds();
    let mut hashes = Vec::new();
    for seed in [7, 7, 8] {
        paused(async { hashes.push(a_day(seed).await) });
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    let took = cpu_seconds() - begin;
    assert!(took < 90, "three days took {took} s, without optimisation");
}

#[test]
fn a_token_lives_two_minutes_of_virtual_time() {
    paused(async {
        let desk = Desk::open(1, Duration::from_millis(100));
        let token = desk.token(Some("GET localhost/api/v3/brokerage/accounts"));
        assert_eq!(desk.send("GET", "/api/v3/brokerage/accounts", &token, None).await.0, 200);
        tokio::time::sleep(Duration::from_secs(110)).await;
        assert_eq!(desk.send("GET", "/api/v3/brokerage/accounts", &token, None).await.0, 200);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(desk.send("GET", "/api/v3/brokerage/accounts", &token, None).await.0, 401);
    });
}

#[test]
fn the_virtual_clock_starts_where_it_is_told() {
    paused(async {
        let desk = Desk::open(1, Duration::from_secs(1));
        assert_eq!(desk.now(), desk::START.parse().unwrap());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(desk.now().duration_since(desk::START.parse().unwrap()), SignedDuration::from_hours(1));
    });
}
