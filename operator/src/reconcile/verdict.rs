//! Ready, Reconciling and Stalled as kstatus reads them: exactly one of three states (pure).

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason, set_condition};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Why the bot is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub reason: Reason,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The state of a bot as its three conditions of the operator show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The children exist, the pod is available and this generation is acknowledged.
    Ready,
    /// The operator or Kubernetes is still at work.
    Reconciling(Why),
    /// A person must act.
    Stalled(Why),
}

impl Verdict {
    /// Still at work.
    pub fn reconciling(reason: Reason, message: impl Into<String>) -> Self {
        Self::Reconciling(Why { reason, message: message.into() })
    }

    /// A person must act.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self::Stalled(Why { reason, message: message.into() })
    }

    /// Writes the three conditions.
    pub fn set(&self, conditions: &mut Vec<Condition>, generation: Option<i64>, now: &Time) {
        let done = (Reason::UpToDate, "nothing is to be done");
        let (why, reconciling, stalled) = match self {
            Self::Ready => ((Reason::Available, "the bot runs and obeys this generation"), false, false),
            Self::Reconciling(why) => ((why.reason, why.message.as_str()), true, false),
            Self::Stalled(why) => ((why.reason, why.message.as_str()), false, true),
        };
        let rows = [
            (ConditionType::Ready, !reconciling && !stalled, why),
            (ConditionType::Reconciling, reconciling, if reconciling { why } else { done }),
            (ConditionType::Stalled, stalled, if stalled { why } else { done }),
        ];
        for (type_, holds, (reason, message)) in rows {
            set_condition(conditions, type_, ConditionStatus::from(holds), reason, message, generation, now);
        }
    }
}

/// Whether the Deployment runs its present template.
#[must_use]
pub fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= 1
        && status.available_replicas.unwrap_or(0) >= 1
}

/// Whether the bot has said that it obeys the present generation.
#[must_use]
pub fn is_acknowledged(bot: &ArbBot) -> bool {
    let said = bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|bot| bot.applied_generation);
    said.is_some() && said >= bot.metadata.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbbot_crds::conditions::{find, is_true};
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn at_most_one_of_the_three_is_true_and_each_has_its_generation() {
        let now = Time(Timestamp::UNIX_EPOCH);
        let verdicts = [
            Verdict::Ready,
            Verdict::reconciling(Reason::Progressing, "m"),
            Verdict::stalled(Reason::AccountShared, "m"),
        ];
        let types = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled];
        let mut conditions = Vec::new();
        for (verdict, expected) in verdicts.iter().zip(types) {
            verdict.set(&mut conditions, Some(7), &now);
            for type_ in types {
                assert_eq!(is_true(&conditions, type_), type_ == expected, "{verdict:?} {type_}");
                assert_eq!(find(&conditions, type_).unwrap().observed_generation, Some(7));
            }
        }
        assert_eq!(find(&conditions, ConditionType::Ready).unwrap().reason, "AccountShared");
    }
}
