//! Coinbase Advanced Trade: REST and WebSockets, authenticated by JSON Web Tokens of a CDP API key.
//!
//! The wire facts here are those of `reference/coinbase.md` (Coinbase's documentation and its official Python SDK).

mod budget;
pub mod jwt;
pub mod key;
pub mod rest;
pub mod session;
mod tls;
mod websocket;
mod wire;

#[cfg(test)]
mod tests;

pub use key::{ApiKey, KeyError};
pub use rest::Coinbase;
pub use session::{Session, SessionError, Settings};
