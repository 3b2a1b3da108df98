//! The status of a policy, counted from what its bots say (pure).

use arbbot_crds::ArbPolicy;
use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::arbpolicy::{ArbPolicyStatus, PolicyBots};
use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason, set_condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::core::Selector;

use super::member::Member;

/// Missing bots that a message names.
const NAMED: usize = 3;
/// What the operator writes on a policy.
const TYPES: [ConditionType; 6] = [
    ConditionType::ControlApplied,
    ConditionType::Halted,
    ConditionType::Flat,
    ConditionType::Ready,
    ConditionType::Reconciling,
    ConditionType::Stalled,
];

/// The status of the policy, given the bots that it selects.
#[must_use]
pub fn status(policy: &ArbPolicy, members: &[Member], now: &Time) -> ArbPolicyStatus {
    let generation = policy.metadata.generation;
    let mut conditions = present(policy);
    let mut set = |type_, status: bool, reason, message: &str| {
        set_condition(&mut conditions, type_, ConditionStatus::from(status), reason, message, generation, now);
    };
    let count =
        |holds: fn(&Member) -> bool| u32::try_from(members.iter().filter(|m| holds(m)).count()).unwrap_or(u32::MAX);
    let applied = Row::new(policy, members, "obey this generation", &APPLIED);
    set(ConditionType::ControlApplied, applied.holds, applied.reason, &applied.message);
    let halted = Row::new(policy, members, "are halted", &HALTED);
    set(ConditionType::Halted, halted.holds, halted.reason, &halted.message);
    let flat = Row::new(policy, members, "are flat", &FLAT);
    set(ConditionType::Flat, flat.holds, flat.reason, &flat.message);

    let done = "nothing is to be done";
    let (ready, reconciling, stalled) = match selector_error(policy) {
        Some(error) => {
            let text = format!(
                "spec.selector cannot be read ({error}), so the policy applies to every bot of the namespace; correct it: operator must be In or NotIn with values, Exists or DoesNotExist"
            );
            ((false, Reason::SelectorInvalid, text.clone()), None, Some((Reason::SelectorInvalid, text)))
        }
        None if members.is_empty() && stops_nobody(policy) => {
            let text = format!("the kill switch is engaged and stops nobody: {}", applied.message);
            ((false, Reason::NoBots, text.clone()), None, Some((Reason::NoBots, text)))
        }
        None if applied.holds || members.is_empty() => ((true, applied.reason, applied.message), None, None),
        None => ((false, applied.reason, applied.message.clone()), Some((applied.reason, applied.message)), None),
    };
    set(ConditionType::Ready, ready.0, ready.1, &ready.2);
    for (type_, why) in [(ConditionType::Reconciling, reconciling), (ConditionType::Stalled, stalled)] {
        match why {
            Some((reason, message)) => set(type_, true, reason, &message),
            None => set(type_, false, Reason::UpToDate, done),
        }
    }
    let bots = PolicyBots {
        matched: count(|_| true),
        acknowledged: count(|member| member.acknowledged),
        halted: count(|member| member.not_halted.is_none()),
        flat: count(|member| member.not_flat.is_none()),
    };
    ArbPolicyStatus { observed_generation: generation, conditions, bots }
}

/// Whether the policy engages a kill on bots that it names: without a selector it is meant for those, too, that come later.
fn stops_nobody(policy: &ArbPolicy) -> bool {
    policy.spec.kill_switch.engaged && policy.spec.selector.is_some()
}

/// The conditions that stand there now, for the times of their transitions.
fn present(policy: &ArbPolicy) -> Vec<Condition> {
    let conditions = policy.status.iter().flat_map(|status| &status.conditions);
    let ours = |condition: &&Condition| TYPES.iter().any(|type_| type_.to_string() == condition.type_);
    conditions.filter(ours).cloned().collect()
}

/// Why the selector cannot be read, if it cannot.
pub fn selector_error(policy: &ArbPolicy) -> Option<String> {
    Selector::try_from(policy.spec.selector.clone()?).err().map(|error| error.to_string())
}

/// One question that every bot answers.
struct Question {
    /// Why the answer is no.
    lacks: fn(&Member) -> Option<&str>,
    /// What the policy would have to say for the answer to become yes. None: it says so already.
    needs: fn(&ArbPolicy) -> Option<&'static str>,
}

const APPLIED: Question = Question {
    lacks: |member| (!member.acknowledged && !member.at_zero).then_some("NotAcknowledged"),
    needs: |_| None,
};
const HALTED: Question = Question {
    lacks: |member| member.not_halted.as_deref(),
    needs: |policy| {
        let halts = policy.spec.mode == Mode::Halted || policy.spec.kill_switch.engaged;
        (!halts)
            .then_some("the policy itself does not halt: neither is spec.mode Halted nor is its kill switch engaged")
    },
};
const FLAT: Question = Question {
    lacks: |member| member.not_flat.as_deref(),
    needs: |policy| {
        let kill = &policy.spec.kill_switch;
        let closes = policy.spec.mode == Mode::Stopped || (kill.engaged && kill.action == KillAction::Flatten);
        (!closes).then_some(
            "the policy itself closes no position: neither is spec.mode Stopped nor is a kill that flattens engaged",
        )
    },
};

/// The answer of all bots.
struct Row {
    holds: bool,
    reason: Reason,
    message: String,
}

impl Row {
    fn new(policy: &ArbPolicy, members: &[Member], what: &str, question: &Question) -> Self {
        let namespace = policy.namespace().unwrap_or_default();
        let (all, missing) = (members.len(), members.iter().filter(|m| (question.lacks)(m).is_some()).count());
        if all == 0 {
            let message = format!(
                "the policy selects no bot of namespace {namespace}; compare spec.selector with: kubectl get arbbots -n {namespace} --show-labels"
            );
            return Self { holds: false, reason: Reason::NoBots, message };
        }
        if missing == 0 {
            let at_zero = members.iter().filter(|member| member.at_zero).count();
            let note = if at_zero == 0 { String::new() } else { format!(", {at_zero} of them drained to zero") };
            return Self { holds: true, reason: Reason::AllBots, message: format!("{all} of {all} bots {what}{note}") };
        }
        // Named in the order of the alphabet, so that the message moves only when it must.
        let mut lacking: Vec<_> =
            members.iter().filter_map(|m| Some((m.name.as_str(), (question.lacks)(m)?))).collect();
        lacking.sort_unstable();
        let named: Vec<_> = lacking.iter().take(NAMED).map(|(name, why)| format!("{name} ({why})")).collect();
        let more = if missing > NAMED { format!(" and {} more", missing - NAMED) } else { String::new() };
        let first = lacking.first().map(|(name, _)| *name).unwrap_or_default();
        let next = match (question.needs)(policy) {
            Some(needs) => needs.to_owned(),
            None => format!("see kubectl describe arbbot/{first} -n {namespace}"),
        };
        let message = format!("{} of {all} bots {what}; missing: {}{more}; {next}", all - missing, named.join(", "));
        Self { holds: false, reason: Reason::SomeBots, message }
    }
}

#[cfg(test)]
mod tests;
