//! Logs: JSON lines on stderr, filtered by RUST_LOG.

use tracing_subscriber::EnvFilter;

/// Starts the log of this process. A second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let started = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true)
        .try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "the log is started already");
    }
}
