//! Watches, triggers and the run of the controller.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID};
use arbbot_crds::{ArbBot, ArbPolicy};
use futures::channel::mpsc;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{PredicateConfig, WatchStreamExt};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::args::Args;
use crate::context::Context;
use crate::events::Reports;
use crate::fencing::Terminated;
use crate::metrics::Metrics;
use crate::reconcile::{ReconcileError, reconcile};

/// Longest time that running reconciles get on SIGTERM; below the pod's grace period.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// Reconciles at once.
const CONCURRENCY: u16 = 16;
/// A patch and what the bot says of it in the moments after are one reconcile. Nothing that saves money waits for it:
/// a bot watches its own spec.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Pause between two looks for the CustomResourceDefinitions.
const CRD_POLL: Duration = Duration::from_secs(5);
/// kubectl's copy of the whole object: not needed in memory.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Runs the controller until `shutdown`. Sets `synced` once every cache has its first list.
///
/// # Errors
/// The controller ended by itself.
pub async fn run(
    client: Client,
    args: &Args,
    metrics: Metrics,
    synced: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let namespace = args.namespace.as_deref();
    tokio::select! {
        () = wait_for_crds(&client, namespace) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let (bots, bots_writer) = reflector::store();
    let (policies, policies_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let context = Arc::new(Context {
        client: client.clone(),
        bot_image: args.bot_image.clone(),
        bots: bots.clone(),
        policies: policies.clone(),
        pods: pods.clone(),
        synced: synced.subscribe(),
        claims: Default::default(),
        backoff: Default::default(),
        terminated: Arc::default(),
        reports: Reports::new(client.clone(), metrics.clone()),
        metrics,
        applied: Default::default(),
        generations: Default::default(),
        incidents: Default::default(),
        troubles: Default::default(),
    });
    let (gone, waiting) = mpsc::unbounded();

    let controller = Controller::for_stream(bot_stream(&client, namespace, bots_writer, &context, gone), bots.clone())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .watches_stream(policy_stream(&client, namespace, policies_writer), bots_of_namespace(bots.clone()))
        .watches_stream(pod_stream(&client, namespace, pods_writer, context.terminated.clone()), bot_of)
        .watches_stream(children::<ServiceAccount>(&client, namespace), bot_of)
        .watches_stream(children::<Role>(&client, namespace), bot_of)
        .watches_stream(children::<RoleBinding>(&client, namespace), bot_of)
        .watches_stream(children::<Service>(&client, namespace), bot_of)
        .watches_stream(children::<PersistentVolumeClaim>(&client, namespace), bot_of)
        .watches_stream(children::<NetworkPolicy>(&client, namespace), bot_of)
        .watches_stream(children::<Deployment>(&client, namespace), bot_of)
        .reconcile_on(waiting)
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());
    // Stores are awaited here only, in one task: kube 5 wakes no more than one waiter of a store. The rest awaits `synced`.
    let announce = async {
        let all = tokio::join!(bots.wait_until_ready(), policies.wait_until_ready(), pods.wait_until_ready());
        if let (Ok(()), Ok(()), Ok(())) = all {
            synced.send_replace(true);
            tracing::info!("every watch has synced");
        }
    };
    let run = controller.run(isolated, on_error, context).for_each(|result| async move {
        // Errors of reconciles are logged where they happen; these are errors of the watches and the queue.
        if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
            tracing::warn!(%error, "a watch failed; it is tried again with backoff");
        }
    });
    tokio::select! {
        () = run => {}
        () = async { announce.await; std::future::pending().await } => {}
    }
    anyhow::ensure!(shutdown.is_cancelled(), "the queue of the controller ended by itself");
    Ok(())
}

