//! The command line.

pub mod account;
pub mod backtest;
pub mod capture;
pub mod connect;
pub mod ledger;
pub mod orders;
pub mod output;
pub mod preflight;
mod progress;
pub mod reconcile;
pub mod replay;
pub mod report;
pub mod run;
pub mod status;
