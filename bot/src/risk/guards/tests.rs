use arbbot_crds::control::{Control, Entry, effective};
use arbbot_crds::guards::{GuardRelease, RELEASED_AFTER};
use arbbot_crds::limits::RiskLimits;
use proptest::prelude::*;
use rust_decimal::dec;

use super::*;

const METRICS: [GuardMetric; 2] = [GuardMetric::Leverage, GuardMetric::MakerRatioPercent];

fn guard(metric: GuardMetric, action: GuardAction, release: GuardRelease, confirmations: u32) -> Guard {
    Guard {
        name: "x".to_owned(),
        metric,
        warn_at: None,
        trip_at: Some(arbbot_crds::decimal::DecimalString(dec!(20))),
        action,
        confirmations,
        release: Some(release),
    }
}

fn auto(confirmations: u32) -> Guard {
    guard(GuardMetric::Leverage, GuardAction::ReduceOnly, GuardRelease::Auto, confirmations)
}

fn by_hand() -> Guard {
    guard(GuardMetric::Leverage, GuardAction::Halt, GuardRelease::Manual, 1)
}

fn guards(guard: Guard) -> Guards {
    Guards::recovered(&[guard], Vec::new(), Vec::new())
}

fn source(generation: i64) -> Source {
    Source { uid: "0a1b2c3d-0000".to_owned(), generation }
}

fn evaluate(guards: &mut Guards, reading: Reading) -> Vec<Change> {
    let readings = Readings::from(METRICS.map(|metric| (metric, reading)));
    guards.evaluate(&readings, &source(4), Timestamp::UNIX_EPOCH)
}

fn release(guards: &mut Guards) -> Option<GuardMetric> {
    let tripped_at = guards.trips().next()?.tripped_at;
    guards.release("x", tripped_at)
}

fn control(guards: &Guards) -> Control {
    effective(&RiskLimits::default(), &guards.restrictions())
}

fn value(value: i64) -> Reading {
    Reading::Value(value.into())
}

/// Readings around the threshold of 20; Nothing is the best of all.
fn readings() -> impl Strategy<Value = Reading> {
    prop_oneof![1 => Just(Reading::Nothing), 8 => (15i64..26).prop_map(value)]
}

fn worse_of(metric: GuardMetric, one: Reading, other: Reading) -> Reading {
    match (one, other) {
        (Reading::Value(one), Reading::Value(other)) => Reading::Value(match metric.worse() {
            arbbot_crds::guards::Worse::Higher => one.max(other),
            arbbot_crds::guards::Worse::Lower { .. } => one.min(other),
        }),
        (Reading::Nothing, other) => other,
        (one, _) => one,
    }
}

fn actions() -> impl Strategy<Value = GuardAction> {
    prop::sample::select(vec![GuardAction::Warn, GuardAction::ReduceOnly, GuardAction::Halt, GuardAction::Kill])
}

