//! Metrics of the operator. Labels come from closed lists, never from object names.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder, histogram_opts, opts,
    register_histogram_with_registry, register_int_counter_vec_with_registry,
};

/// Metrics of the operator; clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    seconds: Histogram,
    writes: IntCounterVec,
    reports: IntCounterVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// A metric is registered twice, or its name is not valid.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let opts: Opts = opts!(name, help);
            register_int_counter_vec_with_registry!(opts, labels, registry)
        };
        let seconds: HistogramOpts =
            histogram_opts!("arbbot_operator_reconcile_seconds", "Duration of one reconcile, in seconds");
        Ok(Self {
            reconciles: counter(
                "arbbot_operator_reconciles_total",
                "Reconciles by result: ok, or the reason of the error",
                &["result"],
            )?,
            writes: counter(
                "arbbot_operator_writes_total",
                "Writes to the API server by kind; result noop: nothing was to be written",
                &["kind", "result"],
            )?,
            reports: counter("arbbot_operator_events_total", "Events by type and reason", &["type", "reason"])?,
            seconds: register_histogram_with_registry!(seconds, registry)?,
            registry,
        })
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, result: &str, took: Duration) {
        self.reconciles.with_label_values(&[result]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a write, or that none was needed.
    pub fn wrote(&self, kind: &str, result: &str) {
        self.writes.with_label_values(&[kind, result]).inc();
    }

    /// Counts an Event.
    pub fn reported(&self, type_: &str, reason: &str) {
        self.reports.with_label_values(&[type_, reason]).inc();
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
