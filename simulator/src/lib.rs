//! A Coinbase-compatible exchange for demos, drills and tests: Advanced Trade spot and US perpetual-style futures.
//!
//! `exchange` is the pure core (matching, money, funding, participants), `server` puts it on the network,
//! `data_dir` holds its certificates, accounts and keys, and `process` runs the program. It shares no wire type with the bot, on purpose: a mistake in
//! it would hide itself. How orders match is in `exchange-matching`, which a bot's paper account uses, too.

pub mod data_dir;
pub mod exchange;
pub mod process;
pub mod server;
