//! Step 5 (I/O): the operator's part of status, and Events for what has changed. Nothing is written when nothing changed.

mod events;

use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, is_true};
use arbbot_crds::status::ArbBotStatus;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::fetch::Fetched;
use super::verdict::{Pause, Verdict, is_acknowledged, is_available, unreadable_to_bot};
use super::{ReconcileError, contact, drain, effective, incidents, pods, replicas};
use crate::api::{self, ApiError};
use crate::cache::raw::Raw;
use crate::claim::Claim;
use crate::context::Context;
use crate::loosening;
use events::{kills, transitions, troubles};

/// Everything is looked at again after this long, watch or not.
const RESYNC: Duration = Duration::from_secs(300);
/// While something is under way that no watch tells of.
const SOON: Duration = Duration::from_secs(15);
/// A running bot acknowledges a change in milliseconds: within this time the change and the acknowledgement are one write.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes the operator's part of status and says when to look again.
///
/// # Errors
/// The status could not be written.
pub async fn report(
    fetched: &Fetched,
    claim: &Claim,
    deletion: Option<Verdict>,
    outcome: &Result<Option<Deployment>, ReconcileError>,
    now: Timestamp,
    ctx: &Context,
) -> Result<Duration, ApiError> {
    let bot = &fetched.bot;
    let verdict = deletion.unwrap_or_else(|| judge(fetched, claim, outcome));
    // A bot at zero is not out of contact: it stands still, and its last word stays true.
    let lost = !fetched.is_at_rest() && contact::lost(fetched, now);
    let uid = bot.uid().unwrap_or_default();
    let present = present(bot);
    // What people were told of last: the answer to a write may have been lost while the write was not.
    let told = ctx.unanswered.get(&uid).unwrap_or_else(|| present.clone());
    let waited = ctx.generation_age(bot);
    if is_about_to_be_acknowledged(&verdict, &present) && waited < PATIENCE {
        return Ok(PATIENCE - waited);
    }
    let desired = desired(fetched, claim, &verdict, lost, &Time(now));
    if present == desired {
        ctx.metrics.wrote("ArbBotStatus", "noop");
    } else if let Err(error) = write(bot, &desired, ctx).await {
        if !error.is_stale() {
            ctx.unanswered.insert(uid, told);
        }
        return Err(error);
    }
    ctx.unanswered.remove(&uid);
    let unseen = (!ctx.incidents.contains(&uid)).then(|| loosening::since_report(bot, &told, &desired));
    for report in transitions(&told, &desired).into_iter().chain(unseen.into_iter().flatten()) {
        ctx.reports.publish(bot, &report).await;
    }
    for report in troubles(bot, ctx).into_iter().chain(kills(bot, now, ctx).await) {
        ctx.reports.publish(bot, &report).await;
    }
    Ok(next_look(fetched, &verdict, lost, now))
}

/// Ready, Reconciling or Stalled, and why.
fn judge(fetched: &Fetched, claim: &Claim, outcome: &Result<Option<Deployment>, ReconcileError>) -> Verdict {
    let deployment = match outcome {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return Verdict::Paused,
        Err(error) => return error.verdict(),
    };
    if let Some(holder) = &claim.held_by {
        let portfolio = fetched.bot.spec.account();
        let text = if claim.is_granted() {
            format!(
                "ArbBot {holder} holds the claim on portfolio {portfolio}, too: two operators have granted it, and both bots trade. Delete one of them"
            )
        } else {
            format!(
                "ArbBot {holder} trades the same product on portfolio {portfolio}; this bot does not trade. Delete {holder}, or create this bot with another portfolio or other products"
            )
        };
        return Verdict::stalled(Reason::AccountShared, text);
    }
    if deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0) {
        return at_zero(fetched);
    }
    if !is_available(deployment) {
        let starting = || Verdict::reconciling(Reason::Progressing, "the pod has just become ready");
        return pods::diagnose(deployment, &fetched.pods, &fetched.pod_events).unwrap_or_else(starting);
    }
    if let Some(why) = unreadable_to_bot(&fetched.bot) {
        let text = format!("the bot cannot read this generation: {why}");
        return Verdict::stalled(Reason::InvalidSpec, text);
    }
    if !is_acknowledged(&fetched.bot) {
        let generation = fetched.bot.metadata.generation.unwrap_or_default();
        let text =
            format!("the bot has not yet acknowledged generation {generation}; see its condition ControlApplied");
        return Verdict::reconciling(Reason::NotAcknowledged, text);
    }
    drain::verdict(&fetched.bot, &fetched.policies(), &fetched.all_policies()).unwrap_or(Verdict::Ready)
}

