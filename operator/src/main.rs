//! `arbbot-operator`: reads its flags, starts the admin server and the controller, and ends both on SIGTERM.

use anyhow::Context as _;
use arbbot_operator::{admin, args::Args, controller, metrics::Metrics, telemetry};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::start();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;

    let mut config = kube::Config::infer()
        .await
        .context("cannot find a cluster: set KUBECONFIG, or run in a pod with a ServiceAccount")?;
    // kube's own retry repeats every verb, POST too, and hides a slow API server; reconciles are retried as a whole.
    config.default_retry = false;
    let client = kube::Client::try_from(config).context("cannot build a client of the API server")?;

    let metrics = Metrics::new().context("cannot register the metrics")?;
    let shutdown = CancellationToken::new();
    let (synced, is_synced) = watch::channel(false);
    let admin = admin::Admin::bind(args.listen, metrics.clone(), is_synced)
        .await
        .with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // Joined, never detached: if either ends by itself the process ends and Kubernetes starts it again.
    tokio::select! {
        result = admin.serve() => result.context("the admin server ended"),
        result = controller::run(client, &args, metrics, synced, shutdown.clone()) => result.context("the controller ended"),
        () = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("shutting down");
            shutdown.cancel();
            tokio::time::sleep(controller::SHUTDOWN_DEADLINE).await;
        } => {
            tracing::warn!("reconciles did not end in time: they are cut off; every one can be repeated");
            Ok(())
        }
    }
}
