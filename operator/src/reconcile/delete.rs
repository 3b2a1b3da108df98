//! The finalizer: the position is taken care of first, then the pod ends, then the children go. The ledger's claim stays.

mod waiting;

use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::DeletionPolicy;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::names::{FINALIZER, LABEL_BOT_UID, MANAGER_OPERATOR, ledger_claim_name, ledger_schema};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::apply::{Child, is_ours, not_ours};
use super::fetch::{Children, Fetched};
use super::verdict::Verdict;
use super::{contact, replicas};
use crate::api::{ApiError, call, call_unless_gone};
use crate::cache::children::Known;
use crate::context::Context;
use crate::events::Report;

/// How often the end of the pod is asked for, beside its watch.
pub const POLL: Duration = Duration::from_secs(2);

/// How far a deletion is.
pub enum Deletion {
    NotDeleted,
    /// The position is not taken care of yet.
    Waits(Verdict),
    /// The children are going; look again after [`POLL`]. A pod that does not end is told of.
    TearingDown(Option<Verdict>),
    /// Nothing is left to do.
    Done,
}

/// Puts the finalizer on a bot, before anything of it exists.
///
/// # Errors
/// The call failed, or the bot has changed meanwhile.
pub async fn hold(bot: &ArbBot, ctx: &Context) -> Result<(), ApiError> {
    if !held(bot) {
        let finalizers = bot.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
        set_finalizers(bot, finalizers, ctx).await?;
    }
    Ok(())
}

