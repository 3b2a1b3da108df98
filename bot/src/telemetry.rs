//! Metrics, logs and the HTTP server.

pub mod logs;
pub mod metrics;
pub mod server;
