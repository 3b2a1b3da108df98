//! Coinbase Advanced Trade: REST and WebSockets, authenticated by JSON Web Tokens of a CDP API key.
//!
//! The wire facts here are those of `reference/coinbase.md` (Coinbase's documentation and its official Python SDK).

mod budget;
mod circuit;
mod http;
pub mod jwt;
pub mod key;
pub mod market_data;
pub mod public;
pub mod rest;
pub mod session;
mod task;
mod tls;
pub mod transport;
pub(crate) mod websocket;
mod wire;

#[cfg(test)]
mod tests;

pub use jwt::VenueClock;
pub use key::{ApiKey, KeyError};
pub use public::PublicSession;
/// The REST client, by the name that commands know it under.
pub use rest::Coinbase as Client;
pub use rest::{Coinbase, PublicRest, manual};
pub use session::{Connector, Session, SessionError, Settings};
pub use task::SessionTask;
pub use transport::{Dial, Transport};
pub use wire::new_order;

/// Its name in the spec and in the ledger.
pub const NAME: &str = "coinbase";
