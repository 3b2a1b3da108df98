//! What a change has loosened, as Events: the field, both values and the field manager (pure).

use arbbot_crds::conditions::{Reason, shorten};
use arbbot_crds::loosen::{
    Loosening, loosenings_of_bot, loosenings_of_deleted_policy, loosenings_of_effective, loosenings_of_policy,
    manager_of,
};
use arbbot_crds::status::ArbBotStatus;
use arbbot_crds::{ArbBot, ArbPolicy};
use kube::Resource;

use crate::events::Report;

/// Longest value that a note shows; a selector can be long.
const VALUE_BYTES: usize = 200;

/// What a change of a bot has loosened. `new` has its managedFields; `policies` are those of its namespace.
#[must_use]
pub fn of_bot(old: &ArbBot, new: &ArbBot, policies: &[&ArbPolicy]) -> Vec<Report> {
    loosenings_of_bot(old, new, policies).iter().map(|loosening| report(loosening, new)).collect()
}

/// What a change of a policy has loosened, or its deletion (`new` is None). `new` has its managedFields.
#[must_use]
pub fn of_policy(old: &ArbPolicy, new: Option<&ArbPolicy>) -> Vec<Report> {
    match new {
        Some(new) => loosenings_of_policy(old, new).iter().map(|loosening| report(loosening, new)).collect(),
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
    use crate::reconcile::fixtures::{bot, policy};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
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
