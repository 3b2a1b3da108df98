//! What a drain means for a bot's conditions: its step, who holds it, and the ways out (pure). The bot drains; the
//! operator shows it, and ends the pod only when [`super::replicas`] says so.

use arbbot_crds::arbbot::OnDrainTimeout;
use arbbot_crds::conditions::Reason;
use arbbot_crds::control::{Duty, Entry};
use arbbot_crds::status::{DrainPhase, DrainStatus};
use arbbot_crds::{ArbBot, ArbPolicy};

use super::remedy::{describe, holds, patch_bot};
use super::verdict::{Verdict, is_acknowledged};
use super::{effective, replicas};

/// Whether spec, policies or a deletion demand a drain, and nothing demands more.
#[must_use]
pub fn is_demanded(bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let restrictions = effective::restrictions(bot, policies.iter().copied());
    effective::control(bot, &restrictions).duty == Duty::Drain
}

/// Whether a drain is demanded and something holds the bot Halted at the same time.
#[must_use]
pub fn is_held(bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let restrictions = effective::restrictions(bot, policies.iter().copied());
    let control = effective::control(bot, &restrictions);
    control.duty == Duty::Drain && control.entry == Entry::Halted
}

/// The drain that the bot reports under the present generation.
#[must_use]
pub fn reported(bot: &ArbBot) -> Option<&DrainStatus> {
    let said = bot.status.as_ref().and_then(|status| status.bot.as_ref());
    said.and_then(|bot| bot.drain.as_ref()).filter(|_| is_acknowledged(bot))
}

/// What `mode: Stopped` of the spec or of a policy amounts to for a bot that runs. None: nothing demands a drain.
/// `policies` are those that match, `all` those of the namespace.
#[must_use]
pub fn verdict(bot: &ArbBot, policies: &[&ArbPolicy], all: &[&ArbPolicy]) -> Option<Verdict> {
    if !is_demanded(bot, policies) {
        return None;
    }
    let Some(drain) = reported(bot) else {
        return Some(Verdict::reconciling(Reason::Draining, "the bot is asked to drain; it has not begun yet"));
    };
    if has_timed_out(bot, drain) {
        return Some(timed_out(bot, ""));
    }
    Some(Verdict::reconciling(Reason::Draining, step(bot, policies, all, drain)))
}

/// Whether the time of the drain is over and what is left is held.
#[must_use]
pub fn has_timed_out(bot: &ArbBot, drain: &DrainStatus) -> bool {
    drain.phase == DrainPhase::TimedOut && bot.spec.on_drain_timeout == OnDrainTimeout::Hold
}

/// What is left is held: the ways out. `further` is one more, with a leading separator.
#[must_use]
pub fn timed_out(bot: &ArbBot, further: &str) -> Verdict {
    let text = format!(
        "the drain took longer than spec.drainTimeout ({}); the bot stays up, ReduceOnly, with what is left (status.bot.position). Either close it as a kill does: {}; or give it more time: {}{further}",
        bot.spec.drain_timeout,
        patch_bot(bot, r#"{"onDrainTimeout":"Flatten"}"#),
        patch_bot(bot, r#"{"drainTimeout":"1h"}"#),
    );
    Verdict::stalled(Reason::DrainTimedOut, text)
}

/// Where a drain is, for people. `policies` are those that match, `all` those of the namespace.
#[must_use]
pub fn step(bot: &ArbBot, policies: &[&ArbPolicy], all: &[&ArbPolicy], drain: &DrainStatus) -> String {
    let text = match drain.phase {
        DrainPhase::HeldByHalt => {
            let (who, lift) = describe(&holds(bot, policies, all));
            let lift = if lift.is_empty() { lift } else { format!("; it goes on after: {lift}") };
            format!("{who} holds the bot Halted, and drainTimeout stands still{lift}")
        }
        DrainPhase::FuturesSessionClosed => {
            "the futures session is closed; the drain goes on by itself when it opens, and drainTimeout stands still until then".to_owned()
        }
        DrainPhase::ClosingPosition => match &drain.deadline {
            Some(deadline) => format!(
                "the position is closed maker-first; onDrainTimeout ({}) applies at {}",
                bot.spec.on_drain_timeout, deadline.0
            ),
            None => "the position is closed maker-first".to_owned(),
        },
        DrainPhase::TimedOut => "drainTimeout is over; the rest is closed as a kill does".to_owned(),
        DrainPhase::Finished if replicas::is_killed(bot, policies) => {
            "the bot is flat; it stays up until the kill is released (status.killSwitch.incidents)".to_owned()
        }
        DrainPhase::Finished => "the bot is flat; its pod is being ended".to_owned(),
    };
    format!("{}: {text}", drain.phase)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot_with_status, policy};
    use super::*;
    use arbbot_crds::arbbot::Mode;

    fn draining(phase: &str) -> ArbBot {
        let mut bot = bot_with_status(&format!(
            "bot: {{appliedGeneration: 3, drain: {{startedAt: '2026-01-01T00:00:00Z', phase: {phase}, deadline: '2026-01-01T00:10:00Z'}}}}"
        ));
        bot.spec.mode = Mode::Stopped;
        bot
    }

    fn text(verdict: Option<Verdict>) -> (bool, Reason, String) {
        match verdict {
            Some(Verdict::Stalled(why)) => (true, why.reason, why.message),
            Some(Verdict::Reconciling(why)) => (false, why.reason, why.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_step_of_a_drain_is_visible_and_only_a_timeout_needs_a_person() {
        for phase in ["FuturesSessionClosed", "ClosingPosition", "Finished"] {
            let (stalled, reason, message) = text(verdict(&draining(phase), &[], &[]));
            assert!(!stalled && reason == Reason::Draining && message.starts_with(phase), "{message}");
        }
        let (stalled, reason, message) = text(verdict(&draining("TimedOut"), &[], &[]));
        assert!(stalled && reason == Reason::DrainTimedOut);
        assert!(message.contains(r#"'{"spec":{"onDrainTimeout":"Flatten"}}'"#), "{message}");
        assert!(message.contains(r#"'{"spec":{"drainTimeout":"1h"}}'"#), "{message}");
    }

    #[test]
    fn a_timeout_that_flattens_is_no_stall() {
        let mut bot = draining("TimedOut");
        bot.spec.on_drain_timeout = OnDrainTimeout::Flatten;
        let (stalled, _, message) = text(verdict(&bot, &[], &[]));
        assert!(!stalled && message.contains("as a kill does"), "{message}");
    }

    #[test]
    fn a_held_drain_names_who_holds_it_and_how_to_go_on() {
        let halt = policy("mode: Halted");
        let (_, _, message) = text(verdict(&draining("HeldByHalt"), &[&halt], &[&halt]));
        assert!(
            message.contains("ArbPolicy/desk is Halted") && message.contains("kubectl patch arbpolicy/desk"),
            "{message}"
        );
        assert!(is_held(&draining("HeldByHalt"), &[&halt]));
    }

    #[test]
    fn without_the_word_of_the_bot_the_drain_has_not_begun() {
        let mut bot = draining("Finished");
        bot.metadata.generation = Some(4);
        assert!(text(verdict(&bot, &[], &[])).2.contains("has not begun"), "it spoke of generation 3");
        bot.spec.mode = Mode::Active;
        assert_eq!(verdict(&bot, &[], &[]), None);
        let engaged = policy("killSwitch: {engaged: true}");
        bot.spec.mode = Mode::Stopped;
        assert_eq!(verdict(&bot, &[&engaged], &[&engaged]), None, "a kill flattens: there is nothing to drain");
    }
}
