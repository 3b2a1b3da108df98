//! An ArbBot or ArbPolicy that this operator cannot decode: it says so on that object, and leaves everything of it as it
//! is, but for safety: the end of a pod is proven, lost contact is said, a kill starts a bot at zero, and a deletion goes
//! its way, by what can be read.

use std::fmt::Debug;
use std::time::Duration;

use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::{ArbBot, ArbBotSpec, ArbPolicy, decode};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::apply::ApplyError;
use super::delete::{self, Deletion};
use super::fetch::{self, FetchError};
use super::verdict::{Pause, Verdict};
use super::{ReconcileError, contact, pause};
use crate::api::{self, ApiError};
use crate::cache::bots::Undecodable;
use crate::cache::raw::Raw;
use crate::context::Context;
use crate::events::Report;
use crate::fencing;

/// Only a change of the object, or another operator, helps.
const AGAIN: Duration = Duration::from_secs(300);
/// The operator's part of status beside its conditions. It stays: a claim that is left out would be revoked.
const KEPT: [&str; 4] = ["effective", "claim", "incidents", "bots"];

/// An ArbBot: what safety needs of it, and the report.
///
/// # Errors
/// A call failed.
pub async fn bot(cached: &Undecodable, now: Timestamp, ctx: &Context) -> Result<Option<Duration>, ReconcileError> {
    let ctx = ctx.acting();
    let name = cached.name();
    let namespace = cached.metadata.namespace.clone().unwrap_or_default();
    let raw = fetch::get::<Raw<ArbBot>>(&ctx, &namespace, &name).await.map_err(FetchError::Api)?;
    let Some(raw) = raw else { return Ok(None) };
    let Err(error) = raw.decode() else { return Ok(Some(Duration::ZERO)) };
    let mut again = AGAIN;
    let mut unknown = Vec::new();
    let mut told = Undecodable::new(&raw, &error);
    if let Some(bot) = readable(&raw) {
        let fetched = Box::pin(fetch::for_safety(bot, &ctx, now)).await?;
        fencing::publish(&fetched, &ctx).await.map_err(ReconcileError::Report)?;
        match Box::pin(delete::step(&fetched, now, &ctx)).await.map_err(ReconcileError::Delete)? {
            Deletion::NotDeleted => {}
            Deletion::Waits(verdict) => add(&mut told, &verdict),
            Deletion::TearingDown(overdue) => {
                if let Some(verdict) = overdue {
                    add(&mut told, &verdict);
                    write::<ArbBot>(&told, &unknown, &ctx).await.map_err(ReconcileError::Report)?;
                }
                return Ok(Some(delete::POLL));
            }
            Deletion::Done => return Ok(None),
        }
        pause::keep_safe(&fetched, &ctx).await.map_err(ApplyError::Api)?;
        let lost = !fetched.is_at_rest() && contact::lost(&fetched, now);
        unknown = contact::unknown_conditions(&fetched.bot, lost, &Time(now));
        if !lost {
            again = contact::until_lost(&fetched, now).map_or(again, |wait| wait.min(again));
        }
    }
    write::<ArbBot>(&told, &unknown, &ctx).await.map_err(ReconcileError::Report)?;
    Ok(Some(again))
}

/// What else a person must know.
fn add(told: &mut Undecodable, verdict: &Verdict) {
    if let Some(why) = verdict.why() {
        told.message = format!("{}; {}", told.message, why.message);
    }
}

/// The bot as far as it can be read. What replaces a part without which no bot can start says nothing about safety.
fn readable(raw: &Raw<ArbBot>) -> Option<ArbBot> {
    let decode = |before: Option<&ArbBotSpec>| decode::arb_bot(raw.metadata.clone(), &raw.rest, before).ok();
    let decoded = decode(None).or_else(|| decode(Some(&placeholder()?)))?;
    Some(decoded.object)
}

