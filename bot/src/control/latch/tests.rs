//! Latches through engagements, restarts and releases.

use super::*;

fn engaged(id: &str) -> Engagement {
    Engagement {
        id: id.parse().unwrap(),
        source: "ArbBot/carry".into(),
        action: KillAction::Flatten,
        reason: "drill".into(),
        release: None,
    }
}

fn ids(latches: &Latches) -> Vec<String> {
    latches.status().into_iter().map(|incident| incident.id).collect()
}

/// Invariant 2. Proven by mutation: `observe` dropping what is no longer engaged.
#[test]
fn a_latch_outlives_its_source() {
    let mut latches = Latches::default();
    latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
    latches.observe(&[], Timestamp::UNIX_EPOCH);
    assert_eq!(ids(&latches), ["aaaaaaaa-3"]);
    assert_eq!(latches.restrictions().len(), 1);
}

#[test]
fn a_kill_that_stays_engaged_is_one_incident_and_one_engaged_again_is_another() {
    let mut latches = Latches::default();
    latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
    latches.observe(&[engaged("aaaaaaaa-4")], Timestamp::UNIX_EPOCH);
    assert_eq!(ids(&latches), ["aaaaaaaa-3"], "another field of the spec changed");
    latches.observe(&[], Timestamp::UNIX_EPOCH);
    latches.observe(&[engaged("aaaaaaaa-6")], Timestamp::UNIX_EPOCH);
    assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-6"]);
}

#[test]
fn a_release_that_the_bot_slept_through_does_not_cover_the_next_kill() {
    let mut latches = Latches::default();
    latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
    // Released in generation 4, engaged again in 5; only 5 was seen.
    let again = Engagement { release: "aaaaaaaa-3".parse().ok(), ..engaged("aaaaaaaa-5") };
    latches.observe(&[again], Timestamp::UNIX_EPOCH);
    assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-5"]);
}

#[test]
fn status_restores_a_latch_that_the_ledger_lost_but_not_one_that_was_released() {
    let mut first = Latches::default();
    first.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
    let status = first.status();
    let mut lost = Latches::default();
    assert_eq!(lost.remember(&status).len(), 1);
    assert_eq!(ids(&lost), ["aaaaaaaa-3"]);
    let mut released = Latches::recovered(Vec::new(), BTreeMap::new(), vec!["aaaaaaaa-3".parse().unwrap()]);
    assert!(released.remember(&status).is_empty());
}

fn trip(id: &str) -> GuardTrip {
    GuardTrip {
        guard: "loss".into(),
        metric: arbbot_crds::guards::GuardMetric::DailyLossPercent,
        action: arbbot_crds::guards::GuardAction::Kill,
        value: rust_decimal::Decimal::TWO,
        threshold: rust_decimal::Decimal::ONE,
        tripped_at: Timestamp::UNIX_EPOCH,
        incident: id.parse().ok(),
    }
}

#[test]
fn a_guards_kill_is_an_incident_of_its_own_and_the_switch_opens_another() {
    let mut latches = Latches::default();
    let now = Timestamp::UNIX_EPOCH;
    let record = latches.engage_by_guard(&trip("aaaaaaaa-3"), now).unwrap();
    assert_eq!((record.source.as_str(), record.action), ("guard/loss", KillAction::Flatten));
    assert_eq!(latches.engage_by_guard(&trip("aaaaaaaa-3"), now), None, "it is open");
    latches.observe(&[], now);
    latches.observe(&[engaged("aaaaaaaa-4")], now);
    assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-4"]);
    latches.release(&"aaaaaaaa-3".parse().unwrap());
    assert_eq!(latches.engage_by_guard(&trip("aaaaaaaa-3"), now), None, "it was released");
    // In the generation of a kill that is open it is the same incident, and flattens.
    let mut both = Latches::default();
    both.observe(&[Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") }], now);
    let record = both.engage_by_guard(&trip("aaaaaaaa-3"), now).unwrap();
    assert_eq!((record.source.as_str(), record.action), ("ArbBot/carry", KillAction::Flatten));
}

#[test]
fn the_action_of_a_running_kill_may_rise_but_never_fall() {
    let mut latches = Latches::default();
    let cancel = Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") };
    latches.observe(std::slice::from_ref(&cancel), Timestamp::UNIX_EPOCH);
    latches.observe(&[engaged("aaaaaaaa-4")], Timestamp::UNIX_EPOCH);
    assert_eq!(latches.status()[0].action, KillAction::Flatten);
    latches.observe(&[cancel], Timestamp::UNIX_EPOCH);
    assert_eq!(latches.status()[0].action, KillAction::Flatten);
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What the exchange has shown twice: that nothing works, and whether the bot is flat.
fn proven(flat: bool) -> Proof {
    let mut proof = Proof::default();
    for second in [1, 3] {
        proof.snapshot(std::time::Duration::from_secs(second), at(0), true, flat);
    }
    proof
}

/// Mutations that must fail it: every open record counted, whatever its action and phase; `note_flattening` not called where a guard
/// raises the action, where the saga goes on.
#[test]
fn the_deadline_counts_from_when_the_position_is_closed_not_from_the_engagement() {
    let cancel = Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") };
    let mut latches = Latches::default();
    latches.observe(std::slice::from_ref(&cancel), at(0));
    assert_eq!(latches.kill_began(), None, "it only cancels");
    latches.observe(&[engaged("aaaaaaaa-4")], at(7200));
    assert_eq!(latches.kill_began(), Some(at(7200)));
    assert_eq!(latches.status()[0].engaged_at.0, at(0), "for people it began when the gate closed");
    latches.observe(&[engaged("aaaaaaaa-4")], at(7300));
    latches.progress(&proven(false), at(7300));
    assert_eq!(latches.kill_began(), Some(at(7200)), "it goes on");
    latches.progress(&proven(true), at(7400));
    assert_eq!(latches.kill_began(), None, "it has finished");
    latches.progress(&proven(false), at(99_000));
    assert_eq!(latches.kill_began(), Some(at(99_000)), "a late fill opens it again");

    let mut raised = Latches::default();
    raised.observe(&[cancel], at(0));
    raised.engage_by_guard(&trip("aaaaaaaa-3"), at(60));
    assert_eq!(raised.kill_began(), Some(at(60)));
    // The kill of a policy beside it: the oldest that closes counts.
    raised.observe(
        &[Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") }, engaged("bbbbbbbb-1")],
        at(90),
    );
    assert_eq!(raised.kill_began(), Some(at(60)));
    raised.release(&"aaaaaaaa-3".parse().unwrap());
    assert_eq!(raised.kill_began(), Some(at(90)));
}
