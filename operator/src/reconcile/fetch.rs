//! Step 1 (I/O): the bot and everything of it. Whether something is to be done is decided from the caches; what is then
//! changed is read from the API server itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbbot_crds::control::matching;
use arbbot_crds::decode::ReadableStatus;
use arbbot_crds::names::{child_name, ledger_claim_name};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::apply::Child;
use super::{contact, pods, replicas};
use crate::api::{ApiError, call};
use crate::cache::bots::Undecodable;
use crate::cache::children::Known;
use crate::cache::leases::SeenLease;
use crate::cache::raw::Raw;
use crate::cache::store::{self, Key, split};
use crate::context::Context;

/// A bot's children as they are. An object of that name may belong to somebody else.
#[derive(Clone, Debug, Default)]
pub struct Children {
    pub service_account: Option<Known<ServiceAccount>>,
    pub role: Option<Known<Role>>,
    pub role_binding: Option<Known<RoleBinding>>,
    pub service: Option<Known<Service>>,
    pub ledger_claim: Option<PersistentVolumeClaim>,
    pub network_policy: Option<Known<NetworkPolicy>>,
    pub deployment: Option<Deployment>,
}

/// All that a reconcile looks at.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub bot: ArbBot,
    pub children: Children,
    pub lease: Option<Lease>,
    /// How long this process has seen no renewal of the Lease, or no Lease, by its own clock.
    pub lease_unchanged: Duration,
    /// Policies that apply to the bot.
    pub policies: Vec<Arc<ArbPolicy>>,
    /// All of its namespace: one that does not apply any more may still release a kill of its own.
    pub policies_of_namespace: Vec<Arc<ArbPolicy>>,
    /// Its pods, without their spec.
    pub pods: Vec<Arc<Pod>>,
    /// Warnings of the kubelet on a pod whose containers do not start.
    pub pod_events: Vec<Event>,
}

impl Fetched {
    /// The policies that apply, as the shared control functions take them.
    #[must_use]
    pub fn policies(&self) -> Vec<&ArbPolicy> {
        self.policies.iter().map(AsRef::as_ref).collect()
    }

    /// All policies of the namespace, as the shared control functions take them.
    #[must_use]
    pub fn all_policies(&self) -> Vec<&ArbPolicy> {
        self.policies_of_namespace.iter().map(AsRef::as_ref).collect()
    }

    /// Replicas that the Deployment asks for now.
    #[must_use]
    pub fn live_replicas(&self) -> Option<i32> {
        self.children.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref()?.replicas)
    }

    /// Whether the bot has drained and its Deployment is at zero: it stands still, and its last word stays true.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.live_replicas() == Some(0) && !self.has_pods() && replicas::has_drained(&self.bot)
    }

    /// Whether every pod that may still run is ending.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        let ends = |pod: &Arc<Pod>| has_ended(pod) || pod.metadata.deletion_timestamp.is_some();
        self.has_pods() && self.pods.iter().all(ends)
    }

    /// A pod that is ending for longer than its grace period and a minute: its node may be lost.
    #[must_use]
    pub fn overdue_pod(&self, now: Timestamp) -> Option<&Pod> {
        // The deletion's time is the end of the grace period.
        let due = |pod: &Pod| pod.metadata.deletion_timestamp.as_ref().map(|at| now.duration_since(at.0));
        let overdue = |pod: &&Arc<Pod>| !has_ended(pod) && due(pod).is_some_and(|since| since > OVERDUE);
        self.pods.iter().find(overdue).map(Arc::as_ref)
    }

    /// Whether a pod is there that may still run. One that was evicted stays as a record only.
    #[must_use]
    pub fn has_pods(&self) -> bool {
        !self.pods.iter().all(|pod| has_ended(pod))
    }
}

