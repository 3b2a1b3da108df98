//! `bench-kill`: see `make bench-kill` and `arbbot_tests::bench_kill`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use arbbot_tests::bench_kill;
use arbbot_tests::progress::Progress;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    // An error says that this process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut progress = Progress::default();
    match run(&mut progress).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            progress.failed();
            eprintln!("bench-kill: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(progress: &mut Progress) -> Result<String> {
    let directory = tempfile::Builder::new().prefix("arbbot-bench-").tempdir()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        report = bench_kill::run(directory.path(), progress) => Ok(report?.line()),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("ended by SIGTERM"),
    }
}
