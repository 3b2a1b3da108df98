//! What a change has loosened, as Events: the field, both values and the field manager (pure).

use arbbot_crds::conditions::{Reason, shorten};
use arbbot_crds::incident::{IncidentId, uid8};
use arbbot_crds::loosen::{
    Loosening, loosenings_of_bot, loosenings_of_deleted_policy, loosenings_of_effective, loosenings_of_policy,
    manager_of,
};
use arbbot_crds::status::ArbBotStatus;
use arbbot_crds::status::{IncidentHistory, IncidentStatus};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Resource;

use crate::events::Report;
use crate::reconcile::incidents::of_guards;

const RELEASE: &str = "spec.killSwitch.release";
/// Longest value that a note shows; a selector can be long.
const VALUE_BYTES: usize = 200;

/// What a change of a bot has loosened. `new` has its managedFields; `policies` are those of its namespace.
#[must_use]
pub fn of_bot(old: &ArbBot, new: &ArbBot, policies: &[&ArbPolicy]) -> Vec<Report> {
    let loosenings = loosenings_of_bot(old, new, policies);
    let told = |loosening: &Loosening| match unknown_release(loosening, new, policies) {
        Some(note) => unknown(note, new),
        None => report(loosening, new),
    };
    loosenings.iter().map(told).collect()
}

/// Why the `release` of a bot frees nothing, if it does not.
fn unknown_release(loosening: &Loosening, bot: &ArbBot, policies: &[&ArbPolicy]) -> Option<String> {
    let release = (loosening.field == RELEASE).then_some(&bot.spec.kill_switch.release)?;
    let kills = bot.status.as_ref().and_then(|status| status.kill_switch.as_ref());
    let open: &[IncidentStatus] = kills.map(|kills| kills.incidents.as_slice()).unwrap_or_default();
    let named = |open: &&IncidentStatus| match (release.parse::<IncidentId>(), open.id.parse()) {
        (Ok(release), Ok(open)) => release.releases(&open),
        _ => false,
    };
    let of_guards = bot.status.as_ref().map(of_guards).unwrap_or_default();
    let is_guards = |open: &IncidentHistory| match (release.parse::<IncidentId>(), open.id.parse()) {
        (Ok(release), Ok(open)) => release.releases(&open),
        _ => false,
    };
    if of_guards.iter().any(is_guards) {
        return None;
    }
    let Some(named) = open.iter().find(named) else {
        let kills = open.iter().map(|open| (&open.id, &open.source));
        let all = kills.chain(of_guards.iter().map(|open| (&open.id, &open.source)));
        let ids: Vec<_> = all.map(|(id, source)| format!("{id} of {source}")).collect();
        let ids = if ids.is_empty() { "none is open".to_owned() } else { format!("open are {}", ids.join(", ")) };
        return Some(format!(
            "{RELEASE} {release:?} names no open incident of this bot, so it releases nothing; {ids}"
        ));
    };
    let id: IncidentId = named.id.parse().ok()?;
    let source =
        policies.iter().find(|policy| uid8(policy.metadata.uid.as_deref().unwrap_or_default()) == id.source)?;
    let policy = source.metadata.name.as_deref().unwrap_or_default();
    Some(format!("{RELEASE} {release:?} releases nothing here: the kill is of ArbPolicy/{policy}, set it there"))
}

/// Why the `release` of a policy frees nothing, if it does not.
#[must_use]
pub fn unknown_release_of(policy: &ArbPolicy) -> Option<String> {
    let (release, source) =
        (&policy.spec.kill_switch.release, uid8(policy.metadata.uid.as_deref().unwrap_or_default()));
    let is_own = release.parse::<IncidentId>().is_ok_and(|release| release.source == source);
    (!release.is_empty() && !is_own).then(|| {
        format!(
            "{RELEASE} {release:?} names no kill of this policy, so it releases nothing; the ids of its kills begin with {source}- and stand in status.killSwitch.incidents of its bots"
        )
    })
}

fn unknown<K: Resource>(note: String, object: &K) -> Report {
    let generation = object.meta().generation.unwrap_or_default();
    // Each change is an action of its own, as below.
    Report { action: format!("Generation {generation} {RELEASE}"), ..Report::warning(Reason::ReleaseUnknown, note) }
}

/// Who has engaged a kill switch, for a text.
#[must_use]
pub fn engaged_by(managed_fields: &[ManagedFieldsEntry]) -> String {
    let manager = manager_of(managed_fields, "spec.killSwitch.engaged");
    manager.map_or_else(String::new, |manager| format!(" engaged by field manager {manager}"))
}

/// What a change of a policy has loosened, or its deletion (`new` is None). `new` has its managedFields.
#[must_use]
pub fn of_policy(old: &ArbPolicy, new: Option<&ArbPolicy>) -> Vec<Report> {
    match new {
        Some(new) => {
            let loosenings = loosenings_of_policy(old, new);
            let told = |loosening: &Loosening| match unknown_release_of(new).filter(|_| loosening.field == RELEASE) {
                Some(note) => unknown(note, new),
                None => report(loosening, new),
            };
            loosenings.iter().map(told).collect()
        }
        // The last state of a deleted object does not say who deleted it.
        None => loosenings_of_deleted_policy(old).iter().map(|loosening| told(loosening, old, "")).collect(),
    }
}

/// What is looser than the status says that was reported last: it was changed while no operator led. `new` is what is
/// reported now.
#[must_use]
pub fn since_report(bot: &ArbBot, old: &ArbBotStatus, new: &ArbBotStatus) -> Vec<Report> {
    let (Some(before), Some(now)) = (&old.effective, &new.effective) else { return Vec::new() };
    let by = " while no operator led; managedFields and the audit log say by whom";
    loosenings_of_effective(before, now).iter().map(|loosening| told(loosening, bot, by)).collect()
}

