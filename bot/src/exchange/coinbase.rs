//! The Coinbase Advanced Trade venue.
