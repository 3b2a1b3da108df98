//! The parts of the operator, put together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::OptionFuture;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, State};
use crate::args::Args;
use crate::cache::{Caches, Reactions};
use crate::client;
use crate::context::Context;
use crate::controller::Controller;
use crate::leader::{Elector, Timing};
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::telemetry::LogLevel;

/// Longest time that giving back leadership takes on SIGTERM; then the Lease expires by itself.
const RELEASE: Duration = Duration::from_secs(3);

/// Runs the operator until `shutdown`. `client` reaches the API server without any gate.
///
/// # Errors
/// A part ended by itself, or the admin address cannot be bound.
pub async fn run(
    client: Client,
    args: &Args,
    timing: Timing,
    log_level: LogLevel,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new().context("cannot register the metrics")?;
    let leadership = Arc::new(if args.leader_elect { Leadership::none() } else { Leadership::always() });
    let (controller, tellings) = Controller::new(leadership.clone());
    let reactions: Arc<dyn Reactions> = controller.clone();
    let terminated = Arc::default();
    let caches = Caches::new(&args.watch_namespaces, Arc::clone(&terminated), reactions.clone());
    let writer = client::leaders(client.clone(), leadership.clone());
    let context =
        Arc::new(Context::new(writer.clone(), args.bot_image.clone(), caches.clone(), terminated, metrics.clone()));
    let state = State {
        caches: caches.clone(),
        controller: controller.clone(),
        context: context.clone(),
        leadership: leadership.clone(),
        log_level,
    };
    let admin = Admin::bind(args.listen, state)
        .await
        .with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;

    let release = CancellationToken::new();
    let election: OptionFuture<_> = args
        .leader_elect
        .then(|| {
            let namespace = args.lease_namespace(client.default_namespace());
            Elector::new(client.clone(), &namespace, args.replica(), leadership, timing).run(release.clone())
        })
        .into();
    let mut election = std::pin::pin!(election);
    // Joined, never detached: if a part ends by itself the process ends and Kubernetes starts it again.
    let are_answered = tokio::select! {
        result = admin.serve() => return result.context("the admin server ended"),
        result = caches.run(&writer, &metrics, &reactions) => return result.context("the watches ended"),
        Some(()) = &mut election => anyhow::bail!("the election of the leader ended by itself"),
        are_answered = controller.run(context, tellings, shutdown.clone()) => {
            anyhow::ensure!(shutdown.is_cancelled(), "the controller ended by itself");
            are_answered
        }
    };
    if !are_answered {
        // A webhook may hold a write that nobody has answered: nobody else may lead before the Lease has expired.
        tracing::warn!("the Lease is not given back, because a write may still be under way: it expires by itself");
        return Ok(());
    }
    // Nothing is written any more: another replica may lead.
    release.cancel();
    drop(tokio::time::timeout(RELEASE, election).await);
    Ok(())
}
