use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::control::{effective, spec_restrictions};

fn bot(changes: &Value) -> ArbBot {
    let mut object = json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": "carry", "namespace": "desk", "labels": {"desk": "a"}},
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {"portfolio": "11111111-2222-3333-4444-555555555555"}},
            "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1000"}},
            "credentials": {"secretRef": {"name": "key"}},
        },
    });
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn policy(spec: &Value) -> ArbPolicy {
    let object =
        json!({"apiVersion": "arbbot.io/v1alpha1", "kind": "ArbPolicy", "metadata": {"name": "desk"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

fn fields(found: &[Loosening]) -> Vec<&str> {
    found.iter().map(|loosening| loosening.field.as_str()).collect()
}

/// A change that loosens, with its field; the way back must not be reported.
fn one_way(field: &str, strict: &Value, loose: &Value) {
    let (strict, loose) = (bot(&json!({"spec": strict})), bot(&json!({"spec": loose})));
    assert_eq!(fields(&loosenings_of_bot(&strict, &loose, &[])), [field]);
    assert!(loosenings_of_bot(&loose, &strict, &[]).is_empty(), "the way back of {field}");
}

#[test]
fn every_field_that_can_be_loosened_is_reported_and_its_tightening_is_not() {
    one_way("spec.mode", &json!({"mode": "ReduceOnly"}), &json!({"mode": "Active"}));
    one_way("spec.mode", &json!({"mode": "Stopped"}), &json!({"mode": "ReduceOnly"}));
    one_way("spec.killSwitch.engaged", &json!({"killSwitch": {"engaged": true}}), &json!({}));
    one_way("spec.killSwitch.release", &json!({}), &json!({"killSwitch": {"release": "1b9d6bcd-7"}}));
    one_way("spec.killSwitch.action", &json!({}), &json!({"killSwitch": {"action": "CancelOrders"}}));
    one_way("spec.killSwitch.slippageBps", &json!({}), &json!({"killSwitch": {"slippageBps": "51"}}));
    one_way("spec.killSwitch.deadline", &json!({}), &json!({"killSwitch": {"deadline": "3m"}}));
    one_way("spec.controlTimeouts.lost", &json!({}), &json!({"controlTimeouts": {"lost": "6m"}}));
    one_way("spec.risk.capital", &json!({}), &json!({"risk": {"capital": "25001"}}));
    let guard = |changes: Value| {
        let mut guard = json!({"name": "x", "metric": "MakerRatioPercent", "tripAt": "60", "release": "Manual"});
        merge(&mut guard, &changes);
        json!({"risk": {"guards": [guard]}})
    };
    let strict = guard(json!({}));
    for weaker in
        [json!({"tripAt": "59"}), json!({"action": "Warn"}), json!({"confirmations": 4}), json!({"release": "Auto"})]
    {
        one_way("spec.risk.guards", &strict, &guard(weaker));
    }
    one_way("spec.risk.guards", &strict, &json!({}));
    let off = json!([{"name": "daily-loss", "metric": "DailyLossPercent", "action": "Warn"}]);
    one_way("spec.risk.guards", &json!({}), &json!({"risk": {"guards": off}}));
    one_way("spec.drainTimeout", &json!({}), &json!({"drainTimeout": "11m"}));
    one_way("spec.onDrainTimeout", &json!({"onDrainTimeout": "Flatten"}), &json!({}));
    one_way("spec.deletionPolicy", &json!({}), &json!({"deletionPolicy": "Orphan"}));
    let rest = "spec.strategy.fundingCarry.orders.maxRest";
    one_way(rest, &json!({}), &json!({"strategy": {"fundingCarry": {"orders": {"maxRest": "121s"}}}}));
    let ratio = "spec.strategy.fundingCarry.collateral.minRatio";
    one_way(ratio, &json!({}), &json!({"strategy": {"fundingCarry": {"collateral": {"minRatio": "0.59"}}}}));
    for limit in ["maxPositionNotional", "maxOrderNotional", "maxDeltaNotional", "maxLegImbalanceNotional"] {
        let loose = json!({"risk": {"limits": {limit: "30000"}}});
        one_way(&format!("spec.risk.limits.{limit}"), &json!({}), &loose);
    }
    for limit in ["maxOpenOrders", "maxOrdersPerMinute"] {
        one_way(&format!("spec.risk.limits.{limit}"), &json!({}), &json!({"risk": {"limits": {limit: 61}}}));
    }
    for limit in ["maxLeverage", "maxSlippageBps"] {
        one_way(&format!("spec.risk.limits.{limit}"), &json!({}), &json!({"risk": {"limits": {limit: "31"}}}));
    }
}

#[test]
fn what_lets_other_code_or_another_account_act_is_reported_both_ways() {
    let changes = [
        ("spec.image", json!({"image": "mine:2"})),
        ("spec.credentials.secretRef", json!({"credentials": {"secretRef": {"name": "other"}}})),
        ("spec.credentials.backupSecretRef", json!({"credentials": {"backupSecretRef": {"name": "b"}}})),
        ("spec.podTemplate.env", json!({"podTemplate": {"env": [{"name": "A", "value": "hidden"}]}})),
        (
            "spec.venue.coinbase.caBundle",
            json!({"venue": {"coinbase": {"caBundle": {"configMapKeyRef": {"name": "a", "key": "b"}}}}}),
        ),
        (
            "spec.venue.coinbase.endpoints",
            json!({"venue": {"coinbase": {"endpoints": [{"name": "x", "restUrl": "https://x", "marketWebSocketUrl": "wss://x", "userWebSocketUrl": "wss://x"}]}}}),
        ),
    ];
    for (field, spec) in changes {
        let (plain, other) = (bot(&json!({})), bot(&json!({"spec": spec})));
        for (old, new) in [(&plain, &other), (&other, &plain)] {
            let found = loosenings_of_bot(old, new, &[]);
            assert_eq!(fields(&found), [field]);
            assert!(!format!("{found:?}").contains("hidden"), "{found:?}");
        }
    }
}

#[test]
fn a_label_that_leaves_a_policy_which_restricts_is_reported() {
    let selector = json!({"matchLabels": {"desk": "a"}});
    let (halts, idle) =
        (policy(&json!({"selector": selector, "mode": "Halted"})), policy(&json!({"selector": selector})));
    let (inside, outside) = (bot(&json!({})), bot(&json!({"metadata": {"labels": {"desk": "b"}}})));
    assert_eq!(fields(&loosenings_of_bot(&inside, &outside, &[&halts])), ["metadata.labels"]);
    assert!(loosenings_of_bot(&inside, &outside, &[&idle]).is_empty());
    assert!(loosenings_of_bot(&outside, &inside, &[&halts]).is_empty());
}

#[test]
fn a_policy_is_loosened_by_its_selector_its_ceilings_and_its_end() {
    let strict = policy(&json!({"mode": "ReduceOnly", "risk": {"limits": {"maxOpenOrders": 2, "maxLeverage": "1"}}}));
    let loose = policy(&json!({"mode": "ReduceOnly", "risk": {"limits": {"maxOpenOrders": 3}}}));
    let found = loosenings_of_policy(&strict, &loose);
    assert_eq!(fields(&found), ["spec.risk.limits.maxLeverage", "spec.risk.limits.maxOpenOrders"]);
    assert_eq!((found[0].old.as_str(), found[0].new.as_str()), ("1", "none"));
    assert!(loosenings_of_policy(&loose, &strict).is_empty());

    let mut narrow = strict.clone();
    narrow.spec.selector =
        Some(LabelSelector { match_labels: Some([("a".into(), "b".into())].into()), ..Default::default() });
    assert_eq!(fields(&loosenings_of_policy(&strict, &narrow)), ["spec.selector"]);
    assert!(loosenings_of_policy(&narrow, &strict).is_empty(), "every bot again");
    assert_eq!(loosenings_of_deleted_policy(&strict).len(), 1);
    assert!(loosenings_of_deleted_policy(&policy(&json!({}))).is_empty());
}

#[test]
fn the_owner_of_the_field_is_named_and_for_a_removed_field_the_last_writer() {
    let entries: Vec<ManagedFieldsEntry> = serde_json::from_value(json!([
        {"manager": "flux", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:mode": {}}}},
        {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-02T00:00:00Z",
            "fieldsV1": {"f:spec": {"f:risk": {"f:limits": {"f:maxLeverage": {}}}}}},
        {"manager": "arb-bot", "operation": "Apply", "subresource": "status", "time": "2026-01-03T00:00:00Z", "fieldsV1": {"f:status": {}}},
    ]))
    .unwrap();
    assert_eq!(manager_of(&entries, "spec.mode"), Some("flux"));
    assert_eq!(manager_of(&entries, "spec.risk.limits.maxLeverage"), Some("kubectl-edit"));
    assert_eq!(manager_of(&entries, "spec.image"), Some("kubectl-edit"));
    assert_eq!(manager_of(&[], "spec.image"), None);
}

fn spec() -> impl Strategy<Value = Value> {
    let mode = prop_oneof![Just("Active"), Just("ReduceOnly"), Just("Halted"), Just("Stopped")];
    let action = prop_oneof![Just("CancelOrders"), Just("Flatten")];
    let decimal = || (0u32..100_000).prop_map(|n| n.to_string());
    (mode, any::<bool>(), action, decimal(), decimal(), decimal(), 0u32..1000, 0u32..1000).prop_map(
        |(mode, engaged, action, position, order, leverage, open, rate)| {
            json!({"mode": mode, "killSwitch": {"engaged": engaged, "action": action}, "risk": {"limits": {
                "maxPositionNotional": position, "maxOrderNotional": order, "maxLeverage": leverage,
                "maxOpenOrders": open, "maxOrdersPerMinute": rate,
            }}})
        },
    )
}

proptest! {
    #[test]
    fn nothing_looser_passes_unreported(old in spec(), new in spec()) {
        let (old, new) = (bot(&json!({"spec": old})), bot(&json!({"spec": new})));
        let control = |bot: &ArbBot| effective(&bot.spec.risk.limits, &spec_restrictions(bot));
        let (before, after) = (control(&old), control(&new));
        let mut both = spec_restrictions(&old);
        both.extend(spec_restrictions(&new));
        let joined = effective(&before.limits, &both);
        let lower = |old: &RiskLimits, new: &RiskLimits| {
            new.max_position_notional <= old.max_position_notional && new.max_order_notional <= old.max_order_notional
                && new.max_leverage <= old.max_leverage && new.max_open_orders <= old.max_open_orders
                && new.max_orders_per_minute <= old.max_orders_per_minute
        };
        // As strict as before: joining the old restrictions adds nothing.
        let as_strict = (joined.entry, joined.duty) == (after.entry, after.duty) && lower(&before.limits, &after.limits);
        prop_assert!(as_strict || !loosenings_of_bot(&old, &new, &[]).is_empty());
    }

    #[test]
    fn a_spec_does_not_loosen_itself(spec in spec()) {
        let bot = bot(&json!({"spec": spec}));
        prop_assert!(loosenings_of_bot(&bot, &bot, &[]).is_empty());
    }
}
