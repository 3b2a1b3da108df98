//! Ready, Reconciling and Stalled as kstatus reads them: exactly one of three states (pure).

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionStatus, ConditionType, Reason, find, set_condition, shorten};
use arbbot_crds::names::ANNOTATION_PAUSED;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

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
    /// Drained and scaled to zero, as `mode: Stopped` demands.
    Stopped,
    /// Reconciliation is paused, and there is no Deployment to judge: Ready is not said at all.
    Paused,
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

    /// What is wrong, and what to do. None: nothing is wrong.
    #[must_use]
    pub fn why(&self) -> Option<&Why> {
        match self {
            Self::Reconciling(why) | Self::Stalled(why) => Some(why),
            Self::Ready | Self::Stopped | Self::Paused => None,
        }
    }

    /// Writes the three conditions. While paused the bot's children are left alone, which is neither work nor trouble.
    pub fn set(&self, pause: Pause<'_>, conditions: &mut Vec<Condition>, generation: Option<i64>, now: &Time) {
        let paused = pause == Pause::Yes;
        let (ready, stalled) = (matches!(self, Self::Ready | Self::Stopped), matches!(self, Self::Stalled(_)));
        let reconciling = matches!(self, Self::Reconciling(why) if !paused || goes_on_when_paused(why.reason));
        let why = match self {
            Self::Ready => (Reason::Available, "the bot runs and obeys this generation"),
            Self::Stopped => (Reason::Stopped, "the bot is flat and scaled to zero; another mode starts it again"),
            Self::Paused => (Reason::ReconciliationPaused, PAUSED),
            Self::Reconciling(why) | Self::Stalled(why) => (why.reason, why.message.as_str()),
        };
        let done = (Reason::UpToDate, "nothing is to be done");
        let ignored = match pause {
            Pause::Ignored(value) => ignored(value),
            Pause::No | Pause::Yes => String::new(),
        };
        let at_rest = match pause {
            Pause::No => done,
            Pause::Yes => (Reason::ReconciliationPaused, PAUSED),
            Pause::Ignored(_) => (Reason::PauseIgnored, ignored.as_str()),
        };
        let rows = [
            (ConditionType::Ready, ready, why),
            (ConditionType::Reconciling, reconciling, if reconciling { why } else { at_rest }),
            (ConditionType::Stalled, stalled, if stalled { why } else { done }),
        ];
        let unsaid = if *self == Self::Paused { Some(ConditionType::Ready) } else { None };
        for (type_, holds, (reason, message)) in rows.into_iter().filter(|(type_, ..)| Some(*type_) != unsaid) {
            set_condition(conditions, type_, ConditionStatus::from(holds), reason, message, generation, now);
        }
        conditions.retain(|condition| unsaid.is_none_or(|unsaid| condition.type_ != unsaid.to_string()));
    }
}

const PAUSED: &str = "the annotation arbbot.io/paused keeps the operator from changing the bot's children; control, claim, drain and deletion go on. To end it: kubectl annotate arbbot NAME arbbot.io/paused-";

/// What does not depend on the children being repaired.
fn goes_on_when_paused(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Draining | Reason::DeletionWaitsForFlat | Reason::DeletionBlockedByHalted | Reason::NotAcknowledged
    )
}

/// What the annotation [`ANNOTATION_PAUSED`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause<'a> {
    /// It is not there, or "false".
    No,
    /// "true".
    Yes,
    /// Something else, which pauses nothing.
    Ignored(&'a str),
}

impl<'a> Pause<'a> {
    /// What it says on this bot.
    #[must_use]
    pub fn of(bot: &'a ArbBot) -> Self {
        match bot.annotations().get(ANNOTATION_PAUSED).map(String::as_str) {
            None | Some("false") => Self::No,
            Some("true") => Self::Yes,
            Some(other) => Self::Ignored(other),
        }
    }
}

fn ignored(value: &str) -> String {
    let value = shorten(value, 32);
    format!("the annotation {ANNOTATION_PAUSED} is {value:?}: only \"true\" pauses, so nothing is paused")
}

/// Whether reconciliation is paused.
#[must_use]
pub fn is_paused(bot: &ArbBot) -> bool {
    Pause::of(bot) == Pause::Yes
}

/// Whether the Deployment runs its present template.
#[must_use]
pub fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= 1
        && status.available_replicas.unwrap_or(0) >= 1
}

/// What the bot says of a generation that it cannot read as a whole: what restricts in it is in force, the rest is not.
#[must_use]
pub fn unreadable_to_bot(bot: &ArbBot) -> Option<&str> {
    let applied = find(&bot.status.as_ref()?.conditions, ConditionType::ControlApplied)?;
    let is_current = applied.observed_generation >= bot.metadata.generation;
    let is_unreadable = applied.status == "False" && applied.reason == Reason::InvalidSpec.to_string();
    (is_current && is_unreadable).then_some(applied.message.as_str())
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
            verdict.set(Pause::No, &mut conditions, Some(7), &now);
            for type_ in types {
                assert_eq!(is_true(&conditions, type_), type_ == expected, "{verdict:?} {type_}");
                assert_eq!(find(&conditions, type_).unwrap().observed_generation, Some(7));
            }
        }
        assert_eq!(find(&conditions, ConditionType::Ready).unwrap().reason, "AccountShared");
    }

    #[test]
    fn a_pause_is_neither_work_nor_trouble_and_hides_no_drain() {
        let now = Time(Timestamp::UNIX_EPOCH);
        let paused = |verdict: Verdict| {
            let mut conditions = Vec::new();
            verdict.set(Pause::Yes, &mut conditions, Some(7), &now);
            let shown = |type_| find(&conditions, type_).map(|c| (c.status.clone(), c.reason.clone()));
            (shown(ConditionType::Ready), shown(ConditionType::Reconciling), shown(ConditionType::Stalled))
        };
        let is = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
        let (resting, fine) = (is("False", "ReconciliationPaused"), is("False", "UpToDate"));
        assert_eq!(paused(Verdict::Ready), (is("True", "Available"), resting.clone(), fine.clone()));
        assert_eq!(paused(Verdict::Paused), (None, resting.clone(), fine.clone()));
        let starting = Verdict::reconciling(Reason::PodNotReady, "m");
        assert_eq!(paused(starting), (is("False", "PodNotReady"), resting, fine));
        let draining = Verdict::reconciling(Reason::Draining, "m");
        assert_eq!(paused(draining).1, is("True", "Draining"));
    }

    #[test]
    fn a_value_that_pauses_nothing_is_said() {
        let with = |value: &str| {
            let mut bot = crate::reconcile::fixtures::bot("");
            bot.metadata.annotations = Some([(ANNOTATION_PAUSED.to_owned(), value.to_owned())].into());
            bot
        };
        assert_eq!(Pause::of(&crate::reconcile::fixtures::bot("")), Pause::No);
        assert!(is_paused(&with("true")) && Pause::of(&with("false")) == Pause::No);
        let yes = with("yes");
        let mut conditions = Vec::new();
        Verdict::Ready.set(Pause::of(&yes), &mut conditions, Some(7), &Time(Timestamp::UNIX_EPOCH));
        let reconciling = find(&conditions, ConditionType::Reconciling).unwrap();
        assert_eq!((reconciling.status.as_str(), reconciling.reason.as_str()), ("False", "PauseIgnored"));
        assert!(reconciling.message.contains(r#""yes": only "true" pauses"#), "{}", reconciling.message);
    }
}