/// Without its CustomResourceDefinitions the controller would never become ready, nor end.
async fn wait_for_crds(client: &Client, namespace: Option<&str>) {
    let one = ListParams::default().limit(1);
    loop {
        let (bots, policies) = (scoped::<ArbBot>(client, namespace), scoped::<ArbPolicy>(client, namespace));
        let found = match api::call("list ArbBots", bots.list_metadata(&one)).await {
            Ok(_) => api::call("list ArbPolicies", policies.list_metadata(&one)).await.map(drop),
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => return,
            Err(error) if error.is_not_found() => {
                tracing::warn!("the CRDs of arbbot.io/v1alpha1 are not installed: kubectl apply -f crds/; waiting");
            }
            Err(error) => tracing::warn!(%error, "waiting for the API server"),
        }
        tokio::time::sleep(CRD_POLL).await;
    }
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn of_bots() -> watcher::Config {
    watcher::Config::default().labels(LABEL_BOT_UID)
}

/// ArbBots, stripped; passed on when something changed that a reconcile looks at.
fn bot_stream(
    client: &Client,
    namespace: Option<&str>,
    writer: Writer<ArbBot>,
    context: &Arc<Context>,
    waiting: mpsc::UnboundedSender<ObjectRef<ArbBot>>,
) -> impl Stream<Item = Result<ArbBot, watcher::Error>> + Send + 'static {
    let context = context.clone();
    watcher(scoped::<ArbBot>(client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(strip)
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(Event::Delete(bot)) = event {
                context.forget(&bot.uid().unwrap_or_default());
                context.backoff.reset(&ObjectRef::from_obj(bot));
                let account = &bot.spec.venue.coinbase.portfolio;
                // The claim is free: whoever waits for it is looked at now.
                for other in context.bots.state_filter(|other| other.spec.venue.coinbase.portfolio == *account) {
                    let _ = waiting.unbounded_send(ObjectRef::from_obj(other.as_ref())); // closed only at shutdown
                }
            }
        })
        .applied_objects()
        .predicate_filter(transitions, PredicateConfig::default())
}

fn policy_stream(
    client: &Client,
    namespace: Option<&str>,
    writer: Writer<ArbPolicy>,
) -> impl Stream<Item = Result<ArbPolicy, watcher::Error>> + Send + 'static {
    watcher(scoped::<ArbPolicy>(client, namespace), watcher::Config::default())
        .default_backoff()
        .modify(strip)
        .reflect(writer)
        .touched_objects()
}

/// The bots' pods without their spec; what each last showed is kept for the Lease.
fn pod_stream(
    client: &Client,
    namespace: Option<&str>,
    writer: Writer<Pod>,
    terminated: Arc<Terminated>,
) -> impl Stream<Item = Result<Pod, watcher::Error>> + Send + 'static {
    watcher(scoped::<Pod>(client, namespace), of_bots())
        .default_backoff()
        .modify(|pod| {
            strip(pod);
            pod.spec = None;
        })
        .inspect(move |event| {
            if let Ok(Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = event {
                terminated.observe(pod);
            }
        })
        .reflect(writer)
        .touched_objects()
}

fn children<K>(
    client: &Client,
    namespace: Option<&str>,
) -> impl Stream<Item = Result<PartialObjectMeta<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    watcher(scoped::<PartialObjectMeta<K>>(client, namespace), of_bots())
        .default_backoff()
        .modify(strip)
        .touched_objects()
}

fn strip<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove(LAST_APPLIED);
}

/// The bot that a child or pod names in its label.
fn bot_of<K: Resource>(child: K) -> Option<ObjectRef<ArbBot>> {
    let bot = child.labels().get(LABEL_BOT)?;
    Some(ObjectRef::new(bot).within(child.meta().namespace.as_deref()?))
}

/// Every bot of the policy's namespace: also those that it selected until now.
fn bots_of_namespace(bots: Store<ArbBot>) -> impl Fn(ArbPolicy) -> Vec<ObjectRef<ArbBot>> {
    move |policy| {
        let in_namespace = bots.state_filter(|bot| bot.namespace() == policy.namespace());
        in_namespace.iter().map(|bot| ObjectRef::from_obj(bot.as_ref())).collect()
    }
}

