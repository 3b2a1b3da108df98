use serde_json::json;
use strum::IntoEnumIterator as _;

use super::*;

fn guards(raw: Value) -> Guards {
    serde_json::from_value(raw).unwrap()
}

fn of<'a>(in_force: &'a InForce, name: &str) -> &'a Guard {
    in_force.guards.iter().find(|guard| guard.name == name).unwrap()
}

#[test]
fn the_defaults_are_in_force_and_a_guard_of_the_same_name_replaces_one() {
    let none = Guards::default().in_force();
    assert_eq!(none.guards.len(), defaults().len());
    assert_eq!(of(&none, "daily-loss").release(), GuardRelease::Manual);
    let own = guards(json!([
        {"name": "daily-loss", "metric": "DailyLossPercent", "tripAt": "0.5", "action": "Halt", "release": "Auto"},
        {"name": "hourly-loss", "metric": "HourlyLossQuote", "tripAt": "100"},
    ]));
    let both = own.in_force();
    assert_eq!(both.guards.len(), defaults().len() + 1);
    assert_eq!((of(&both, "daily-loss").action, of(&both, "daily-loss").warn_at), (GuardAction::Halt, None));
    assert_eq!(of(&both, "daily-loss").release(), GuardRelease::Auto);
    assert_eq!(of(&both, "hourly-loss").action, GuardAction::ReduceOnly);
    assert!(both.problems.is_empty());
}

#[test]
fn a_guard_that_cannot_be_read_is_ignored_alone_and_its_default_stays() {
    for broken in [
        json!({"name": "daily-loss", "metric": "MoonPhase", "tripAt": "1"}),
        json!({"name": "daily-loss", "metric": "DailyLossPercent", "tripAt": "much"}),
        json!({"name": "daily-loss", "metric": "DailyLossPercent", "tripAt": "1", "action": "Dance"}),
        json!({"name": "daily-loss", "metric": "DailyLossPercent", "tripAt": "1", "release": 5}),
    ] {
        let good = json!({"name": "mine", "metric": "Leverage", "tripAt": "2"});
        let in_force = guards(json!([broken, good])).in_force();
        assert_eq!(of(&in_force, "daily-loss").trip_at, Some(2.into()), "{broken}");
        assert_eq!(of(&in_force, "mine").trip_at, Some(2.into()));
        assert_eq!(in_force.problems.len(), 1);
        assert!(in_force.problems[0].to_string().starts_with("spec.risk.guards[daily-loss] cannot be read"));
    }
    for nonsense in [json!({"a": 1}), json!("guards"), json!(7)] {
        let in_force = guards(nonsense).in_force();
        assert_eq!((in_force.guards.len(), in_force.problems.len()), (defaults().len(), 1));
    }
    assert!(guards(Value::Null).in_force().problems.is_empty());
}

#[test]
fn a_warning_behind_the_trip_is_said_and_the_trip_stays() {
    let wrong = [
        json!({"name": "x", "metric": "Leverage", "warnAt": "3", "tripAt": "2"}),
        json!({"name": "x", "metric": "MakerRatioPercent", "warnAt": "50", "tripAt": "60"}),
    ];
    for wrong in wrong {
        let in_force = guards(json!([wrong])).in_force();
        assert_eq!((of(&in_force, "x").warn_at, in_force.problems.len()), (None, 1));
        assert!(of(&in_force, "x").trip_at.is_some());
    }
}

#[test]
fn every_default_has_a_name_of_its_own_that_the_schema_takes_and_thresholds_in_order() {
    let mut names: Vec<_> = defaults().into_iter().map(|guard| guard.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), defaults().len());
    let shipped = Guards { list: defaults(), unreadable: Vec::new() };
    assert_eq!(shipped.in_force().problems, []);
    let read: Guards = serde_json::from_value(json!(shipped)).unwrap();
    assert_eq!(read, shipped);
}

#[test]
fn shape_of_strategy_metrics_ship_as_warn() {
    use GuardMetric::{EvaluationsPerMinute, ExecutionsPerDay, FillRatePercent, MakerRatioPercent, WinRatePercent};
    let shape = [WinRatePercent, MakerRatioPercent, EvaluationsPerMinute, ExecutionsPerDay, FillRatePercent];
    for guard in defaults().into_iter().filter(|guard| shape.contains(&guard.metric)) {
        assert_eq!(guard.action, GuardAction::Warn, "{}", guard.name);
    }
}

/// Proven by mutation: a tenth of the threshold without a bound.
#[test]
fn a_shipped_guard_that_warns_can_stop_warning() {
    let shares = GuardMetric::iter().filter(|metric| metric.worse() == Worse::Lower { best: Some(dec!(100)) });
    assert_eq!(
        shares.collect::<Vec<_>>(),
        [
            GuardMetric::WinRatePercent,
            GuardMetric::OrderSuccessRatePercent,
            GuardMetric::FillRatePercent,
            GuardMetric::MakerRatioPercent
        ]
    );
    for guard in defaults() {
        let Worse::Lower { best: Some(best) } = guard.metric.worse() else { continue };
        for threshold in [guard.warn_at, guard.trip_at].into_iter().flatten() {
            assert!(guard.ends_at(threshold.0) <= best, "{} at {threshold}", guard.name);
        }
    }
    let order_success = defaults().into_iter().find(|guard| guard.metric == GuardMetric::OrderSuccessRatePercent);
    assert_eq!(order_success.map(|guard| guard.ends_at(dec!(95))), Some(dec!(97.5)));
}

#[test]
fn what_ends_a_trip_is_better_than_what_began_it() {
    for metric in GuardMetric::iter() {
        let guard = Guard {
            name: "x".to_owned(),
            metric,
            warn_at: None,
            trip_at: None,
            action: GuardAction::Kill,
            confirmations: 1,
            release: Some(GuardRelease::Auto),
        };
        assert!(!guard.is_beyond(guard.ends_at(dec!(20)), dec!(20)), "{metric}");
        assert_eq!(guard.release(), GuardRelease::Manual, "a kill ends by hand");
    }
}
