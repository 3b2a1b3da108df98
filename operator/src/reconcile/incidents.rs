//! The history of a bot's incidents: the last ten, newest first, also after their release (pure).

use arbbot_crds::arbbot::KillAction;
use arbbot_crds::control::GUARD_SOURCE;
use arbbot_crds::guards::GuardStatus;
use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::{ArbBotStatus, IncidentHistory, IncidentKind, IncidentStatus};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Most incidents that the status holds.
const KEPT: usize = 10;

/// The history, made of the one before and of what the bot shows now. `policies` are all of the bot's namespace.
/// The same input gives the same history, so nothing is written when nothing happened.
#[must_use]
pub fn history(bot: &ArbBot, policies: &[&ArbPolicy], now: &Time) -> Vec<IncidentHistory> {
    let Some(status) = &bot.status else { return Vec::new() };
    let open = status.kill_switch.as_ref().map(|kills| kills.incidents.as_slice());
    // A bot that speaks always lists its latches, if only none. A status that was emptied says nothing about them.
    let speaks = status.bot.is_some() && open.is_some();
    let open = open.unwrap_or_default();
    let of_guards = of_guards(status);
    let is_open =
        |id: &str| open.iter().any(|incident| incident.id == id) || of_guards.iter().any(|incident| incident.id == id);

    let past = status.incidents.iter().filter(|incident| !is_open(&incident.id)).cloned().map(|mut incident| {
        if incident.resolved_at.is_none() && speaks && is_released(&incident.id, bot, policies) {
            incident.resolved_at = Some(now.clone());
            // A release takes effect only when the kill has finished: it was contained by now at the latest.
            incident.contained_at.get_or_insert_with(|| now.clone());
        }
        incident
    });
    let mut all: Vec<_> = past.chain(open.iter().map(of_open)).collect();
    all.extend(of_guards);
    all.sort_by(|a, b| b.started_at.0.cmp(&a.started_at.0).then_with(|| a.id.cmp(&b.id)));
    all.truncate(KEPT);
    all
}

/// The trips of guards that only a person ends, those of one generation as one incident. A guard that kills has an incident
/// of its kill.
#[must_use]
pub fn of_guards(status: &ArbBotStatus) -> Vec<IncidentHistory> {
    let kills = status.kill_switch.iter().flat_map(|kills| &kills.incidents);
    let kills: Vec<_> = kills.map(|incident| &incident.id).collect();
    let mut incidents: Vec<IncidentHistory> = Vec::new();
    for guard in status.bot.iter().flat_map(|bot| &bot.guards) {
        let Some(id) = guard.incident.as_ref().filter(|id| !kills.contains(id)) else { continue };
        let GuardStatus { name, metric, action, value, threshold, since, .. } = guard;
        let source = format!("{GUARD_SOURCE}{name}");
        let reason = format!("{metric} was {value}, tripAt is {threshold}: {action}");
        match incidents.iter_mut().find(|incident| incident.id == *id) {
            Some(incident) => {
                incident.source = format!("{}, {source}", incident.source);
                incident.reason = format!("{}; {reason}", incident.reason);
                if since.0 < incident.started_at.0 {
                    incident.started_at = since.clone();
                }
            }
            None => incidents.push(IncidentHistory {
                id: id.clone(),
                kind: IncidentKind::Guard,
                source,
                reason,
                started_at: since.clone(),
                // What it demands was in force at the gate when it tripped.
                contained_at: Some(since.clone()),
                resolved_at: None,
            }),
        }
    }
    incidents
}

fn of_open(incident: &IncidentStatus) -> IncidentHistory {
    // The later of both confirmations; an action that has risen to Flatten is contained only when flat.
    let contained_at = match incident.action {
        KillAction::CancelOrders => incident.orders_cancelled_at.clone(),
        KillAction::Flatten => match (&incident.orders_cancelled_at, &incident.flat_at) {
            (Some(cancelled), Some(flat)) => Some(if cancelled.0 > flat.0 { cancelled } else { flat }.clone()),
            _ => None,
        },
    };
    IncidentHistory {
        id: incident.id.clone(),
        kind: match incident.source.starts_with(GUARD_SOURCE) {
            true => IncidentKind::Guard,
            false => IncidentKind::KillSwitch,
        },
        source: incident.source.clone(),
        reason: incident.reason.clone(),
        started_at: incident.engaged_at.clone(),
        contained_at,
        resolved_at: None,
    }
}

