use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::json;

use super::*;
use crate::decimal::DecimalString;

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![Just(Entry::Active), Just(Entry::ReduceOnly), Just(Entry::Halted)]
}

fn duty() -> impl Strategy<Value = Duty> {
    prop_oneof![Just(Duty::Hold), Just(Duty::Drain), Just(Duty::Flatten)]
}

fn decimal() -> impl Strategy<Value = DecimalString> {
    (0u64..1_000_000_000).prop_map(|n| DecimalString(Decimal::new(n.cast_signed(), 3)))
}

prop_compose! {
    fn ceilings()(
        position in prop::option::of(decimal()), order in prop::option::of(decimal()),
        leverage in prop::option::of(decimal()), delta in prop::option::of(decimal()),
        imbalance in prop::option::of(decimal()), open in prop::option::of(0u32..1000),
        rate in prop::option::of(0u32..6000), slippage in prop::option::of(decimal()),
    ) -> LimitCeilings {
        LimitCeilings {
            max_position_notional: position, max_order_notional: order, max_leverage: leverage,
            max_delta_notional: delta, max_leg_imbalance_notional: imbalance, max_open_orders: open,
            max_orders_per_minute: rate, max_slippage_bps: slippage,
        }
    }
}

prop_compose! {
    fn restriction()(entry in entry(), duty in duty(), ceilings in ceilings()) -> Restriction {
        Restriction { source: "test".into(), entry, duty, ceilings, why: String::new() }
    }
}

fn restrictions() -> impl Strategy<Value = Vec<Restriction>> {
    prop::collection::vec(restriction(), 0..6)
}

/// Whether `a` allows nothing that `b` forbids. `limits_pair` lists every limit of both.
fn at_least_as_strict(a: &Control, b: &Control) -> bool {
    let pair = |f: fn(&RiskLimits) -> DecimalString| f(&a.limits) <= f(&b.limits);
    a.entry >= b.entry
        && a.duty >= b.duty
        && pair(|l| l.max_position_notional)
        && pair(|l| l.max_order_notional)
        && pair(|l| l.max_leverage)
        && pair(|l| l.max_delta_notional)
        && pair(|l| l.max_leg_imbalance_notional)
        && pair(|l| l.max_slippage_bps)
        && pair(|l| l.max_open_orders.into())
        && pair(|l| l.max_orders_per_minute.into())
}

proptest! {
    #[test]
    fn the_order_of_the_sources_does_not_matter(mut sources in restrictions(), seed in any::<u64>()) {
        let before = effective(&RiskLimits::default(), &sources);
        sources.sort_by_key(|source| (format!("{source:?}").len() as u64).wrapping_mul(seed | 1));
        prop_assert_eq!(before, effective(&RiskLimits::default(), &sources));
    }

    #[test]
    fn the_same_source_twice_changes_nothing(sources in restrictions()) {
        let once = effective(&RiskLimits::default(), &sources);
        prop_assert_eq!(once, effective(&RiskLimits::default(), sources.iter().chain(&sources)));
    }

    #[test]
    fn another_source_never_loosens_anything(sources in restrictions(), more in restriction()) {
        let before = effective(&RiskLimits::default(), &sources);
        let after = effective(&RiskLimits::default(), sources.iter().chain([&more]));
        prop_assert!(at_least_as_strict(&after, &before));
        prop_assert!(after.entry >= more.entry && after.duty >= more.duty);
    }

    #[test]
    fn joining_in_two_steps_is_joining_at_once(first in restrictions(), second in restrictions()) {
        let own = RiskLimits::default();
        let half = effective(&own, &first);
        let rest = effective(&half.limits, &second);
        let whole = effective(&own, first.iter().chain(&second));
        prop_assert_eq!(whole.limits, rest.limits);
        prop_assert_eq!(whole.entry, half.entry.max(rest.entry));
        prop_assert_eq!(whole.duty, half.duty.max(rest.duty));
    }
}

fn bot(spec: serde_json::Value, generation: i64) -> ArbBot {
    let mut base = json!({
        "execution": "Live",
        "venue": {"coinbase": {"portfolio": "00000000-0000-4000-8000-000000000000"}},
        "strategy": {"fundingCarry": {
            "spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "10000"}},
        "credentials": {"secretRef": {"name": "key"}},
    });
    base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "carry", "uid": "aaaaaaaa-0000", "generation": generation, "labels": {"desk": "a"}},
        "spec": base,
    }))
    .unwrap()
}

