//! Metrics of the operator. Labels come from closed lists, never from object names.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, histogram_opts, opts,
    register_histogram_with_registry, register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};

use crate::queue::Depth;

/// Metrics of the operator; clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    seconds: Histogram,
    writes: IntCounterVec,
    reports: IntCounterVec,
    watch_errors: IntCounterVec,
    leader: IntGauge,
    objects: IntGaugeVec,
    queue: IntGaugeVec,
    failing: IntGauge,
    forbidden: IntGauge,
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
            histogram_opts!("arbbot_operator_reconcile_seconds", "Duration of one reconcile, in seconds")
                // 0.25 ms (decided from the caches) to 8 s (an API server that hangs).
                .buckets(prometheus::exponential_buckets(0.000_25, 2.0, 16)?);
        Ok(Self {
            reconciles: counter(
                "arbbot_operator_reconciles_total",
                "Reconciles by kind and result: ok, or the reason of the error",
                &["kind", "result"],
            )?,
            writes: counter(
                "arbbot_operator_writes_total",
                "Writes to the API server by kind; result noop: nothing was to be written",
                &["kind", "result"],
            )?,
            reports: counter("arbbot_operator_events_total", "Events by type and reason", &["type", "reason"])?,
            watch_errors: counter(
                "arbbot_operator_watch_errors_total",
                "Errors of watches by kind and status code; 0: no answer",
                &["kind", "code"],
            )?,
            leader: register_int_gauge_with_registry!(
                opts!("arbbot_operator_leader", "1 while this replica leads"),
                registry
            )?,
            objects: register_int_gauge_vec_with_registry!(
                opts!("arbbot_operator_objects", "Objects in the caches by kind"),
                &["kind"],
                registry
            )?,
            queue: register_int_gauge_vec_with_registry!(
                opts!("arbbot_operator_queue", "Reconciles by kind and state: due, later, running"),
                &["kind", "state"],
                registry
            )?,
            failing: register_int_gauge_with_registry!(
                opts!("arbbot_operator_failing", "Objects whose last reconcile failed"),
                registry
            )?,
            forbidden: register_int_gauge_with_registry!(
                opts!("arbbot_operator_watches_forbidden", "Watches that the operator is not allowed to make"),
                registry
            )?,
            seconds: register_histogram_with_registry!(seconds, registry)?,
            registry,
        })
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, kind: &str, result: &str, took: Duration) {
        self.reconciles.with_label_values(&[kind, result]).inc();
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

    /// Counts an error of a watch.
    pub fn watch_failed(&self, kind: &str, code: u16) {
        self.watch_errors.with_label_values(&[kind, &code.to_string()]).inc();
    }

    /// Sets what is measured when somebody asks.
    pub fn observe(
        &self,
        leads: bool,
        objects: &[(&str, usize)],
        queues: &[(&str, Depth)],
        failing: usize,
        forbidden: usize,
    ) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.leader.set(i64::from(leads));
        self.failing.set(number(failing));
        self.forbidden.set(number(forbidden));
        for (kind, count) in objects {
            self.objects.with_label_values(&[*kind]).set(number(*count));
        }
        for (kind, depth) in queues {
            for (state, count) in [("due", depth.due), ("later", depth.later), ("running", depth.running)] {
                self.queue.with_label_values(&[*kind, state]).set(number(count));
            }
        }
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
