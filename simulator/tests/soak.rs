//! A hundred thousand order events in bounded memory; `make bench-exchange` does a million.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "../benches/exchange/load.rs"]
mod load;

use exchange_simulator::exchange::Retention;
use exchange_simulator::server::Options;
use exchange_simulator::server::clock::Clock;
use load::{Load, resident_mib};

const EVENTS: u64 = 100_000;
const KEPT: Retention = Retention { journal: 10_000, history: 1_000 };
const ACCOUNTS: usize = 2;
/// What may be open at once: the accounts' orders, and the quotes of the market makers.
const OPEN: usize = 1_000;

#[test]
fn a_hundred_thousand_events_leave_only_what_is_kept() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut options = Options::default();
        options.settings.retention = KEPT;
        let load = Load::new(ACCOUNTS, options, Clock::driven_by_tokio("2026-11-16T00:00:00Z".parse().unwrap()));
        let filled = load.run(EVENTS / 4).await;
        let full = resident_mib();
        let rest = load.run(EVENTS - filled.events).await;
        let grown = resident_mib() - full;

        assert!(filled.events + rest.events >= EVENTS && rest.frames > rest.orders, "the listeners hear of the orders");
        let (state, _) = load.simulator.app.lock();
        let exchange = &state.exchange;
        assert_eq!(exchange.journal.len(), KEPT.journal);
        assert!(exchange.orders_kept() <= ACCOUNTS * KEPT.history + OPEN, "{} orders", exchange.orders_kept());
        for portfolio in exchange.portfolios.values().filter(|p| !p.participant) {
            assert!(portfolio.fills.len() <= KEPT.history + 10, "{} fills", portfolio.fills.len());
            assert!(portfolio.client_order_ids.len() <= KEPT.history + 20);
        }
        assert!(exchange.timers() < 100, "{} timers", exchange.timers());
        assert!(grown < 16.0, "the memory grew by {grown} MiB");
    });
}
