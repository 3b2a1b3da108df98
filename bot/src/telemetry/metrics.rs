//! Metrics: names begin with `arbbot_`, units are base units, label values come from closed lists.

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::control::{Control, Duty, Entry};
use arbbot_crds::guards::{GuardAction, GuardMetric, GuardState};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::exchange::{ExchangeError, Link};
use crate::risk::guards::Readings;
use crate::risk::{Class, Denied};

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum OrderOutcome {
    Accepted,
    Rejected,
    /// Proven not to be at the exchange.
    NotPlaced,
    /// Neither proven placed nor proven not placed.
    Unknown,
}

/// Metrics of the bot. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    orders: IntCounterVec,
    exchange_requests: IntCounterVec,
    denied: IntCounterVec,
    status_writes: IntCounterVec,
    entry: IntGauge,
    duty: IntGauge,
    link_up: IntGaugeVec,
    guard_value: GaugeVec,
    guard_state: IntGaugeVec,
    guard_trips: IntCounterVec,
    position_contracts: Gauge,
    position_base: Gauge,
    contact_age: Gauge,
    /// Changes of the control put in force.
    pub control_changes: IntCounter,
    /// Watches that had to be started again.
    pub watch_restarts: IntCounter,
    /// Orders that work, or may work, at the exchange.
    pub open_orders: IntGauge,
    /// Orders whose fills the books do not all have.
    pub fills_outstanding: IntGauge,
    /// 1 while the books do not add up; the log says what.
    pub books_problem: IntGauge,
    /// Incidents that are not released.
    pub incidents_open: IntGauge,
    /// 0 safe, 1 a guard warns, 2 nothing may raise a leg, 3 halted, 4 killed.
    pub risk_level: IntGauge,
    /// From a change being received to its being in force in the gate.
    pub control_apply: Histogram,
    /// From an order being sent to the exchange's answer.
    pub order_latency: Histogram,
    /// From a kill's closing of the gate to the exchange's confirmation that no order works.
    pub kill_orders_gone: Histogram,
    /// From a kill's closing of the gate to the exchange's confirmation that the bot is flat.
    pub kill_flat: Histogram,
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// A name is used twice or is not valid: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let r = &Registry::new();
        let metrics = Self {
            registry: r.clone(),
            orders: counters(
                r,
                "orders_total",
                "Orders sent, by class and what became of them",
                &["class", "outcome"],
            )?,
            exchange_requests: counters(
                r,
                "exchange_requests_total",
                "Requests to the exchange, by call and outcome",
                &["call", "outcome"],
            )?,
            denied: counters(r, "denied_total", "Orders that the gate denied, by reason", &["reason"])?,
            status_writes: counters(r, "status_writes_total", "Writes of the status, by outcome", &["outcome"])?,
            entry: gauge(r, "entry", "Entry in force: 0 Active, 1 ReduceOnly, 2 Halted")?,
            duty: gauge(r, "duty", "Duty in force: 0 Hold, 1 Drain, 2 Flatten")?,
            link_up: add(
                r,
                IntGaugeVec::new(opts("link_up", "Whether a connection to the exchange is up"), &["link"]),
            )?,
            guard_value: add(
                r,
                GaugeVec::new(opts("guard_value", "What the guards see of a metric, in its unit"), &["metric"]),
            )?,
            guard_state: add(
                r,
                IntGaugeVec::new(
                    opts("guard_state", "The worst guard of a metric: 0 good, 1 warns, 2 tripped"),
                    &["metric"],
                ),
            )?,
            guard_trips: counters(
                r,
                "guard_trips_total",
                "Trips of guards, by metric and action",
                &["metric", "action"],
            )?,
            position_contracts: add(
                r,
                Gauge::with_opts(opts("position_contracts", "Contracts of the futures leg; negative is short")),
            )?,
            position_base: add(r, Gauge::with_opts(opts("position_base", "Base currency of the spot leg")))?,
            contact_age: add(
                r,
                Gauge::with_opts(opts("contact_age_seconds", "Time since the last contact with the API server")),
            )?,
            control_changes: counter(r, "control_changes_total", "Changes of the control put in force")?,
            watch_restarts: counter(r, "watch_restarts_total", "Watches that had to be started again")?,
            open_orders: gauge(r, "open_orders", "Orders that work, or may work, at the exchange")?,
            fills_outstanding: gauge(r, "fills_outstanding", "Orders whose fills the books do not all have")?,
            books_problem: gauge(r, "books_problem", "1 while the books do not add up; the log says what")?,
            incidents_open: gauge(r, "incidents_open", "Incidents that are not released")?,
            risk_level: gauge(
                r,
                "risk_level",
                "0 safe, 1 a guard warns, 2 nothing may raise a leg, 3 halted, 4 killed",
            )?,
            control_apply: histogram(
                r,
                "control_apply_seconds",
                "From a change being received to its being in force in the gate",
                &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0],
            )?,
            order_latency: histogram(
                r,
                "order_latency_seconds",
                "From an order being sent to the exchange's answer",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            )?,
            kill_orders_gone: histogram(
                r,
                "kill_orders_gone_seconds",
                "From a kill closing the gate to the exchange confirming that no order works",
                KILL_BUCKETS,
            )?,
            kill_flat: histogram(
                r,
                "kill_flat_seconds",
                "From a kill closing the gate to the exchange confirming that the bot is flat",
                KILL_BUCKETS,
            )?,
        };
        for link in [Link::Rest, Link::MarketWebSocket, Link::UserWebSocket] {
            metrics.link(link, false);
        }
        Ok(metrics)
    }

    /// Counts an order that was sent.
    pub fn order(&self, class: Class, outcome: OrderOutcome) {
        self.orders.with_label_values(&[class.to_string(), outcome.to_string()]).inc();
    }

    /// Counts a request to the exchange. `call` is the venue's name of the call, without ids.
    pub fn exchange_request<T>(&self, call: &'static str, result: &Result<T, ExchangeError>) {
        let outcome = match result {
            Ok(_) => "Ok",
            Err(ExchangeError::Unreachable { .. }) => "Unreachable",
            Err(ExchangeError::CircuitOpen { .. }) => "CircuitOpen",
            Err(ExchangeError::Untrusted { .. }) => "Untrusted",
            Err(ExchangeError::Refused { .. }) => "Refused",
            Err(ExchangeError::BadRequest { .. }) => "BadRequest",
            Err(ExchangeError::NoProduct { .. }) => "NoProduct",
            Err(ExchangeError::NoSession) => "NoSession",
            Err(ExchangeError::RateLimited { .. }) => "RateLimited",
            Err(ExchangeError::Timeout { .. }) => "Timeout",
            Err(ExchangeError::Server { .. }) => "Server",
            Err(ExchangeError::Unreadable { .. }) => "Unreadable",
        };
        self.exchange_requests.with_label_values(&[call, outcome]).inc();
    }

    /// Counts an order that the gate denied.
    pub fn denied(&self, denied: &Denied) {
        let reason = match denied {
            Denied::Mode { .. } => "Mode",
            Denied::Contact { .. } => "Contact",
            Denied::Limit { limit, .. } => limit,
        };
        self.denied.with_label_values(&[reason]).inc();
    }

    /// Counts a write of the status.
    pub fn status_write(&self, written: bool) {
        self.status_writes.with_label_values(&[if written { "Written" } else { "Failed" }]).inc();
    }

    /// Shows what the guards see, and how far the worst guard of each metric is.
    pub fn guards(&self, readings: &Readings, states: &BTreeMap<GuardMetric, GuardState>) {
        for (metric, state) in states {
            let label = &[metric.to_string()];
            match readings.of(*metric).value() {
                // A float is precise enough to look at; nothing is computed from it.
                Some(value) => self.guard_value.with_label_values(label).set(value.to_f64().unwrap_or(f64::NAN)),
                // It was never shown, perhaps.
                None => drop(self.guard_value.remove_label_values(label)),
            }
            self.guard_state.with_label_values(label).set(match state {
                GuardState::Good => 0,
                GuardState::Warns => 1,
                GuardState::Tripped => 2,
            });
        }
    }

    /// Counts a trip of a guard.
    pub fn guard_tripped(&self, metric: GuardMetric, action: GuardAction) {
        self.guard_trips.with_label_values(&[metric.to_string(), action.to_string()]).inc();
    }

    /// Shows the control in force.
    pub fn control(&self, control: &Control) {
        self.entry.set(match control.entry {
            Entry::Active => 0,
            Entry::ReduceOnly => 1,
            Entry::Halted => 2,
        });
        self.duty.set(match control.duty {
            Duty::Hold => 0,
            Duty::Drain => 1,
            Duty::Flatten => 2,
        });
    }

    /// Shows whether a connection is up.
    pub fn link(&self, link: Link, up: bool) {
        self.link_up.with_label_values(&[link.to_string()]).set(i64::from(up));
    }

    /// Shows what the bot owns: contracts of the future, base currency of spot.
    pub fn position(&self, contracts: Decimal, base: Decimal) {
        // A float is precise enough to look at; nothing is computed from it.
        self.position_contracts.set(contracts.to_f64().unwrap_or(f64::NAN));
        self.position_base.set(base.to_f64().unwrap_or(f64::NAN));
    }

    /// Shows how long ago the last contact with the API server was.
    pub fn contact_age(&self, age: Duration) {
        self.contact_age.set(age.as_secs_f64());
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// Two metrics have the same name: a mistake in this file.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

const KILL_BUCKETS: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("arbbot")
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    add(registry, IntCounter::with_opts(opts(name, help)))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    add(registry, IntCounterVec::new(opts(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    add(registry, IntGauge::with_opts(opts(name, help)))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
    add(registry, Histogram::with_opts(opts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_shows_in_the_text() {
        let metrics = Metrics::new().unwrap();
        metrics.order(Class::Kill, OrderOutcome::Accepted);
        metrics.exchange_request("orders", &Err::<(), _>(ExchangeError::RateLimited { call: "orders".to_owned() }));
        metrics.denied(&Denied::Limit { limit: "maxOrderNotional", message: String::new() });
        metrics.status_write(true);
        metrics.link(Link::Rest, true);
        metrics.control(&Control { entry: Entry::Halted, duty: Duty::Flatten, limits: Control::unknown().limits });
        metrics.position(Decimal::new(-3, 0), Decimal::new(3, 2));
        metrics.contact_age(Duration::from_millis(1500));
        metrics.kill_flat.observe(0.7);
        let text = metrics.render().unwrap();
        for line in [
            r#"arbbot_orders_total{class="Kill",outcome="Accepted"} 1"#,
            r#"arbbot_exchange_requests_total{call="orders",outcome="RateLimited"} 1"#,
            r#"arbbot_denied_total{reason="maxOrderNotional"} 1"#,
            r#"arbbot_status_writes_total{outcome="Written"} 1"#,
            r#"arbbot_link_up{link="Rest"} 1"#,
            r#"arbbot_link_up{link="UserWebSocket"} 0"#,
            "arbbot_entry 2",
            "arbbot_duty 2",
            "arbbot_position_contracts -3",
            "arbbot_position_base 0.03",
            "arbbot_contact_age_seconds 1.5",
            "arbbot_kill_flat_seconds_count 1",
            "arbbot_watch_restarts_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
