//! What one bot says of one policy (pure).

use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::{ArbBot, ArbPolicy};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::core::{Selector, SelectorExt as _};

use crate::reconcile::replicas::has_acknowledged;
use crate::reconcile::verdict::unreadable_to_bot;

/// Whether the policy selects an object with this metadata. A selector that cannot be read selects everything.
#[must_use]
pub fn is_selected(policy: &ArbPolicy, metadata: &ObjectMeta) -> bool {
    let Some(selector) = &policy.spec.selector else { return true };
    let labels = metadata.labels.clone().unwrap_or_default();
    Selector::try_from(selector.clone()).map_or(true, |selector| selector.matches(&labels))
}

/// A bot that the policy selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// metadata.name of the bot.
    pub name: String,
    /// Whether it obeys the present generation of the policy, by its own word.
    pub acknowledged: bool,
    /// Whether it has drained to zero: nobody is there who could disobey. It reads the policy when it starts.
    pub at_zero: bool,
    /// Why it is not halted, by the exchange's confirmation. None: it is.
    pub not_halted: Option<String>,
    /// Why it is not flat, by the exchange's confirmation. None: it is.
    pub not_flat: Option<String>,
}

impl Member {
    /// Reads the bot's own words. Only those count that it spoke under the present generation of the policy; a bot at
    /// zero counts by its last word, unless the policy engages a kill: then it is started to be latched.
    #[must_use]
    pub fn of(policy: &ArbPolicy, bot: &ArbBot) -> Self {
        let status = bot.status.as_ref();
        let said = status.and_then(|status| status.bot.as_ref());
        let readable = unreadable_to_bot(bot).is_none();
        let acknowledged = readable && said.is_some_and(|said| has_acknowledged(said, policy));
        let at_zero = !policy.spec.kill_switch.engaged && is_at_zero(bot);
        let lacks = |type_: ConditionType| {
            let condition = status.and_then(|status| find(&status.conditions, type_));
            match condition {
                Some(condition) if condition.status == "True" => None,
                Some(condition) => Some(condition.reason.clone()),
                None => Some("NotReported".to_owned()),
            }
        };
        let (not_flat, not_halted) = (lacks(ConditionType::Flat), lacks(ConditionType::Halted));
        let unread = Some(Reason::NotAcknowledged.to_string());
        let (not_halted, not_flat) = match (acknowledged, at_zero) {
            // Flat includes that no order works, and at zero nobody sends another.
            (_, true) => (not_flat.clone(), not_flat),
            (true, false) => (not_halted, not_flat),
            (false, false) => (unread.clone(), unread),
        };
        Self { name: bot.name_any(), acknowledged, at_zero, not_halted, not_flat }
    }

    /// A bot whose object cannot be read: it counts as selected and as nothing else.
    #[must_use]
    pub fn unreadable(name: &str) -> Self {
        let invalid = Some(Reason::InvalidSpec.to_string());
        Self {
            name: name.to_owned(),
            acknowledged: false,
            at_zero: false,
            not_halted: invalid.clone(),
            not_flat: invalid,
        }
    }
}

/// Whether the operator has shown that the bot is drained and scaled to zero.
fn is_at_zero(bot: &ArbBot) -> bool {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    find(conditions, ConditionType::Ready)
        .is_some_and(|ready| ready.status == "True" && ready.reason == Reason::Stopped.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{bot_with_status, policy};

    /// A bot that is halted and flat, with this word on the policy `desk` (uid 99999999-p, generation 5).
    fn bot(applied: &str, halted: &str, ready: &str) -> ArbBot {
        bot_with_status(&format!(
            "bot: {{appliedPolicies: [{applied}]}}\nconditions:\n- {{type: Halted, status: '{halted}', reason: NoOrdersWorking, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}\n- {{type: Flat, status: 'True', reason: NoPosition, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}\n- {{type: Ready, status: 'True', reason: {ready}, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}\n"
        ))
    }

    const APPLIED: &str = "{name: desk, uid: 99999999-p, generation: 5}";

    #[test]
    fn a_bot_counts_as_halted_only_by_its_own_word_on_this_generation() {
        let policy = policy("mode: Halted");
        let halted = |bot: &ArbBot| Member::of(&policy, bot).not_halted;
        assert_eq!(halted(&bot(APPLIED, "True", "Available")), None);
        assert_eq!(halted(&bot(APPLIED, "Unknown", "Available")).as_deref(), Some("NoOrdersWorking"));
        for other in ["{name: desk, uid: 99999999-p, generation: 4}", "{name: desk, uid: another, generation: 9}", ""] {
            assert_eq!(halted(&bot(other, "True", "Available")).as_deref(), Some("NotAcknowledged"), "{other}");
        }
    }

    #[test]
    fn a_bot_at_zero_counts_by_its_last_word_unless_a_kill_is_engaged() {
        let at_zero = bot("", "False", "Stopped");
        let stops = Member::of(&policy("mode: Stopped"), &at_zero);
        assert_eq!((stops.acknowledged, stops.at_zero), (false, true), "acknowledged is its own word only");
        assert_eq!((stops.not_halted, stops.not_flat), (None, None));
        let kills = Member::of(&policy("killSwitch: {engaged: true}"), &at_zero);
        assert_eq!(kills.not_flat.as_deref(), Some("NotAcknowledged"), "it is started to be latched");
    }
}
