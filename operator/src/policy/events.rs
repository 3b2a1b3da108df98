//! What people are told of a policy (pure): its kill, its release, and when it holds for every bot.

use arbbot_crds::ArbPolicy;
use arbbot_crds::arbbot::Mode;
use arbbot_crds::arbpolicy::ArbPolicyStatus;
use arbbot_crds::conditions::{ConditionType, Reason, find, is_true};
use arbbot_crds::incident::IncidentId;
use kube::ResourceExt;

use crate::events::Report;
use crate::loosening;

/// What the operator last saw of a policy's kill switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    engaged: bool,
    release: String,
}

impl Seen {
    /// What it sees now.
    #[must_use]
    pub fn of(policy: &ArbPolicy) -> Self {
        let kill = &policy.spec.kill_switch;
        Self { engaged: kill.engaged, release: kill.release.clone() }
    }
}

/// What has happened since `before`. None: this process sees the policy for the first time; then only what no earlier
/// status has counted is news.
#[must_use]
pub fn reports(policy: &ArbPolicy, before: Option<&Seen>, after: &ArbPolicyStatus) -> Vec<Report> {
    let present = policy.status.clone().unwrap_or_default();
    let counted = present.observed_generation >= policy.metadata.generation;
    let mut reports = Vec::new();
    let kill = &policy.spec.kill_switch;
    let id = IncidentId::new(&policy.uid().unwrap_or_default(), policy.metadata.generation.unwrap_or_default());
    let bots = after.bots.matched;
    if kill.engaged && before.map_or(!counted, |before| !before.engaged) {
        let by = loosening::engaged_by(policy.managed_fields());
        let text =
            format!("kill switch engaged on {bots} bots{by}: {}; action {}; incident {id}", kill.reason, kill.action);
        let report = Report::engaged(&id.to_string(), text);
        // One that stops nobody is a mistake or comes too early: both are worth a look.
        reports.push(if bots == 0 { Report { warning: true, ..report } } else { report });
    }
    let is_new_release = before.map_or(!counted, |before| before.release != kill.release || before.engaged);
    let is_own = loosening::unknown_release_of(policy).is_none();
    if !kill.engaged && !kill.release.is_empty() && is_own && is_new_release {
        reports.push(Report::released_by_policy(&kill.release));
    }
    let demands_halt = kill.engaged || policy.spec.mode == Mode::Halted;
    for (type_, demanded) in [(ConditionType::Halted, demands_halt), (ConditionType::Flat, demands_flat(policy))] {
        let turned = is_true(&after.conditions, type_) && !is_true_now(&present, type_, policy.metadata.generation);
        if let Some(condition) = find(&after.conditions, type_).filter(|_| demanded && turned) {
            reports.push(Report::every_bot(type_, id.generation, &condition.message));
        }
    }
    if let Some(stalled) = find(&after.conditions, ConditionType::Stalled)
        .filter(|c| c.status == "True" && !is_true(&present.conditions, ConditionType::Stalled))
    {
        let reason = stalled.reason.parse().unwrap_or(Reason::SelectorInvalid);
        reports.push(Report::warning(reason, &stalled.message));
    }
    reports
}

fn demands_flat(policy: &ArbPolicy) -> bool {
    policy.spec.mode == Mode::Stopped || policy.spec.kill_switch.engaged
}

/// Whether it was so for this generation already: each engagement is told of anew.
fn is_true_now(status: &ArbPolicyStatus, type_: ConditionType, generation: Option<i64>) -> bool {
    find(&status.conditions, type_).is_some_and(|c| c.status == "True" && c.observed_generation >= generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::member::Member;
    use crate::policy::status::status;
    use crate::reconcile::fixtures::policy;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn halted(flat: bool) -> Vec<Member> {
        let not_flat = (!flat).then(|| "PositionOpen".to_owned());
        vec![Member { name: "a".to_owned(), acknowledged: true, at_zero: false, not_halted: None, not_flat }]
    }

    fn told(policy: &ArbPolicy, before: Option<&Seen>, members: &[Member]) -> (Vec<String>, ArbPolicyStatus) {
        let after = status(policy, members, &Time(Timestamp::UNIX_EPOCH));
        (reports(policy, before, &after).into_iter().map(|report| report.reason).collect(), after)
    }

    #[test]
    fn a_kill_is_told_from_its_engagement_to_its_release_each_step_once() {
        let calm = Seen::of(&policy("{}"));
        let mut kill = policy("killSwitch: {engaged: true, reason: drill}");
        let (reasons, counted) = told(&kill, Some(&calm), &halted(false));
        assert_eq!(reasons, ["KillSwitchEngaged", "Halted"]);
        let seen = Seen::of(&kill);
        kill.status = Some(counted);
        let (reasons, counted) = told(&kill, Some(&seen), &halted(true));
        assert_eq!(reasons, ["Flat"]);
        kill.status = Some(counted.clone());
        assert_eq!(told(&kill, Some(&seen), &halted(true)).0, Vec::<String>::new());
        let mut released = policy("killSwitch: {engaged: false, release: 99999999-5}");
        released.status = Some(counted);
        assert_eq!(told(&released, Some(&seen), &halted(true)).0, ["Released"]);
        assert_eq!(told(&released, Some(&Seen::of(&released)), &halted(true)).0, Vec::<String>::new());
    }

    #[test]
    fn a_kill_that_selects_nobody_is_a_warning_and_names_who_engaged_it() {
        let mut kill = policy("{selector: {matchLabels: {desk: typo}}, killSwitch: {engaged: true}}");
        let engaged = serde_json::json!({"manager": "arb-incident", "operation": "Update", "fieldsV1": {"f:spec": {"f:killSwitch": {"f:engaged": {}}}}});
        kill.metadata.managed_fields = Some(vec![serde_json::from_value(engaged).unwrap()]);
        let after = status(&kill, &[], &Time(Timestamp::UNIX_EPOCH));
        let told = reports(&kill, Some(&Seen::of(&policy("{}"))), &after);
        let reasons: Vec<_> = told.iter().map(|report| (report.reason.as_str(), report.warning)).collect();
        assert_eq!(reasons, [("KillSwitchEngaged", true), ("NoBots", true)]);
        assert!(told[0].note.contains("on 0 bots engaged by field manager arb-incident"), "{}", told[0].note);
    }

    #[test]
    fn a_new_operator_repeats_nothing_that_was_counted_before() {
        let mut kill = policy("killSwitch: {engaged: true}");
        let (reasons, counted) = told(&kill, None, &halted(true));
        assert_eq!(reasons, ["KillSwitchEngaged", "Halted", "Flat"], "engaged while no operator was there");
        kill.status = Some(counted);
        assert_eq!(told(&kill, None, &halted(true)).0, Vec::<String>::new());
    }
}
