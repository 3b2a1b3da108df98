//! The trading bot `arb-bot`: control from Kubernetes, one gate for orders, and the kill saga.
//!
//! Decisions are pure functions of (state, event, effective control); I/O is at the edges; time is injected.

pub mod clock;
pub mod exchange;
pub mod ledger;
pub mod market;
pub mod risk;
pub mod telemetry;
