use arbbot_crds::conditions::{find, is_true};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use proptest::prelude::*;

use super::*;
use crate::reconcile::fixtures::policy;
use crate::reconcile::kstatus::kstatus;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn member(name: &str, acknowledged: bool, halted: bool, flat: bool) -> Member {
    let lacks = |holds: bool, why: &str| (!holds).then(|| why.to_owned());
    let (not_halted, not_flat) = (lacks(halted, "OrdersWorking"), lacks(flat, "PositionOpen"));
    Member { name: name.to_owned(), acknowledged, at_zero: false, not_halted, not_flat }
}

fn of(spec: &str, members: &[Member]) -> ArbPolicyStatus {
    status(&policy(spec), members, &at(1))
}

fn verdict(policy: &ArbPolicy, status: &ArbPolicyStatus) -> &'static str {
    kstatus(policy.meta(), status.observed_generation, &status.conditions)
}

#[test]
fn a_condition_is_true_only_when_it_is_so_for_every_bot_and_carries_the_generation() {
    let kill = "killSwitch: {engaged: true}";
    let half = of(kill, &[member("a", true, true, true), member("b", true, true, false)]);
    assert!(is_true(&half.conditions, ConditionType::Halted) && !is_true(&half.conditions, ConditionType::Flat));
    assert_eq!(half.bots, PolicyBots { matched: 2, acknowledged: 2, halted: 2, flat: 1 });
    for type_ in TYPES {
        assert_eq!(find(&half.conditions, type_).unwrap().observed_generation, Some(5), "{type_}");
    }
    let flat = find(&half.conditions, ConditionType::Flat).unwrap();
    assert_eq!(flat.reason, "SomeBots");
    assert_eq!(flat.message, "1 of 2 bots are flat; missing: b (PositionOpen); see kubectl describe arbbot/b -n desk");
}

#[test]
fn no_bots_are_never_halted_and_yet_the_policy_is_ready() {
    let none = of("killSwitch: {engaged: true}", &[]);
    for type_ in [ConditionType::ControlApplied, ConditionType::Halted, ConditionType::Flat] {
        let condition = find(&none.conditions, type_).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "NoBots"));
    }
    assert_eq!(verdict(&policy("{}"), &none), "Current", "Helm must not wait for bots that come later");
}

#[test]
fn a_kill_whose_selector_matches_no_bot_is_stalled() {
    let spec = "{selector: {matchLabels: {desk: typo}}, killSwitch: {engaged: true}}";
    let none = of(spec, &[]);
    let stalled = find(&none.conditions, ConditionType::Stalled).unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "NoBots"));
    assert!(stalled.message.contains("stops nobody") && stalled.message.contains("--show-labels"));
    let calm = of("{selector: {matchLabels: {desk: typo}}}", &[]);
    assert!(is_true(&calm.conditions, ConditionType::Ready), "nothing is engaged");
}

#[test]
fn a_few_of_many_missing_bots_are_named_and_the_policy_says_if_it_demands_nothing() {
    let many: Vec<_> = (0..1000).map(|n| member(&format!("bot-{n:03}"), n > 500, false, false)).collect();
    let status = of("{}", &many);
    let text = |type_| find(&status.conditions, type_).unwrap().message.clone();
    assert!(text(ConditionType::ControlApplied).starts_with(
        "499 of 1000 bots obey this generation; missing: bot-000 (NotAcknowledged), bot-001 (NotAcknowledged), bot-002 (NotAcknowledged) and 498 more;"
    ));
    assert!(text(ConditionType::Halted).contains("the policy itself does not halt"));
    assert_eq!(verdict(&policy("{}"), &status), "InProgress");
}

#[test]
fn a_selector_that_cannot_be_read_stalls_the_policy_and_its_bots_are_counted_all_the_same() {
    let broken = "{mode: Halted, selector: {matchExpressions: [{key: desk, operator: Like, values: [a]}]}}";
    let status = of(broken, &[member("a", true, true, false)]);
    let stalled = find(&status.conditions, ConditionType::Stalled).unwrap();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "SelectorInvalid"));
    assert!(stalled.message.contains("every bot") && stalled.message.contains("spec.selector"), "{}", stalled.message);
    assert!(is_true(&status.conditions, ConditionType::Halted));
    assert_eq!(verdict(&policy(broken), &status), "Failed");
}

#[test]
fn a_bot_at_zero_does_not_keep_the_policy_from_being_ready() {
    let at_zero = Member { at_zero: true, ..member("a", false, true, true) };
    let status = of("mode: Stopped", &[at_zero, member("b", true, false, true)]);
    assert!(
        is_true(&status.conditions, ConditionType::ControlApplied) && is_true(&status.conditions, ConditionType::Flat)
    );
    assert_eq!(status.bots.acknowledged, 1, "acknowledged counts words");
    let message = &find(&status.conditions, ConditionType::Flat).unwrap().message;
    assert_eq!(message, "2 of 2 bots are flat, 1 of them drained to zero");
}

proptest! {
    #[test]
    fn conditions_and_counts_agree_and_a_second_look_writes_nothing(
        bots in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..8),
    ) {
        let members: Vec<_> = bots.iter().enumerate().map(|(n, (a, h, f))| member(&format!("b{n}"), *a, *h, *f)).collect();
        let mut policy = policy("killSwitch: {engaged: true}");
        let first = status(&policy, &members, &at(1));
        let all = |count: u32| count == first.bots.matched && count > 0;
        prop_assert_eq!(is_true(&first.conditions, ConditionType::ControlApplied), all(first.bots.acknowledged));
        prop_assert_eq!(is_true(&first.conditions, ConditionType::Halted), all(first.bots.halted));
        prop_assert_eq!(is_true(&first.conditions, ConditionType::Flat), all(first.bots.flat));
        policy.status = Some(first.clone());
        prop_assert_eq!(status(&policy, &members, &at(2)), first);
    }

    #[test]
    fn the_order_of_the_bots_does_not_matter(mut bots in prop::collection::vec((0u8..20, any::<bool>()), 0..8)) {
        let of = |bots: &[(u8, bool)]| {
            let members: Vec<_> = bots.iter().map(|(n, h)| member(&format!("b{n}"), true, *h, *h)).collect();
            status(&policy("mode: Halted"), &members, &at(1))
        };
        let before = of(&bots);
        bots.reverse();
        prop_assert_eq!(before, of(&bots));
    }
}
