//! `arb-bot`: the trading bot.

use arb_bot::cli::run::{RunArgs, run};
use clap::{Parser, Subcommand};

/// The trading bot of the ArbBot Operator.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trade for one ArbBot of the cluster.
    Run(RunArgs),
}

fn main() -> anyhow::Result<()> {
    let Command::Run(args) = Cli::parse().command;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider was installed twice");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(args))
}
