//! JSON logs on stderr, whose level changes while the bot runs.

use std::io::{self, IsTerminal};

use arbbot_crds::arbbot::LogLevel;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Overrides the level of the spec, for every crate.
const VARIABLE: &str = "RUST_LOG";

/// Changes the level of the log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    /// None: RUST_LOG decides.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

/// Why the log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("RUST_LOG={value:?} is not a filter: {cause}; set it to a level or to target=level pairs, or unset it")]
    Filter { value: String, cause: tracing_subscriber::filter::ParseError },
    #[error("the log is already set up: {0}; set it up once, in main")]
    AlreadySet(#[from] TryInitError),
    #[error("the level of the log cannot be changed: {0}; restart the bot")]
    Reload(#[from] reload::Error),
}

/// Starts logging at level info, or as RUST_LOG says.
///
/// # Errors
/// RUST_LOG cannot be read, or logging was already started.
pub fn init() -> Result<LogHandle, LogError> {
    let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = match &variable {
        Some(value) => EnvFilter::try_new(value).map_err(|cause| LogError::Filter { value: value.clone(), cause })?,
        None => filter(LogLevel::default()),
    };
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(filter).with(json(io::stderr)).try_init()?;
    Ok(LogHandle { filter: variable.is_none().then_some(handle) })
}

/// Warnings as lines on stderr, for commands whose output is on stdout; or what RUST_LOG says.
///
/// # Errors
/// RUST_LOG cannot be read, or logging was already started.
pub fn for_people() -> Result<(), LogError> {
    let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let value = variable.unwrap_or_else(|| "warn".to_owned());
    let filter = EnvFilter::try_new(&value).map_err(|cause| LogError::Filter { value, cause })?;
    let lines =
        fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).without_time().with_target(false);
    Ok(tracing_subscriber::registry().with(filter).with(lines).try_init()?)
}

impl LogHandle {
    /// Changes the level of the bot's own logs. Without effect where RUST_LOG is set.
    ///
    /// # Errors
    /// Logging has ended.
    pub fn set_level(&self, level: LogLevel) -> Result<(), LogError> {
        match &self.filter {
            Some(handle) => Ok(handle.reload(filter(level))?),
            None => Ok(()),
        }
    }
}

/// The level for the bot; libraries stay at warnings, because in their traces they print headers, and with them keys.
fn filter(level: LogLevel) -> EnvFilter {
    let libraries = if level == LogLevel::Error { "error" } else { "warn" };
    EnvFilter::new(format!("{libraries},arb_bot={level},arbbot_crds={level}"))
}

/// One line of JSON per event: timestamp, level, target and the event's fields.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false).with_writer(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<serde_json::Value> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
        }
    }

    #[test]
    fn the_level_changes_while_the_bot_runs_and_libraries_never_trace() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (filter, handle) = reload::Layer::new(filter(LogLevel::Info));
        let handle = LogHandle { filter: Some(handle) };
        let subscriber = tracing_subscriber::registry().with(filter).with(json(move || writer.clone()));
        // Beside a single subscriber tracing asks the thread that first meets a place in the code, which may be another
        // test's, whether anybody listens: a second one makes it ask them all.
        let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "arb_bot::gate", "hidden");
            tracing::info!(target: "arb_bot::gate", orders = 3, "shown");
            let shown = lines.take();
            assert_eq!(shown.len(), 1);
            assert_eq!((&shown[0]["message"], &shown[0]["orders"]), (&"shown".into(), &3.into()));
            assert_eq!((&shown[0]["level"], &shown[0]["target"]), (&"INFO".into(), &"arb_bot::gate".into()));
            assert!(shown[0]["timestamp"].is_string());

            handle.set_level(LogLevel::Trace).unwrap();
            tracing::trace!(target: "arb_bot::gate", "shown");
            tracing::info!(target: "hyper::proto", "authorization: Bearer x");
            assert_eq!(lines.take().len(), 1);

            handle.set_level(LogLevel::Error).unwrap();
            tracing::warn!(target: "arb_bot::gate", "hidden");
            tracing::error!(target: "arb_bot::gate", "shown");
            assert_eq!(lines.take().len(), 1);
        });
    }
}
