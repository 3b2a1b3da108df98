//! How many pods a bot's Deployment shall have: one, or none once a drain has finished (pure).
//!
//! Zero needs proof that the bot is flat *and* that it was already draining when it said so: a bot that merely happened
//! to be flat could be sending an order at that moment.

use arbbot_crds::ArbPolicy;
use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::conditions::{ConditionType, find};
use arbbot_crds::control::{Duty, engagements};
use arbbot_crds::status::{BotStatus, DrainPhase};

use super::effective;
use super::verdict::is_acknowledged;

/// Replicas of the bot's Deployment. `policies` are those that match; `live` is what the Deployment has now;
/// `is_ending`: a pod is still there, and every one is being deleted.
#[must_use]
pub fn replicas(bot: &ArbBot, policies: &[&ArbPolicy], live: Option<i32>, is_ending: bool) -> i32 {
    let restrictions = effective::restrictions(bot, policies.iter().copied());
    let drains = effective::control(bot, &restrictions).duty == Duty::Drain;
    if !drains || is_killed(bot, policies) {
        return 1;
    }
    // An ending pod asks the exchange once more, and says meanwhile that flat is not confirmed. Its last word counts; a
    // second pod beside it could only wait.
    if live == Some(0) && is_ending {
        return 0;
    }
    if !has_drained(bot) {
        return 1;
    }
    // At zero there is nobody who could acknowledge a later change, and nobody who could trade.
    i32::from(live != Some(0) && !has_acknowledged_all(bot, policies))
}

/// Whether a kill is engaged, or its latch open: then the bot must run, so that the kill is latched and proven.
#[must_use]
pub fn is_killed(bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let kills = bot.status.as_ref().and_then(|status| status.kill_switch.as_ref());
    !engagements(bot, policies).is_empty() || kills.is_some_and(|kills| !kills.incidents.is_empty())
}

/// Whether the bot's last word is that its drain has finished and that it is flat.
#[must_use]
pub fn has_drained(bot: &ArbBot) -> bool {
    let Some(status) = &bot.status else { return false };
    let phase = status.bot.as_ref().and_then(|bot| bot.drain.as_ref()).map(|drain| drain.phase);
    let flat = find(&status.conditions, ConditionType::Flat).is_some_and(|flat| flat.status == "True");
    flat && phase == Some(DrainPhase::Finished)
}

/// Whether the bot's word is about this generation and about every policy as it is now.
fn has_acknowledged_all(bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let Some(status) = &bot.status else { return false };
    let flat_is_current = find(&status.conditions, ConditionType::Flat)
        .is_some_and(|flat| flat.observed_generation >= bot.metadata.generation);
    let said = status.bot.as_ref();
    is_acknowledged(bot)
        && flat_is_current
        && policies.iter().all(|policy| said.is_some_and(|said| has_acknowledged(said, policy)))
}

/// Whether the bot obeys the present generation of the policy, by its own word.
#[must_use]
pub fn has_acknowledged(said: &BotStatus, policy: &ArbPolicy) -> bool {
    let generation = policy.metadata.generation.unwrap_or_default();
    said.applied_policies
        .iter()
        .any(|applied| Some(&applied.uid) == policy.metadata.uid.as_ref() && applied.generation >= generation)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot_with_status, policy};
    use super::*;
    use arbbot_crds::arbbot::Mode;
    use proptest::prelude::*;

    const DRAINED: &str = r#"
