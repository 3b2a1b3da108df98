//! Step 4 (I/O): server-side apply of every child that is not as it should be.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;

use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::Resources;
use super::fetch::{self, Children};
use super::validate::ValidatedBot;
use super::{ownership, quantity};
use crate::api::{self, ApiError};
use crate::cache::children::{Children as CachedChildren, Known};
use crate::cache::store;
use crate::context::Context;

/// Annotation on each child: hash of what the operator last wanted. It shows a field that is not wanted any more.
const ANNOTATION_HASH: &str = "arbbot.io/desired-hash";

/// Why a child is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else's object has the name. It is neither changed nor deleted.
    #[error(
        "{kind} {namespace}/{name} exists and does not carry this bot's label {LABEL_BOT_UID}={bot_uid}: if it is this bot's, give the label back (kubectl label {kind} {name} -n {namespace} --overwrite {LABEL_BOT_UID}={bot_uid}); otherwise delete or rename it, or create the bot under another name"
    )]
    NotOurs { kind: String, namespace: String, name: String, bot_uid: String },
    /// The API server refused or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// What a child must be for the generic code here.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}
impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

/// Whether the object carries the bot's uid: as its label or, where that was removed by hand, in the selector of a
/// Deployment, which nobody can change.
pub fn is_ours<K: Child>(object: &K, bot_uid: &str) -> bool {
    match object.labels().get(LABEL_BOT_UID) {
        Some(uid) => uid == bot_uid,
        None => {
            K::kind(&()) == "Deployment"
                && to_value(object)["spec"]["selector"]["matchLabels"][LABEL_BOT_UID] == bot_uid
        }
    }
}

/// Why an object under the name of a child is left alone.
pub fn not_ours<K: Child>(object: &K, bot_uid: &str) -> ApplyError {
    let (kind, namespace) = (K::kind(&()).into_owned(), object.namespace().unwrap_or_default());
    ApplyError::NotOurs { kind, namespace, name: object.name_any(), bot_uid: bot_uid.to_owned() }
}

/// Applies the children, the workload last: it needs all others. Returns the workload as it is now.
///
/// # Errors
/// A name is taken by somebody else (then nothing at all is written), or a call failed.
pub async fn apply(
    bot: &ValidatedBot,
    desired: Resources,
    live: Children,
    ctx: &Context,
) -> Result<Deployment, ApplyError> {
    // Destructured without `..`: a new child does not compile until it is applied here.
    let Resources { service_account, role, role_binding, service, ledger_claim, network_policy, deployment } = desired;
    let caches = &ctx.caches;
    let of = Comparison { bot, ctx };
    let service_account = of.compare(service_account, live.service_account, Some(&caches.service_accounts)).await?;
    let role = of.compare(role, live.role, Some(&caches.roles)).await?;
    let role_binding = of.compare(role_binding, live.role_binding, Some(&caches.role_bindings)).await?;
    let service = of.compare(service, live.service, Some(&caches.services)).await?;
    let ledger_claim = match ledger_claim {
        Some(claim) => Some(of.compare(claim, live.ledger_claim.map(Known::read), None).await?),
        None => None,
    };
    let network_policy = of.compare(network_policy, live.network_policy, Some(&caches.network_policies)).await?;
    let deployment = of.compare(deployment, live.deployment.map(Known::read), None).await?;
    Box::pin(service_account.carry_out(ctx)).await?;
    Box::pin(role.carry_out(ctx)).await?;
    Box::pin(role_binding.carry_out(ctx)).await?;
    Box::pin(service.carry_out(ctx)).await?;
    if let Some(ledger_claim) = ledger_claim {
        Box::pin(ledger_claim.carry_out(ctx)).await?;
    }
    Box::pin(network_policy.carry_out(ctx)).await?;
    Box::pin(deployment.carry_out(ctx)).await
}

/// The ledger of an earlier bot of the same name becomes this bot's; anything else of somebody else stays as it is.
fn own<K: Child>(bot: &ValidatedBot, live: Option<&K>) -> Result<(), ApplyError> {
    let Some(live) = live else { return Ok(()) };
    let kind = K::kind(&());
    let of_same_name = live.labels().get(LABEL_BOT).is_some_and(|name| name == bot.name());
    if is_ours(live, bot.uid()) || (kind == "PersistentVolumeClaim" && of_same_name) {
        return Ok(());
    }
    Err(not_ours(live, bot.uid()))
}

/// What is to be done with a child.
enum Step<K> {
    /// Nothing: it is so.
    Keep(K),
    Apply {
        wanted: Value,
        name: String,
        namespace: String,
        /// Somebody may have added to it.
        live: Option<K>,
    },
}

/// Compares the children of a bot with what they should be.
struct Comparison<'a> {
    bot: &'a ValidatedBot,
    ctx: &'a Context,
}

