//! Step 1 (I/O): the bot and everything of it, read from the API server itself. Only policies and pods come from a cache.

use std::sync::Arc;

use arbbot_crds::control::matching;
use arbbot_crds::names::{LABEL_BOT_UID, child_name, ledger_claim_name};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{pods, replicas};
use crate::api::{ApiError, DEADLINE, call};
use crate::context::Context;

/// A bot's children as they are. An object of that name may belong to somebody else.
#[derive(Clone, Debug, Default)]
pub struct Children {
    pub service_account: Option<ServiceAccount>,
    pub role: Option<Role>,
    pub role_binding: Option<RoleBinding>,
    pub service: Option<Service>,
    pub ledger_claim: Option<PersistentVolumeClaim>,
    pub network_policy: Option<NetworkPolicy>,
    pub deployment: Option<Deployment>,
}

/// All that a reconcile looks at.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub bot: ArbBot,
    pub children: Children,
    pub lease: Option<Lease>,
    /// Policies that apply to the bot.
    pub policies: Vec<Arc<ArbPolicy>>,
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

    /// Replicas that the Deployment asks for now.
    #[must_use]
    pub fn live_replicas(&self) -> Option<i32> {
        self.children.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref()?.replicas)
    }

    /// Whether the bot has drained and its Deployment is at zero: it stands still, and its last word stays true.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.live_replicas() == Some(0) && self.pods.is_empty() && replicas::has_drained(&self.bot)
    }
}

/// Reads the bot and everything of it. None: it is gone, or another of the same name stands there.
///
/// # Errors
/// The API server did not answer, or a cache has not yet synced.
pub async fn fetch(seen: &ArbBot, ctx: &Context, now: Timestamp) -> Result<Option<Fetched>, FetchError> {
    let (name, namespace) = (seen.name_any(), seen.namespace().unwrap_or_default());
    let mut synced = ctx.synced.clone();
    if !matches!(tokio::time::timeout(DEADLINE, synced.wait_for(|synced| *synced)).await, Ok(Ok(_))) {
        return Err(FetchError::NotSynced);
    }

    let child = child_name(&name);
    let claim = ledger_claim_name(&name);
    let (bot, service_account, role, role_binding, service, ledger_claim, network_policy, deployment, lease) = tokio::try_join!(
        get::<ArbBot>(ctx, &namespace, &name),
        get::<ServiceAccount>(ctx, &namespace, &child),
        get::<Role>(ctx, &namespace, &child),
        get::<RoleBinding>(ctx, &namespace, &child),
        get::<Service>(ctx, &namespace, &child),
        get::<PersistentVolumeClaim>(ctx, &namespace, &claim),
        get::<NetworkPolicy>(ctx, &namespace, &child),
        get::<Deployment>(ctx, &namespace, &child),
        get::<Lease>(ctx, &namespace, &child),
    )?;
    let Some(bot) = bot.filter(|bot| bot.uid() == seen.uid()) else { return Ok(None) };

    let policies = ctx.policies.state();
    let in_namespace = policies.iter().filter(|policy| policy.namespace() == bot.namespace());
    let selected: Vec<_> = matching(&bot, in_namespace.map(Arc::as_ref)).into_iter().map(ResourceExt::uid).collect();
    let policies = policies.iter().filter(|policy| selected.contains(&policy.uid())).cloned().collect();

    let uid = bot.uid();
    let pods = ctx
        .pods
        .state_filter(|pod| pod.namespace() == bot.namespace() && pod.labels().get(LABEL_BOT_UID) == uid.as_ref());
    let pod_events = match pods::slow_to_start(&pods, now) {
        Some(pod) => events_of(ctx, &namespace, pod).await?,
        None => Vec::new(),
    };
    let children = Children { service_account, role, role_binding, service, ledger_claim, network_policy, deployment };
    Ok(Some(Fetched { bot, children, lease, policies, pods, pod_events }))
}

async fn get<K>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<K>, ApiError>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), namespace);
    call(format!("read {} {namespace}/{name}", K::kind(&())), api.get_opt(name)).await
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
    /// A watch has not delivered its first list.
    #[error("the watches of ArbPolicies and Pods have not synced yet: see the log for why they fail")]
    NotSynced,
}
