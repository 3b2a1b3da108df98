//! `bench-operator`: see `make bench-operator` and `arbbot_tests::bench_operator`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use arbbot_tests::bench_operator::{self, Size};
use arbbot_tests::programs::Programs;
use arbbot_tests::progress::Progress;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures what one operator costs with many bots: one line of JSON on standard output.
#[derive(Parser)]
struct Args {
    /// How many ArbBots.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bots: u32,
    /// How many patches of specs.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3000))]
    changes: u32,
    /// Seconds in which nothing happens.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Keep cluster state and logs in this directory instead of a temporary one.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Only list and watch with this kubeconfig; the bench starts itself so.
    #[arg(long, hide = true)]
    floor: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // An error says that this process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let mut progress = Progress::default();
    match run(&args, &mut progress).await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            progress.failed();
            eprintln!("bench-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, progress: &mut Progress) -> Result<String> {
    if let Some(kubeconfig) = &args.floor {
        return Ok(serde_json::to_string(&bench_operator::floor(kubeconfig).await?)?);
    }
    let temporary = tempfile::Builder::new().prefix("arbbot-bench-").tempdir()?;
    let directory = args.directory.as_deref().unwrap_or(temporary.path());
    let size = Size {
        bots: usize::try_from(args.bots)?,
        changes: usize::try_from(args.changes)?,
        idle: Duration::from_secs(args.idle),
    };
    let programs = Programs::built()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        report = bench_operator::run(&size, &programs, directory, progress) => report?.line(),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("ended by SIGTERM"),
    }
}