fn held(bot: &ArbBot) -> bool {
    bot.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Takes the next step of a deletion, if there is one.
///
/// # Errors
/// A call failed.
pub async fn step(fetched: &Fetched, now: Timestamp, ctx: &Context) -> Result<Deletion, ApiError> {
    let bot = &fetched.bot;
    let Some(deleted) = &bot.metadata.deletion_timestamp else { return Ok(Deletion::NotDeleted) };
    if !held(bot) {
        return Ok(Deletion::Done);
    }
    if is_settled(fetched, now) {
        return tear_down(fetched, now, ctx).await;
    }
    if is_ending(fetched, now) {
        return Ok(Deletion::TearingDown(None));
    }
    if namespace_terminates(bot, ctx).await? {
        return leave_with_namespace(bot, ctx).await;
    }
    Ok(Deletion::Waits(waiting::waiting(fetched, now.duration_since(deleted.0))))
}

/// Whether the workload is gone and a pod of it is still ending. It asks the exchange once more, and says meanwhile that
/// flat is not confirmed: its last word is waited for, and no second pod is started beside it; unless a kill wants one, or
/// its time is over.
fn is_ending(fetched: &Fetched, now: Timestamp) -> bool {
    let workload = fetched.children.deployment.as_ref();
    let is_gone = workload.is_none_or(|workload| workload.metadata.deletion_timestamp.is_some());
    let killed = replicas::is_killed(&fetched.bot, &fetched.policies());
    is_gone && !killed && fetched.is_ending() && fetched.overdue_pod(now).is_none()
}

/// What a person must know of a pod that does not end.
fn overdue(fetched: &Fetched, now: Timestamp) -> Option<Verdict> {
    let pod = fetched.overdue_pod(now)?;
    let text = format!(
        "pod {} does not end: its grace period is over by more than a minute; see its node (kubectl get pod {0} -n {} -o wide). The deletion goes on when the pod object is gone",
        pod.name_any(),
        pod.namespace().unwrap_or_default()
    );
    Some(Verdict::stalled(Reason::PodNotReady, text))
}

/// Whether nothing has to be done with the position any more.
fn is_settled(fetched: &Fetched, now: Timestamp) -> bool {
    let bot = &fetched.bot;
    let status = bot.status.as_ref();
    let granted = status.and_then(|status| status.claim.as_ref()).is_some_and(|claim| claim.granted);
    let owned_since = status.and_then(|status| status.bot.as_ref()).and_then(|bot| bot.owned_since.as_ref());
    let never_ran = status.is_none_or(|status| status.bot.is_none()) && fetched.lease.is_none();
    if never_ran || (!granted && owned_since.is_none()) {
        return true; // it never could trade; one that starts only now reads first that it is being deleted
    }
    let somebody_trades = fetched
        .lease
        .as_ref()
        .is_some_and(|lease| contact::holder(lease).is_some() && contact::expiry(lease) > Some(now));
    if fetched.is_at_rest() && !somebody_trades {
        return true; // drained before: there is nobody to say it again, and nothing to say it about
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    // The deletion raised the generation: what the bot said of an earlier one is not about the deletion.
    let confirmed = |type_| {
        find(conditions, type_).is_some_and(|c| c.status == "True" && c.observed_generation >= bot.metadata.generation)
    };
    match bot.spec.deletion_policy {
        DeletionPolicy::Drain => confirmed(ConditionType::Flat),
        DeletionPolicy::Flatten => confirmed(ConditionType::Flat) && confirmed(ConditionType::Halted),
        DeletionPolicy::Orphan => confirmed(ConditionType::Halted) || (fetched.pods.is_empty() && !somebody_trades),
    }
}

/// The workload first; the rest only after its pods have ended, because the bot needs it to cancel and report.
async fn tear_down(fetched: &Fetched, now: Timestamp, ctx: &Context) -> Result<Deletion, ApiError> {
    let bot = &fetched.bot;
    // Destructured without `..`: a new child does not compile until its end is decided here.
    let Children { service_account, role, role_binding, service, ledger_claim: _, network_policy, deployment } =
        &fetched.children;
    if delete(bot, deployment.as_ref(), ctx).await? || !pods_have_ended(bot, ctx).await? {
        return Ok(Deletion::TearingDown(overdue(fetched, now).or_else(|| estranged(fetched))));
    }
    // From here on every child is as the API server itself has it.
    ctx.must_act("delete the children")?;
    let left = left_alone(fetched);
    delete(bot, service.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, network_policy.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, role_binding.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, role.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, service_account.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, fetched.lease.as_ref(), ctx).await?;
    let ledger = match bot.spec.ledger.postgres {
        None => format!("PersistentVolumeClaim {}", ledger_claim_name(&bot.name_any())),
        Some(_) => {
            format!("PostgreSQL schema {:?}", ledger_schema(&bot.namespace().unwrap_or_default(), &bot.name_any()))
        }
    };
    let note = format!("deleted; {}. Its ledger stays in {ledger}{left}", last_words(bot));
    ctx.reports.publish(bot, &Report::normal(Reason::Deleting, note)).await;
    release(bot, ctx).await
}

/// The bot's pods run under a Deployment that is not its own by uid: it is not deleted, and a person must say whose it is.
fn estranged(fetched: &Fetched) -> Option<Verdict> {
    let uid = fetched.bot.uid().unwrap_or_default();
    let deployment = fetched.children.deployment.as_ref().filter(|deployment| !is_ours(*deployment, &uid))?;
    let text = format!("{}. The deletion goes on when the bot's pods have ended", not_ours(deployment, &uid));
    Some(Verdict::stalled(Reason::ChildNotOurs, text))
}

/// Names what stands under the bot's names and is not the bot's by uid: it stays.
fn left_alone(fetched: &Fetched) -> String {
    fn name<K: Child>(child: Option<&K>, uid: &str) -> Option<String> {
        let child = child.filter(|child| !is_ours(*child, uid))?;
        Some(format!("{} {}", K::kind(&()), child.name_any()))
    }
    let uid = fetched.bot.uid().unwrap_or_default();
    let Children { service_account, role, role_binding, service, ledger_claim: _, network_policy, deployment } =
        &fetched.children;
    let left = [
        name(deployment.as_ref(), &uid),
        name(service.as_ref().and_then(Known::object), &uid),
        name(network_policy.as_ref().and_then(Known::object), &uid),
        name(role_binding.as_ref().and_then(Known::object), &uid),
        name(role.as_ref().and_then(Known::object), &uid),
        name(service_account.as_ref().and_then(Known::object), &uid),
        name(fetched.lease.as_ref(), &uid),
    ];
    let left: Vec<_> = left.into_iter().flatten().collect();
    if left.is_empty() {
        return String::new();
    }
    format!("; left alone without the label {LABEL_BOT_UID}={uid}: {}", left.join(", "))
}

/// Deletes a child of ours; what is not ours by uid stays. Returns whether there was something to delete.
async fn delete<K: Child>(bot: &ArbBot, child: Option<&K>, ctx: &Context) -> Result<bool, ApiError> {
    let Some(child) = child.filter(|child| is_ours(*child, &bot.uid().unwrap_or_default())) else { return Ok(false) };
    let (name, namespace) = (child.name_any(), child.namespace().unwrap_or_default());
    if child.meta().deletion_timestamp.is_none() {
        let same = Preconditions { uid: child.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(same);
        let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
        let kind = K::kind(&());
        call_unless_gone(format!("delete {kind} {namespace}/{name}"), api.delete(&name, &params)).await?;
        ctx.metrics.wrote(&kind, "deleted");
        tracing::info!(%kind, namespace, name, "child deleted");
    }
    if let Some(uid) = child.uid() {
        ctx.applied.remove(&uid);
    }
    Ok(true)
}

/// Asked of the API server itself: a cache could miss a pod that was just created.
async fn pods_have_ended(bot: &ArbBot, ctx: &Context) -> Result<bool, ApiError> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &bot.namespace().unwrap_or_default());
    let params = ListParams::default().labels(&format!("{LABEL_BOT_UID}={}", bot.uid().unwrap_or_default()));
    Ok(call("list the bot's pods", api.list_metadata(&params)).await?.items.is_empty())
}

async fn namespace_terminates(bot: &ArbBot, ctx: &Context) -> Result<bool, ApiError> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let name = bot.namespace().unwrap_or_default();
    let namespace = call(format!("read Namespace {name}"), api.get_metadata_opt(&name)).await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// In a terminating namespace nothing can be created: the pod has its grace period, then only a record is left to make.
async fn leave_with_namespace(bot: &ArbBot, ctx: &Context) -> Result<Deletion, ApiError> {
    if !pods_have_ended(bot, ctx).await? {
        return Ok(Deletion::TearingDown(None));
    }
    let note = format!(
        "ArbBot {} goes with its namespace without confirmation of the exchange; {}. Check orders and position of portfolio {} at the exchange",
        bot.name_any(),
        last_words(bot),
        bot.spec.account()
    );
    ctx.reports.publish_on_namespace(bot, &Report::warning(Reason::Deleting, note)).await;
    release(bot, ctx).await
}

/// Position and head of the ledger as the bot last reported them.
fn last_words(bot: &ArbBot) -> String {
    let said = bot.status.as_ref().and_then(|status| status.bot.as_ref());
    let position = match said.and_then(|bot| bot.position.as_ref()) {
        Some(p) => format!("last position {} contracts, {} spot", p.future_contracts, p.spot_base),
        None => "no position was reported".to_owned(),
    };
    match said.and_then(|bot| bot.ledger.as_ref()) {
        Some(ledger) => format!("{position}, ledger head {} after {} entries", ledger.head, ledger.entries),
        None => position,
    }
}

async fn release(bot: &ArbBot, ctx: &Context) -> Result<Deletion, ApiError> {
    let others = bot.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(bot, others, ctx).await?;
    Ok(Deletion::Done)
}

/// With the resourceVersion, so that nobody's finalizer is lost.
async fn set_finalizers(bot: &ArbBot, finalizers: Vec<String>, ctx: &Context) -> Result<(), ApiError> {
    let (name, namespace) = (bot.name_any(), bot.namespace().unwrap_or_default());
    let api: Api<ArbBot> = Api::namespaced(ctx.client.clone(), &namespace);
    let metadata = json!({"uid": bot.uid(), "resourceVersion": bot.resource_version(), "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let params = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
    let written =
        call(format!("set the finalizers of ArbBot {namespace}/{name}"), api.patch_metadata(&name, &params, &patch));
    match written.await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => {
            ctx.metrics.wrote("ArbBot", "applied");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