impl Comparison<'_> {
    /// Compares one child; a cache that is given needs to remember no more than that it is as wanted.
    async fn compare<K: Child>(
        &self,
        mut desired: K,
        live: Option<Known<K>>,
        cache: Option<&CachedChildren<K>>,
    ) -> Result<Step<K>, ApplyError> {
        let Self { bot, ctx } = self;
        let kind = K::kind(&());
        let (name, namespace) = (desired.name_any(), desired.namespace().unwrap_or_default());
        let hash = hash_of(&to_value(&desired));
        desired.annotations_mut().insert(ANNOTATION_HASH.to_owned(), format!("{hash:016x}"));
        let wanted = to_value(&desired);
        let exists = live.is_some();
        match live {
            Some(Known::AsWanted(known)) if known == hash => {
                ctx.metrics.wrote(&kind, "noop");
                return Ok(Step::Keep(desired));
            }
            Some(Known::Object(live, version)) => {
                own(bot, Some(&live))?;
                if is_as_wanted(&desired, &wanted, &live, ctx) {
                    ctx.metrics.wrote(&kind, "noop");
                    if let Some(cache) = cache {
                        cache.is_as_wanted(&store::key(&namespace, &name), version, hash);
                    }
                    return Ok(Step::Keep(live));
                }
            }
            Some(Known::AsWanted(_)) | None => {}
        }
        ctx.must_act(&format!("apply {kind} {namespace}/{name}"))?;
        // The caches may be behind our own last write.
        let live: Option<K> = if exists { fetch::get(ctx, &namespace, &name).await? } else { None };
        own(bot, live.as_ref())?;
        match live {
            Some(live) if is_as_wanted(&desired, &wanted, &live, ctx) => {
                ctx.metrics.wrote(&kind, "noop");
                Ok(Step::Keep(live))
            }
            live => Ok(Step::Apply { wanted, name, namespace, live }),
        }
    }
}

impl<K: Child> Step<K> {
    /// Makes the child what it should be, and returns it.
    async fn carry_out(self, ctx: &Context) -> Result<K, ApplyError> {
        let (wanted, name, namespace, live) = match self {
            Self::Keep(child) => return Ok(child),
            Self::Apply { wanted, name, namespace, live } => (wanted, name, namespace, live),
        };
        let kind = K::kind(&()).into_owned();
        if let Some(live) = live {
            take_over(&live, &kind, ctx).await?;
        }
        let client: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
        let patch = Patch::Apply(&wanted);
        let params = api::apply_params();
        let action = format!("apply {kind} {namespace}/{name}");
        let applied = api::call(action, client.patch(&name, &params, &patch)).await?;
        ctx.metrics.wrote(&kind, "applied");
        tracing::info!(kind, namespace, name, "child applied");
        remember_rewritten(&wanted, &applied, ctx);
        Ok(applied)
    }
}

/// A webhook may make something else of what was applied: then that is what the child is compared with.
fn remember_rewritten<K: Child>(wanted: &Value, applied: &K, ctx: &Context) {
    let (Some(uid), is) = (applied.uid(), to_value(applied)) else { return };
    if holds(wanted, &is) {
        ctx.applied.remove(&uid);
    } else {
        ctx.applied.insert(uid, content_hash(&is));
    }
}

/// Makes fields that somebody has added by hand the operator's own: then the apply that follows removes them.
async fn take_over<K: Child>(live: &K, kind: &str, ctx: &Context) -> Result<(), ApiError> {
    let Some(entries) = ownership::take_over::<K>(live.managed_fields()) else { return Ok(()) };
    let (name, namespace) = (live.name_any(), live.namespace().unwrap_or_default());
    let client: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let mut operations = ownership::patch(live.resource_version().as_deref(), &entries);
    // Until the apply has succeeded the child must not look as wanted: nobody else owns the added fields any more.
    if let (Some(operations), true) = (operations.as_array_mut(), live.annotations().contains_key(ANNOTATION_HASH)) {
        let path = format!("/metadata/annotations/{}", ANNOTATION_HASH.replace('/', "~1"));
        operations.push(json!({"op": "replace", "path": path, "value": ""}));
    }
    let Ok(operations) = serde_json::from_value(operations) else { return Ok(()) };
    let (params, patch) = (PatchParams::default(), Patch::<()>::Json(operations));
    let write = client.patch_metadata(&name, &params, &patch);
    api::call(format!("take over fields of {kind} {namespace}/{name}"), write).await?;
    ctx.metrics.wrote(kind, "applied");
    tracing::info!(kind, namespace, name, "fields that were added by hand are taken over");
    Ok(())
}

/// Whether the child is as our last apply of the same wish left it, and nobody has added anything.
fn is_as_wanted<K: Child>(desired: &K, wanted: &Value, live: &K, ctx: &Context) -> bool {
    if live.annotations().get(ANNOTATION_HASH) != desired.annotations().get(ANNOTATION_HASH)
        || ownership::is_foreign::<K>(live.managed_fields())
    {
        return false;
    }
    let is = to_value(live);
    // The second comparison is for what a webhook rewrites: equal to what our last apply got back.
    holds(wanted, &is) || live.uid().and_then(|uid| ctx.applied.get(&uid)) == Some(content_hash(&is))
}