/// The Deployment asks for no pod: because the bot has drained, or because somebody did so by hand during a pause.
fn at_zero(fetched: &Fetched) -> Verdict {
    let drains = drain::is_demanded(&fetched.bot, &fetched.policies());
    match (drains, !fetched.has_pods()) {
        (true, true) if replicas::has_drained(&fetched.bot) => Verdict::Stopped,
        (true, false) if replicas::has_drained(&fetched.bot) => {
            Verdict::reconciling(Reason::Draining, "Finished: the bot is flat; its pod is being ended")
        }
        (true, false) => Verdict::reconciling(
            Reason::Draining,
            "Ending: the pod is ending; its last word on the position is waited for",
        ),
        _ => Verdict::reconciling(
            Reason::PodNotReady,
            "the Deployment is scaled to zero while reconciliation is paused; scale it up, or end the pause",
        ),
    }
}

/// Whether only the acknowledgement of a bot that was ready is missing.
fn is_about_to_be_acknowledged(verdict: &Verdict, present: &ArbBotStatus) -> bool {
    let missing = matches!(verdict, Verdict::Reconciling(why) if why.reason == Reason::NotAcknowledged);
    missing && is_true(&present.conditions, ConditionType::Ready)
}

/// The operator's part of the present status.
fn present(bot: &ArbBot) -> ArbBotStatus {
    let status = bot.status.clone().unwrap_or_default();
    let (mut conditions, of_bot): (Vec<_>, Vec<_>) = status.conditions.into_iter().partition(contact::is_own);
    conditions.extend(of_bot.into_iter().filter(contact::is_lost));
    ArbBotStatus {
        observed_generation: status.observed_generation,
        conditions,
        effective: status.effective,
        claim: status.claim,
        incidents: status.incidents,
        ..ArbBotStatus::default()
    }
}

/// The operator's part as it should be.
pub(super) fn desired(fetched: &Fetched, claim: &Claim, verdict: &Verdict, lost: bool, now: &Time) -> ArbBotStatus {
    let bot = &fetched.bot;
    let mut conditions: Vec<Condition> = present(bot).conditions.into_iter().filter(contact::is_own).collect();
    verdict.set(Pause::of(bot), &mut conditions, bot.metadata.generation, now);
    conditions.extend(contact::unknown_conditions(bot, lost, now));
    let all = fetched.all_policies();
    ArbBotStatus {
        observed_generation: bot.metadata.generation,
        conditions,
        effective: Some(effective::status(bot, fetched.policies())),
        claim: claim.status.clone(),
        incidents: incidents::history(bot, &all, now),
        ..ArbBotStatus::default()
    }
}

async fn write(bot: &ArbBot, status: &ArbBotStatus, ctx: &Context) -> Result<(), ApiError> {
    let (name, namespace) = (bot.name_any(), bot.namespace().unwrap_or_default());
    let mut metadata = json!({"name": name, "namespace": namespace, "uid": bot.uid()});
    if !status.conditions.iter().all(contact::is_own) {
        // The bot's own conditions are in it: refused if the bot has spoken meanwhile.
        metadata["resourceVersion"] = json!(bot.resource_version());
    }
    let (api_version, kind) = (ArbBot::api_version(&()), ArbBot::kind(&()));
    let body = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status});
    let api: Api<Raw<ArbBot>> = Api::namespaced(ctx.client.clone(), &namespace);
    let (params, patch) = (api::apply_params(), Patch::Apply(&body));
    let write = api.patch_status(&name, &params, &patch);
    api::call(format!("write the status of ArbBot {namespace}/{name}"), write).await?;
    ctx.metrics.wrote("ArbBotStatus", "applied");
    Ok(())
}

