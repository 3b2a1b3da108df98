//! What happens when: watches fill the queues while this replica leads, and workers empty them.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arbbot_crds::conditions::Reason;
use arbbot_crds::{ArbBot, ArbPolicy};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::store::{Key, key_of, split};
use crate::cache::watch::Scope;
use crate::cache::{Caches, Reactions};
use crate::context::Context;
use crate::events::Report;
use crate::leadership::Leadership;
use crate::queue::Queue;
use crate::reconcile::{ReconcileError, fetch, reconcile};
use crate::worker::{catch_panic, work};
use crate::{loosening, policy};

/// Reconciles of bots at once.
const BOTS_AT_ONCE: usize = 16;
/// Reconciles of policies at once.
const POLICIES_AT_ONCE: usize = 4;
/// A patch and what the bot says of it in the moments after are one reconcile. Nothing that saves money waits for it:
/// a bot watches its own spec.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How long running reconciles get on SIGTERM: another replica waits for the Lease.
const DRAIN: Duration = Duration::from_millis(500);
/// How long what they have sent until then gets to be answered.
const LAST_WRITES: Duration = Duration::from_millis(500);
/// Loosenings that wait to be published.
const WAITING_REPORTS: usize = 1000;

type Told = (ObjectReference, Report);
type Reconciling = BoxFuture<'static, Result<Option<Duration>, ReconcileError>>;

/// The queues, and what fills them.
pub struct Controller {
    pub bots: Queue,
    pub policies: Queue,
    leadership: Arc<Leadership>,
    context: OnceLock<Weak<Context>>,
    told: mpsc::Sender<Told>,
}

/// Loosenings to publish.
pub struct Tellings(mpsc::Receiver<Told>);

impl Controller {
    /// A controller without work. It hears of changes as the caches' [`Reactions`].
    #[must_use]
    pub fn new(leadership: Arc<Leadership>) -> (Arc<Self>, Tellings) {
        let (told, tellings) = mpsc::channel(WAITING_REPORTS);
        let (bots, policies) = (Queue::default(), Queue::default());
        let controller = Self { bots, policies, leadership, context: OnceLock::new(), told };
        (Arc::new(controller), Tellings(tellings))
    }

    fn context(&self) -> Option<Arc<Context>> {
        self.context.get()?.upgrade()
    }

    /// Whether a change in this namespace is worked on now. Otherwise everything is looked at when it is.
    fn works_on(&self, key: &str) -> bool {
        self.leadership.is_leader() && self.context().is_some_and(|context| context.caches.is_synced(split(key).0))
    }

    /// Reconciles while this replica leads, until `shutdown`; then what runs gets [`DRAIN`]. Returns whether every write has
    /// been answered: otherwise leadership must not be given back, because one may still be under way.
    pub async fn run(
        self: &Arc<Self>,
        context: Arc<Context>,
        mut tellings: Tellings,
        shutdown: CancellationToken,
    ) -> bool {
        drop(self.context.set(Arc::downgrade(&context)));
        loop {
            tokio::select! {
                () = self.leadership.begun() => {}
                () = shutdown.cancelled() => return true,
            }
            context.begin_to_lead();
            context.caches.watch_at_once();
            context.caches.synced_scopes().for_each(|scope| self.fill(&context.caches, scope));
            let bot =
                work_on("ArbBot", &context, |key, context| Box::pin(async move { reconcile(&key, &context).await }));
            let policy = work_on("ArbPolicy", &context, |key, context| {
                Box::pin(async move { reconcile_policy(&key, &context).await })
            });
            let bots = work(&self.bots, BOTS_AT_ONCE, bot, shutdown.clone());
            let policies = work(&self.policies, POLICIES_AT_ONCE, policy, shutdown.clone());
            let worked = CancellationToken::new();
            let work = async {
                tokio::join!(bots, policies);
                worked.cancel();
            };
            let everything = async { tokio::join!(work, publish(&mut tellings, &context, &worked)) };
            tokio::select! {
                ((), ()) = everything => return self.leadership.finish_writes(LAST_WRITES).await,
                are_answered = self.last_writes(&shutdown) => return are_answered,
                // Dropping the workers ends what runs; the gate has refused its writes already.
                () = self.leadership.ended() => {}
            }
            self.bots.clear();
            self.policies.clear();
        }
    }

    /// After the shutdown: cuts off what only reads by then, and waits for the answers to what has been written.
    async fn last_writes(&self, shutdown: &CancellationToken) -> bool {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
        tracing::warn!("reconciles have not ended in time: they are cut off before their next write");
        self.leadership.finish_writes(LAST_WRITES).await
    }

    /// Looks at everything of a scope.
    fn fill(&self, caches: &Caches, scope: &Scope) {
        let (bots, policies) = (caches.bots.keys(scope.namespace()), caches.policies.keys(scope.namespace()));
        bots.into_iter().for_each(|bot| self.bots.add(bot, Duration::ZERO));
        policies.into_iter().for_each(|policy| self.policies.add(policy, DEBOUNCE));
    }

    fn tell(&self, object: ObjectReference, reports: Vec<Report>) {
        for report in reports {
            if let Err(mpsc::error::TrySendError::Full((_, report))) = self.told.try_send((object.clone(), report)) {
                tracing::error!(
                    reason = report.reason,
                    note = report.note,
                    "too many Events wait: this one is only logged"
                );
            }
        }
    }
}

