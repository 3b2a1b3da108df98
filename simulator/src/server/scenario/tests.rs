use super::*;
use crate::server::faults::kind::FaultKind;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// When each fault happens, in seconds from the start, up to a time.
fn played(text: &str, seed: u64, until: i64) -> Vec<(i64, FaultRequest)> {
    let mut scenario = Scenario::read(text, seed, START).unwrap();
    let mut played = Vec::new();
    for now in 0..=until {
        while let Some(request) = scenario.due(second(now)) {
            played.push((now, request));
        }
    }
    played
}

#[test]
fn steps_happen_at_their_times_and_repeat() {
    let text = "
steps:
- {at: 10s, for: 5s, kind: rest_error, status: 503, rate: 0.5}
- {every: 1m, until: 3m, kind: websocket_disconnect}
- {at: 5s, every: 100s, until: 250s, kind: price_gap, bps: -200}
";
    let played = played(text, 1, 1000);
    let times: Vec<i64> = played.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [5, 10, 60, 105, 120, 180, 205]);
    assert_eq!(played[1].1.kind, FaultKind::RestError { status: 503 });
    assert_eq!(played[1].1.scope.duration(), Some(SignedDuration::from_secs(5)));
}

#[test]
fn jitter_delays_by_the_seed_and_does_not_add_up() {
    let text = "steps: [{every: 100s, jitter: 20s, kind: websocket_disconnect}]";
    let one = played(text, 1, 2000);
    assert_eq!(one, played(text, 1, 2000));
    assert_ne!(one, played(text, 2, 2000));
    for (index, (time, _)) in one.iter().enumerate() {
        let planned = 100 * (index as i64 + 1);
        assert!((planned..=planned + 20).contains(time), "{time} for {planned}");
    }
}

#[test]
fn a_random_script_follows_its_seed_and_ends_in_time() {
    let text = "random: {every: 20s, until: 1h, longest: 30s}";
    let one = played(text, 1, 4000);
    assert_eq!(one, played(text, 1, 4000));
    assert_ne!(one, played(text, 2, 4000));
    assert!((120..300).contains(&one.len()), "{}", one.len());
    for (time, request) in &one {
        let end = after(second(*time), request.scope.duration().unwrap());
        assert!(end <= second(3602), "{request:?} at {time}");
    }
    let kinds: std::collections::BTreeSet<&str> = one.iter().map(|(_, r)| (&r.kind).into()).collect();
    assert!(kinds.len() > 15, "{kinds:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_step() {
    for (text, expected) in [
        ("steps: [{at: 1s}]", "step 1"),
        ("steps: [{kind: rest_unavailable}]", "it needs at or every"),
        ("steps: [{at: 1s, kind: rest_unavailable, status: 5}]", "status"),
        ("steps: [{at: 1s, kind: nonsense}]", "nonsense"),
        ("steps: [{at: soon, kind: rest_unavailable}]", "soon"),
        ("steps: [{every: 1ms, kind: rest_unavailable}]", "every"),
        ("step: []", "step"),
        ("random: {every: 1s, until: 1h, longest: 1s, kinds: [portfolio_changed]}", "portfolio_changed"),
        (": : :", ""),
    ] {
        let error = Scenario::read(text, 1, START).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(Scenario::read("", 1, START).unwrap().steps.is_empty());
}
