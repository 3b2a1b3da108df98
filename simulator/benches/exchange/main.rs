//! `make bench-exchange`: how fast the exchange is, and that it does not grow: one line of JSON on standard output.
//!
//! First single orders, one after another; then four accounts, each with a listener, until everything that is kept has
//! been full once; then a million order events, which are what is measured. It fails when the memory grows with them.

#![allow(clippy::unwrap_used, clippy::panic)] // a bench fails by panicking

mod load;

use std::time::{Duration, Instant};

use exchange_simulator::exchange::portfolio::Portfolio;
use exchange_simulator::server::Options;
use exchange_simulator::server::clock::Clock;
use load::{Load, RESTING, id, resident_mib};
use serde_json::json;

const WORKERS: usize = 4;
const SINGLE_ORDERS: usize = 5_000;
/// After 800,000 the journal has its 200,000 events, and each account its 20,000 orders and 20,000 fills. The memory
/// rises for some time more, until what is forgotten leaves room for what comes.
const FILL: u64 = 1_300_000;
const EVENTS: u64 = 1_000_000;
/// What the memory may grow by after that: the allocator's noise.
const GROWTH_MIB: f64 = 16.0;

#[tokio::main]
async fn main() {
    let load = Load::new(WORKERS, Options::default(), Clock::real(1));
    place_times(&load, SINGLE_ORDERS / 10).await; // warm up
    let times = place_times(&load, SINGLE_ORDERS).await;
    load.run(FILL).await;
    assert!(is_full(&load), "{FILL} events do not fill what is kept");
    let full = resident_mib();
    let start = Instant::now();
    let done = load.run(EVENTS).await;
    let elapsed = start.elapsed();
    let resident = resident_mib();
    let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()).round();
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "{}",
        json!({
            "orders_per_second": per_second(done.orders),
            "events_per_second": per_second(done.events),
            "resident_mib": (resident * 10.0).round() / 10.0,
            "place_p50_us": at(0.5),
            "place_p99_us": at(0.99),
            "events": done.events,
            "frames": done.frames,
            "resident_mib_when_full": (full * 10.0).round() / 10.0,
        })
    );
    assert!(resident - full < GROWTH_MIB, "the memory grew from {full} to {resident} MiB");
}

/// Times of single orders, one after another on an idle exchange, sorted.
async fn place_times(load: &Load, count: usize) -> Vec<Duration> {
    let mut client = load.client(0);
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        let mut placed = Vec::with_capacity(RESTING);
        for _ in 0..RESTING {
            let order = client.resting();
            client.token("POST", "/orders"); // signing is the client's time
            let start = Instant::now();
            let reply = client.post("/orders", &order).await;
            times.push(start.elapsed());
            placed.push(id(&reply));
        }
        client.cancel(&placed).await;
    }
    times.sort_unstable();
    times
}

/// Whether everything that is kept is as much as it may be.
fn is_full(load: &Load) -> bool {
    let (state, _) = load.simulator.app.lock();
    let (exchange, kept) = (&state.exchange, state.exchange.settings.retention);
    let full = |p: &Portfolio| p.history.len() >= kept.history && p.fills.len() >= kept.history;
    exchange.journal.len() == kept.journal && exchange.portfolios.values().filter(|p| !p.participant).all(full)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
