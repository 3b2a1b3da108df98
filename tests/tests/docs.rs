//! The pages people copy from are run as they stand: every block after `<!-- run -->`, in order, by a real shell.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arbbot_tests::harness::{Desk, run_in_turn};
use arbbot_tests::scenarios;
use tokio::process::Command;

const README: &str = include_str!("../../README.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
/// What the pages call their namespace.
const NAMESPACE: &str = "desk-a";

fn main() -> ExitCode {
    run_in_turn(4, scenarios![every_block_of_the_readme_and_the_operations_page_works])
}

async fn every_block_of_the_readme_and_the_operations_page_works(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room(NAMESPACE).await?;
    let (btc, eth) = tokio::try_join!(room.trading_bot("btc-carry"), room.trading_bot("eth-carry"))?;
    for (page, text) in [("README.md", README), ("docs/operations.md", OPERATIONS)] {
        let blocks = blocks(text);
        ensure!(blocks.len() >= 2, "{page} has {} blocks to run", blocks.len());
        for block in blocks {
            if let Err(error) = shell(&desk, block).await {
                bail!("{page}:\n{block}\n{error:#}\n{}", eth.describe().await);
            }
        }
    }
    ensure!(btc.portfolio().await?.is_flat(), "btc-carry was deleted with a position left");
    Ok(())
}

/// The shell blocks that stand after `<!-- run -->`.
fn blocks(page: &str) -> Vec<&str> {
    page.split("<!-- run -->\n```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Runs a block as a person would: in one shell, `kubectl` being the one of the tests. The first line that fails ends it.
async fn shell(desk: &Desk, block: &str) -> Result<()> {
    let directory = desk.kubectl.program.parent().context("kubectl has no directory")?;
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", block]).env("PATH", path).env("KUBECONFIG", &desk.kubectl.kubeconfig);
    let output = command.kill_on_drop(true).output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{out}{err}");
    // A misspelt field is a warning only, and changes nothing.
    ensure!(!err.contains("Warning: unknown field"), "{err}");
    Ok(())
}
