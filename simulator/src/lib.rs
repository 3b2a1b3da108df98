//! A Coinbase-compatible exchange for demos, drills and tests: Advanced Trade spot and US perpetual-style futures.
//!
//! `exchange` is the pure core (matching, money, funding, participants), `server` puts it on the network, and
//! `data_dir` holds its certificates, accounts and keys. It shares no code with the bot, on purpose: a mistake in a
//! shared wire type would hide itself.

pub mod data_dir;
pub mod exchange;
pub mod server;