/// Hash of what a reconcile looks at. An acknowledgement changes no generation, so the bot's transitions count, too; its
/// numbers do not.
fn transitions(bot: &ArbBot) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let metadata = &bot.metadata;
    (metadata.generation, &metadata.finalizers, metadata.deletion_timestamp.is_some(), &metadata.labels)
        .hash(&mut hasher);
    if let Some(status) = &bot.status {
        for condition in &status.conditions {
            (&condition.type_, &condition.status, &condition.reason, condition.observed_generation).hash(&mut hasher);
        }
        let said = status.bot.as_ref();
        said.map(|bot| (bot.applied_generation, bot.effective_mode, &bot.pod_uid, bot.owned_since.is_some()))
            .hash(&mut hasher);
        for incident in status.kill_switch.iter().flat_map(|kills| &kills.incidents) {
            (&incident.id, incident.phase).hash(&mut hasher);
        }
        (status.observed_generation, status.claim.as_ref().map(|claim| claim.granted)).hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// One reconcile that cannot take others with it: kube ends the whole controller when a reconcile panics.
async fn isolated(bot: Arc<ArbBot>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let started = Instant::now();
    let result = catch_panic(reconcile(&bot, &context)).await;
    context.metrics.reconciled(result.as_ref().map_or_else(ReconcileError::reason, |_| "ok"), started.elapsed());
    if result.is_ok() {
        context.backoff.reset(&ObjectRef::from_obj(bot.as_ref()));
    }
    result
}

async fn catch_panic(
    reconcile: impl Future<Output = Result<Action, ReconcileError>>,
) -> Result<Action, ReconcileError> {
    let result = AssertUnwindSafe(reconcile).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(ReconcileError::Panicked(panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn on_error(bot: Arc<ArbBot>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let wait = context.backoff.next(ObjectRef::from_obj(bot.as_ref()), rand::random());
    tracing::warn!(reason = error.reason(), retry_ms = wait.as_millis(), "{error}");
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn bot(status: &Value) -> ArbBot {
        serde_json::from_value(json!({
            "metadata": {"name": "carry", "namespace": "desk", "generation": 1},
            "spec": {
                "execution": "Live",
                "venue": {"coinbase": {"portfolio": "p"}},
                "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1"}},
                "credentials": {"secretRef": {"name": "key"}},
            },
            "status": status,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_one_reconcile_and_says_so() {
        let result = catch_panic(async { panic!("index 7") }).await;
        let error = result.unwrap_err();
        assert_eq!(error.reason(), "Panicked");
        assert!(error.to_string().contains("index 7"));
        assert!(error.is_transient(), "it is tried again with backoff");
    }

    #[test]
    fn an_acknowledgement_is_looked_at_and_a_number_is_not() {
        let hash = |status: Value| transitions(&bot(&status));
        let said =
            |generation: i64, orders: u32| json!({"bot": {"appliedGeneration": generation, "openOrders": orders}});
        assert_ne!(hash(said(1, 0)), hash(said(2, 0)));
        assert_eq!(hash(said(1, 0)), hash(said(1, 5)));
    }

    #[test]
    fn the_finalizer_labels_and_a_deletion_are_looked_at() {
        let plain = bot(&json!({}));
        let mut held = plain.clone();
        held.metadata.finalizers = Some(vec!["x".to_owned()]);
        let mut labelled = plain.clone();
        labelled.labels_mut().insert("desk".to_owned(), "a".to_owned());
        let mut deleted = plain.clone();
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        for changed in [held, labelled, deleted] {
            assert_ne!(transitions(&plain), transitions(&changed));
        }
    }

    #[test]
    fn the_store_keeps_no_copy_of_the_object() {
        let mut bot = bot(&json!({}));
        bot.annotations_mut().insert(LAST_APPLIED.to_owned(), "{}".to_owned());
        bot.metadata.managed_fields = Some(Vec::new());
        strip(&mut bot);
        assert!(bot.annotations().is_empty() && bot.managed_fields().is_empty());
    }
}