fn report<K: Resource>(loosening: &Loosening, new: &K) -> Report {
    let managed_fields = new.meta().managed_fields.as_deref().unwrap_or_default();
    let manager = manager_of(managed_fields, &loosening.field).unwrap_or("unknown");
    told(loosening, new, &format!(" by field manager {manager}"))
}

fn told<K: Resource>(loosening: &Loosening, object: &K, by: &str) -> Report {
    let Loosening { field, old, new } = loosening;
    let (old, new) = (shorten(old, VALUE_BYTES), shorten(new, VALUE_BYTES));
    let generation = object.meta().generation.unwrap_or_default();
    let note = format!("{field} was loosened from {old} to {new}{by} (generation {generation})");
    // Events of one reason and action are folded into one with the first note: each change is an action of its own.
    let action = shorten(&format!("Generation {generation} {field}"), 128).to_owned();
    Report { action, ..Report::normal(Reason::Loosened, note) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::effective;
    use crate::reconcile::fixtures::{bot, bot_with_status, policy};
    use serde_json::json;

    #[test]
    fn a_loosening_names_the_field_both_values_and_the_manager() {
        let (old, mut new) = (bot("  mode: Halted\n"), bot(""));
        new.metadata.generation = Some(4);
        let entry: ManagedFieldsEntry = serde_json::from_value(
            json!({"manager": "arb-incident", "operation": "Update", "fieldsV1": {"f:spec": {"f:mode": {}}}}),
        )
        .unwrap();
        new.metadata.managed_fields = Some(vec![entry]);
        let reports = of_bot(&old, &new, &[]);
        assert_eq!(reports.len(), 1);
        assert_eq!(
            reports[0].note,
            "spec.mode was loosened from Halted to Active by field manager arb-incident (generation 4)"
        );
        assert_eq!((reports[0].reason.as_str(), reports[0].warning), ("Loosened", false));
        assert!(of_bot(&new, &old, &[]).is_empty(), "the way back tightens");
    }

    #[test]
    fn what_was_loosened_while_nobody_led_is_told_from_the_last_report() {
        let report = |bot: &ArbBot, policies: &[&ArbPolicy]| ArbBotStatus {
            effective: Some(effective::status(bot, policies.iter().copied())),
            ..ArbBotStatus::default()
        };
        let open = bot("");
        let halted = policy("{mode: Halted, risk: {limits: {maxOpenOrders: 2}}}");
        let (before, after) = (report(&open, &[&halted]), report(&open, &[]));
        let notes: Vec<_> = since_report(&open, &before, &after).into_iter().map(|report| report.note).collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("status.effective.mode was loosened from Halted to Active while no operator led"));
        assert!(notes[1].starts_with("status.effective.limits.maxOpenOrders was loosened from 2 to 10"), "{notes:?}");
        assert!(since_report(&open, &after, &before).is_empty(), "the way back tightens");
        assert!(since_report(&open, &ArbBotStatus::default(), &after).is_empty(), "it is new");
    }

    #[test]
    fn a_release_that_names_nothing_says_which_kills_are_open() {
        let told = |release: &str, open: &str, policies: &[&ArbPolicy]| {
            let mut new = bot_with_status(&format!("{{killSwitch: {{incidents: [{open}]}}}}"));
            new.spec.kill_switch.release = release.to_owned();
            let reports = of_bot(&bot(""), &new, policies);
            assert_eq!(reports.len(), 1, "{reports:?}");
            (reports[0].reason.clone(), reports[0].note.clone())
        };
        let open = |id: &str, source: &str| {
            format!(
                "{{id: {id}, source: {source}, phase: Finished, action: Flatten, engagedAt: '2026-01-01T00:00:00Z'}}"
            )
        };
        let own = open("0b9d6bcd-2", "ArbBot/carry");
        assert_eq!(told("0b9d6bcd-2", &own, &[]).0, "Loosened");
        let (reason, note) = told("0b9d6bcd-1", &own, &[]);
        assert_eq!(reason, "ReleaseUnknown", "an earlier kill");
        assert!(note.ends_with("open are 0b9d6bcd-2 of ArbBot/carry"), "{note}");
        assert!(told("typo", "", &[]).1.ends_with("none is open"));
        let (desk, of_desk) = (policy("{}"), open("99999999-2", "ArbPolicy/desk"));
        assert!(told("99999999-2", &of_desk, &[&desk]).1.contains("ArbPolicy/desk, set it there"));
        assert_eq!(told("99999999-2", &of_desk, &[]).0, "Loosened", "the policy is gone");
        let wrong = policy("killSwitch: {release: 0b9d6bcd-2}");
        assert_eq!(of_policy(&desk, Some(&wrong))[0].reason, "ReleaseUnknown");
        assert_eq!(of_policy(&desk, Some(&policy("killSwitch: {release: 99999999-2}")))[0].reason, "Loosened");
    }

    #[test]
    fn a_label_that_leaves_a_policy_and_a_deleted_policy_are_loosenings() {
        let halts = policy("{mode: Halted, selector: {matchLabels: {desk: a}}}");
        let mut old = bot("");
        old.metadata.labels = Some([("desk".to_owned(), "a".to_owned())].into());
        let reports = of_bot(&old, &bot(""), &[&halts]);
        assert!(reports.len() == 1 && reports[0].note.contains("ArbPolicy/desk"), "{reports:?}");
        assert_eq!(of_policy(&halts, None).len(), 1);
        assert!(of_policy(&policy("{}"), None).is_empty(), "it restricted nothing");
    }
}
