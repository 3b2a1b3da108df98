//! What spec, policies and open incidents together demand of a bot, for people to read (pure).

use arbbot_crds::arbbot::Mode;
use arbbot_crds::control::{self, Control, Duty, Entry, Restriction, policy_restriction, spec_restrictions};
use arbbot_crds::status::{EffectiveSource, EffectiveStatus};
use arbbot_crds::{ArbBot, ArbPolicy};

/// Most sources that the status holds.
const SOURCES: usize = 64;

/// Everything that restricts the bot: its spec, a deletion, the policies that match, and open latches.
pub fn restrictions<'a>(bot: &ArbBot, policies: impl IntoIterator<Item = &'a ArbPolicy>) -> Vec<Restriction> {
    let mut restrictions = spec_restrictions(bot);
    restrictions.extend(policies.into_iter().map(policy_restriction));
    restrictions.extend(latches(bot));
    restrictions
}

/// What the restrictions together amount to.
#[must_use]
pub fn control(bot: &ArbBot, restrictions: &[Restriction]) -> Control {
    control::effective(&bot.spec.risk.limits, restrictions)
}

/// The effective control of the bot as status shows it.
#[must_use]
pub fn status<'a>(bot: &ArbBot, policies: impl IntoIterator<Item = &'a ArbPolicy>) -> EffectiveStatus {
    let restrictions = restrictions(bot, policies);
    let control = control(bot, &restrictions);
    let mode = match (control.entry, control.duty) {
        (Entry::Halted, _) => Mode::Halted,
        (_, Duty::Drain | Duty::Flatten) => Mode::Stopped,
        (Entry::Active, Duty::Hold) => Mode::Active,
        (Entry::ReduceOnly, Duty::Hold) => Mode::ReduceOnly,
    };
    let mut sources: Vec<_> = restrictions
        .into_iter()
        .filter(Restriction::restricts)
        .map(|restriction| EffectiveSource { name: restriction.source, message: restriction.why })
        .take(SOURCES)
        .collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    EffectiveStatus { mode, limits: control.limits, sources }
}

/// A latch restricts after its kill switch was set back, until it is released. Status only ever adds restrictions.
fn latches(bot: &ArbBot) -> impl Iterator<Item = Restriction> {
    let kills = bot.status.as_ref().and_then(|status| status.kill_switch.as_ref());
    kills.into_iter().flat_map(|kills| &kills.incidents).map(|incident| {
        let why = format!("latched kill of {}: {}", incident.source, incident.reason);
        Restriction::kill(format!("incident/{}", incident.id), incident.action, why)
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, bot_with_status, policy};
    use super::*;

    #[test]
    fn the_most_restrictive_of_spec_and_policies_is_named() {
        let policy = policy("{mode: Halted, risk: {limits: {maxOpenOrders: 2}}}");
        let effective = status(&bot("  mode: ReduceOnly\n"), [&policy]);
        assert_eq!((effective.mode, effective.limits.max_open_orders), (Mode::Halted, 2));
        let names: Vec<_> = effective.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["ArbPolicy/desk", "spec.mode"]);
    }

    #[test]
    fn a_latch_restricts_after_the_patch_was_reverted() {
        let latched = bot_with_status(
            "killSwitch: {incidents: [{id: 0b9d6bcd-2, source: ArbBot/carry, phase: Finished, action: Flatten, engagedAt: '2026-01-01T00:00:00Z'}]}",
        );
        let effective = status(&latched, []);
        assert_eq!(effective.mode, Mode::Halted);
        assert_eq!(effective.sources[0].name, "incident/0b9d6bcd-2");
    }

    #[test]
    fn an_unrestricted_bot_has_no_sources() {
        assert!(status(&bot(""), []).sources.is_empty());
    }
}