/// The reconcile of one kind with everything around it: its own panics, its time and result, and when to look again.
fn work_on(
    kind: &'static str,
    context: &Arc<Context>,
    reconcile: fn(Key, Arc<Context>) -> Reconciling,
) -> impl Fn(Key) -> BoxFuture<'static, Option<Duration>> + use<> {
    let context = context.clone();
    move |key| {
        let context = context.clone();
        Box::pin(async move {
            let started = Instant::now();
            let result = catch_panic(reconcile(key.clone(), context.clone())).await;
            let result = result.unwrap_or_else(|panic| Err(ReconcileError::Panicked(panic)));
            context.metrics.reconciled(kind, reason_of(&result), started.elapsed());
            next_look(kind, &key, result, &context).await
        })
    }
}

/// A policy, from the cache first; then, if there is something to write, as the API server has it.
async fn reconcile_policy(key: &Key, context: &Context) -> Result<Option<Duration>, ReconcileError> {
    let Some(cached) = context.caches.policies.get(key) else { return Ok(None) };
    match policy::reconcile(&cached, &context.deciding()).await {
        Err(error) if error.is_stale() => {}
        decided => return decided.map(Some),
    }
    let context = context.acting();
    let (namespace, name) = split(key);
    let Some(fresh) = fetch::get_own::<ArbPolicy>(&context, namespace, name).await? else { return Ok(None) };
    policy::reconcile(&Ok(Arc::new(fresh)), &context).await.map(Some)
}

fn reason_of<T>(result: &Result<T, ReconcileError>) -> &'static str {
    result.as_ref().map_or_else(ReconcileError::reason, |_| "ok")
}

/// When to look again, after a success or an error.
async fn next_look(
    kind: &'static str,
    key: &Key,
    result: Result<Option<Duration>, ReconcileError>,
    context: &Context,
) -> Option<Duration> {
    let error = match result {
        Ok(again) => {
            context.backoff.reset(kind, key);
            return again;
        }
        Err(error) => error,
    };
    if error.is_not_leader() {
        return None; // another replica goes on
    }
    let wait = context.backoff.next(kind, key, error.reason(), rand::random());
    let wait = wait.max(error.retry_after().unwrap_or_default());
    tracing::warn!(kind, object = %key, reason = error.reason(), retry_ms = wait.as_millis(), "{error}");
    if error.is_crd_outdated()
        && let Some(object) = object_of(kind, key, context)
    {
        let note = format!(
            "{error}; install the definitions of this release: kubectl apply --server-side -f crds/ (Helm does not upgrade CRDs that it did not template)"
        );
        context.reports.publish_on(&object, &Report::warning(Reason::CrdOutdated, note)).await;
    }
    Some(wait)
}

fn object_of(kind: &str, key: &Key, context: &Context) -> Option<ObjectReference> {
    match kind {
        "ArbPolicy" => Some(context.caches.policies.get(key)?.ok()?.object_ref(&())),
        _ => Some(context.caches.bots.get(key)?.ok()?.object_ref(&())),
    }
}

/// Publishes until `stop`; then what waits.
async fn publish(tellings: &mut Tellings, context: &Context, stop: &CancellationToken) {
    loop {
        let (object, report) = tokio::select! {
            biased;
            Some(told) = tellings.0.recv() => told,
            () = stop.cancelled() => return,
        };
        context.reports.publish_on(&object, &report).await;
    }
}

impl Reactions for Controller {
    fn bot(&self, bot: &Key) {
        if self.works_on(bot) {
            self.bots.add(bot.clone(), DEBOUNCE);
        }
    }

    fn policy(&self, policy: &Key) {
        if self.works_on(policy) {
            self.policies.add(policy.clone(), DEBOUNCE);
        }
    }

    fn bot_gone(&self, bot: &Key, uid: &str) {
        self.bots.forget(bot);
        if let Some(context) = self.context() {
            context.forget(uid);
            context.backoff.reset("ArbBot", bot);
        }
    }

    fn bot_wish(&self, old: &ArbBot, new: &ArbBot) {
        let Some(context) = self.context().filter(|_| self.works_on(&key_of(&new.metadata))) else { return };
        let policies = context.caches.policies.in_namespace(new.metadata.namespace.as_deref().unwrap_or_default());
        let policies: Vec<&ArbPolicy> = policies.iter().map(AsRef::as_ref).collect();
        self.tell(new.object_ref(&()), caught(|| loosening::of_bot(old, new, &policies)));
    }

    fn policy_wish(&self, old: &ArbPolicy, new: Option<&ArbPolicy>) {
        if let (None, Some(context)) = (new, self.context()) {
            context.forget_policy(old.metadata.uid.as_deref().unwrap_or_default());
            context.backoff.reset("ArbPolicy", &key_of(&old.metadata));
        }
        if self.works_on(&key_of(&old.metadata)) {
            self.tell(new.unwrap_or(old).object_ref(&()), caught(|| loosening::of_policy(old, new)));
        }
    }

    fn scope_synced(&self, caches: &Caches, scope: &Scope) {
        if self.leadership.is_leader() {
            self.fill(caches, scope);
        }
    }
}

/// A defect in what is told must not end a watch.
fn caught(reports: impl FnOnce() -> Vec<Report>) -> Vec<Report> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(reports)).unwrap_or_else(|_| {
        tracing::error!("telling what was loosened panicked; please report this with the log");
        Vec::new()
    })
}
