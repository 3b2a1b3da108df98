//! `make bench-bot`: how long a decision takes, how long it is until its order is durable and sent, and how fast a recorded
//! series is played: one line of JSON on standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a bench fails by panicking

mod decide;
mod desk;
mod play;
mod send;

use std::time::Duration;

use serde_json::{Value, json};

/// What `cargo test` runs of it, without the `--bench` that `cargo bench` passes.
const PART_IN_TESTS: u32 = 20;

fn main() {
    let part = if std::env::args().any(|argument| argument == "--bench") { 1 } else { PART_IN_TESTS };
    let gate = decide::risk_gate(200_000 / part);
    let tick_to_order = decide::tick_to_order(20_000 / part);
    let tick_to_sent = send::tick_to_sent(500 / part);
    let played = play::play(3600 / part);
    let us = |time: Duration| rounded(time.as_secs_f64() * 1e6);
    println!(
        "{}",
        json!({
            "tick_to_order_p50_us": us(at(&tick_to_order, 0.5)),
            "tick_to_order_p99_us": us(at(&tick_to_order, 0.99)),
            "risk_gate_p50_ns": at(&gate, 0.5).as_nanos() as u64,
            "risk_gate_p99_ns": at(&gate, 0.99).as_nanos() as u64,
            "backtest_events_per_second": played.events_per_second.round(),
            "backtest_turns_per_second": played.turns_per_second.round(),
            "tick_to_sent_p50_us": us(at(&tick_to_sent, 0.5)),
            "tick_to_sent_p99_us": us(at(&tick_to_sent, 0.99)),
            "orders": tick_to_order.len(),
            "orders_sent": tick_to_sent.len(),
            "load_average": load_average(),
        })
    );
}

/// The time that so large a share of them does not exceed.
fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Of the last minute: what else the machine did.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse::<f64>().ok()).map_or(Value::Null, Value::from)
}
