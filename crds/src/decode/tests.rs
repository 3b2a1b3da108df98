use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::control::{Control, Entry, effective, engagements, policy_restriction, spec_restrictions};
use crate::status::IncidentPhase;

fn metadata() -> ObjectMeta {
    serde_json::from_value(json!({"name": "carry", "uid": "aaaaaaaa-1", "generation": 7})).unwrap()
}

fn bot(changes: &Value) -> Value {
    let mut object = json!({
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {"portfolio": "p"}},
            "credentials": {"secretRef": {"name": "k"}},
            "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1"}},
        }
    });
    merge(&mut object, changes);
    object
}

fn merge(object: &mut Value, changes: &Value) {
    match (object.as_object_mut(), changes.as_object()) {
        (Some(object), Some(changes)) => {
            for (name, value) in changes {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        _ => *object = changes.clone(),
    }
}

fn read(changes: &Value, before: Option<&ArbBotSpec>) -> Decoded<ArbBot> {
    arb_bot(metadata(), &bot(changes), before).unwrap()
}

fn good(changes: &Value) -> ArbBotSpec {
    let read = read(changes, None);
    assert_eq!(read.unreadable, []);
    read.object.spec
}

fn policy(spec: &Value, before: Option<&ArbPolicySpec>) -> Decoded<ArbPolicy> {
    arb_policy(metadata(), &json!({"spec": spec}), before)
}

fn fields<T>(decoded: &Decoded<T>) -> Vec<&str> {
    decoded.unreadable.iter().map(|unreadable| unreadable.field.as_str()).collect()
}

fn control(bot: &ArbBot) -> Control {
    effective(&bot.spec.risk.limits, &spec_restrictions(bot))
}

#[test]
fn what_can_be_read_is_read_as_it_is() {
    let changes = json!({"spec": {"mode": "Stopped", "killSwitch": {"release": "aaaaaaaa-3"}}, "status": {"claim": {"account": "p", "product": "f", "granted": true}}});
    let read = read(&changes, Some(&good(&json!({"spec": {"mode": "Halted"}}))));
    assert_eq!(read.unreadable, []);
    assert_eq!((read.object.spec.mode, read.object.spec.kill_switch.release.as_str()), (Mode::Stopped, "aaaaaaaa-3"));
    assert!(read.object.status.unwrap().claim.unwrap().granted);
}

#[test]
fn an_engaged_kill_inside_an_otherwise_unreadable_object_is_a_kill() {
    let garbage = json!({"spec": {
        "killSwitch": {"engaged": true, "reason": "drill", "action": "CancelOrders", "deadline": 17},
        "venue": "nowhere", "strategy": null, "execution": 4, "credentials": [], "logLevel": {"a": 1},
    }});
    let read = read(&garbage, Some(&good(&json!({}))));
    let engaged = engagements(&read.object, &[]);
    assert_eq!(engaged[0].id.to_string(), "aaaaaaaa-7");
    assert_eq!((engaged[0].action, engaged[0].reason.as_str()), (KillAction::CancelOrders, "drill"));
    assert_eq!(read.object.spec.venue, good(&json!({})).venue, "the rest stays as it was");
    for part in ["venue", "strategy", "execution", "credentials", "logLevel", "killSwitch.deadline"] {
        assert!(fields(&read).contains(&format!("spec.{part}").as_str()), "{part} is not named: {:?}", fields(&read));
    }
}

#[test]
fn what_cannot_be_read_is_named_and_counts_as_the_worst() {
    let before = good(&json!({"spec": {"logLevel": "debug"}}));
    let mode = read(&json!({"spec": {"mode": "Frozen", "logLevel": "error"}}), Some(&before));
    assert_eq!((fields(&mode), control(&mode.object).entry), (vec!["spec.mode"], Entry::Halted));
    assert_eq!(mode.object.spec.log_level, before.log_level);
    let engaged = read(&json!({"spec": {"killSwitch": {"engaged": "yes"}}}), Some(&before));
    assert!(engaged.object.spec.kill_switch.engaged && fields(&engaged) == ["spec.killSwitch.engaged"]);
    let action = read(&json!({"spec": {"killSwitch": {"engaged": true, "action": "Sell"}}}), Some(&before));
    assert_eq!(action.object.spec.kill_switch.action, KillAction::Flatten);
    let limit =
        read(&json!({"spec": {"risk": {"limits": {"maxOrderNotional": -1, "maxLeverage": "1"}}}}), Some(&before));
    assert_eq!((fields(&limit), limit.object.spec.mode), (vec!["spec.risk.limits.maxOrderNotional"], Mode::ReduceOnly));
    assert_eq!(limit.object.spec.risk.limits.max_leverage, 1.into());
    let elsewhere =
        read(&json!({"spec": {"strategy": {"fundingCarry": {"orders": {"legTimeout": "soon"}}}}}), Some(&before));
    assert_eq!(fields(&elsewhere), ["spec.strategy.fundingCarry.orders.legTimeout"]);
    assert_eq!(elsewhere.object.spec, before, "what does not restrict changes nothing");
}

#[test]
fn nothing_is_released_by_an_object_that_cannot_be_read() {
    let before = good(&json!({"spec": {"killSwitch": {"engaged": true}}}));
    let read = read(
        &json!({"spec": {"killSwitch": {"engaged": false, "release": "aaaaaaaa-6"}, "logLevel": 3}}),
        Some(&before),
    );
    assert!(read.object.spec.kill_switch.engaged && read.object.spec.kill_switch.release.is_empty());
}

#[test]
fn a_bot_that_was_never_read_starts_without_what_is_dispensable_and_names_what_is_not() {
    let read = read(
        &json!({"spec": {"logLevel": 3, "mode": 4, "drainTimeout": "soon", "killSwitch": {"engaged": true}}}),
        None,
    );
    assert_eq!(fields(&read).len(), 3, "{:?}", read.unreadable);
    assert!(read.object.spec.kill_switch.engaged && read.object.spec.mode == Mode::Halted);
    for (part, field) in [
        (json!({"venue": {"coinbase": {"portfolio": 4}}}), "spec.venue.coinbase.portfolio"),
        (json!({"strategy": {"fundingCarry": null}}), "spec.strategy.fundingCarry"),
        (json!({"execution": "Backtest"}), "spec.execution"),
        (json!({"credentials": []}), "spec.credentials"),
        (json!({"credentials": {"secretRef": null}}), "spec.credentials.secretRef"),
        (json!({"venue": {"coinbase": {"portfolio": null}}}), "spec.venue.coinbase.portfolio"),
    ] {
        let error = arb_bot(metadata(), &bot(&json!({"spec": part})), None).unwrap_err();
        assert_eq!(error.0.field, field);
    }
    let empty = arb_bot(metadata(), &bot(&json!({"spec": {"venue": {"coinbase": null}}})), None).unwrap_err();
    assert_eq!((empty.0.field.as_str(), empty.0.why.as_str()), ("spec.venue.coinbase", NULL));
    assert!(arb_bot(metadata(), &json!({}), None).is_err() && arb_bot(metadata(), &json!({"spec": {}}), None).is_err());
}

#[test]
fn a_live_bot_that_loses_its_key_or_portfolio_keeps_those_it_had_and_one_on_paper_needs_neither() {
    let before = good(&json!({}));
    for part in [json!({"credentials": null}), json!({"venue": {"coinbase": {"portfolio": null}}})] {
        let read = read(&json!({"spec": part}), Some(&before));
        assert_eq!(read.unreadable.len(), 1, "{part}");
        assert_eq!((&read.object.spec.credentials, &read.object.spec.venue), (&before.credentials, &before.venue));
    }
    let changes =
        json!({"execution": "Paper", "credentials": {"secretRef": null}, "venue": {"coinbase": {"portfolio": null}}});
    let paper = json!({"spec": changes});
    assert_eq!(good(&paper).account(), crate::arbbot::PAPER_ACCOUNT);
}

#[test]
fn a_status_that_cannot_be_read_keeps_the_claim_and_every_open_incident() {
    let incident = json!({"id": "aaaaaaaa-3", "source": "ArbBot/carry", "phase": "Finished", "action": "CancelOrders",
        "reason": "r", "engagedAt": "2026-01-01T00:00:00Z"});
    let mut newer = incident.clone();
    merge(&mut newer, &json!({"id": "aaaaaaaa-4", "phase": "Waiting", "action": "Sell"}));
    let status = json!({"status": {
        "claim": {"account": "p", "product": "f", "granted": true}, "effective": 7, "conditions": {"a": 1},
        "bot": {"ownedSince": "2026-01-01T00:00:00Z", "openOrders": "many"},
        "killSwitch": {"incidents": [incident, newer, 5]},
    }});
    let read = read(&status, None);
    let status = read.object.status.unwrap();
    assert!(status.claim.unwrap().granted && status.bot.unwrap().owned_since.is_some());
    let open: Vec<_> = status.kill_switch.unwrap().incidents.into_iter().map(|i| (i.id, i.action, i.phase)).collect();
    assert_eq!(open[0], ("aaaaaaaa-3".into(), KillAction::CancelOrders, IncidentPhase::Finished));
    assert_eq!(open[1], ("aaaaaaaa-4".into(), KillAction::Flatten, IncidentPhase::CancellingOrders));
    assert_eq!(read.unreadable, []);
}

#[test]
fn a_policy_that_cannot_be_read_counts_as_reduce_only_and_its_readable_kill_as_a_kill() {
    for (spec, field) in [
        (json!({"mode": "Frozen"}), "spec.mode"),
        (json!({"killSwitch": {"engaged": 1}}), "spec.killSwitch.engaged"),
        (json!({"killSwitch": []}), "spec.killSwitch"),
        (json!({"risk": {"limits": {"maxOpenOrders": "few"}}}), "spec.risk.limits.maxOpenOrders"),
        (json!("all"), "spec"),
    ] {
        let read = policy(&spec, None);
        let restriction = policy_restriction(&read.object);
        assert_eq!((fields(&read)[0], restriction.entry), (field, Entry::ReduceOnly), "{spec}");
    }
    let kill = policy(&json!({"killSwitch": {"engaged": true, "action": 1}, "selector": 5}), None);
    assert_eq!(kill.object.spec.kill_switch.action, KillAction::Flatten);
    assert!(kill.object.spec.kill_switch.engaged && kill.object.spec.selector.is_none(), "every bot of the namespace");
    let halted = policy(&json!({"mode": "Halted", "selector": {"matchLabels": 4}}), None);
    assert_eq!(halted.object.spec.mode, Mode::Halted);
}

#[test]
fn a_policy_that_cannot_be_read_lets_no_bot_out_of_its_selector() {
    let before = policy(&json!({"selector": {"matchLabels": {"desk": "a"}}, "mode": "Halted"}), None).object.spec;
    let same = policy(&json!({"selector": {"matchLabels": {"desk": "a"}}, "mode": 5}), Some(&before));
    assert_eq!((&same.object.spec.selector, same.object.spec.mode), (&before.selector, Mode::Halted));
    let other = policy(&json!({"selector": {"matchLabels": {"desk": "b"}}, "mode": 5}), Some(&before));
    assert_eq!(other.object.spec.selector, None);
}

/// Anything that JSON can hold, small.
fn garbage() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "Active",
            "Halted",
            "Stopped",
            "Flatten",
            "CancelOrders",
            "1",
            "5000",
            "1s",
            "x",
            "true"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(vec!["engaged", "limits", "name", "x"]), inner), 0..3)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// Some fields of a spec, each with a value that may be anything.
