//! What people are told of, once each: changed conditions, kills, and the bot's own troubles.

use std::collections::BTreeSet;

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, find, is_true};
use arbbot_crds::status::{ArbBotStatus, IncidentHistory, IncidentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::super::{contact, fetch, incidents};
use crate::context::Context;
use crate::events::Report;
use crate::loosening;

/// An incident older than this was reported by an earlier run of the operator.
const FRESH_INCIDENT: SignedDuration = SignedDuration::from_secs(60);

/// What people are told of a change of the conditions.
pub(super) fn transitions(before: &ArbBotStatus, after: &ArbBotStatus) -> Vec<Report> {
    let mut reports = Vec::new();
    let key =
        |status: &ArbBotStatus, type_| find(&status.conditions, type_).map(|c| (c.status.clone(), c.reason.clone()));
    let changed = |type_| key(before, type_) != key(after, type_);
    let holds = |type_| find(&after.conditions, type_).filter(|condition| condition.status == "True");
    if let Some(ready) = holds(ConditionType::Ready).filter(|_| !is_true(&before.conditions, ConditionType::Ready)) {
        let reason = ready.reason.parse().unwrap_or(Reason::Available);
        reports.push(Report::normal(reason, &ready.message));
    }
    if let Some(pause) =
        find(&after.conditions, ConditionType::Reconciling).filter(|_| changed(ConditionType::Reconciling))
    {
        match pause.reason.parse() {
            Ok(Reason::ReconciliationPaused) => {
                reports.push(Report::normal(Reason::ReconciliationPaused, &pause.message));
            }
            Ok(Reason::PauseIgnored) => reports.push(Report::warning(Reason::PauseIgnored, &pause.message)),
            _ => {}
        }
    }
    if let Some(step) = drain_step(after).filter(|step| Some(*step) != drain_step(before)) {
        let message = holds(ConditionType::Reconciling).map(|c| c.message.as_str()).unwrap_or(step);
        reports.push(Report::draining(step, message));
    }
    if let Some(stalled) = holds(ConditionType::Stalled).filter(|_| changed(ConditionType::Stalled)) {
        let reason = stalled.reason.parse().unwrap_or(Reason::ApplyFailed);
        reports.push(Report::warning(reason, &stalled.message));
    }
    let lost = |status: &ArbBotStatus| status.conditions.iter().find(|condition| contact::is_lost(condition)).cloned();
    if let (None, Some(condition)) = (lost(before), lost(after)) {
        reports.push(Report::warning(Reason::ContactLost, condition.message));
    }
    reports
}

/// The step of a drain: the first word of its message.
fn drain_step(status: &ArbBotStatus) -> Option<&str> {
    let reconciling = find(&status.conditions, ConditionType::Reconciling)?;
    let draining = reconciling.status == "True" && reconciling.reason == Reason::Draining.to_string();
    reconciling.message.split(':').next().filter(|_| draining)
}

/// What people are told of kills: when the bot first shows one, and when its latch is gone.
pub(super) async fn kills(bot: &ArbBot, now: Timestamp, ctx: &Context) -> Vec<Report> {
    let kills = bot.status.as_ref().and_then(|status| status.kill_switch.as_ref());
    let open: &[IncidentStatus] = kills.map(|kills| kills.incidents.as_slice()).unwrap_or_default();
    let of_guards = bot.status.as_ref().map(incidents::of_guards).unwrap_or_default();
    let ids = open.iter().map(|incident| &incident.id).chain(of_guards.iter().map(|incident| &incident.id));
    let ids: BTreeSet<String> = ids.cloned().collect();
    let is_gone = |id: &&String| !ids.contains(*id);
    let before = ctx.incidents.insert(bot.uid().unwrap_or_default(), ids.iter().cloned().collect());
    let is_new = |id: &String, since: Timestamp| match &before {
        Some(before) => !before.contains(id),
        None => now.duration_since(since) < FRESH_INCIDENT,
    };
    let mut reports = Vec::new();
    for incident in open.iter().filter(|incident| is_new(&incident.id, incident.engaged_at.0)) {
        let by = engaged_by(bot, incident, ctx).await;
        let IncidentStatus { id, source, reason, action, .. } = incident;
        reports.push(Report::engaged(id, format!("kill {id} of {source}{by}: {reason}; action {action}")));
    }
    for incident in of_guards.iter().filter(|incident| is_new(&incident.id, incident.started_at.0)) {
        let IncidentHistory { id, source, reason, .. } = incident;
        reports.push(Report::guard_tripped(id, format!("incident {id} of {source}: {reason}")));
    }
    let closed = before.iter().flatten().filter(is_gone);
    reports.extend(closed.map(|id| Report::released(id)));
    reports
}

/// Who has engaged the bot's own kill switch; of a policy's the policy's own Event tells.
async fn engaged_by(bot: &ArbBot, incident: &IncidentStatus, ctx: &Context) -> String {
    let (name, namespace) = (bot.name_any(), bot.namespace().unwrap_or_default());
    if incident.source != format!("ArbBot/{name}") {
        return String::new();
    }
    // The caches keep no managedFields.
    let read = match &bot.metadata.managed_fields {
        Some(_) => None,
        None => fetch::get::<ArbBot>(ctx, &namespace, &name).await.ok().flatten(),
    };
    loosening::engaged_by(read.as_ref().unwrap_or(bot).managed_fields())
}

/// What people are told of the bot's own conditions: each trouble once, when it begins or its reason changes.
pub(super) fn troubles(bot: &ArbBot, ctx: &Context) -> Vec<Report> {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let now: Vec<_> = TROUBLES.into_iter().filter_map(|type_| trouble(find(conditions, type_)?)).collect();
    let types = now.iter().map(|(type_, reason, _)| (type_.clone(), *reason)).collect();
    let before = ctx.troubles.insert(bot.uid().unwrap_or_default(), types).unwrap_or_default();
    let is_new = |type_: &String, reason: Reason| !before.iter().any(|(t, r)| t == type_ && *r == reason);
    now.into_iter()
        .filter(|(type_, reason, _)| is_new(type_, *reason))
        .map(|(type_, reason, message)| Report::warning(reason, format!("{type_}: {message}")))
        .collect()
}

/// Conditions of the bot whose trouble is worth an Event.
const TROUBLES: [ConditionType; 5] = [
    ConditionType::CredentialsValid,
    ConditionType::ExchangeConnected,
    ConditionType::WithinRiskLimits,
    ConditionType::PositionsReconciled,
    ConditionType::CollateralSufficient,
];

/// Type, reason and message of a condition that a person should hear of. A refused new key leaves `CredentialsValid`
/// True, because the earlier one stays in use; its reason tells.
fn trouble(condition: &Condition) -> Option<(String, Reason, String)> {
    let reason: Reason = condition.reason.parse().ok()?;
    let starting = matches!(reason, Reason::Starting | Reason::NotConfirmed | Reason::ContactLost);
    let fine = matches!(
        reason,
        Reason::KeyAccepted
            | Reason::OnPaper
            | Reason::Connected
            | Reason::WithinLimits
            | Reason::Reconciled
            | Reason::Stopped
    );
    (!starting && !fine).then(|| (condition.type_.clone(), reason, condition.message.clone()))
}
