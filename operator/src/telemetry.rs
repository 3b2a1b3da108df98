//! Logs: JSON lines on stderr, filtered by RUST_LOG at first and by PUT /log-level later.

use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Longest filter that is taken.
const LONGEST: usize = 512;

/// The filter of the log, to be changed at run time.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Changes the filter, for example to `debug,kube=info`.
    ///
    /// # Errors
    /// It is no filter; nothing has changed.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        if filter.is_empty() || filter.len() > LONGEST {
            return Err(format!("a filter has 1 to {LONGEST} bytes, for example: info,kube=warn"));
        }
        let parsed = EnvFilter::try_new(filter).map_err(|error| format!("not a filter: {error}"))?;
        self.0.reload(parsed).map_err(|error| error.to_string())?;
        tracing::info!(filter, "the log level is changed");
        Ok(())
    }

    /// The filter now.
    #[must_use]
    pub fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Starts the log of this process. A second call changes nothing.
pub fn start() -> LogLevel {
    static STARTED: OnceLock<LogLevel> = OnceLock::new();
    STARTED.get_or_init(first_start).clone()
}

fn first_start() -> LogLevel {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_target(true);
    if let Err(error) = tracing_subscriber::registry().with(filter).with(lines).try_init() {
        tracing::debug!(%error, "the log is started already");
    }
    LogLevel(handle)
}
