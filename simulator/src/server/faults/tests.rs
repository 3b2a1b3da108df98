use serde_json::{Value, json};

use super::request::FaultRequest;
use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn request(fault: Value) -> Result<FaultRequest, String> {
    let Value::Object(object) = fault else { panic!("not an object") };
    FaultRequest::from_object(object)
}

fn faults(seed: u64, fault: Value) -> Faults {
    let mut faults = Faults::new(seed);
    let request = request(fault).unwrap();
    let scope = request.scope;
    let fault = Fault {
        kind: request.kind,
        portfolio: scope.portfolio,
        key: scope.key,
        product_id: scope.product_id,
        endpoint: scope.endpoint,
        channel: scope.channel,
        rate: scope.rate,
        until: None,
        remaining: scope.count,
    };
    faults.add(fault).unwrap();
    faults
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for fault in [
        json!({}),
        json!({"kind": "nonsense"}),
        json!({"kind": "rest_unavailable", "foo": 1}),
        json!({"kind": "rest_error"}),
        json!({"kind": "rest_error", "status": 200}),
        json!({"kind": "latency", "distribution": "uniform", "milliseconds": 5}),
        json!({"kind": "latency", "distribution": "normal", "milliseconds": 5}),
        json!({"kind": "session_closed"}),
        json!({"kind": "portfolio_changed", "to": "00000000-0000-0000-0000-000000000001"}),
        json!({"kind": "partial_fills", "percent": 100}),
        json!({"kind": "sequence_gap", "rate": 1.5}),
        json!({"kind": "rest_unavailable", "seconds": 1, "for": "1s"}),
        json!({"kind": "rest_unavailable", "for": "-1s"}),
        json!({"kind": "reject_orders", "reason": "BECAUSE"}),
    ] {
        assert!(request(fault.clone()).is_err(), "{fault}");
    }
}

#[test]
fn a_rate_strikes_its_share_and_the_same_requests_for_the_same_seed() {
    let struck = |seed| -> Vec<bool> {
        let mut faults = faults(seed, json!({"kind": "sequence_gap", "rate": 0.2}));
        (0..1000).map(|_| faults.fate(None, "ticker", NOW) == Fate::Lost).collect()
    };
    assert_eq!(struck(1), struck(1));
    assert_ne!(struck(1), struck(2));
    assert!((120..280).contains(&struck(1).iter().filter(|hit| **hit).count()));
}

#[test]
fn a_count_is_used_up() {
    let mut faults = faults(1, json!({"kind": "duplicate_frames", "count": 2, "channel": "user"}));
    assert_eq!(faults.fate(None, "ticker", NOW), Fate::Deliver);
    let fates: Vec<Fate> = (0..4).map(|_| faults.fate(None, "user", NOW)).collect();
    assert_eq!(fates, [Fate::Twice, Fate::Twice, Fate::Deliver, Fate::Deliver]);
    assert!(faults.active(NOW).is_empty());
}

#[test]
fn latencies_follow_their_distribution() {
    let delays = |fault: Value| -> Vec<u64> {
        let mut faults = faults(1, fault);
        (0..2000).map(|_| faults.latency_ms(None, "GET /accounts", NOW)).collect()
    };
    let mean = |delays: &[u64]| delays.iter().sum::<u64>() / delays.len() as u64;
    assert!(delays(json!({"kind": "latency_ms", "milliseconds": 7})).iter().all(|d| *d == 7));
    let uniform =
        delays(json!({"kind": "latency", "distribution": "uniform", "milliseconds": 10, "max_milliseconds": 30}));
    assert!(uniform.iter().all(|d| (10..=30).contains(d)));
    assert!((18..=22).contains(&mean(&uniform)));
    let exponential =
        delays(json!({"kind": "latency", "distribution": "exponential", "milliseconds": 100, "max_milliseconds": 900}));
    assert!(exponential.iter().all(|d| *d <= 900));
    assert!((85..=115).contains(&mean(&exponential)), "{}", mean(&exponential));
    let elsewhere = json!({"kind": "latency_ms", "milliseconds": 7, "endpoint": "POST /orders"});
    assert!(delays(elsewhere).iter().all(|d| *d == 0));
}
