//! From the stops of a run to one line of JSON.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::{Account, Stop};
use crate::clock::milliseconds;
use crate::exchange::is_flat;
use crate::measure::{Journal, percentile};

/// An order that had passed the gate when it closed may reach the exchange this much later.
const IN_FLIGHT_MS: u64 = 50;
/// A run counts only if so many of a hundred stops found orders at work and a position.
const LEAST_PERCENT: usize = 90;

/// What a run proved.
pub struct Report(Map<String, Value>);

impl Report {
    pub(super) fn new(toggles: &[Stop], kills: &[Stop], floor_acks: &[f64], accounts: &[Account]) -> Result<Self> {
        let journal = |stop: &Stop| Journal(&accounts[stop.subject].journal);
        let mut report = Self(Map::new());
        report.set("patches", json!(toggles.len()));
        let floor = report.pair("floor", &times(toggles, |stop| stop.seen))?;
        let stopped = report.pair("stopped", &times(toggles, |stop| stop.stopped))?;
        let after = |end: fn(&Stop) -> u64| -> Vec<f64> {
            toggles.iter().map(|stop| milliseconds(stop.accepted, end(stop))).collect()
        };
        report.pair("accepted", &times(toggles, |stop| stop.accepted))?;
        report.pair("accepted_to_floor", &after(|stop| stop.seen))?;
        report.pair("accepted_to_stopped", &after(|stop| stop.stopped))?;
        let floor_ack = report.pair("floor_ack", floor_acks)?;
        let acknowledged = report.pair("acknowledged", &times(toggles, |stop| stop.acknowledged))?;
        report.ratios("stopped_to_floor", stopped, floor);
        report.ratios("acknowledged_to_floor_ack", acknowledged, floor_ack);

        report.set("kills", json!(kills.len()));
        report.pair("kill_stopped", &times(kills, |stop| stop.stopped))?;
        report.pair("kill_acknowledged", &times(kills, |stop| stop.acknowledged))?;
        let gone: Option<Vec<_>> = kills.iter().map(|stop| journal(stop).orders_gone(stop.sent)).collect();
        let gone = gone.context("orders of a killed bot still work at the exchange")?;
        let flat: Option<Vec<_>> = kills.iter().map(|stop| journal(stop).flat(stop.sent)).collect();
        let flat = flat.context("a killed bot still has a position at the exchange")?;
        let since_sent = |ends: &[u64]| -> Vec<f64> {
            kills.iter().zip(ends).map(|(stop, end)| milliseconds(stop.sent, *end)).collect()
        };
        report.pair("kill_orders_gone", &since_sent(&gone))?;
        report.pair("kill_flat", &since_sent(&flat))?;

        for (name, stops) in [("patches", toggles), ("kills", kills)] {
            let resting = stops.iter().filter(|stop| journal(stop).open_orders(stop.sent) > 0).count();
            let holds = |stop: &&Stop| journal(stop).positions(stop.sent).iter().any(|(p, size)| !is_flat(p, *size));
            let holding = stops.iter().filter(holds).count();
            report.set(&format!("{name}_with_resting_orders"), json!(resting));
            report.set(&format!("{name}_with_position"), json!(holding));
            let enough = stops.len() * LEAST_PERCENT / 100;
            ensure!(
                resting >= enough && holding >= enough,
                "vacuous: of {} {name} only {resting} found resting orders and {holding} a position",
                stops.len()
            );
        }
        let wrong = |stop: &Stop| journal(stop).raising(stop.stopped + IN_FLIGHT_MS * 1_000_000, stop.until).len();
        report.set(
            "wrong_orders",
            json!(toggles.iter().map(wrong).sum::<usize>() + kills.iter().map(wrong).sum::<usize>()),
        );
        report.set("wrong_orders_after_ms", json!(IN_FLIGHT_MS));
        Ok(report)
    }

    fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Median and 99th percentile.
    fn pair(&mut self, name: &str, samples: &[f64]) -> Result<[f64; 2]> {
        let of = |percent| percentile(samples, percent).with_context(|| format!("no samples of {name}"));
        let pair = [of(50)?, of(99)?];
        self.set(&format!("{name}_p50_ms"), rounded(pair[0]));
        self.set(&format!("{name}_p99_ms"), rounded(pair[1]));
        Ok(pair)
    }

    fn ratios(&mut self, name: &str, of: [f64; 2], to: [f64; 2]) {
        self.set(&format!("{name}_p50_ratio"), rounded(of[0] / to[0]));
        self.set(&format!("{name}_p99_ratio"), rounded(of[1] / to[1]));
    }

    /// One line.
    pub fn line(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

fn times(stops: &[Stop], end: impl Fn(&Stop) -> u64) -> Vec<f64> {
    stops.iter().map(|stop| milliseconds(stop.sent, end(stop))).collect()
}

fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
