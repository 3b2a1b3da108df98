//! The trading bot `arb-bot`: control from Kubernetes, one gate for orders, and the kill saga.
//!
//! Decisions are pure functions of (state, event, effective control); I/O is at the edges; time is injected.

pub mod assembly;
pub mod backtest;
pub mod books;
pub mod cli;
pub mod clock;
pub mod control;
pub mod exchange;
pub mod execution;
pub mod ledger;
pub mod market;
pub mod randomness;
pub mod recording;
pub mod risk;
pub mod strategy;
pub mod telemetry;
#[cfg(test)]
mod testing;
