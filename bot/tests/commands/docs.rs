//! `docs/cli.md`, `docs/paper.md` and `docs/backtest.md` do what they say.

use std::path::Path;
use std::process::Command;

use super::desk::stderr;

/// The blocks to be run, one after the other as a reader would.
fn blocks(page: &str) -> String {
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n".to_owned();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => script += &format!("{line}\n"),
            (false, _) => {}
        }
    }
    script
}

#[test]
fn every_block_of_the_page_runs() {
    let (dir, said) = run("cli.md");
    assert!(said.contains("CANCELLED") && said.contains("gap_seconds"), "the last blocks were reached: {said}");
    assert!(dir.path().join("replay/ca.crt").exists(), "the recording is replayed");
}

#[test]
fn every_block_of_the_page_on_paper_runs() {
    let (_dir, said) = run("paper.md");
    assert!(said.contains("no order leaves the bot") && said.contains("Paper"), "{said}");
}

#[test]
fn every_block_of_the_page_on_backtests_runs() {
    let (dir, said) = run("backtest.md");
    assert!(said.contains("## Result") && said.contains("profit_quote") && said.contains("Weekly review"), "{said}");
    assert_eq!(said.matches("identical").count(), 2, "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("equity.svg").starts_with("<svg") && read("equity.html").contains("<svg"));
}

/// Runs a page; returns where, and what it said.
fn run(page: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let programs = exchange_simulator::process::program().unwrap().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let script = blocks(&page).replace("8443", &port.to_string());
    let output = Command::new("timeout")
        .args(["240", "bash", "-c", &script])
        .env("PATH", path)
        .env_remove("RUST_LOG")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(dir.path().join("bot.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{said}\n{}\n{log}", output.status, stderr(&output));
    let said = said.into_owned();
    (dir, said)
}