fn mutations() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let paths = vec![
        "/mode",
        "/killSwitch",
        "/killSwitch/engaged",
        "/killSwitch/action",
        "/killSwitch/reason",
        "/killSwitch/release",
        "/killSwitch/deadline",
        "/risk",
        "/risk/limits",
        "/risk/limits/maxOrderNotional",
        "/risk/limits/maxOpenOrders",
        "/venue",
        "/strategy",
        "/logLevel",
        "/drainTimeout",
        "/selector",
        "/controlTimeouts",
        "/deletionPolicy",
    ];
    prop::collection::vec((prop::sample::select(paths), garbage()), 1..6)
}

/// Sets each path, where its parent can hold it.
fn mutated(mut spec: Value, mutations: &[(&'static str, Value)]) -> Value {
    for (path, value) in mutations {
        let mut parts: Vec<_> = path.split('/').skip(1).collect();
        let last = parts.pop().unwrap();
        let mut parent = Some(&mut spec);
        for part in parts {
            parent = parent.and_then(Value::as_object_mut).map(|object| object.entry(part).or_insert(json!({})));
        }
        if let Some(parent) = parent.and_then(Value::as_object_mut) {
            parent.insert(last.to_owned(), value.clone());
        }
    }
    spec
}

fn before() -> impl Strategy<Value = Value> {
    let modes = prop::sample::select(vec!["Active", "ReduceOnly", "Halted", "Stopped"]);
    (modes, any::<bool>(), prop::sample::select(vec!["Flatten", "CancelOrders"]), 1u32..9000).prop_map(
        |(mode, engaged, action, order)| {
            json!({"mode": mode, "killSwitch": {"engaged": engaged, "action": action},
                "risk": {"limits": {"maxOrderNotional": order.to_string()}}})
        },
    )
}

/// Whether nothing may be sent under `now` that could not be sent under `before`.
fn is_no_looser(before: &Control, now: &Control) -> bool {
    let (a, b) = (&before.limits, &now.limits);
    now.entry >= before.entry
        && (now.duty >= before.duty || now.entry == Entry::Halted)
        && b.max_order_notional <= a.max_order_notional
        && b.max_open_orders <= a.max_open_orders
        && b.max_position_notional <= a.max_position_notional
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// SAFETY §1: an ArbBot that cannot be read as a whole never loosens anything, and its readable kill is a kill.
    #[test]
    fn an_unreadable_bot_never_loosens(before in before(), mutations in mutations()) {
        let before = good(&json!({"spec": before}));
        let spec = mutated(bot(&json!({}))["spec"].clone(), &mutations);
        let decoded = arb_bot(metadata(), &json!({"spec": spec}), Some(&before)).unwrap();
        if spec.pointer("/killSwitch/engaged") == Some(&Value::Bool(true)) {
            prop_assert!(decoded.object.spec.kill_switch.engaged);
        }
        if decoded.unreadable.is_empty() {
            return Ok(());
        }
        let was = ArbBot { metadata: metadata(), spec: before.clone(), status: None };
        prop_assert!(is_no_looser(&control(&was), &control(&decoded.object)), "{:?}", decoded);
        let (old, new) = (&before.kill_switch, &decoded.object.spec.kill_switch);
        prop_assert!(new.engaged >= old.engaged && new.release.is_empty());
        prop_assert!(!old.engaged || new.action >= old.action);
        // What restricts and can be read is in force.
        let mode: Option<Mode> = spec.get("mode").and_then(|mode| Deserialize::deserialize(mode).ok());
        prop_assert!(mode.is_none_or(|mode| decoded.object.spec.mode >= mode || decoded.object.spec.mode == Mode::Halted));
    }

    /// The same of an ArbPolicy, and what cannot be read of it is at least ReduceOnly.
    #[test]
    fn an_unreadable_policy_never_loosens(before in before(), mutations in mutations()) {
        let before = policy(&before, None);
        prop_assert!(before.unreadable.is_empty());
        let spec = mutated(json!({}), &mutations);
        let decoded = policy(&spec, Some(&before.object.spec));
        if spec.pointer("/killSwitch/engaged") == Some(&Value::Bool(true)) {
            prop_assert!(decoded.object.spec.kill_switch.engaged);
        }
        if decoded.unreadable.is_empty() {
            return Ok(());
        }
        let under = |policy: &ArbPolicy| effective(&crate::limits::RiskLimits::default(), [&policy_restriction(policy)]);
        prop_assert!(is_no_looser(&under(&before.object), &under(&decoded.object)), "{:?}", decoded);
        // null is how JSON says "not set".
        let is_set = |path: &&str| spec.pointer(path).is_some_and(|value| !value.is_null());
        let restricts = ["/mode", "/killSwitch", "/killSwitch/engaged"].into_iter().filter(is_set);
        let named = |path: &str| decoded.unreadable.iter().any(|u| u.field == format!("spec{}", path.replace('/', ".")));
        if restricts.into_iter().any(named) {
            prop_assert!(policy_restriction(&decoded.object).entry >= Entry::ReduceOnly);
        }
    }

    /// Whatever is stored under status, reading it neither fails nor stops the spec from being read.
    #[test]
    fn any_status_is_survived(status in garbage()) {
        let object = bot(&json!({"status": status}));
        prop_assert!(arb_bot(metadata(), &object, None).is_ok());
    }
}

#[test]
fn a_guard_that_cannot_be_read_keeps_neither_a_kill_nor_a_release_from_being_read() {
    let guards = json!([{"name": "new", "metric": "MoonPhase", "tripAt": "1"}]);
    let before = good(&json!({}));
    let killed = read(&json!({"spec": {"killSwitch": {"engaged": true}, "risk": {"guards": guards}}}), Some(&before));
    assert_eq!((killed.unreadable.len(), killed.object.spec.kill_switch.engaged), (0, true));
    let released = json!({"spec": {"killSwitch": {"release": "aaaaaaaa-3"}, "risk": {"guards": guards}}});
    let released = read(&released, Some(&before)).object.spec;
    assert_eq!(released.kill_switch.release, "aaaaaaaa-3");
    assert_eq!(released.risk.guards.in_force().problems.len(), 1);
}