proptest! {
    /// Invariant 11. Fails when a reading of Nothing counts as beyond the threshold (mutation: `Reading::Nothing =>
    /// (true, false)` in Level::evaluate).
    #[test]
    fn worse_readings_never_give_a_more_permissive_mode(
        metric in prop::sample::select(METRICS.to_vec()), action in actions(), manual in any::<bool>(),
        confirmations in 1u32..5, series in prop::collection::vec((readings(), readings()), 1..200),
    ) {
        let release = if manual { GuardRelease::Manual } else { GuardRelease::Auto };
        let guard = guard(metric, action, release, confirmations);
        let (mut better, mut worse) = (guards(guard.clone()), guards(guard));
        for (one, other) in series {
            evaluate(&mut better, one);
            evaluate(&mut worse, worse_of(metric, one, other));
            let (better, worse) = (control(&better), control(&worse));
            prop_assert!(worse.entry >= better.entry && worse.duty >= better.duty, "{worse:?} {better:?}");
        }
    }

    /// Fails when a trip ends as soon as the value is not beyond its threshold (mutation: `is_better = !is_beyond`), and when
    /// it ends one evaluation early (mutation: `RELEASED_AFTER - 1`).
    #[test]
    fn an_auto_trip_ends_only_after_the_hysteresis(
        series in prop::collection::vec((readings(), prop_oneof![1usize..4, 28usize..33]), 1..30),
    ) {
        let mut guards = guards(auto(1));
        evaluate(&mut guards, value(21));
        let mut good = 0;
        // In runs: thirty good ones in a row are no accident.
        for reading in series.into_iter().flat_map(|(reading, times)| vec![reading; times]) {
            let was_tripped = guards.trips().count() == 1;
            let ended = evaluate(&mut guards, reading).iter().any(|change| matches!(change, Change::Ended { .. }));
            // A tenth better than 20.
            let is_good = reading == Reading::Nothing || reading.value().is_some_and(|value| value <= dec!(18));
            good = if is_good { good + 1 } else { 0 };
            prop_assert_eq!(ended, was_tripped && good >= RELEASED_AFTER);
        }
    }

    /// Fails when an evaluation without data breaks a row (mutation: `Reading::Unknown => (false, false)`).
    #[test]
    fn an_evaluation_without_data_changes_nothing(
        series in prop::collection::vec((readings(), 0usize..3), 1..100), confirmations in 1u32..5,
    ) {
        let (mut without, mut with) = (guards(auto(confirmations)), guards(auto(confirmations)));
        for (reading, unknown) in series {
            for _ in 0..unknown {
                prop_assert!(evaluate(&mut with, Reading::Unknown).is_empty());
            }
            prop_assert_eq!(evaluate(&mut with, reading), evaluate(&mut without, reading));
        }
    }

    /// Fails when one evaluation less is enough (mutation: `self.beyond + 1 >= guard.confirmations`).
    #[test]
    fn a_guard_trips_with_the_last_confirmation_and_not_before(
        series in prop::collection::vec(readings(), 1..100), confirmations in 1u32..5,
    ) {
        let (mut guards, mut row, mut tripped) = (guards(guard(
            GuardMetric::Leverage, GuardAction::ReduceOnly, GuardRelease::Manual, confirmations,
        )), 0, false);
        for reading in series {
            row = if reading.value().is_some_and(|value| value >= dec!(20)) { row + 1 } else { 0 };
            tripped |= row >= confirmations;
            evaluate(&mut guards, reading);
            prop_assert_eq!(guards.trips().count() == 1, tripped);
        }
    }

    /// Fails when good readings end a trip that only a person ends (mutation: the arm `trip.incident.is_some()` of
    /// Watched::evaluate is left out), or its guard's removal does (mutation: `watched.is_latched()` in configure).
    #[test]
    fn nothing_but_a_release_ends_a_trip_by_hand(
        series in prop::collection::vec((readings(), 0u8..8), 1..150),
    ) {
        let mut guards = guards(by_hand());
        evaluate(&mut guards, value(20));
        for (reading, what) in series {
            match what {
                0 => drop(guards.configure(&[], Vec::new())),
                1 => drop(guards.configure(&[by_hand()], Vec::new())),
                2 => drop(guards.configure(&[Guard { trip_at: None, action: GuardAction::Warn, ..by_hand() }], Vec::new())),
                // A new process, with what the ledger keeps.
                3 => guards = Guards::recovered(&[by_hand()], Vec::new(), guards.trips().cloned().collect()),
                _ => {}
            }
            evaluate(&mut guards, reading);
            prop_assert_eq!(control(&guards).entry, Entry::Halted);
        }
        release(&mut guards);
        prop_assert_eq!(control(&guards).entry, Entry::Active);
    }
}