/// Children are plain data; one that could not be written as JSON would be null and refused by the API server.
fn to_value<K: Serialize>(child: &K) -> Value {
    serde_json::to_value(child).unwrap_or_default()
}

/// The same in every process: `DefaultHasher::new` has fixed keys. After a Rust release that changes it each child is
/// applied once more.
fn hash_of(value: &Value) -> NonZeroU64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MAX)
}

/// Hash of what a person or controller could have changed; not of status and of what every write changes.
fn content_hash(object: &Value) -> NonZeroU64 {
    let mut content = object.clone();
    if let Some(content) = content.as_object_mut() {
        content.remove("status");
        let labels = content.remove("metadata").map(|mut metadata| metadata["labels"].take());
        content.insert("labels".to_owned(), labels.unwrap_or_default());
    }
    hash_of(&content)
}

/// Whether everything that `desired` says is so in `live`. What the API server adds by default does not matter.
fn holds(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().all(|(key, value)| match live.get(key) {
            Some(live) => holds(value, live) || (is_amount(key) && quantity::same(value, live)),
            None => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len() && desired.iter().zip(live).all(|(desired, live)| holds(desired, live))
        }
        (desired, live) => desired == live,
    }
}

/// Keys of amounts: the API server writes "0.5" as "500m".
fn is_amount(key: &str) -> bool {
    matches!(key, "cpu" | "memory" | "storage" | "ephemeral-storage")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, deployment, validated};
    use super::*;
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use serde_json::json;

    fn claim(labels: Value) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({"metadata": {"name": "arbbot-carry-ledger", "namespace": "desk", "labels": labels}}),
        )
        .unwrap()
    }

    #[test]
    fn defaults_of_the_api_server_are_no_drift_but_an_edit_is() {
        let desired = json!({"spec": {"replicas": 1, "ports": [{"port": 8080}]}});
        assert!(holds(
            &desired,
            &json!({"spec": {"replicas": 1, "x": 1, "ports": [{"port": 8080, "protocol": "TCP"}]}})
        ));
        assert!(!holds(&desired, &json!({"spec": {"replicas": 0, "ports": [{"port": 8080}]}})));
        assert!(!holds(&desired, &json!({"spec": {"replicas": 1, "ports": [{"port": 8080}, {"port": 1}]}})));
        assert!(!holds(&desired, &json!({"spec": {"replicas": 1}})));
    }

    #[test]
    fn an_object_of_somebody_else_is_refused_with_the_remedy() {
        let bot = validated(&bot(""));
        let message = own(&bot, Some(&claim(json!({})))).unwrap_err().to_string();
        assert!(
            message.contains("PersistentVolumeClaim desk/arbbot-carry-ledger") && message.contains("rename"),
            "{message}"
        );
        assert!(own(&bot, Some(&claim(json!({"arbbot.io/bot-uid": "0b9d6bcd-uid"})))).is_ok());
        assert!(own::<PersistentVolumeClaim>(&bot, None).is_ok());
    }

    #[test]
    fn a_deployment_without_its_label_is_ours_by_its_selector_and_nothing_else_is() {
        let mut ours = deployment(&bot(""), 1);
        ours.metadata.labels = None;
        assert!(is_ours(&ours, "0b9d6bcd-uid") && !is_ours(&ours, "another-uid"));
        ours.metadata.labels = Some([(LABEL_BOT_UID.to_owned(), "another-uid".to_owned())].into());
        assert!(!is_ours(&ours, "0b9d6bcd-uid"), "somebody says that it is another's");
        let account = json!({"metadata": {"name": "arbbot-carry", "namespace": "desk"}});
        let account: ServiceAccount = serde_json::from_value(account).unwrap();
        assert!(!is_ours(&account, "0b9d6bcd-uid"));
        let message = own(&validated(&bot("")), Some(&account)).unwrap_err().to_string();
        let back = "kubectl label ServiceAccount arbbot-carry -n desk --overwrite arbbot.io/bot-uid=0b9d6bcd-uid";
        assert!(message.contains(back), "{message}");
    }

    #[test]
    fn the_ledger_of_an_earlier_bot_of_the_same_name_is_adopted() {
        let bot = validated(&bot(""));
        let of = |name: &str| claim(json!({"arbbot.io/bot-uid": "earlier", "arbbot.io/bot": name}));
        assert!(own(&bot, Some(&of("carry"))).is_ok());
        assert!(own(&bot, Some(&of("other"))).is_err());
    }

    #[test]
    fn status_and_resource_version_do_not_count_as_content() {
        let object = |version: &str, replicas: u32, status: u32| json!({"metadata": {"resourceVersion": version, "labels": {"a": "b"}}, "spec": {"replicas": replicas}, "status": status});
        assert_eq!(content_hash(&object("1", 1, 0)), content_hash(&object("2", 1, 1)));
        assert_ne!(content_hash(&object("1", 1, 0)), content_hash(&object("1", 2, 0)));
    }
}
