//! One line of JSON.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::floor::Floor;
use crate::api_server_metrics::Requests;
use crate::measure::percentile;
use crate::operator_process::Usage;

/// What a run measured. Sizes are MiB, CPU times are seconds of one core.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub bots: usize,
    /// From the start of the process until every bot was reconciled once; children and status were there.
    pub cold_start_s: f64,
    /// After the cold start, idle.
    pub resident_mib: f64,
    /// From the bot's acknowledgement of a change until the operator's report is seen by a third client; the queue's
    /// debounce is in it.
    pub reconcile_p50_ms: f64,
    pub reconcile_p99_ms: f64,
    /// Of everybody, leases excepted.
    pub idle_writes: u64,
    /// Of the operator, for one patch of a spec.
    pub writes_per_change: f64,

    /// Duration of a reconcile inside the operator, by its own histogram, during the changes.
    pub reconcile_duration_p50_ms: Option<f64>,
    pub reconcile_duration_p99_ms: Option<f64>,
    pub changes: usize,
    pub change_cpu_ms: f64,
    /// From the start of the process until `/readyz`.
    pub synced_s: f64,
    pub cold_start_cpu_s: f64,
    pub cold_start_resident_mib: f64,
    pub cold_start_peak_mib: f64,
    pub cold_start_writes: u64,
    pub cold_start_requests: BTreeMap<String, u64>,
    pub idle_s: f64,
    pub idle_cpu_s: f64,
    pub idle_reconciles: f64,
    pub idle_requests: BTreeMap<String, u64>,
    /// From the start of the process until every child was made and reported.
    pub first_sync_s: f64,
    pub first_sync_cpu_s: f64,
    pub first_sync_peak_mib: f64,
    /// A bare list and watch of the same objects in a process of its own.
    pub floor_sync_s: f64,
    pub floor_cpu_s: f64,
    pub floor_resident_mib: f64,
    pub floor_peak_mib: f64,
    pub cold_start_to_floor: f64,
    pub resident_to_floor: f64,
    pub version: &'static str,
    pub build: &'static str,
    pub cores: usize,
}

impl Report {
    pub(super) fn new(bots: usize, changes: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Ok(Self { bots, changes, cores, build, version: env!("CARGO_PKG_VERSION"), ..Self::default() })
    }

    pub(super) fn first_sync(&mut self, seconds: f64, usage: Usage) {
        self.first_sync_s = rounded(seconds);
        self.first_sync_cpu_s = rounded(usage.cpu_s);
        self.first_sync_peak_mib = rounded(usage.peak_mib);
    }

    pub(super) fn synced(&mut self, seconds: f64) {
        self.synced_s = rounded(seconds);
    }

    pub(super) fn cold_start(&mut self, seconds: f64, requests: &Requests, usage: Usage) {
        self.cold_start_s = rounded(seconds);
        self.cold_start_cpu_s = rounded(usage.cpu_s);
        self.cold_start_resident_mib = rounded(usage.resident_mib);
        self.cold_start_peak_mib = rounded(usage.peak_mib);
        self.cold_start_writes = requests.writes().total();
        self.cold_start_requests = requests.of_resources().by_verb();
    }

    pub(super) fn idle(&mut self, seconds: f64, requests: &Requests, usage: Usage, cpu_s: f64, reconciles: f64) {
        self.idle_s = seconds;
        self.idle_writes = requests.writes().total();
        self.idle_requests = requests.of_resources().by_verb();
        self.idle_reconciles = reconciles;
        self.idle_cpu_s = rounded(cpu_s);
        self.resident_mib = rounded(usage.resident_mib);
    }

    pub(super) fn changes(&mut self, delays_ms: &[f64], writes: f64, cpu_s: f64) -> Result<()> {
        let of = |percent| percentile(delays_ms, percent).map(rounded).context("no change was measured");
        self.reconcile_p50_ms = of(50)?;
        self.reconcile_p99_ms = of(99)?;
        self.writes_per_change = rounded(writes / delays_ms.len() as f64);
        self.change_cpu_ms = rounded(1000.0 * cpu_s / delays_ms.len() as f64);
        Ok(())
    }

    pub(super) fn reconciles(&mut self, p50_ms: Option<f64>, p99_ms: Option<f64>) {
        self.reconcile_duration_p50_ms = p50_ms.map(rounded);
        self.reconcile_duration_p99_ms = p99_ms.map(rounded);
    }

    pub(super) fn floor(&mut self, floor: &Floor) {
        self.floor_sync_s = rounded(floor.sync_s);
        self.floor_cpu_s = rounded(floor.cpu_s);
        self.floor_resident_mib = rounded(floor.resident_mib);
        self.floor_peak_mib = rounded(floor.peak_mib);
        self.cold_start_to_floor = rounded(self.cold_start_s / floor.sync_s);
        self.resident_to_floor = rounded(self.resident_mib / floor.resident_mib);
    }

    /// One line.
    ///
    /// # Errors
    /// A number is none.
    pub fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
