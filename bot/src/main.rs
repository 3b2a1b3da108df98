//! `arb-bot`: the trading bot.

use std::process::ExitCode;

use arb_bot::cli::account::{self, AccountCommand, PositionsArgs};
use arb_bot::cli::backtest::BacktestArgs;
use arb_bot::cli::capture::CaptureArgs;
use arb_bot::cli::ledger::LedgerCommand;
use arb_bot::cli::orders::OrdersCommand;
use arb_bot::cli::preflight::{PreflightArgs, preflight};
use arb_bot::cli::reconcile::{ReconcileArgs, reconcile};
use arb_bot::cli::replay::ReplayArgs;
use arb_bot::cli::report::ReportCommand;
use arb_bot::cli::run::{RunArgs, run};
use arb_bot::cli::status::{StatusArgs, status};
use arb_bot::telemetry::logs;
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
    /// Trade for one ArbBot: of the cluster, or with -f of a file.
    Run(Box<RunArgs>),
    /// Show what a bot that runs with -f obeys and holds.
    Status(StatusArgs),
    /// Check everything that an ArbBot needs before it may trade; ends with an error if something is missing.
    Preflight(PreflightArgs),
    /// What the account holds.
    #[command(subcommand)]
    Account(AccountCommand),
    /// List the futures positions.
    Positions(PositionsArgs),
    /// List, preview, place, edit, cancel and trace orders by hand.
    #[command(subcommand)]
    Orders(OrdersCommand),
    /// Verify, export, back up and restore a bot's ledger.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Compare a bot's ledger with what the exchange shows; ends with an error if they differ. A bot may run meanwhile.
    Reconcile(ReconcileArgs),
    /// Report what happened, from the ledger.
    #[command(subcommand)]
    Report(ReportCommand),
    /// Record best prices and funding rates into a file that the simulator replays; needs no key.
    Capture(CaptureArgs),
    /// Run a bot on paper over recorded market data, as fast as the machine can, and report what it made.
    Backtest(Box<BacktestArgs>),
    /// Feed a recorded session to the engine again and compare every decision; ends with an error at the first difference.
    Replay(ReplayArgs),
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider was installed twice");
    }
    if let Command::Backtest(args) = command {
        // It has a runtime of its own, in which time is virtual.
        logs::for_people()?;
        return args.run();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if let Command::Run(args) = command {
            return run(*args).await;
        }
        logs::for_people()?;
        match command {
            Command::Run(_) | Command::Backtest(_) => Ok(()),
            Command::Status(args) => status(&args),
            Command::Preflight(args) => preflight(args).await,
            Command::Account(command) => command.run().await,
            Command::Positions(args) => account::positions(args).await,
            Command::Orders(command) => command.run().await,
            Command::Ledger(command) => command.run().await,
            Command::Reconcile(args) => reconcile(args).await,
            Command::Report(command) => command.run().await,
            Command::Capture(args) => args.run().await,
            Command::Replay(args) => args.run(),
        }
    })
}