/// An ArbPolicy: Stalled is written on it, unless it is there.
///
/// # Errors
/// The status could not be written.
pub async fn policy(cached: &Undecodable, ctx: &Context) -> Result<Option<Duration>, ApiError> {
    if desired(cached, &[]).is_none() {
        return Ok(Some(AGAIN));
    }
    let ctx = ctx.acting();
    let namespace = cached.metadata.namespace.clone().unwrap_or_default();
    let Some(fresh) = fetch::get::<Raw<ArbPolicy>>(&ctx, &namespace, &cached.name()).await? else { return Ok(None) };
    let Err(error) = fresh.decode() else { return Ok(Some(Duration::ZERO)) };
    write::<ArbPolicy>(&Undecodable::new(&fresh, &error), &[], &ctx).await?;
    Ok(Some(AGAIN))
}

/// Writes the operator's part of status, unless it is so already.
async fn write<K>(fresh: &Undecodable, unknown: &[Condition], ctx: &Context) -> Result<(), ApiError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (version, kind) = (K::api_version(&()), K::kind(&()));
    let (name, namespace) = (fresh.name(), fresh.metadata.namespace.clone().unwrap_or_default());
    let api: Api<Raw<K>> = Api::namespaced(ctx.client.clone(), &namespace);
    if let Some(status) = desired(fresh, unknown) {
        // With the resourceVersion: conditions of the bot may be in it.
        let version_read = &fresh.metadata.resource_version;
        let metadata =
            json!({"name": name, "namespace": namespace, "uid": fresh.metadata.uid, "resourceVersion": version_read});
        let mut body = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "status": status});
        let action = format!("write the status of {kind} {namespace}/{name}");
        let (params, patch) = (api::apply_params(), Patch::Apply(&body));
        match api::call(&action, api.patch_status(&name, &params, &patch)).await {
            Err(error) if error.is_untypable() => {
                body["status"]["conditions"] = with_others(fresh, &body["status"]["conditions"]);
                let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
                api::call(action, api.patch_status(&name, &params, &patch)).await?;
            }
            written => drop(written?),
        }
        ctx.metrics.wrote(&format!("{kind}Status"), "applied");
        let mut object = Raw::<K>::default().object_ref(&());
        (object.name, object.namespace, object.uid) = (Some(name), Some(namespace), fresh.metadata.uid.clone());
        ctx.reports.publish_on(&object, &Report::warning(Reason::InvalidSpec, message(fresh))).await;
    }
    Ok(())
}

/// All conditions as a merge patch needs them, which replaces the list: those of `own`, and those of others as they are.
fn with_others(fresh: &Undecodable, own: &Value) -> Value {
    let own = own.as_array().cloned().unwrap_or_default();
    let present = fresh.status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_own = |condition: &Value| own.iter().any(|own| own["type"] == condition["type"]);
    let others = present.into_iter().filter(|condition| !is_own(condition)).collect();
    Value::Array([own.clone(), others].concat())
}

fn placeholder() -> Option<ArbBotSpec> {
    let carry = json!({"spotProduct": "", "futureProduct": "", "targetNotional": "0"});
    let spec = json!({
        "execution": "Live", "venue": {"coinbase": {"portfolio": ""}}, "strategy": {"fundingCarry": carry},
        "credentials": {"secretRef": {"name": ""}},
    });
    serde_json::from_value(spec).ok()
}

fn message(bot: &Undecodable) -> String {
    FetchError::Undecodable(Box::new(bot.clone())).to_string()
}

