//! Bot and exchange in one runtime on one virtual clock: whatever gets lost between them, and whenever the bot dies, no
//! intent becomes two orders, and once the faults stop both agree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod api_server;
mod backtest;
mod books;
mod bot;
mod desk;
mod disasters;
mod exchange;
mod guards;
mod hostile;
mod judge;
mod keys;
mod kills;
mod network;
mod orders;
mod outage;
mod paper;
mod replay;
mod secrets;
mod soak;
mod spec;
mod transcript;
mod wal;

use std::path::Path;
use std::sync::Arc;

use arb_bot::clock::Clock;
use arb_bot::execution::driver::TICK;
use arbbot_crds::incident::uid8;
use serde_json::json;

use bot::Machine;
use exchange::{CONTRACT, Exchange, FUTURE, SPOT};
use judge::accepted::{Account, Judge};
use network::Network;

/// Runs in a runtime of its own whose time is paused.
fn paused<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// The same, but the test itself has its turn after every single step of the others, instead of after 61 or when all
/// wait, so that it can end the bot between any two of them.
fn paused_step_by_step<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).event_interval(1).build().unwrap().block_on(future)
}

/// A bot's machine with the first account's key.
fn machine<'a>(exchange: &Exchange, network: &Arc<Network>, seed: u64, dir: &'a Path) -> Machine<'a> {
    exchange.put_key("0", &dir.join("primary"));
    Machine {
        clock: Clock::driven_by_tokio(exchange.start),
        tick: TICK,
        seed,
        dir,
        dial: network.dial(Arc::clone(&exchange.simulator)),
        spec: spec::spec(&exchange.portfolio(), &json!({}), &json!({})),
        acknowledged: bot::Acknowledged::default(),
        anchor: std::sync::Mutex::default(),
        record: None,
    }
}

/// Judges what the exchange accepts of a machine's bot.
fn judge_of(machine: &Machine<'_>) -> Judge {
    Judge::new(Account {
        uid8: uid8(spec::UID),
        spot: SPOT.into(),
        future: FUTURE.into(),
        contract_base: CONTRACT,
        leg_timeout: machine.spec.spec.strategy.funding_carry.orders.leg_timeout.0,
    })
}