/// How long a pod may take beyond its grace period before a person is told.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Everything of a bot as the caches know it. None: it is gone.
///
/// # Errors
/// The bot cannot be decoded, or its Lease or the Events of its pod cannot be read.
pub async fn from_caches(key: &Key, ctx: &Context, now: Timestamp) -> Result<Option<Fetched>, FetchError> {
    let Some(bot) = ctx.caches.bots.get(key) else { return Ok(None) };
    let bot = bot.map_err(FetchError::Undecodable)?;
    let (namespace, name) = split(key);
    let child = store::key(namespace, &child_name(name));
    let caches = &ctx.caches;
    let children = Children {
        service_account: caches.service_accounts.known(&child),
        role: caches.roles.known(&child),
        role_binding: caches.role_bindings.known(&child),
        service: caches.services.known(&child),
        ledger_claim: caches.ledger_claims.get(&store::key(namespace, &ledger_claim_name(name))),
        network_policy: caches.network_policies.known(&child),
        deployment: caches.deployments.get(&child),
    };
    let pods = ctx.caches.pods.of_bot(&bot.uid().unwrap_or_default());
    Box::pin(complete(bot, children, pods, false, ctx, now)).await.map(Some)
}

/// The bot as the API server itself has it, and the children: those that no cache knows are asked for, too, because one
/// may have been made a moment ago or belong to somebody else. For a deletion all of them are read. None: the bot is gone,
/// or another of the same name stands there.
///
/// # Errors
/// The API server did not answer.
pub async fn from_api_server(cached: Fetched, ctx: &Context, now: Timestamp) -> Result<Option<Fetched>, FetchError> {
    let (name, namespace) = (cached.bot.name_any(), cached.bot.namespace().unwrap_or_default());
    // Before the bot: where no pod is left, the bot that is read then has the last word of each.
    let pods = ctx.caches.pods.of_bot(&cached.bot.uid().unwrap_or_default());
    let bot = get_own::<ArbBot>(ctx, &namespace, &name).await?;
    let Some(bot) = bot.filter(|bot| bot.uid() == cached.bot.uid()) else { return Ok(None) };
    let known = if bot.metadata.deletion_timestamp.is_some() { Children::default() } else { cached.children };
    let children = Box::pin(read_missing(known, &name, &namespace, ctx)).await?;
    Box::pin(complete(bot, children, pods, true, ctx, now)).await.map(Some)
}

/// Asks for the children that are not known, and for the Deployment always: the number of pods is decided from the number
/// that there is.
async fn read_missing(known: Children, bot: &str, namespace: &str, ctx: &Context) -> Result<Children, ApiError> {
    let (child, claim) = (child_name(bot), ledger_claim_name(bot));
    let (service_account, role, role_binding, service, ledger_claim, network_policy, deployment) = tokio::try_join!(
        Box::pin(known_or_read(known.service_account, ctx, namespace, &child)),
        Box::pin(known_or_read(known.role, ctx, namespace, &child)),
        Box::pin(known_or_read(known.role_binding, ctx, namespace, &child)),
        Box::pin(known_or_read(known.service, ctx, namespace, &child)),
        Box::pin(async {
            match known.ledger_claim {
                Some(known) => Ok(Some(known)),
                None => get(ctx, namespace, &claim).await,
            }
        }),
        Box::pin(known_or_read(known.network_policy, ctx, namespace, &child)),
        Box::pin(get(ctx, namespace, &child)),
    )?;
    Ok(Children { service_account, role, role_binding, service, ledger_claim, network_policy, deployment })
}

/// Adds what is not a child.
async fn complete(
    bot: ArbBot,
    children: Children,
    pods: Vec<Arc<Pod>>,
    fresh: bool,
    ctx: &Context,
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let namespace = bot.namespace().unwrap_or_default();
    let policies_of_namespace = ctx.caches.policies.in_namespace(&namespace);
    let all = policies_of_namespace.iter().map(Arc::as_ref);
    let selected: Vec<_> = matching(&bot, all).into_iter().map(ResourceExt::uid).collect();
    let policies = policies_of_namespace.iter().filter(|policy| selected.contains(&policy.uid())).cloned().collect();
    let pod_events = match pods::slow_to_start(&pods, now) {
        Some(pod) => events_of(ctx, &namespace, pod).await?,
        None => Vec::new(),
    };
    let seen = lease(&bot, fresh, ctx, now).await?;
    let lease_unchanged = match &seen {
        Some(seen) => {
            ctx.without_lease.remove(&bot.uid().unwrap_or_default());
            seen.unchanged
        }
        None => ctx.without_lease_since(&bot).elapsed(),
    };
    Ok(Fetched {
        bot,
        children,
        lease: seen.map(|seen| seen.lease),
        lease_unchanged,
        policies,
        policies_of_namespace,
        pods,
        pod_events,
    })
}