/// Whether a human's `release` names the incident. That the bot has dropped the latch is the other half of the proof;
/// whether the source is engaged anew by now does not matter for this one.
fn is_released(id: &str, bot: &ArbBot, policies: &[&ArbPolicy]) -> bool {
    let Ok(id) = id.parse::<IncidentId>() else { return false };
    let releases = policies.iter().map(|policy| policy.spec.kill_switch.release.as_str());
    let mut releases = releases.chain([bot.spec.kill_switch.release.as_str()]);
    releases.any(|release| release.parse::<IncidentId>().is_ok_and(|release| release.releases(&id)))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot_with_status, policy};
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn open(id: &str, action: &str, more: &str) -> String {
        format!(
            "{{id: {id}, source: ArbBot/carry, phase: Flattening, action: {action}, reason: r, engagedAt: '1970-01-01T00:00:07Z'{more}}}"
        )
    }

    fn showing(incidents: &[String], before: Vec<IncidentHistory>) -> ArbBot {
        let mut bot =
            bot_with_status(&format!("{{bot: {{podUid: p}}, killSwitch: {{incidents: [{}]}}}}", incidents.join(", ")));
        bot.status.as_mut().unwrap().incidents = before;
        bot
    }

    #[test]
    fn an_incident_is_contained_when_the_exchange_confirmed_what_its_action_demands() {
        let cancelled = ", ordersCancelledAt: '1970-01-01T00:00:08Z'";
        let contained = |action: &str, more: &str| {
            let history = history(&showing(&[open("0b9d6bcd-2", action, more)], Vec::new()), &[], &at(99));
            assert_eq!((history.len(), &history[0].started_at, &history[0].resolved_at), (1, &at(7), &None));
            history[0].contained_at.clone()
        };
        assert_eq!(contained("CancelOrders", ""), None);
        assert_eq!(contained("CancelOrders", cancelled), Some(at(8)));
        assert_eq!(contained("Flatten", cancelled), None);
        assert_eq!(contained("Flatten", &format!("{cancelled}, flatAt: '1970-01-01T00:00:09Z'")), Some(at(9)));
    }

    #[test]
    fn an_incident_is_resolved_by_a_release_and_never_by_silence() {
        let before = history(&showing(&[open("0b9d6bcd-2", "Flatten", "")], Vec::new()), &[], &at(10));
        let resolved = |bot: &ArbBot, policies: &[&ArbPolicy]| history(bot, policies, &at(20))[0].resolved_at.clone();

        let mut silent = bot_with_status("{}");
        silent.status.as_mut().unwrap().incidents = before.clone();
        silent.spec.kill_switch.release = "0b9d6bcd-2".to_owned();
        assert_eq!(resolved(&silent, &[]), None, "the bot's status is gone");

        let mut gone = showing(&[], before.clone());
        assert_eq!(resolved(&gone, &[]), None, "nobody released it");
        gone.spec.kill_switch.release = "0b9d6bcd-3".to_owned();
        assert_eq!(resolved(&gone, &[]), Some(at(20)));
        assert_eq!(history(&gone, &[], &at(20))[0].contained_at, Some(at(20)), "at the latest");
        let by_policy = policy("killSwitch: {release: 0b9d6bcd-2}");
        assert_eq!(resolved(&showing(&[], before), &[&by_policy]), Some(at(20)));
    }

    #[test]
    fn trips_that_end_by_hand_are_incidents_until_their_release() {
        let guard = |name: &str, incident: &str, second: u8| {
            format!(
                "{{name: {name}, metric: Leverage, state: Tripped, action: Halt, value: '4', threshold: '3', since: '1970-01-01T00:00:0{second}Z'{incident}}}"
            )
        };
        let own = ", incident: 0b9d6bcd-3";
        let guards =
            [guard("b", own, 5), guard("a", own, 4), guard("auto", "", 4), guard("kill", ", incident: 0b9d6bcd-2", 4)];
        let kill = open("0b9d6bcd-2", "Flatten", "").replace("ArbBot/carry", "guard/kill");
        let mut bot = bot_with_status(&format!(
            "{{bot: {{podUid: p, guards: [{}]}}, killSwitch: {{incidents: [{kill}]}}}}",
            guards.join(", ")
        ));
        let seen = history(&bot, &[], &at(10));
        let shown: Vec<_> = seen.iter().map(|incident| (incident.id.as_str(), incident.source.as_str())).collect();
        assert_eq!(shown, [("0b9d6bcd-2", "guard/kill"), ("0b9d6bcd-3", "guard/b, guard/a")]);
        assert!(seen.iter().all(|incident| incident.kind == IncidentKind::Guard));
        assert_eq!((&seen[1].started_at, &seen[1].contained_at), (&at(4), &Some(at(5))));
        assert_eq!(seen[1].reason, "Leverage was 4, tripAt is 3: Halt; Leverage was 4, tripAt is 3: Halt");
        let status = bot.status.as_mut().unwrap();
        status.bot.as_mut().unwrap().guards.clear();
        status.incidents = seen;
        assert_eq!(history(&bot, &[], &at(20))[1].resolved_at, None, "nobody released it");
        bot.spec.kill_switch.release = "0b9d6bcd-3".to_owned();
        assert_eq!(history(&bot, &[], &at(20))[1].resolved_at, Some(at(20)));
    }

    #[test]
    fn the_newest_ten_are_kept() {
        let past =
            (0..12).map(|n| IncidentHistory { id: format!("0b9d6bcd-{n}"), started_at: at(n), ..of("x") }).collect();
        let kept = history(&showing(&[open("0b9d6bcd-90", "Flatten", "")], past), &[], &at(99));
        let ids: Vec<_> = kept.iter().map(|incident| incident.id.trim_start_matches("0b9d6bcd-")).collect();
        assert_eq!(ids, ["11", "10", "9", "8", "7", "90", "6", "5", "4", "3"]);
    }

    fn of(id: &str) -> IncidentHistory {
        IncidentHistory {
            id: id.to_owned(),
            kind: IncidentKind::KillSwitch,
            source: "ArbBot/carry".to_owned(),
            reason: String::new(),
            started_at: at(0),
            contained_at: None,
            resolved_at: None,
        }
    }

    proptest! {
        #[test]
        fn a_second_look_changes_nothing_and_no_open_incident_is_resolved(
            past in prop::collection::vec((1i64..20, 0i64..50), 0..10), shown in prop::collection::btree_set(1i64..20, 0..6),
            release in 0i64..25,
        ) {
            let past = past.iter().map(|(n, second)| IncidentHistory { started_at: at(*second), ..of(&format!("0b9d6bcd-{n}")) });
            let mut past: Vec<_> = past.collect();
            past.dedup_by(|a, b| a.id == b.id);
            let shown: Vec<_> = shown.iter().map(|n| open(&format!("0b9d6bcd-{n}"), "Flatten", "")).collect();
            let mut bot = showing(&shown, past);
            bot.spec.kill_switch.release = format!("0b9d6bcd-{release}");
            let once = history(&bot, &[], &at(100));
            bot.status.as_mut().unwrap().incidents = once.clone();
            prop_assert_eq!(&history(&bot, &[], &at(200)), &once);
            prop_assert!(once.len() <= KEPT);
            for open in &bot.status.as_ref().unwrap().kill_switch.as_ref().unwrap().incidents {
                prop_assert!(once.iter().all(|incident| incident.id != open.id || incident.resolved_at.is_none()));
            }
        }
    }
}
