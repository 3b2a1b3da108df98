//! The rules of a WebSocket connection that take minutes, in virtual time.

use std::time::Duration;

use exchange_simulator::server::Options;
use tokio::time::{Instant, sleep, timeout};

use super::desk::Desk;
use super::{BTC, paused};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connection_without_heartbeats_is_closed_after_a_minute_or_a_little_more_of_silence() {
    paused(async {
        let desk = Desk::open(1, Duration::from_millis(100));
        let mut quiet = desk.web_socket("/ws/user").await;
        quiet.subscribe("user", &[], Some(desk.token(None))).await;
        let mut beating = desk.web_socket("/ws/user").await;
        beating.subscribe("user", &[], Some(desk.token(None))).await;
        beating.subscribe("heartbeats", &[], None).await;
        let start = Instant::now();
        timeout(120 * SECOND, quiet.closed()).await.unwrap();
        assert!((60 * SECOND..=91 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert!(timeout(600 * SECOND, beating.closed()).await.is_err());
    });
}

#[test]
fn the_first_subscription_must_come_within_five_seconds() {
    paused(async {
        let desk = Desk::open(1, Duration::from_millis(100));
        let mut socket = desk.web_socket("/ws").await;
        let start = Instant::now();
        socket.subscribe("user", &[], None).await; // refused, so it does not count
        timeout(10 * SECOND, socket.closed()).await.unwrap();
        assert!((5 * SECOND..6 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    });
}

#[test]
fn an_address_connects_eight_times_a_second_and_sends_eight_messages_without_a_token() {
    paused(async {
        let desk = Desk::open(1, Duration::from_millis(100));
        for _ in 0..8 {
            drop(desk.try_web_socket("/ws").await.unwrap());
        }
        assert_eq!(desk.try_web_socket("/ws").await.err(), Some(429));
        sleep(SECOND).await;
        let mut socket = desk.web_socket("/ws").await;
        for _ in 0..20 {
            socket.subscribe("ticker", &[BTC], None).await;
        }
        for _ in 0..20 {
            socket.subscribe("ticker", &[BTC], Some(desk.token(None))).await;
        }
        sleep(SECOND / 10).await;
        let frames = socket.drain().await;
        assert_eq!(frames.iter().filter(|f| f["message"] == "rate limit exceeded").count(), 12);
        assert_eq!(frames.iter().filter(|f| f["channel"] == "subscriptions").count(), 28);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_nobody_else_waits() {
    paused(async {
        let options = Options { tick: Duration::from_millis(10), ..Options::default() };
        let desk = Desk::open_with(&options);
        let mut slow = desk.deaf_web_socket("/ws").await;
        let mut quick = desk.web_socket("/ws").await;
        for channel in ["level2", "ticker", "heartbeats"] {
            slow.subscribe(channel, &[BTC], None).await;
            quick.subscribe(channel, &[BTC], None).await;
        }
        sleep(2 * SECOND).await;
        assert_eq!(desk.connections(), 2);
        sleep(120 * SECOND).await;
        assert_eq!(desk.connections(), 1);
        quick.drain().await;
        sleep(SECOND).await;
        assert!(quick.drain().await.len() > 20, "the other goes on");
    });
}

#[test]
fn what_was_unsubscribed_is_not_sent_any_more() {
    paused(async {
        let desk = Desk::open(1, Duration::from_millis(100));
        let mut socket = desk.web_socket("/ws").await;
        socket.subscribe("heartbeats", &[], None).await;
        socket.subscribe("level2", &[BTC], None).await;
        sleep(5 * SECOND).await;
        assert!(socket.drain().await.iter().filter(|f| f["channel"] == "l2_data").count() > 5);
        socket.unsubscribe("level2", &[BTC]).await;
        sleep(SECOND / 100).await;
        socket.drain().await;
        sleep(5 * SECOND).await;
        let channels: Vec<_> = socket.drain().await.iter().map(|f| f["channel"].to_string()).collect();
        assert_eq!(channels, vec!["\"heartbeats\""; 5]);
    });
}
