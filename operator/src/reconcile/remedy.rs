//! The exact commands that messages name, and what holds a bot Halted (pure).

use arbbot_crds::arbbot::{KillAction, Mode};
use arbbot_crds::incident::{IncidentId, uid8};
use arbbot_crds::names::MANAGER_INCIDENT;
use arbbot_crds::{ArbBot, ArbPolicy};
use kube::ResourceExt;

/// A merge patch of a bot's spec, as a person in an incident does it: GitOps tools leave its field manager alone.
#[must_use]
pub fn patch_bot(bot: &ArbBot, spec: &str) -> String {
    patch(&format!("arbbot/{}", bot.name_any()), &bot.namespace().unwrap_or_default(), spec)
}

fn patch(object: &str, namespace: &str, spec: &str) -> String {
    format!(
        "kubectl patch {object} -n {namespace} --type=merge --field-manager={MANAGER_INCIDENT} -p '{{\"spec\":{spec}}}'"
    )
}

/// One thing that holds a bot Halted without closing its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who, for people.
    pub who: String,
    /// The command that ends it.
    pub lift: String,
}

/// Everything that holds the bot Halted while a drain waits: modes, and kills that only cancel orders.
/// `policies` are those that match, `all` those of the namespace.
#[must_use]
pub fn holds(bot: &ArbBot, policies: &[&ArbPolicy], all: &[&ArbPolicy]) -> Vec<Hold> {
    let namespace = bot.namespace().unwrap_or_default();
    let mut holds = Vec::new();
    if bot.spec.mode == Mode::Halted {
        let lift = patch_bot(bot, r#"{"mode":"ReduceOnly"}"#);
        holds.push(Hold { who: "spec.mode is Halted".to_owned(), lift });
    }
    let kills = bot.status.as_ref().and_then(|status| status.kill_switch.as_ref());
    let latched: Vec<_> = kills.into_iter().flat_map(|kills| &kills.incidents).collect();
    for incident in latched.iter().filter(|incident| incident.action == KillAction::CancelOrders) {
        let release = format!(r#"{{"killSwitch":{{"engaged":false,"release":"{}"}}}}"#, incident.id);
        let id = incident.id.parse::<IncidentId>();
        let is_source =
            |policy: &&&ArbPolicy| id.as_ref().is_ok_and(|id| id.source == uid8(&policy.uid().unwrap_or_default()));
        let (lift, gone) = match all.iter().find(is_source) {
            Some(policy) => (patch(&format!("arbpolicy/{}", policy.name_any()), &namespace, &release), ""),
            // The latch outlives its policy: it is released on the bot.
            None if incident.source.starts_with("ArbPolicy/") => (patch_bot(bot, &release), ", which is gone"),
            None => (patch_bot(bot, &release), ""),
        };
        holds.push(Hold { who: format!("the latched kill {} of {}{gone}", incident.id, incident.source), lift });
    }
    let is_latched = |source: &str| latched.iter().any(|incident| incident.source == source);
    let cancels_only = |engaged: bool, action: KillAction| engaged && action == KillAction::CancelOrders;
    let disengage = r#"{"killSwitch":{"engaged":false}}"#;
    let own = &bot.spec.kill_switch;
    if cancels_only(own.engaged, own.action) && !is_latched(&format!("ArbBot/{}", bot.name_any())) {
        holds.push(Hold { who: "spec.killSwitch is engaged".to_owned(), lift: patch_bot(bot, disengage) });
    }
    for policy in policies {
        let source = format!("ArbPolicy/{}", policy.name_any());
        let object = format!("arbpolicy/{}", policy.name_any());
        if policy.spec.mode == Mode::Halted {
            let lift = patch(&object, &namespace, r#"{"mode":"ReduceOnly"}"#);
            holds.push(Hold { who: format!("spec.mode of {source} is Halted"), lift });
        }
        let kill = &policy.spec.kill_switch;
        if cancels_only(kill.engaged, kill.action) && !is_latched(&source) {
            let lift = patch(&object, &namespace, disengage);
            holds.push(Hold { who: format!("the kill switch of {source} is engaged"), lift });
        }
    }
    holds
}

/// Who holds the bot Halted, and the commands that end it, as one text; the first two by name.
#[must_use]
pub fn describe(holds: &[Hold]) -> (String, String) {
    const NAMED: usize = 2;
    let join = |text: fn(&Hold) -> &str, with: &str| holds.iter().take(NAMED).map(text).collect::<Vec<_>>().join(with);
    let mut who = join(|hold| &hold.who, ", ");
    if holds.len() > NAMED {
        who = format!("{who} and {} more (see status.effective.sources)", holds.len() - NAMED);
    }
    if holds.is_empty() {
        who = "what the bot names in its condition Halted".to_owned();
    }
    (who, join(|hold| &hold.lift, " and "))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, bot_with_status, policy};
    use super::*;

    #[test]
    fn every_source_of_a_halt_is_named_with_the_command_that_ends_it() {
        let halted = policy("mode: Halted");
        let engaged = policy("killSwitch: {engaged: true, action: CancelOrders}");
        let bot = bot("  mode: Halted\n");
        let all = holds(&bot, &[&halted, &engaged], &[&halted, &engaged]);
        let lines: Vec<_> = all.iter().map(|hold| (hold.who.as_str(), hold.lift.as_str())).collect();
        assert_eq!(
            lines,
            [
                (
                    "spec.mode is Halted",
                    r#"kubectl patch arbbot/carry -n desk --type=merge --field-manager=arb-incident -p '{"spec":{"mode":"ReduceOnly"}}'"#
                ),
                (
                    "spec.mode of ArbPolicy/desk is Halted",
                    r#"kubectl patch arbpolicy/desk -n desk --type=merge --field-manager=arb-incident -p '{"spec":{"mode":"ReduceOnly"}}'"#
                ),
                (
                    "the kill switch of ArbPolicy/desk is engaged",
                    r#"kubectl patch arbpolicy/desk -n desk --type=merge --field-manager=arb-incident -p '{"spec":{"killSwitch":{"engaged":false}}}'"#
                ),
            ]
        );
    }

    #[test]
    fn a_latch_is_released_at_its_source_and_named_once() {
        let latched = bot_with_status(
            "killSwitch: {incidents: [{id: 99999999-2, source: ArbPolicy/desk, phase: Finished, action: CancelOrders, engagedAt: '2026-01-01T00:00:00Z'}]}",
        );
        let engaged = policy("killSwitch: {engaged: true, action: CancelOrders}");
        let all = holds(&latched, &[&engaged], &[&engaged]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].lift.contains(r#"arbpolicy/desk -n desk"#) && all[0].lift.contains(r#""release":"99999999-2""#));
    }

    #[test]
    fn a_latch_whose_policy_is_gone_is_released_on_the_bot() {
        let latched = bot_with_status(
            "killSwitch: {incidents: [{id: 77777777-2, source: ArbPolicy/desk, phase: Finished, action: CancelOrders, engagedAt: '2026-01-01T00:00:00Z'}]}",
        );
        // One of the same name stands there: it is not the source.
        let namesake = policy("{}");
        for all in [vec![], vec![&namesake]] {
            let all = holds(&latched, &[], &all);
            assert!(all[0].who.ends_with("of ArbPolicy/desk, which is gone"), "{all:?}");
            assert!(all[0].lift.contains("kubectl patch arbbot/carry"), "{all:?}");
        }
    }

    #[test]
    fn a_kill_that_flattens_holds_nothing() {
        let engaged = policy("killSwitch: {engaged: true}");
        assert_eq!(holds(&bot("  killSwitch: {engaged: true}\n"), &[&engaged], &[&engaged]), []);
    }

    #[test]
    fn two_of_many_are_named_and_the_rest_counted() {
        let hold = |who: &str| Hold { who: who.to_owned(), lift: format!("lift {who}") };
        let (who, lift) = describe(&[hold("a"), hold("b"), hold("c")]);
        assert_eq!(who, "a, b and 1 more (see status.effective.sources)");
        assert_eq!(lift, "lift a and lift b");
    }
}