/// When to look again without being told to.
fn next_look(fetched: &Fetched, verdict: &Verdict, lost: bool, now: Timestamp) -> Duration {
    let until_expiry = contact::until_lost(fetched, now).filter(|_| !lost && !fetched.is_at_rest());
    let is_deleted = fetched.bot.metadata.deletion_timestamp.is_some();
    let base = match verdict {
        Verdict::Ready | Verdict::Stopped | Verdict::Paused => RESYNC,
        // Without a pod there is nothing that only time brings; a watch tells of the pod.
        Verdict::Reconciling(_) if fetched.pods.is_empty() && !is_deleted => RESYNC,
        Verdict::Reconciling(_) => SOON,
        Verdict::Stalled(_) => SOON * 2,
    };
    base.min(until_expiry.unwrap_or(RESYNC))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, bot_with_status, deployment, fetched};
    use super::*;
    use crate::claim::Claims;
    use crate::events::Report;

    #[test]
    fn a_second_report_finds_nothing_to_write() {
        let mut bot = bot_with_status(
            "bot: {appliedGeneration: 3}\nconditions: [{type: Halted, status: 'False', reason: EntryOpen, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}]",
        );
        let claim = Claims::default().decide(&bot, []);
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let first = desired(&fetched(bot.clone()), &claim, &Verdict::Ready, false, &at(1));
        assert_ne!(present(&bot), first);
        // What the API server would merge: the bot's conditions stay, the operator's are added.
        let status = bot.status.as_mut().unwrap();
        status.observed_generation = first.observed_generation;
        status.effective.clone_from(&first.effective);
        status.claim.clone_from(&first.claim);
        status.conditions.extend(first.conditions.clone());
        assert_eq!(present(&bot), desired(&fetched(bot.clone()), &claim, &Verdict::Ready, false, &at(2)));
    }

    #[test]
    fn an_event_is_made_of_a_change_and_only_of_a_change() {
        let bot = bot("");
        let claim = Claims::default().decide(&bot, []);
        let now = Time(Timestamp::UNIX_EPOCH);
        let stalled = Verdict::stalled(Reason::AccountShared, "held by desk/other");
        let after = desired(&fetched(bot.clone()), &claim, &stalled, false, &now);
        let reports = transitions(&present(&bot), &after);
        assert_eq!(reports, [Report::warning(Reason::AccountShared, "held by desk/other")]);
        assert!(transitions(&after, &after).is_empty());
        let ready = desired(&fetched(bot), &claim, &Verdict::Ready, false, &now);
        assert_eq!(transitions(&after, &ready)[0].reason, "Available");
    }

    #[test]
    fn a_bot_without_the_claim_names_the_holder_and_the_remedy() {
        let claims = Claims::default();
        let first = bot("");
        let mut second = first.clone();
        second.metadata.name = Some("second".to_owned());
        second.metadata.uid = Some("ffffffff".to_owned());
        assert!(claims.decide(&first, [&second]).is_granted());
        let claim = claims.decide(&second, [&first]);
        assert!(!claim.is_granted());
        let outcome = Ok(Some(deployment(&second, 1)));
        let Verdict::Stalled(why) = judge(&fetched(second), &claim, &outcome) else { panic!("not stalled") };
        assert_eq!(why.reason, Reason::AccountShared);
        assert!(why.message.contains("ArbBot desk/carry") && why.message.contains("Delete"), "{}", why.message);
    }

    #[test]
    fn ready_needs_an_available_pod_and_the_word_of_the_bot() {
        let judged = |status: &str, available: bool| {
            let bot = bot_with_status(status);
            let claim = Claims::default().decide(&bot, []);
            let mut deployment = deployment(&bot, 1);
            if !available {
                deployment.status = None;
            }
            judge(&fetched(bot), &claim, &Ok(Some(deployment)))
        };
        assert_eq!(judged("bot: {appliedGeneration: 3}", true), Verdict::Ready);
        let reason = |verdict| match verdict {
            Verdict::Reconciling(why) => why.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(judged("bot: {appliedGeneration: 2}", true)), Reason::NotAcknowledged);
        assert_eq!(reason(judged("bot: {appliedGeneration: 3}", false)), Reason::Progressing);
    }

    #[test]
    fn a_drain_goes_from_its_steps_to_stopped_and_each_is_told_once() {
        let status = |phase: &str, flat: &str| {
            format!(
                "{{bot: {{appliedGeneration: 3, podUid: p, drain: {{startedAt: '2026-01-01T00:00:00Z', phase: {phase}}}}}, conditions: [{{type: Flat, status: '{flat}', reason: NoPosition, message: m, observedGeneration: 3, lastTransitionTime: '2026-01-01T00:00:00Z'}}]}}"
            )
        };
        let look = |status: &str, replicas: i32| {
            let mut bot = bot_with_status(status);
            bot.spec.mode = arbbot_crds::arbbot::Mode::Stopped;
            let claim = Claims::default().decide(&bot, []);
            let outcome = Ok(Some(deployment(&bot, replicas)));
            let fetched = fetched(bot);
            let verdict = judge(&fetched, &claim, &outcome);
            desired(&fetched, &claim, &verdict, false, &Time(Timestamp::UNIX_EPOCH))
        };
        let closing = look(&status("ClosingPosition", "False"), 1);
        let stopped = look(&status("Finished", "True"), 0);
        let told: Vec<_> = transitions(&ArbBotStatus::default(), &closing).into_iter().map(|r| r.reason).collect();
        assert_eq!(told, ["Draining"]);
        assert!(transitions(&closing, &closing).is_empty());
        let told: Vec<_> = transitions(&closing, &stopped).into_iter().map(|r| r.reason).collect();
        assert_eq!(told, ["Stopped"]);
    }
}
