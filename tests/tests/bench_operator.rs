//! `make bench-operator` in small: that it counts, not how fast anything is.

use std::time::Duration;

use anyhow::{Result, ensure};
use arbbot_tests::bench_operator::{self, Size};
use arbbot_tests::programs::Programs;
use arbbot_tests::progress::Progress;
use serde_json::Value;

const SIZE: Size = Size { bots: 200, changes: 40, idle: Duration::from_secs(10) };
/// What readers of the line rely on.
const FIELDS: [&str; 7] = [
    "bots",
    "cold_start_s",
    "resident_mib",
    "reconcile_p50_ms",
    "reconcile_p99_ms",
    "idle_writes",
    "writes_per_change",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_writes_nothing_when_idle_and_one_status_for_a_change() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let report = bench_operator::run(&SIZE, &Programs::build()?, directory.path(), &mut Progress::default()).await?;
    let line: Value = serde_json::from_str(&report.line()?)?;
    for field in FIELDS {
        ensure!(line[field].is_number(), "no {field} in {line}");
    }
    ensure!(report.idle_writes == 0, "{line}");
    ensure!(report.cold_start_writes == 0, "a restarted operator writes: {line}");
    ensure!((report.writes_per_change - 1.0).abs() < f64::EPSILON, "{line}");
    ensure!(report.reconcile_p50_ms > 0.0 && report.resident_mib > 1.0 && report.floor_resident_mib > 1.0, "{line}");
    Ok(())
}
