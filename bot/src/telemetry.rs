//! Metrics, logs and the HTTP server.
