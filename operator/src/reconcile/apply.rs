//! Step 4 (I/O): server-side apply of every child that is not as it should be.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;

use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID};
use k8s_openapi::NamespaceResourceScope;
use kube::api::Patch;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::build::{Applied, Prepared, Resources};
use super::fetch::Children;
use super::validate::ValidatedBot;
use crate::api::{self, ApiError};
use crate::context::Context;

/// Annotation on each child: hash of what the operator last wanted. It shows a field that is not wanted any more.
const ANNOTATION_HASH: &str = "arbbot.io/desired-hash";

/// Why a child is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else's object has the name. It is neither changed nor deleted.
    #[error(
        "{kind} {namespace}/{name} exists and does not belong to this bot (label {LABEL_BOT_UID}): delete or rename it, or create the bot under another name"
    )]
    NotOurs { kind: String, namespace: String, name: String },
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

/// Whether the object carries the bot's uid.
pub fn is_ours<K: Resource>(object: &K, bot_uid: &str) -> bool {
    object.labels().get(LABEL_BOT_UID).is_some_and(|uid| uid == bot_uid)
}

/// Applies the children, the workload last: it needs all others.
///
/// # Errors
/// A name is taken by somebody else (then nothing at all is written), or a call failed.
pub async fn apply(
    bot: &ValidatedBot,
    prepared: Resources<Prepared>,
    live: Children,
    ctx: &Context,
) -> Result<Resources<Applied>, ApplyError> {
    // Destructured without `..`: a new child does not compile until it is applied here.
    let Resources { service_account, role, role_binding, service, ledger_claim, network_policy, deployment, state: _ } =
        prepared;
    own(bot, live.service_account.as_ref())?;
    own(bot, live.role.as_ref())?;
    own(bot, live.role_binding.as_ref())?;
    own(bot, live.service.as_ref())?;
    own(bot, live.network_policy.as_ref())?;
    own(bot, live.deployment.as_ref())?;
    own_or_adopt(bot, live.ledger_claim.as_ref())?;
    Ok(Resources {
        service_account: one(service_account, live.service_account, ctx).await?,
        role: one(role, live.role, ctx).await?,
        role_binding: one(role_binding, live.role_binding, ctx).await?,
        service: one(service, live.service, ctx).await?,
        ledger_claim: one(ledger_claim, live.ledger_claim, ctx).await?,
        network_policy: one(network_policy, live.network_policy, ctx).await?,
        deployment: one(deployment, live.deployment, ctx).await?,
        state: PhantomData,
    })
}

fn own<K: Child>(bot: &ValidatedBot, live: Option<&K>) -> Result<(), ApplyError> {
    match live {
        Some(live) if !is_ours(live, bot.uid()) => Err(ApplyError::NotOurs {
            kind: K::kind(&()).into_owned(),
            namespace: bot.namespace().to_owned(),
            name: live.name_any(),
        }),
        _ => Ok(()),
    }
}

/// The ledger of an earlier bot of the same name becomes this bot's.
fn own_or_adopt<K: Child>(bot: &ValidatedBot, live: Option<&K>) -> Result<(), ApplyError> {
    let of_same_name = |live: &K| live.labels().get(LABEL_BOT).is_some_and(|name| name == bot.name());
    own(bot, live.filter(|live| !of_same_name(live)))
}

/// Applies one child, unless it is as it should be.
async fn one<K: Child>(mut desired: K, live: Option<K>, ctx: &Context) -> Result<K, ApiError> {
    let kind = K::kind(&()).into_owned();
    let (name, namespace) = (desired.name_any(), desired.namespace().unwrap_or_default());
    let hash = format!("{:016x}", hash_of(&to_value(&desired)));
    desired.annotations_mut().insert(ANNOTATION_HASH.to_owned(), hash);
    let wanted = to_value(&desired);
    if let Some(live) = live {
        let is = to_value(&live);
        // The second comparison is for what the API server or a webhook rewrites: equal to what our last apply got back.
        let as_applied = || live.uid().and_then(|uid| ctx.applied.get(&uid)) == Some(content_hash(&is));
        let same_wish = live.annotations().get(ANNOTATION_HASH) == desired.annotations().get(ANNOTATION_HASH);
        if same_wish && (holds(&wanted, &is) || as_applied()) {
            ctx.metrics.wrote(&kind, "noop");
            return Ok(live);
        }
    }
    let client: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = Patch::Apply(&wanted);
    let params = api::apply_params();
    let applied = api::call(format!("apply {kind} {namespace}/{name}"), client.patch(&name, &params, &patch)).await?;
    ctx.metrics.wrote(&kind, "applied");
    tracing::info!(kind, namespace, name, "child applied");
    if let Some(uid) = applied.uid() {
        ctx.applied.insert(uid, content_hash(&to_value(&applied)));
    }
    Ok(applied)
}

/// Children are plain data; one that could not be written as JSON would be null and refused by the API server.
fn to_value<K: Serialize>(child: &K) -> Value {
    serde_json::to_value(child).unwrap_or_default()
}

/// The same in every process: `DefaultHasher::new` has fixed keys. After a Rust release that changes it each child is
/// applied once more.
fn hash_of(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Hash of what a person or controller could have changed; not of status and of what every write changes.
fn content_hash(object: &Value) -> u64 {
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
            Some(live) => holds(value, live),
            None => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len() && desired.iter().zip(live).all(|(desired, live)| holds(desired, live))
        }
        (desired, live) => desired == live,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, validated};
    use super::*;
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use serde_json::json;

    fn claim(labels: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "arbbot-carry-ledger", "labels": labels}})).unwrap()
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
    fn the_ledger_of_an_earlier_bot_of_the_same_name_is_adopted() {
        let bot = validated(&bot(""));
        let of = |name: &str| claim(json!({"arbbot.io/bot-uid": "earlier", "arbbot.io/bot": name}));
        assert!(own_or_adopt(&bot, Some(&of("carry"))).is_ok());
        assert!(own_or_adopt(&bot, Some(&of("other"))).is_err());
    }

    #[test]
    fn status_and_resource_version_do_not_count_as_content() {
        let object = |version: &str, replicas: u32, status: u32| json!({"metadata": {"resourceVersion": version, "labels": {"a": "b"}}, "spec": {"replicas": replicas}, "status": status});
        assert_eq!(content_hash(&object("1", 1, 0)), content_hash(&object("2", 1, 1)));
        assert_ne!(content_hash(&object("1", 1, 0)), content_hash(&object("1", 2, 0)));
    }
}
