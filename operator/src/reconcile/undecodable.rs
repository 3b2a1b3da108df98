//! An ArbBot or ArbPolicy that this operator cannot decode: it says so on that object, and leaves everything of it as it
//! is.

use std::fmt::Debug;
use std::time::Duration;

use arbbot_crds::conditions::{ConditionType, Reason, find};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::contact;
use super::fetch::FetchError;
use super::verdict::Verdict;
use crate::api::{self, ApiError};
use crate::cache::bots::Undecodable;
use crate::cache::raw::Raw;
use crate::context::Context;
use crate::events::Report;

/// Only a change of the object, or another operator, helps.
const AGAIN: Duration = Duration::from_secs(300);
/// The operator's part of status beside its conditions. It stays: a claim that is left out would be revoked.
const KEPT: [&str; 4] = ["effective", "claim", "incidents", "bots"];

/// Writes Stalled on the object, unless it is there.
///
/// # Errors
/// The status could not be written.
pub async fn report<K>(cached: &Undecodable, ctx: &Context) -> Result<Option<Duration>, ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    if desired(cached).is_none() {
        return Ok(Some(AGAIN));
    }
    let ctx = ctx.acting();
    let (version, kind) = (K::api_version(&()), K::kind(&()));
    let (name, namespace) = (cached.name(), cached.metadata.namespace.clone().unwrap_or_default());
    let api: Api<Raw<K>> = Api::namespaced(ctx.client.clone(), &namespace);
    let Some(fresh) = api::call(format!("read {kind} {namespace}/{name}"), api.get_opt(&name)).await? else {
        return Ok(None);
    };
    let Err(error) = fresh.decode() else { return Ok(Some(Duration::ZERO)) };
    let fresh = Undecodable::new(&fresh, &error);
    if let Some(status) = desired(&fresh) {
        // With the resourceVersion: conditions of the bot may be in it.
        let version_read = &fresh.metadata.resource_version;
        let metadata =
            json!({"name": name, "namespace": namespace, "uid": fresh.metadata.uid, "resourceVersion": version_read});
        let body = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "status": status});
        let (params, patch) = (api::apply_params(), Patch::Apply(&body));
        let write = api.patch_status(&name, &params, &patch);
        api::call(format!("write the status of {kind} {namespace}/{name}"), write).await?;
        ctx.metrics.wrote(&format!("{kind}Status"), "applied");
        let mut object = Raw::<K>::default().object_ref(&());
        (object.name, object.namespace, object.uid) = (Some(name), Some(namespace), fresh.metadata.uid.clone());
        ctx.reports.publish_on(&object, &Report::warning(Reason::InvalidSpec, message(&fresh))).await;
    }
    Ok(Some(AGAIN))
}

fn message(bot: &Undecodable) -> String {
    FetchError::Undecodable(Box::new(bot.clone())).to_string()
}

/// The operator's part of status. None: it is so already.
fn desired(bot: &Undecodable) -> Option<Value> {
    let conditions = bot.status.get("conditions").cloned().unwrap_or_default();
    let present: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    // What was turned to Unknown stays so: left out of the apply it would vanish.
    let mine = |condition: &Condition| contact::is_own(condition) || contact::is_lost(condition);
    let mut own: Vec<Condition> = present.into_iter().filter(mine).collect();
    let before = own.clone();
    let verdict = Verdict::stalled(Reason::InvalidSpec, message(bot));
    verdict.set(false, &mut own, bot.metadata.generation, &Time(Timestamp::now()));
    let observed = bot.status.get("observedGeneration").and_then(Value::as_i64);
    if own == before && observed == bot.metadata.generation && find(&own, ConditionType::Stalled).is_some() {
        return None;
    }
    let mut status = json!({"observedGeneration": bot.metadata.generation, "conditions": own});
    for key in KEPT {
        if let Some(value) = bot.status.get(key) {
            status[key] = value.clone();
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::kstatus::kstatus;
    use arbbot_crds::ArbBot;

    fn bot(status: Value) -> Undecodable {
        let object = json!({"metadata": {"name": "odd", "namespace": "desk", "generation": 2}, "spec": {"mode": "Paused"}, "status": status});
        let raw = Raw::<ArbBot>::new(object).unwrap();
        Undecodable::new(&raw, &raw.decode().unwrap_err())
    }

    #[test]
    fn it_is_stalled_with_the_field_once_and_keeps_its_claim() {
        let claim = json!({"account": "a", "product": "p", "granted": true});
        let status = desired(&bot(json!({"claim": claim, "bot": {"podUid": "x"}}))).unwrap();
        let stalled = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Stalled").unwrap();
        assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("InvalidSpec")));
        assert!(stalled["message"].as_str().unwrap().contains("Paused"));
        let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap();
        let metadata = bot(json!({})).metadata;
        assert_eq!(kstatus(&metadata, status["observedGeneration"].as_i64(), &conditions), "Failed");
        assert_eq!(status["claim"], claim);
        assert!(status.get("bot").is_none(), "that part is the bot's");
        assert_eq!(desired(&bot(status)), None, "a second look writes nothing");
    }
}
