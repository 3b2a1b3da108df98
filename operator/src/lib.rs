//! The controller of ArbBots: one reconcile is five steps, `fetch → validate → build → apply → report`.
//!
//! It never writes a spec, has no permission on Secrets, and is not needed for a kill: the bot watches its own ArbBot.

pub mod admin;
pub mod api;
pub mod args;
pub mod backoff;
pub mod cache;
pub mod claim;
pub mod client;
pub mod context;
pub mod controller;
pub mod events;
pub mod fencing;
pub mod leader;
pub mod leadership;
pub mod loosening;
pub mod metrics;
pub mod policy;
pub mod queue;
pub mod reconcile;
pub mod run;
pub mod telemetry;
mod worker;
