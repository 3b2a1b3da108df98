use arbbot_crds::arbbot::Mode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use std::sync::Arc;

use super::waiting::waiting;
use super::*;
use crate::reconcile::fixtures::{self, bot_with_status, deployment, lease, policy};

const FLAT: &str = r#"
claim: {account: a, product: p, granted: true}
bot: {podUid: pod-1}
conditions:
- {type: Halted, status: "True", reason: NoOrdersWorking, message: m, observedGeneration: 3, lastTransitionTime: "2026-01-01T00:00:00Z"}
- {type: Flat, status: "True", reason: NoPosition, message: m, observedGeneration: 3, lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;

fn fetched(status: &str, policy: DeletionPolicy) -> Fetched {
    let mut bot = bot_with_status(status);
    bot.spec.deletion_policy = policy;
    bot.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    fixtures::fetched(bot)
}

/// A bot that runs, has read its deletion, and reports this step of its drain.
fn drains(phase: &str, more: &str) -> Fetched {
    let status = format!(
        "{{claim: {{account: a, product: p, granted: true}}, bot: {{podUid: pod-1, appliedGeneration: 3, drain: {{startedAt: '2026-01-01T00:00:00Z', phase: {phase}}}}}{more}}}"
    );
    fetched(&status, DeletionPolicy::Drain)
}

fn stalled(verdict: Verdict) -> (bool, Reason, String) {
    match verdict {
        Verdict::Stalled(why) => (true, why.reason, why.message),
        Verdict::Reconciling(why) => (false, why.reason, why.message),
        other => panic!("{other:?}"),
    }
}

fn settled(fetched: &Fetched) -> bool {
    is_settled(fetched, Timestamp::from_second(1_000).unwrap())
}

#[test]
fn flatten_waits_until_this_generation_is_halted_and_flat() {
    let mut waits = fetched(FLAT, DeletionPolicy::Flatten);
    assert!(settled(&waits));
    waits.bot.metadata.generation = Some(4);
    assert!(!settled(&waits), "what was said of generation 3 is not about the deletion");
    assert!(!settled(&fetched(
        &FLAT.replace("\"True\", reason: NoPosition", "Unknown, reason: ContactLost"),
        DeletionPolicy::Flatten
    )));
}

#[test]
fn orphan_needs_no_flat_and_no_word_of_a_bot_that_runs_nowhere() {
    let open = FLAT.replace("\"True\", reason: NoPosition", "\"False\", reason: PositionOpen");
    assert!(settled(&fetched(&open, DeletionPolicy::Orphan)));
    assert!(!settled(&fetched(&open, DeletionPolicy::Flatten)));
    let silent = "{bot: {podUid: pod-1}, claim: {account: a, product: p, granted: true}}";
    let mut nowhere = fetched(silent, DeletionPolicy::Orphan);
    assert!(settled(&nowhere));
    nowhere.lease = Some(lease("pod-1", Timestamp::from_second(990).unwrap(), 300));
    assert!(!settled(&nowhere), "somebody holds the Lease");
}

#[test]
fn a_bot_that_never_could_trade_is_deleted_at_once() {
    assert!(settled(&fetched("claim: {account: a, product: p, granted: false}", DeletionPolicy::Flatten)));
    assert!(
        settled(&fetched("claim: {account: a, product: p, granted: true}", DeletionPolicy::Flatten)),
        "it never ran"
    );
    assert!(!settled(&fetched("bot: {ownedSince: '2026-01-01T00:00:00Z'}", DeletionPolicy::Flatten)));
}

#[test]
fn a_waiting_deletion_names_both_ways_out_and_stalls_after_a_minute() {
    let waits = fetched("claim: {account: a, product: p, granted: true}", DeletionPolicy::Flatten);
    let (needs_person, _, message) = stalled(waiting(&waits, SignedDuration::from_secs(59)));
    assert!(!needs_person && message.contains(r#"-p '{"spec":{"deletionPolicy":"Orphan"}}'"#), "{message}");
    assert!(message.contains("reach the exchange"));
    assert!(matches!(waiting(&waits, SignedDuration::from_secs(61)), Verdict::Stalled(_)));
}

#[test]
fn a_drain_needs_only_flat_and_has_its_own_time() {
    let only_flat = FLAT.replace("type: Halted, status: \"True\"", "type: Halted, status: \"False\"");
    assert!(settled(&fetched(&only_flat, DeletionPolicy::Drain)));
    let (needs_person, reason, message) =
        stalled(waiting(&drains("ClosingPosition", ""), SignedDuration::from_mins(9)));
    assert!(!needs_person && reason == Reason::Draining, "{message}");
    let (needs_person, reason, message) = stalled(waiting(&drains("TimedOut", ""), SignedDuration::from_mins(11)));
    assert!(needs_person && reason == Reason::DrainTimedOut);
    for way in [r#"{"spec":{"onDrainTimeout":"Flatten"}}"#, r#"{"spec":{"deletionPolicy":"Orphan"}}"#] {
        assert!(message.contains(way), "{message}");
    }
}

#[test]
fn a_deletion_under_halted_names_the_source_and_both_ways_out() {
    let blocked = |fetched: &Fetched| {
        let (needs_person, reason, message) = stalled(waiting(fetched, SignedDuration::from_secs(1)));
        assert!(needs_person && reason == Reason::DeletionBlockedByHalted, "{message}");
        assert!(message.contains(r#"arbbot/carry -n desk --type=merge --field-manager=arb-incident -p '{"spec":{"deletionPolicy":"Flatten"}}'"#), "{message}");
        assert!(message.len() < 1024, "it would be cut: {message}");
        let own = message.find("deletionPolicy").unwrap();
        assert!(message.find("arbpolicy/").is_none_or(|desk| own < desk), "the bot's own way comes first: {message}");
        message
    };
    let mut by_policy = drains("HeldByHalt", "");
    by_policy.policies = vec![Arc::new(policy("mode: Halted"))];
    let message = blocked(&by_policy);
    assert!(
        message.contains("ArbPolicy/desk is Halted") && message.contains("kubectl patch arbpolicy/desk"),
        "{message}"
    );

    let mut by_spec = drains("HeldByHalt", "");
    by_spec.bot.spec.mode = Mode::Halted;
    assert!(blocked(&by_spec).contains(r#"'{"spec":{"mode":"ReduceOnly"}}'"#));

    let latch = ", killSwitch: {incidents: [{id: 0b9d6bcd-2, source: ArbBot/carry, phase: Finished, action: CancelOrders, engagedAt: '2026-01-01T00:00:00Z'}]}";
    assert!(blocked(&drains("HeldByHalt", latch)).contains(r#""release":"0b9d6bcd-2""#));
}

#[test]
fn a_bot_that_has_not_read_its_deletion_is_not_called_blocked() {
    let mut unread = drains("ClosingPosition", "");
    unread.bot.spec.mode = Mode::Halted;
    unread.bot.metadata.generation = Some(4);
    assert_eq!(stalled(waiting(&unread, SignedDuration::from_secs(1))).1, Reason::DeletionWaitsForFlat);
    assert_eq!(stalled(waiting(&unread, SignedDuration::from_secs(61))).1, Reason::DeletionBlockedByHalted);
}

#[test]
fn a_bot_at_zero_is_deleted_by_its_last_word() {
    let flat = "conditions: [{type: Flat, status: 'True', reason: NoPosition, message: m, observedGeneration: 3, lastTransitionTime: '2026-01-01T00:00:00Z'}]";
    let mut at_rest = drains("Finished", &format!(", {flat}"));
    at_rest.bot.metadata.generation = Some(4);
    assert!(!settled(&at_rest), "no Deployment shows that it is at zero");
    at_rest.children.deployment = Some(deployment(&at_rest.bot, 0));
    for policy in [DeletionPolicy::Drain, DeletionPolicy::Flatten, DeletionPolicy::Orphan] {
        at_rest.bot.spec.deletion_policy = policy;
        assert!(settled(&at_rest));
    }
    at_rest.lease = Some(lease("pod-1", Timestamp::from_second(990).unwrap(), 300));
    at_rest.bot.spec.deletion_policy = DeletionPolicy::Drain;
    assert!(!settled(&at_rest), "somebody holds the Lease");
}

#[test]
fn pods_under_a_deployment_that_is_not_ours_are_no_silent_deletion() {
    let mut torn = drains("Finished", "");
    torn.children.deployment = Some(deployment(&torn.bot, 1));
    assert!(estranged(&torn).is_none() && left_alone(&torn).is_empty());
    let labels = torn.children.deployment.as_mut().unwrap().metadata.labels.as_mut().unwrap();
    labels.insert(LABEL_BOT_UID.to_owned(), "another-uid".to_owned());
    let (needs_person, reason, message) = stalled(estranged(&torn).unwrap());
    assert!(needs_person && reason == Reason::ChildNotOurs && message.contains("kubectl label"), "{message}");
    assert!(left_alone(&torn).contains("Deployment arbbot-carry"));
}

#[test]
fn no_second_pod_is_made_while_one_ends() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut ending = drains("ClosingPosition", "");
    assert!(!is_ending(&ending, at(0)), "nothing runs: a pod is needed to close the position");
    let mut pod = Pod::default();
    ending.pods = vec![Arc::new(pod.clone())];
    assert!(!is_ending(&ending, at(0)), "it runs on");
    pod.metadata.deletion_timestamp = Some(Time(at(100)));
    ending.pods = vec![Arc::new(pod)];
    assert!(is_ending(&ending, at(100)) && overdue(&ending, at(100)).is_none());
    assert!(!is_ending(&ending, at(200)), "its time is over by far: its node may be lost");
    assert!(matches!(overdue(&ending, at(200)), Some(Verdict::Stalled(why)) if why.message.contains("does not end")));
    ending.policies = vec![Arc::new(policy("killSwitch: {engaged: true}"))];
    assert!(!is_ending(&ending, at(100)), "a kill wants a bot that runs");
    ending.policies.clear();
    ending.children.deployment = Some(deployment(&ending.bot, 1));
    assert!(!is_ending(&ending, at(100)), "the workload stands");
}
