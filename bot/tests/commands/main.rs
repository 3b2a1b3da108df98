//! The programs as a person uses them, without a cluster: `arb-bot` and `exchange-simulator`, each a process of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod capture;
mod control;
mod desk;
mod docs;
mod orders;
mod paper;
mod postgres;
#[path = "../postgres/server.rs"]
mod server;
