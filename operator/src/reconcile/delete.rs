//! The finalizer: the position is taken care of first, then the pod ends, then the children go. The ledger's claim stays.

use std::time::Duration;

use arbbot_crds::arbbot::DeletionPolicy;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::names::{FINALIZER, LABEL_BOT_UID, MANAGER_OPERATOR, ledger_claim_name};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::apply::{Child, is_ours, not_ours};
use super::fetch::{Children, Fetched};
use super::verdict::{Verdict, is_acknowledged};
use super::{contact, drain, pods, remedy, replicas};
use crate::api::{ApiError, call, call_unless_gone};
use crate::cache::children::Known;
use crate::context::Context;
use crate::events::Report;

/// A deletion that waits for longer than this needs a person.
const STALLED_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// How often the end of the pod is asked for, beside its watch.
pub const POLL: Duration = Duration::from_secs(2);

/// How far a deletion is.
pub enum Deletion {
    NotDeleted,
    /// The position is not taken care of yet.
    Waits(Verdict),
    /// The children are going; look again after [`POLL`]. A pod that does not end is told of.
    TearingDown(Option<Verdict>),
    /// Nothing is left to do.
    Done,
}

/// Puts the finalizer on a bot, before anything of it exists.
///
/// # Errors
/// The call failed, or the bot has changed meanwhile.
pub async fn hold(bot: &ArbBot, ctx: &Context) -> Result<(), ApiError> {
    if !held(bot) {
        let finalizers = bot.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
        set_finalizers(bot, finalizers, ctx).await?;
    }
    Ok(())
}

