//! What spec, policies and open incidents together demand of a bot, for people to read (pure).

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Mode;
use arbbot_crds::control::{self, Duty, Entry, Restriction, policy_restriction, spec_restrictions};
use arbbot_crds::status::{EffectiveSource, EffectiveStatus};

use super::fetch::Fetched;

/// Most sources that the status holds.
const SOURCES: usize = 64;

/// The effective control of the bot.
#[must_use]
pub fn effective(fetched: &Fetched) -> EffectiveStatus {
    let mut restrictions = spec_restrictions(&fetched.bot);
    restrictions.extend(fetched.policies.iter().map(|policy| policy_restriction(policy)));
    restrictions.extend(latches(&fetched.bot));
    let control = control::effective(&fetched.bot.spec.risk.limits, &restrictions);
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
    use std::sync::Arc;

    use super::super::fixtures::{bot, bot_with_status};
    use super::*;
    use arbbot_crds::ArbPolicy;

    fn fetched(bot: ArbBot, policies: &[&str]) -> Fetched {
        let policies = policies.iter().map(|yaml| Arc::new(serde_yaml::from_str::<ArbPolicy>(yaml).unwrap())).collect();
        Fetched { bot, policies, children: Default::default(), lease: None, pods: Vec::new(), pod_events: Vec::new() }
    }

    #[test]
    fn the_most_restrictive_of_spec_and_policies_is_named() {
        let policy = "{apiVersion: arbbot.io/v1alpha1, kind: ArbPolicy, metadata: {name: desk}, spec: {mode: Halted, risk: {limits: {maxOpenOrders: 2}}}}";
        let effective = effective(&fetched(bot("  mode: ReduceOnly\n"), &[policy]));
        assert_eq!((effective.mode, effective.limits.max_open_orders), (Mode::Halted, 2));
        let names: Vec<_> = effective.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["ArbPolicy/desk", "spec.mode"]);
    }

    #[test]
    fn a_latch_restricts_after_the_patch_was_reverted() {
        let latched = bot_with_status(
            "killSwitch: {incidents: [{id: 0b9d6bcd-2, source: ArbBot/carry, phase: Finished, action: Flatten, engagedAt: '2026-01-01T00:00:00Z'}]}",
        );
        let effective = effective(&fetched(latched, &[]));
        assert_eq!(effective.mode, Mode::Halted);
        assert_eq!(effective.sources[0].name, "incident/0b9d6bcd-2");
    }

    #[test]
    fn an_unrestricted_bot_has_no_sources() {
        assert!(effective(&fetched(bot(""), &[])).sources.is_empty());
    }
}
