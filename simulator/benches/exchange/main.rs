//! `make bench-exchange`: how fast the exchange is, and that it does not grow: one line of JSON on standard output.
//!
//! First single orders, one after another; then a million order events from four accounts, each with a listener. It fails
//! when the memory still grows after everything that is kept has been full once.

#![allow(clippy::unwrap_used, clippy::panic)] // a bench fails by panicking

mod load;

use std::time::Duration;

use exchange_simulator::server::Options;
use exchange_simulator::server::clock::Clock;
use load::{Load, resident_mib};
use serde_json::json;

const WORKERS: usize = 4;
const SINGLE_ORDERS: usize = 5_000;
/// The journal is full after 200,000 events, and the histories after some more.
const FILL: u64 = 400_000;
const EVENTS: u64 = 1_000_000;
/// What the memory may grow by once everything is full: the allocator's noise.
const GROWTH_MIB: f64 = 16.0;

#[tokio::main]
async fn main() {
    let load = Load::new(WORKERS, Options::default(), Clock::real(1));
    load.place_times(SINGLE_ORDERS / 10).await; // warm up
    let times = load.place_times(SINGLE_ORDERS).await;
    let first = load.run(FILL).await;
    let full = resident_mib();
    let second = load.run(EVENTS - FILL).await;
    let resident = resident_mib();
    let seconds = (first.elapsed + second.elapsed).as_secs_f64();
    let per_second = |count: u64| (count as f64 / seconds).round();
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "{}",
        json!({
            "orders_per_second": per_second(first.orders + second.orders),
            "events_per_second": per_second(first.events + second.events),
            "resident_mib": (resident * 10.0).round() / 10.0,
            "place_p50_us": at(0.5),
            "place_p99_us": at(0.99),
            "events": first.events + second.events,
            "frames": first.frames + second.frames,
            "resident_mib_when_full": (full * 10.0).round() / 10.0,
        })
    );
    assert!(resident - full < GROWTH_MIB, "the memory grew from {full} to {resident} MiB");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