fn policy(spec: serde_json::Value, generation: i64) -> ArbPolicy {
    serde_json::from_value(json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbPolicy",
        "metadata": {"name": "desk", "uid": "bbbbbbbb-0000", "generation": generation}, "spec": spec,
    }))
    .unwrap()
}

fn id(text: &str) -> IncidentId {
    text.parse().unwrap()
}

#[test]
fn engaged_alone_is_a_valid_kill_that_flattens() {
    let bot = bot(json!({"killSwitch": {"engaged": true}}), 3);
    let control = effective(&bot.spec.risk.limits, &spec_restrictions(&bot));
    assert_eq!((control.entry, control.duty), (Entry::Halted, Duty::Flatten));
    assert_eq!(control.mode(), EffectiveMode::Flatten);
    assert_eq!(engagements(&bot, &[])[0].id, id("aaaaaaaa-3"));
}

#[test]
fn a_kill_that_only_cancels_keeps_the_position() {
    let bot = bot(json!({"killSwitch": {"engaged": true, "action": "CancelOrders"}}), 3);
    let control = effective(&bot.spec.risk.limits, &spec_restrictions(&bot));
    assert_eq!((control.entry, control.duty), (Entry::Halted, Duty::Hold));
}

#[test]
fn a_policy_applies_by_selector_and_one_that_cannot_be_read_applies_too() {
    let bot = bot(json!({}), 1);
    let desk_a = policy(json!({"selector": {"matchLabels": {"desk": "a"}}, "mode": "ReduceOnly"}), 1);
    let desk_b = policy(json!({"selector": {"matchLabels": {"desk": "b"}}, "mode": "Halted"}), 1);
    let broken =
        policy(json!({"selector": {"matchExpressions": [{"key": "desk", "operator": "Near"}]}, "mode": "Halted"}), 1);
    assert_eq!(matching(&bot, [&desk_a, &desk_b]).len(), 1);
    assert_eq!(matching(&bot, [&desk_b, &broken])[0].spec.mode, Mode::Halted);
}

#[test]
fn reverting_the_patch_or_naming_another_incident_releases_nothing() {
    let reverted = bot(json!({"killSwitch": {"engaged": false}}), 6);
    assert!(!is_released(&id("aaaaaaaa-5"), &reverted, &[]));
    for wrong in ["yes", "aaaaaaaa-4", "cccccccc-5"] {
        let wrong = bot(json!({"killSwitch": {"release": wrong}}), 7);
        assert!(!is_released(&id("aaaaaaaa-5"), &wrong, &[]));
    }
}

#[test]
fn the_id_releases_only_once_the_source_is_no_longer_engaged() {
    let engaged = bot(json!({"killSwitch": {"engaged": true, "release": "aaaaaaaa-5"}}), 7);
    assert!(!is_released(&id("aaaaaaaa-5"), &engaged, &[]));
    let released = bot(json!({"killSwitch": {"release": "aaaaaaaa-5"}}), 8);
    assert!(is_released(&id("aaaaaaaa-5"), &released, &[]));
}

#[test]
fn a_release_of_the_future_releases_nothing() {
    let armed = bot(json!({"killSwitch": {"release": "aaaaaaaa-999"}}), 8);
    assert!(!is_released(&id("aaaaaaaa-5"), &armed, &[]));
}

#[test]
fn a_policy_releases_its_own_incident_and_the_bot_does_once_the_policy_is_gone() {
    let bot_releases = bot(json!({"killSwitch": {"release": "bbbbbbbb-2"}}), 9);
    let silent = policy(json!({}), 3);
    assert!(!is_released(&id("bbbbbbbb-2"), &bot_releases, &[&silent]), "the policy is still there");
    assert!(is_released(&id("bbbbbbbb-2"), &bot_releases, &[]), "the policy is gone");
    let releasing = policy(json!({"killSwitch": {"release": "bbbbbbbb-2"}}), 4);
    assert!(is_released(&id("bbbbbbbb-2"), &bot(json!({}), 1), &[&releasing]));
}

#[test]
fn deletion_closes_the_position_or_leaves_it_as_the_policy_says() {
    for (policy, duty) in [("Flatten", Duty::Flatten), ("Orphan", Duty::Hold)] {
        let mut bot = bot(json!({"deletionPolicy": policy}), 2);
        bot.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let control = effective(&bot.spec.risk.limits, &spec_restrictions(&bot));
        assert_eq!((control.entry, control.duty), (Entry::Halted, duty));
    }
}