#[test]
fn a_trip_by_hand_has_the_id_of_the_bot_and_its_generation_and_says_how_it_ends() {
    let mut guards = guards(by_hand());
    let changes = evaluate(&mut guards, value(21));
    let [Change::Tripped(trip)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(trip.incident.as_ref().unwrap().to_string(), "0a1b2c3d-4");
    assert_eq!((trip.value, trip.threshold), (dec!(21), dec!(20)));
    let shown = &guards.view().shown[0];
    assert!(shown.restricts());
    assert_eq!(
        shown.message,
        "guard x: Leverage was 21, tripAt is 20: Halt; find the cause, then set spec.killSwitch.release to 0a1b2c3d-4"
    );
    assert_eq!(guards.restrictions()[0].source, "guard/x");
    // After its release it counts anew.
    assert_eq!(release(&mut guards), Some(GuardMetric::Leverage));
    assert_eq!(evaluate(&mut guards, value(20)).len(), 1);
}

#[test]
fn a_warning_says_when_it_trips_and_ends_by_itself() {
    let mut guards = guards(Guard { warn_at: Some(10.into()), ..auto(2) });
    evaluate(&mut guards, value(12));
    assert!(guards.view().shown.is_empty());
    evaluate(&mut guards, value(12));
    let shown = &guards.view().shown[0];
    assert_eq!((shown.status.state, shown.restricts()), (GuardState::Warns, false));
    assert_eq!(shown.message, "guard x: Leverage was 12, warnAt is 10, and at 20 it trips: ReduceOnly");
    for _ in 0..RELEASED_AFTER {
        evaluate(&mut guards, value(9));
    }
    assert!(guards.view().shown.is_empty());
}

/// Fails when a guard that is raised raises no trip (mutation: `raise` returns None at once): what was raised falls again.
#[test]
fn the_action_of_a_trip_by_hand_may_rise_but_never_fall() {
    let mut guards = guards(by_hand());
    evaluate(&mut guards, value(20));
    let mut now = 0;
    let mut put = |guards: &mut Guards, action| {
        guards.configure(&[Guard { action, ..by_hand() }], Vec::new());
        now += 1;
        let readings = Readings::from(METRICS.map(|metric| (metric, value(1))));
        guards.evaluate(&readings, &source(4 + now), Timestamp::from_second(now).unwrap());
        control(guards).mode().to_string()
    };
    assert_eq!(put(&mut guards, GuardAction::Warn), "Halted");
    assert_eq!(put(&mut guards, GuardAction::Restart), "Halted");
    assert_eq!(put(&mut guards, GuardAction::Kill), "Flatten");
    for weaker in [GuardAction::Halt, GuardAction::Warn, GuardAction::ReduceOnly] {
        assert_eq!(put(&mut guards, weaker), "Flatten", "{weaker}");
    }
    guards.configure(&[], Vec::new());
    assert_eq!(control(&guards).mode().to_string(), "Flatten");
}

/// Fails when only a guard that trips anew opens an incident (mutation: `raise` returns None at once): a trip that ends by
/// itself would then flatten without one, and stop half-way.
#[test]
fn a_trip_that_becomes_a_kill_is_an_incident_of_its_own_and_no_good_value_ends_it() {
    for first in [auto(1), by_hand()] {
        let mut guards = guards(first.clone());
        evaluate(&mut guards, value(21));
        guards.configure(&[Guard { action: GuardAction::Kill, ..first }], Vec::new());
        let readings = |reading| Readings::from(METRICS.map(|metric| (metric, reading)));
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let changes = guards.evaluate(&readings(Reading::Nothing), &source(7), at(1));
        let [Change::Raised { trip, instead_of }] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((trip.action, *instead_of, trip.tripped_at), (GuardAction::Kill, at(0), at(1)));
        assert_eq!(trip.incident.as_ref().unwrap().to_string(), "0a1b2c3d-7");
        assert_eq!((trip.value, trip.threshold), (dec!(21), dec!(20)), "what tripped it");
        for second in 2..100 {
            assert_eq!(guards.evaluate(&readings(Reading::Nothing), &source(8), at(second)), []);
        }
        // The release of the milder trip was under way when it rose.
        assert_eq!(guards.release("x", at(0)), None);
        assert_eq!(control(&guards).mode().to_string(), "Flatten");
        assert_eq!(guards.release("x", at(1)), Some(GuardMetric::Leverage));
        assert_eq!(control(&guards).mode().to_string(), "Active");
    }
}

/// Fails when the first of two records of a guard wins (mutation: `watched.tripped.is_none()` in remember).
#[test]
fn a_process_that_ends_while_a_trip_rises_leaves_the_stronger() {
    let mut first = guards(by_hand());
    evaluate(&mut first, value(20));
    let mild = first.trips().next().unwrap().clone();
    let kill = GuardTrip { action: GuardAction::Kill, tripped_at: Timestamp::from_second(1).unwrap(), ..mild.clone() };
    for trips in [vec![mild.clone(), kill.clone()], vec![kill, mild]] {
        let recovered = Guards::recovered(&[by_hand()], Vec::new(), trips);
        assert_eq!(control(&recovered).mode().to_string(), "Flatten");
    }
}

#[test]
fn an_auto_trip_ends_with_its_guard_and_is_said_to() {
    let mut guards = guards(auto(1));
    evaluate(&mut guards, value(20));
    assert!(matches!(&guards.configure(&[], Vec::new())[..], [Change::Ended { .. }]));
    assert!(guards.restrictions().is_empty());
}

/// Fails when the release of a guard counts for its neighbour (mutation: `of_guard` returns the reading of any guard of the
/// metric).
#[test]
fn a_guard_looks_at_its_own_reading_where_it_has_one_and_its_neighbour_at_that_of_the_metric() {
    let neighbour = Guard { name: "y".to_owned(), ..by_hand() };
    let mut guards = Guards::recovered(&[by_hand(), neighbour], Vec::new(), Vec::new());
    let mut readings = Readings::from(METRICS.map(|metric| (metric, value(30))));
    readings.of_guards.insert(("x".to_owned(), GuardMetric::Leverage), value(1));
    guards.evaluate(&readings, &source(1), Timestamp::UNIX_EPOCH);
    assert_eq!(guards.trips().map(|trip| trip.guard.as_str()).collect::<Vec<_>>(), ["y"]);
}
