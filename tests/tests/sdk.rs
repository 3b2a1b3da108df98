//! Coinbase's official SDK against the simulator: what `make test-sdk` does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_tests::programs::Programs;
use tokio::process::Command;
use tokio::time::timeout;

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/run");
/// The first run downloads the SDK.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_official_sdk_cannot_tell_the_simulator_from_the_real_thing() -> Result<()> {
    let simulator = Programs::build()?.path("exchange-simulator")?;
    let mut command = Command::new(Path::new(RUN));
    command.arg(simulator).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.context("the tests of the SDK do not end")??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{err}");
    Ok(())
}