fn held(bot: &ArbBot) -> bool {
    bot.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Takes the next step of a deletion, if there is one.
///
/// # Errors
/// A call failed.
pub async fn step(fetched: &Fetched, now: Timestamp, ctx: &Context) -> Result<Deletion, ApiError> {
    let bot = &fetched.bot;
    let Some(deleted) = &bot.metadata.deletion_timestamp else { return Ok(Deletion::NotDeleted) };
    if !held(bot) {
        return Ok(Deletion::Done);
    }
    if is_settled(fetched, now) {
        return tear_down(fetched, now, ctx).await;
    }
    if is_ending(fetched, now) {
        return Ok(Deletion::TearingDown(None));
    }
    if namespace_terminates(bot, ctx).await? {
        return leave_with_namespace(bot, ctx).await;
    }
    Ok(Deletion::Waits(waiting(fetched, now.duration_since(deleted.0))))
}

/// Whether the workload is gone and a pod of it is still ending. It asks the exchange once more, and says meanwhile that
/// flat is not confirmed: its last word is waited for, and no second pod is started beside it; unless a kill wants one, or
/// its time is over.
fn is_ending(fetched: &Fetched, now: Timestamp) -> bool {
    let workload = fetched.children.deployment.as_ref();
    let is_gone = workload.is_none_or(|workload| workload.metadata.deletion_timestamp.is_some());
    let killed = replicas::is_killed(&fetched.bot, &fetched.policies());
    is_gone && !killed && fetched.is_ending() && fetched.overdue_pod(now).is_none()
}

/// What a person must know of a pod that does not end.
fn overdue(fetched: &Fetched, now: Timestamp) -> Option<Verdict> {
    let pod = fetched.overdue_pod(now)?;
    let text = format!(
        "pod {} does not end: its grace period is over by more than a minute; see its node (kubectl get pod {0} -n {} -o wide). The deletion goes on when the pod object is gone",
        pod.name_any(),
        pod.namespace().unwrap_or_default()
    );
    Some(Verdict::stalled(Reason::PodNotReady, text))
}

/// Whether nothing has to be done with the position any more.
fn is_settled(fetched: &Fetched, now: Timestamp) -> bool {
    let bot = &fetched.bot;
    let status = bot.status.as_ref();
    let granted = status.and_then(|status| status.claim.as_ref()).is_some_and(|claim| claim.granted);
    let owned_since = status.and_then(|status| status.bot.as_ref()).and_then(|bot| bot.owned_since.as_ref());
    let never_ran = status.is_none_or(|status| status.bot.is_none()) && fetched.lease.is_none();
    if never_ran || (!granted && owned_since.is_none()) {
        return true; // it never could trade; one that starts only now reads first that it is being deleted
    }
    let somebody_trades = fetched
        .lease
        .as_ref()
        .is_some_and(|lease| contact::holder(lease).is_some() && contact::expiry(lease) > Some(now));
    if fetched.is_at_rest() && !somebody_trades {
        return true; // drained before: there is nobody to say it again, and nothing to say it about
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    // The deletion raised the generation: what the bot said of an earlier one is not about the deletion.
    let confirmed = |type_| {
        find(conditions, type_).is_some_and(|c| c.status == "True" && c.observed_generation >= bot.metadata.generation)
    };
    match bot.spec.deletion_policy {
        DeletionPolicy::Drain => confirmed(ConditionType::Flat),
        DeletionPolicy::Flatten => confirmed(ConditionType::Flat) && confirmed(ConditionType::Halted),
        DeletionPolicy::Orphan => confirmed(ConditionType::Halted) || (fetched.pods.is_empty() && !somebody_trades),
    }
}

/// What keeps the deletion, and the ways out.
fn waiting(fetched: &Fetched, since: SignedDuration) -> Verdict {
    let trouble = fetched
        .children
        .deployment
        .as_ref()
        .and_then(|d| pods::diagnose(d, &fetched.pods, &fetched.pod_events))
        .and_then(|verdict| verdict.why().map(|why| why.message.clone()));
    let is_late = since > STALLED_AFTER;
    if let Some(verdict) = draining(fetched, trouble.is_some(), is_late) {
        return verdict;
    }
    let mut message = unconfirmed(&fetched.bot);
    if let Some(trouble) = trouble {
        message = format!("{message}. The bot does not run: {trouble}");
    }
    if is_late {
        Verdict::stalled(Reason::DeletionWaitsForFlat, message)
    } else {
        Verdict::reconciling(Reason::DeletionWaitsForFlat, message)
    }
}

/// Where the drain of a deletion is. None: it is not under way, or the pod that would do it does not run.
fn draining(fetched: &Fetched, has_trouble: bool, is_late: bool) -> Option<Verdict> {
    let (bot, policies) = (&fetched.bot, fetched.policies());
    // Until the bot has read the deletion it may still turn out to be flat.
    if drain::is_held(bot, &policies) && (is_acknowledged(bot) || is_late) {
        return Some(blocked(bot, &policies, &fetched.all_policies()));
    }
    let reported = drain::reported(bot).filter(|_| drain::is_demanded(bot, &policies));
    match reported {
        Some(reported) if drain::has_timed_out(bot, reported) => {
            Some(drain::timed_out(bot, &format!("; or delete it as it is: {}", policy_patch(bot, "Orphan"))))
        }
        Some(reported) if !has_trouble => {
            Some(Verdict::reconciling(Reason::Draining, drain::step(bot, &policies, &fetched.all_policies(), reported)))
        }
        _ => None,
    }
}

/// Something holds the bot Halted, and a drain may not trade then: both ways out.
fn blocked(bot: &ArbBot, policies: &[&ArbPolicy], all: &[&ArbPolicy]) -> Verdict {
    let (who, lift) = remedy::describe(&remedy::holds(bot, policies, all));
    let lift = if lift.is_empty() { "let the bot reach the exchange".to_owned() } else { lift };
    let text = format!(
        "the deletion drains the position, but {who} holds the bot Halted. Either do not wait, for this bot alone: {} closes the position as a kill does (Orphan instead of Flatten keeps it); or end the halt, then the drain goes on: {lift}",
        policy_patch(bot, "Flatten")
    );
    Verdict::stalled(Reason::DeletionBlockedByHalted, text)
}

fn policy_patch(bot: &ArbBot, policy: &str) -> String {
    remedy::patch_bot(bot, &format!(r#"{{"deletionPolicy":"{policy}"}}"#))
}

/// What the exchange has not confirmed yet, and both ways out.
fn unconfirmed(bot: &ArbBot) -> String {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let said = |type_: ConditionType| match find(conditions, type_) {
        Some(c) => format!("{type_}={} ({}: {})", c.status, c.reason, c.message),
        None => format!("{type_} is not reported yet"),
    };
    match bot.spec.deletion_policy {
        DeletionPolicy::Drain | DeletionPolicy::Flatten => format!(
            "the deletion waits until the exchange confirms that no order works and the position is closed: {}, {}. Either let the bot reach the exchange, then it goes on by itself; or keep the position: {}",
            said(ConditionType::Halted),
            said(ConditionType::Flat),
            policy_patch(bot, "Orphan")
        ),
        DeletionPolicy::Orphan => format!(
            "the deletion waits until the exchange confirms that no order works: {}. Either let the bot reach the exchange, then it goes on by itself; or cancel the orders there by hand, delete the bot's pod and Lease, and remove the finalizer {FINALIZER}",
            said(ConditionType::Halted)
        ),
    }
}

/// The workload first; the rest only after its pods have ended, because the bot needs it to cancel and report.
async fn tear_down(fetched: &Fetched, now: Timestamp, ctx: &Context) -> Result<Deletion, ApiError> {
    let bot = &fetched.bot;
    // Destructured without `..`: a new child does not compile until its end is decided here.
    let Children { service_account, role, role_binding, service, ledger_claim: _, network_policy, deployment } =
        &fetched.children;
    if delete(bot, deployment.as_ref(), ctx).await? || !pods_have_ended(bot, ctx).await? {
        return Ok(Deletion::TearingDown(overdue(fetched, now).or_else(|| estranged(fetched))));
    }
    // From here on every child is as the API server itself has it.
    ctx.must_act("delete the children")?;
    let left = left_alone(fetched);
    delete(bot, service.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, network_policy.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, role_binding.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, role.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, service_account.as_ref().and_then(Known::object), ctx).await?;
    delete(bot, fetched.lease.as_ref(), ctx).await?;
    let note = format!(
        "deleted; {}. Its ledger stays in PersistentVolumeClaim {}{left}",
        last_words(bot),
        ledger_claim_name(&bot.name_any())
    );
    ctx.reports.publish(bot, &Report::normal(Reason::Deleting, note)).await;
    release(bot, ctx).await
}

/// The bot's pods run under a Deployment that is not its own by uid: it is not deleted, and a person must say whose it is.
fn estranged(fetched: &Fetched) -> Option<Verdict> {
    let uid = fetched.bot.uid().unwrap_or_default();
    let deployment = fetched.children.deployment.as_ref().filter(|deployment| !is_ours(*deployment, &uid))?;
    let text = format!("{}. The deletion goes on when the bot's pods have ended", not_ours(deployment, &uid));
    Some(Verdict::stalled(Reason::ChildNotOurs, text))
}

/// Names what stands under the bot's names and is not the bot's by uid: it stays.
fn left_alone(fetched: &Fetched) -> String {
    fn name<K: Child>(child: Option<&K>, uid: &str) -> Option<String> {
        let child = child.filter(|child| !is_ours(*child, uid))?;
        Some(format!("{} {}", K::kind(&()), child.name_any()))
    }
    let uid = fetched.bot.uid().unwrap_or_default();
    let Children { service_account, role, role_binding, service, ledger_claim: _, network_policy, deployment } =
        &fetched.children;
    let left = [
        name(deployment.as_ref(), &uid),
        name(service.as_ref().and_then(Known::object), &uid),
        name(network_policy.as_ref().and_then(Known::object), &uid),
        name(role_binding.as_ref().and_then(Known::object), &uid),
        name(role.as_ref().and_then(Known::object), &uid),
        name(service_account.as_ref().and_then(Known::object), &uid),
        name(fetched.lease.as_ref(), &uid),
    ];
    let left: Vec<_> = left.into_iter().flatten().collect();
    if left.is_empty() {
        return String::new();
    }
    format!("; left alone without the label {LABEL_BOT_UID}={uid}: {}", left.join(", "))
}

/// Deletes a child of ours; what is not ours by uid stays. Returns whether there was something to delete.
async fn delete<K: Child>(bot: &ArbBot, child: Option<&K>, ctx: &Context) -> Result<bool, ApiError> {
    let Some(child) = child.filter(|child| is_ours(*child, &bot.uid().unwrap_or_default())) else { return Ok(false) };
    let (name, namespace) = (child.name_any(), child.namespace().unwrap_or_default());
    if child.meta().deletion_timestamp.is_none() {
        let same = Preconditions { uid: child.uid(), resource_version: None };
        let params = DeleteParams::background().preconditions(same);
        let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
        let kind = K::kind(&());
        call_unless_gone(format!("delete {kind} {namespace}/{name}"), api.delete(&name, &params)).await?;
        ctx.metrics.wrote(&kind, "deleted");
        tracing::info!(%kind, namespace, name, "child deleted");
    }
    if let Some(uid) = child.uid() {
        ctx.applied.remove(&uid);
    }
    Ok(true)
}

/// Asked of the API server itself: a cache could miss a pod that was just created.
async fn pods_have_ended(bot: &ArbBot, ctx: &Context) -> Result<bool, ApiError> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &bot.namespace().unwrap_or_default());
    let params = ListParams::default().labels(&format!("{LABEL_BOT_UID}={}", bot.uid().unwrap_or_default()));
    Ok(call("list the bot's pods", api.list_metadata(&params)).await?.items.is_empty())
}

async fn namespace_terminates(bot: &ArbBot, ctx: &Context) -> Result<bool, ApiError> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let name = bot.namespace().unwrap_or_default();
    let namespace = call(format!("read Namespace {name}"), api.get_metadata_opt(&name)).await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// In a terminating namespace nothing can be created: the pod has its grace period, then only a record is left to make.
async fn leave_with_namespace(bot: &ArbBot, ctx: &Context) -> Result<Deletion, ApiError> {
    if !pods_have_ended(bot, ctx).await? {
        return Ok(Deletion::TearingDown(None));
    }
    let note = format!(
        "ArbBot {} goes with its namespace without confirmation of the exchange; {}. Check orders and position of portfolio {} at the exchange",
        bot.name_any(),
        last_words(bot),
        bot.spec.venue.coinbase.portfolio
    );
    ctx.reports.publish_on_namespace(bot, &Report::warning(Reason::Deleting, note)).await;
    release(bot, ctx).await
}

/// Position and head of the ledger as the bot last reported them.
fn last_words(bot: &ArbBot) -> String {
    let said = bot.status.as_ref().and_then(|status| status.bot.as_ref());
    let position = match said.and_then(|bot| bot.position.as_ref()) {
        Some(p) => format!("last position {} contracts, {} spot", p.future_contracts, p.spot_base),
        None => "no position was reported".to_owned(),
    };
    match said.and_then(|bot| bot.ledger.as_ref()) {
        Some(ledger) => format!("{position}, ledger head {} after {} entries", ledger.head, ledger.entries),
        None => position,
    }
}

async fn release(bot: &ArbBot, ctx: &Context) -> Result<Deletion, ApiError> {
    let others = bot.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set_finalizers(bot, others, ctx).await?;
    Ok(Deletion::Done)
}

/// With the resourceVersion, so that nobody's finalizer is lost.
async fn set_finalizers(bot: &ArbBot, finalizers: Vec<String>, ctx: &Context) -> Result<(), ApiError> {
    let (name, namespace) = (bot.name_any(), bot.namespace().unwrap_or_default());
    let api: Api<ArbBot> = Api::namespaced(ctx.client.clone(), &namespace);
    let metadata = json!({"uid": bot.uid(), "resourceVersion": bot.resource_version(), "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let params = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
    let written =
        call(format!("set the finalizers of ArbBot {namespace}/{name}"), api.patch_metadata(&name, &params, &patch));
    match written.await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => {
            ctx.metrics.wrote("ArbBot", "applied");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{self, bot_with_status, deployment, lease, policy};
    use super::*;
    use arbbot_crds::arbbot::Mode;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use std::sync::Arc;

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
            assert!(
                message.find("arbpolicy/").is_none_or(|desk| own < desk),
                "the bot's own way comes first: {message}"
            );
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
        assert!(
            matches!(overdue(&ending, at(200)), Some(Verdict::Stalled(why)) if why.message.contains("does not end"))
        );
        ending.policies = vec![Arc::new(policy("killSwitch: {engaged: true}"))];
        assert!(!is_ending(&ending, at(100)), "a kill wants a bot that runs");
        ending.policies.clear();
        ending.children.deployment = Some(deployment(&ending.bot, 1));
        assert!(!is_ending(&ending, at(100)), "the workload stands");
    }
}