/// The bot's Lease: as it was last read, unless it may have become another since.
async fn lease(bot: &ArbBot, fresh: bool, ctx: &Context, now: Timestamp) -> Result<Option<SeenLease>, ApiError> {
    let (name, namespace) = (child_name(&bot.name_any()), bot.namespace().unwrap_or_default());
    let key = store::key(&namespace, &name);
    let known = ctx.caches.leases.get(&key);
    let said_by = bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|bot| bot.pod_uid.as_deref());
    let deleted = bot.metadata.deletion_timestamp.is_some();
    let suffices = match &known {
        _ if deleted => false,
        None => said_by.is_none(),
        Some(known) => {
            let holder = contact::holder(&known.lease);
            let ended = holder.is_some_and(|holder| ctx.terminated.contains(holder));
            let current = contact::expiry(&known.lease).is_none_or(|at| at > now) && said_by == holder;
            current && !(fresh && ended)
        }
    };
    if suffices {
        return Ok(known);
    }
    match get::<Lease>(ctx, &namespace, &name).await? {
        Some(lease) => ctx.caches.leases.observe(lease, Instant::now()),
        None => ctx.caches.leases.forget(&key),
    }
    Ok(ctx.caches.leases.get(&key))
}

/// What safety needs of a bot that was decoded only in part; for a deletion, every child.
///
/// # Errors
/// The API server did not answer.
pub async fn for_safety(bot: ArbBot, ctx: &Context, now: Timestamp) -> Result<Fetched, FetchError> {
    let (name, namespace) = (bot.name_any(), bot.namespace().unwrap_or_default());
    let pods = ctx.caches.pods.of_bot(&bot.uid().unwrap_or_default());
    let children = if bot.metadata.deletion_timestamp.is_some() {
        Box::pin(read_missing(Children::default(), &name, &namespace, ctx)).await?
    } else {
        Children { deployment: get(ctx, &namespace, &child_name(&name)).await?, ..Children::default() }
    };
    Box::pin(complete(bot, children, pods, true, ctx, now)).await
}

async fn known_or_read<K: Child>(
    known: Option<Known<K>>,
    ctx: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Known<K>>, ApiError> {
    match known {
        Some(known) => Ok(Some(known)),
        None => Ok(get(ctx, namespace, name).await?.map(Known::read)),
    }
}

/// Reads one object. Without a resourceVersion the answer is the newest: a read by quorum.
///
/// # Errors
/// The API server did not answer.
pub async fn get<K>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<K>, ApiError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    call(format!("read {} {namespace}/{name}", K::kind(&())), api.get_opt(name)).await
}

/// Reads one ArbBot or ArbPolicy.
///
/// # Errors
/// The API server did not answer, or the object cannot be decoded.
pub async fn get_own<K>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<K>, FetchError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + ReadableStatus,
{
    let Some(raw) = get::<Raw<K>>(ctx, namespace, name).await? else { return Ok(None) };
    let decoded = raw.decode().map_err(|error| FetchError::Undecodable(Box::new(Undecodable::new(&raw, &error))));
    decoded.map(Some)
}

/// The kubelet tells of a volume that cannot be mounted in Events only.
async fn events_of(ctx: &Context, namespace: &str, pod: &Pod) -> Result<Vec<Event>, ApiError> {
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
    let of_pod = format!("involvedObject.uid={},type=Warning", pod.uid().unwrap_or_default());
    let params = ListParams::default().fields(&of_pod).limit(50);
    Ok(call("list the Events of the bot's pod", api.list(&params)).await?.items)
}

/// Why the bot cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It was stored under another schema.
    #[error(
        "this operator cannot read the object: {}; change the field to what `kubectl explain` shows, or install the operator that wrote it",
        .0.message
    )]
    Undecodable(Box<Undecodable>),
}
