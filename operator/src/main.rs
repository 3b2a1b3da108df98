//! `arbbot-operator`: reads its flags, finds the cluster, runs the operator, and ends it on SIGTERM.

use std::time::Duration;

use anyhow::Context as _;
use arbbot_operator::{args::Args, cache, run::run, telemetry};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is kept for ever lies between what lists and reconciles needed for a moment: jemalloc's small pages give most of
/// that back. How it is set up is in .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Longest time from SIGTERM to the end; below the pod's grace period.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // As clap says it of one flag: one line, no backtrace.
    let timing = args.timing().unwrap_or_else(|error| Args::command().error(ErrorKind::ValueValidation, error).exit());
    let log_level = telemetry::start();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;

    let mut config = kube::Config::infer()
        .await
        .context("cannot find a cluster: set KUBECONFIG, or run in a pod with a ServiceAccount")?;
    // kube's own retry repeats every verb, POST too, and hides a slow API server; reconciles are retried as a whole.
    config.default_retry = false;
    // A list or the begin of a watch has no other deadline.
    config.read_timeout = Some(cache::watch::SILENCE);
    let client = kube::Client::try_from(config).context("cannot build a client of the API server")?;

    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signalled = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("shutting down");
        shutdown.cancel();
        tokio::time::sleep(SHUTDOWN_DEADLINE).await;
    };
    tokio::select! {
        result = run(client, &args, timing, log_level, shutdown.clone()) => result,
        () = signalled => {
            tracing::warn!("the operator did not end in time: it is cut off; every reconcile can be repeated");
            Ok(())
        }
    }
}