bot: {podUid: pod-1, appliedGeneration: 3, drain: {startedAt: "2026-01-01T00:00:00Z", phase: Finished}}
conditions:
- {type: Flat, status: "True", reason: NoPosition, message: m, observedGeneration: 3, lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;

    fn stopped(status: &str) -> ArbBot {
        let mut bot = bot_with_status(status);
        bot.spec.mode = Mode::Stopped;
        bot
    }

    #[test]
    fn a_stopped_bot_goes_to_zero_once_its_drain_has_finished_flat() {
        assert_eq!(replicas(&stopped(DRAINED), &[], Some(1), false), 0);
        assert_eq!(replicas(&bot_with_status(DRAINED), &[], Some(1), false), 1, "nobody stops it any more");
        for (word, other) in
            [("phase: Finished", "phase: TimedOut"), ("\"True\"", "\"False\""), ("\"True\"", "Unknown")]
        {
            assert_eq!(replicas(&stopped(&DRAINED.replace(word, other)), &[], Some(1), false), 1, "{other}");
        }
    }

    #[test]
    fn what_was_said_of_an_earlier_generation_is_no_proof_while_the_bot_runs() {
        let mut bot = stopped(DRAINED);
        bot.metadata.generation = Some(4);
        assert_eq!(replicas(&bot, &[], Some(1), false), 1);
        assert_eq!(replicas(&bot, &[], Some(0), false), 0, "at zero nobody can say more");
        assert_eq!(replicas(&bot, &[], None, false), 1, "the Deployment is to be made again");
    }

    #[test]
    fn no_second_pod_starts_beside_one_that_ends_unless_a_kill_needs_it() {
        let unsure = stopped(&DRAINED.replace("\"True\"", "\"False\""));
        assert_eq!(replicas(&unsure, &[], Some(0), true), 0, "its last word is to come");
        assert_eq!(replicas(&unsure, &[], Some(0), false), 1, "it was: not flat");
        let kill = policy("killSwitch: {engaged: true}");
        assert_eq!(replicas(&unsure, &[&kill], Some(0), true), 1);
    }

    #[test]
    fn a_policy_that_stops_must_be_obeyed_before_flat_counts() {
        let stop = policy("mode: Stopped");
        let obeyed = DRAINED
            .replace("podUid: pod-1", "podUid: pod-1, appliedPolicies: [{name: desk, uid: 99999999-p, generation: 5}]");
        assert_eq!(replicas(&bot_with_status(&obeyed), &[&stop], Some(1), false), 0);
        assert_eq!(replicas(&bot_with_status(DRAINED), &[&stop], Some(1), false), 1, "it may be sending an order");
    }

    #[test]
    fn a_kill_starts_a_bot_at_zero_and_its_latch_keeps_it_up() {
        let kill = policy("killSwitch: {engaged: true}");
        assert_eq!(replicas(&stopped(DRAINED), &[&kill], Some(0), false), 1);
        let mut killed = stopped(DRAINED);
        killed.spec.kill_switch.engaged = true;
        assert_eq!(replicas(&killed, &[], Some(0), false), 1);
        let latch = "killSwitch: {incidents: [{id: 0b9d6bcd-2, source: ArbBot/carry, phase: Finished, action: CancelOrders, engagedAt: '2026-01-01T00:00:00Z'}]}";
        assert_eq!(replicas(&stopped(&format!("{DRAINED}{latch}")), &[], Some(0), false), 1);
    }

    proptest! {
        #[test]
        fn a_bot_is_never_at_zero_without_a_finished_drain_or_under_a_kill(
            mode in prop_oneof![Just(Mode::Active), Just(Mode::ReduceOnly), Just(Mode::Halted), Just(Mode::Stopped)],
            policy_mode in prop_oneof![Just("Active"), Just("Halted"), Just("Stopped")],
            engaged: bool, policy_engaged: bool, finished: bool, flat: bool, deleted: bool,
            generation in 3i64..5, live in prop::option::of(0..2i32), acknowledged: bool, is_ending: bool,
        ) {
            let mut status = DRAINED.to_owned();
            if !finished { status = status.replace("Finished", "ClosingPosition"); }
            if !flat { status = status.replace("\"True\"", "\"False\""); }
            if acknowledged {
                status = status.replace("podUid: pod-1", "podUid: pod-1, appliedPolicies: [{name: desk, uid: 99999999-p, generation: 5}]");
            }
            let mut bot = bot_with_status(&status);
            bot.spec.mode = mode;
            bot.spec.kill_switch.engaged = engaged;
            bot.metadata.generation = Some(generation);
            if deleted { bot.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)); }
            let policy = policy(&format!("{{mode: {policy_mode}, killSwitch: {{engaged: {policy_engaged}}}}}"));
            let count = replicas(&bot, &[&policy], live, is_ending);
            prop_assert!(count == 0 || count == 1);
            if count == 0 {
                let keeps_zero = live == Some(0) && is_ending;
                prop_assert!(!engaged && !policy_engaged && (keeps_zero || (finished && flat)));
                prop_assert!(mode == Mode::Stopped || policy_mode == "Stopped" || deleted);
                prop_assert!(live == Some(0) || (acknowledged && generation == 3));
            }
        }
    }
}