/// The operator's part of status. None: it is so already. `unknown`: conditions of the bot that are not known any more.
fn desired(bot: &Undecodable, unknown: &[Condition]) -> Option<Value> {
    let conditions = bot.status.get("conditions").cloned().unwrap_or_default();
    let present: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    // What was turned to Unknown stays so: left out of the apply it would vanish.
    let mine = |condition: &Condition| contact::is_own(condition) || contact::is_lost(condition);
    let mut own: Vec<Condition> = present.into_iter().filter(mine).collect();
    let before = own.clone();
    for condition in unknown {
        match own.iter_mut().find(|own| own.type_ == condition.type_) {
            Some(own) => own.clone_from(condition),
            None => own.push(condition.clone()),
        }
    }
    let verdict = Verdict::stalled(Reason::InvalidSpec, message(bot));
    verdict.set(Pause::No, &mut own, bot.metadata.generation, &Time(Timestamp::now()));
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
    use crate::reconcile::replicas;
    use arbbot_crds::arbbot::Mode;

    fn bot(status: Value) -> Undecodable {
        let object = json!({"metadata": {"name": "odd", "namespace": "desk", "generation": 2}, "spec": {"mode": "Paused"}, "status": status});
        let raw = Raw::<ArbBot>::new(object).unwrap();
        Undecodable::new(&raw, &raw.decode().unwrap_err())
    }

    fn read(spec: Value) -> ArbBot {
        let object = json!({"metadata": {"name": "odd", "namespace": "desk", "generation": 2}, "spec": spec, "status": {"bot": {"podUid": "x"}}});
        let raw = Raw::<ArbBot>::new(object).unwrap();
        assert!(raw.decode().is_err());
        readable(&raw).unwrap()
    }

    #[test]
    fn a_kill_in_it_is_read_whatever_else_cannot_be() {
        let spec = serde_json::to_value(placeholder().unwrap()).unwrap();
        let mut engaged = spec.clone();
        engaged["killSwitch"] = json!({"engaged": true});
        engaged["logLevel"] = json!(7);
        assert!(replicas::is_killed(&read(engaged.clone()), &[]));
        engaged["venue"] = json!("elsewhere");
        assert!(replicas::is_killed(&read(engaged), &[]), "also where a bot could not even start");
        let mut calm = spec;
        calm["logLevel"] = json!(7);
        let calm = read(calm);
        assert!(!replicas::is_killed(&calm, &[]) && calm.spec.mode == Mode::ReduceOnly);
        assert_eq!(calm.status.unwrap().bot.unwrap().pod_uid.as_deref(), Some("x"), "who spoke last is known");
    }

    #[test]
    fn lost_contact_is_said_beside_what_cannot_be_read() {
        let said = json!({"type": "Halted", "status": "True", "reason": "NoOrdersWorking", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut lost: Condition = serde_json::from_value(said.clone()).unwrap();
        (lost.status, lost.reason) = ("Unknown".to_owned(), Reason::ContactLost.to_string());
        let status = desired(&bot(json!({"conditions": [said]})), &[lost]).unwrap();
        let halted = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Halted").unwrap();
        assert_eq!(halted["status"], "Unknown");
        assert_eq!(desired(&bot(status), &[]), None, "it stays so until the bot takes it back");
    }

    #[test]
    fn a_patch_that_replaces_the_list_keeps_the_conditions_of_the_bot() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let present = [condition("Halted", "True"), condition("Stalled", "False")];
        let own = json!([condition("Stalled", "True")]);
        let all = with_others(&bot(json!({"conditions": present})), &own);
        assert_eq!(all, json!([condition("Stalled", "True"), condition("Halted", "True")]));
    }

    #[test]
    fn it_is_stalled_with_the_field_once_and_keeps_its_claim() {
        let claim = json!({"account": "a", "product": "p", "granted": true});
        let status = desired(&bot(json!({"claim": claim, "bot": {"podUid": "x"}})), &[]).unwrap();
        let stalled = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Stalled").unwrap();
        assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("InvalidSpec")));
        assert!(stalled["message"].as_str().unwrap().contains("Paused"));
        let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap();
        let metadata = bot(json!({})).metadata;
        assert_eq!(kstatus(&metadata, status["observedGeneration"].as_i64(), &conditions), "Failed");
        assert_eq!(status["claim"], claim);
        assert!(status.get("bot").is_none(), "that part is the bot's");
        assert_eq!(desired(&bot(status), &[]), None, "a second look writes nothing");
    }
}
