//! The life of a bot and of a desk on the real API server: stopped and back, deleted in every way, paused, edited by
//! hand, rolled out, and killed and released by one policy.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, find};
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::exchange::Portfolio;
use arbbot_tests::harness::{Bot, Desk, PATIENCE, Room, condition_is, incidents, run};
use arbbot_tests::measure::Journal;
use arbbot_tests::{objects, scenarios};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

fn main() -> ExitCode {
    run(
        24,
        scenarios![
            stopped_drains_then_scales_to_zero_and_comes_back,
            a_kill_on_a_stopped_bot_is_latched,
            foreground_deletion_closes_the_position_first,
            a_deletion_under_a_halted_policy_names_both_ways_out,
            a_namespace_can_be_deleted_and_nothing_rests_at_the_exchange,
            the_ledger_is_adopted_by_a_bot_of_the_same_name,
            a_pause_does_not_pause_a_kill,
            a_desk_is_killed_and_released_by_one_policy,
            a_bot_created_under_an_engaged_policy_starts_latched,
            a_policy_that_is_relabelled_away_while_engaged_releases_nothing,
            every_child_changed_by_hand_is_restored_and_then_nothing_is_written,
            a_cold_change_hands_over_and_keeps_the_position,
            an_object_that_nobody_can_read_says_so_and_stops_no_other,
            a_policy_with_a_broken_selector_says_so_and_binds_every_bot,
        ],
    )
}

const DEPLOYMENT: &str = "deployment/arbbot-bot";
const POLL: Duration = Duration::from_millis(100);

fn ready_because(bot: &ArbBot, reason: &str) -> bool {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition_is(bot, ConditionType::Ready, "True")
        && find(conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
}

fn stalled_because(bot: &ArbBot, reason: &str) -> Option<String> {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let stalled = find(conditions, ConditionType::Stalled)?;
    (stalled.status == "True" && stalled.reason == reason).then(|| stalled.message.clone())
}

/// The patience of one question.
struct Until<'a> {
    what: &'a str,
    ends: Instant,
}

impl<'a> Until<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, ends: Instant::now() + PATIENCE }
    }

    /// Waits a moment before the question is asked again.
    async fn again(&self) -> Result<()> {
        ensure!(Instant::now() < self.ends, "not within {} s: {}", PATIENCE.as_secs(), self.what);
        sleep(POLL).await;
        Ok(())
    }
}

/// Asks again until the answer is there. A macro, because a closure would have to promise more lifetimes than it has.
macro_rules! eventually {
    ($what:expr, $ask:expr) => {{
        let until = Until::new($what);
        loop {
            if let Some(found) = $ask {
                break found;
            }
            until.again().await?;
        }
    }};
}

async fn patch_policy(room: &Room<'_>, patch: Value) -> Result<()> {
    let patch = patch.to_string();
    let arguments = ["patch", "arbpolicy/desk", "--type=merge", "--field-manager=arb-incident", "-p", &patch];
    room.kubectl(&arguments).await.map(drop)
}

async fn wait_policy(room: &Room<'_>, condition: &str) -> Result<()> {
    let condition = format!("--for=condition={condition}");
    room.kubectl(&["wait", &condition, "arbpolicy/desk", "--timeout=60s"]).await.map(drop)
}

/// Runs a kubectl command as a message names it.
async fn run_line(room: &Room<'_>, line: &str) -> Result<()> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    ensure!(words.first().is_some_and(|word| word == "kubectl"), "no command: {line}");
    let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
    room.desk.kubectl.run(&words).await.map(drop)
}

/// The kubectl commands that a message names, in their order: each ends with a patch in quotes.
fn commands(message: &str) -> Vec<String> {
    let starts = message.match_indices("kubectl ").map(|(at, _)| &message[at..]);
    let whole = starts.filter_map(|line| line.match_indices('\'').nth(1).map(|(end, _)| line[..=end].to_owned()));
    whole.collect()
}

async fn stopped_bot<'a>(room: &Room<'a>) -> Result<Bot<'a>> {
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"mode": "Stopped"}})).await?;
    bot.wait("drained and stopped", |bot| ready_because(bot, "Stopped")).await?;
    Ok(bot)
}

/// Gives a bot that may have reached its target a larger one, and waits until it trades towards it.
async fn trades_more(bot: &Bot<'_>) -> Result<()> {
    let larger = json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": "15000"}}}});
    bot.patch(larger).await?;
    bot.wait_until_trading().await
}

async fn deployment(bot: &Bot<'_>) -> Result<Deployment> {
    let api: Api<Deployment> = Api::namespaced(bot.desk.client.clone(), &bot.namespace);
    Ok(api.get(&format!("arbbot-{}", bot.name)).await?)
}

async fn stopped_drains_then_scales_to_zero_and_comes_back(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("stopped").await?;
    let bot = stopped_bot(&room).await?;
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    let spec = deployment(&bot).await?.spec.context("a spec")?;
    ensure!(spec.replicas == Some(0), "{:?} replicas", spec.replicas);
    ensure!(room.kubectl(&["get", "pods", "-o", "name"]).await?.is_empty(), "a pod is left");
    ensure!(incidents(&bot.get().await?).is_empty(), "a drain is no kill");
    let events = bot.events().await?;
    for reason in ["Draining", "Stopped"] {
        ensure!(events.contains(reason), "no Event {reason}: {events}");
    }
    // A hot change of a bot at zero is taken in without a pod, and its last word stands.
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    bot.wait("still stopped", |bot| {
        ready_because(bot, "Stopped") && bot.metadata.generation == Some(patched.generation)
    })
    .await?;
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    bot.wait_until_trading().await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await.map(drop)
}

async fn a_kill_on_a_stopped_bot_is_latched(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("stopped-kill").await?;
    let bot = stopped_bot(&room).await?;
    bot.kill().await?;
    let incident = bot.wait_kill_finished().await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    bot.wait_condition(ConditionType::Flat, "True").await?;
    let release = json!({"spec": {"killSwitch": {"engaged": false, "release": incident.id}}});
    bot.patch(release).await?;
    let again = bot.wait("stopped again", |bot| ready_because(bot, "Stopped") && incidents(bot).is_empty()).await?;
    let history = again.status.map(|status| status.incidents).unwrap_or_default();
    let past = history.iter().find(|past| past.id == incident.id).context("the incident is not in the history")?;
    ensure!(past.contained_at.is_some() && past.resolved_at.is_some(), "{past:?}");
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    Ok(())
}

async fn foreground_deletion_closes_the_position_first(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("foreground").await?;
    let bot = room.trading_bot("bot").await?;
    let deleted = monotonic_ns();
    room.kubectl(&["delete", "arbbot/bot", "--cascade=foreground", "--wait=false"]).await?;
    bot.wait_gone().await?;
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    let events = bot.journal().await?;
    ensure!(Journal(&events).flat(deleted).is_some(), "it was not closed after the deletion");
    let claim = room.kubectl(&["get", "pvc", "arbbot-bot-ledger", "-o", "name"]).await?;
    ensure!(!claim.is_empty(), "the ledger is gone");
    Ok(())
}

async fn a_deletion_under_a_halted_policy_names_both_ways_out(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("blocked").await?;
    room.apply(&objects::policy("desk")).await?;
    let lifted = room.trading_bot("lifted").await?;
    let closed = room.trading_bot("closed").await?;
    patch_policy(&room, json!({"spec": {"mode": "Halted"}})).await?;
    for bot in [&lifted, &closed] {
        bot.wait_condition(ConditionType::Halted, "True").await?;
        bot.delete().await?;
    }
    let blocked = |bot: &ArbBot| stalled_because(bot, "DeletionBlockedByHalted").is_some();
    for (bot, way) in [(&closed, 1), (&lifted, 0)] {
        let shown = bot.wait("the deletion is shown as blocked", blocked).await?;
        let message = stalled_because(&shown, "DeletionBlockedByHalted").unwrap_or_default();
        ensure!(message.contains("ArbPolicy/desk"), "{message}");
        let commands = commands(&message);
        ensure!(commands.len() == 2, "{commands:?} in {message}");
        ensure!(bot.portfolio().await?.is_carrying(), "it was closed under Halted");
        run_line(&room, &commands[way]).await?;
        bot.wait_gone().await?;
        ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    }
    Ok(())
}

async fn a_namespace_can_be_deleted_and_nothing_rests_at_the_exchange(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("namespace-gone").await?;
    let bot = room.trading_bot("bot").await?;
    desk.kubectl.run(&["delete", "namespace", &room.name, "--wait=false"]).await?;
    eventually!("the namespace is gone", {
        let left = desk.kubectl.run(&["get", "namespace", &room.name, "--ignore-not-found", "-o", "name"]).await?;
        left.trim().is_empty().then_some(())
    });
    bot.wait_exchange("no order rests", |portfolio| portfolio.open_orders.is_empty()).await?;
    // An Event of a Namespace lies in "default".
    let events = desk.kubectl.run(&["get", "events", "-n", "default", "-o", "custom-columns=M:.message"]).await?;
    let last = events.lines().find(|line| line.contains(&bot.account.portfolio)).context(events.clone())?;
    ensure!(last.contains("last position") && last.contains("ledger head"), "{last}");
    Ok(())
}

async fn the_ledger_is_adopted_by_a_bot_of_the_same_name(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("adoption").await?;
    let (object, account) = room.draft("bot").await?;
    room.apply(&object).await?;
    let bot = room.handle("bot", &account);
    bot.wait_until_trading().await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(desk.client.clone(), &room.name);
    let before = claims.get("arbbot-bot-ledger").await?;
    bot.patch(json!({"spec": {"deletionPolicy": "Orphan"}})).await?;
    bot.delete().await?;
    bot.wait_gone().await?;
    let carried = bot.portfolio().await?;
    ensure!(carried.is_carrying(), "{carried:?}");

    room.apply(&object).await?;
    let again = bot
        .wait("the second bot has reconciled", |bot| condition_is(bot, ConditionType::PositionsReconciled, "True"))
        .await?;
    let after = claims.get("arbbot-bot-ledger").await?;
    ensure!(after.uid() == before.uid(), "another claim was made");
    ensure!(after.labels().get("arbbot.io/bot-uid") == again.uid().as_ref(), "{:?}", after.labels());
    trades_more(&bot).await
}

async fn a_pause_does_not_pause_a_kill(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("paused").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await?;
    room.kubectl(&["annotate", "arbbot/bot", "arbbot.io/paused=true"]).await?;
    let paused = |bot: &ArbBot| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        find(conditions, ConditionType::Reconciling)
            .is_some_and(|c| c.reason == "ReconciliationPaused" && c.status == "False")
    };
    let shown = bot.wait("the pause is shown", paused).await?;
    ensure!(ready_because(&shown, "Available"), "a pause makes the bot not ready");
    room.kubectl(&["delete", "service/arbbot-bot"]).await?;
    bot.kill().await?;
    bot.wait_kill_finished().await?;
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    let service = ["get", "service/arbbot-bot", "--ignore-not-found", "-o", "name"];
    ensure!(room.kubectl(&service).await?.is_empty(), "a child was repaired during the pause");
    room.kubectl(&["annotate", "arbbot/bot", "arbbot.io/paused-"]).await?;
    eventually!("the Service is made again", (!room.kubectl(&service).await?.is_empty()).then_some(()));
    let events = bot.events().await?;
    ensure!(events.matches("ReconciliationPaused").count() == 1, "{events}");
    Ok(())
}

async fn policy(room: &Room<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&room.kubectl(&["get", "arbpolicy/desk", "-o", "json"]).await?)?)
}

async fn a_desk_is_killed_and_released_by_one_policy(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("desk").await?;
    room.apply(&objects::policy("desk")).await?;
    let (one, two) = (room.bot("one", json!({})).await?, room.bot("two", json!({})).await?);
    for bot in [&one, &two] {
        bot.wait_until_trading().await?;
    }
    wait_policy(&room, "ControlApplied").await?;
    patch_policy(&room, json!({"spec": {"killSwitch": {"engaged": true, "reason": "drill"}}})).await?;
    wait_policy(&room, "Halted").await?;
    // Nothing rests the moment that kubectl returns.
    for bot in [&one, &two] {
        ensure!(bot.portfolio().await?.open_orders.is_empty(), "{} still has orders", bot.name);
    }
    wait_policy(&room, "Flat").await?;
    for bot in [&one, &two] {
        ensure!(bot.portfolio().await?.is_flat(), "{} is not flat", bot.name);
    }
    let counts = policy(&room).await?["status"]["bots"].clone();
    ensure!(counts == json!({"matched": 2, "acknowledged": 2, "halted": 2, "flat": 2}), "{counts}");
    let incident = one.wait_kill_finished().await?;
    two.wait_kill_finished().await?;
    patch_policy(&room, json!({"spec": {"killSwitch": {"engaged": false, "release": incident.id}}})).await?;
    for bot in [&one, &two] {
        bot.wait("released", |bot| incidents(bot).is_empty()).await?;
        bot.wait_until_trading().await?;
    }
    let halted = "the policy shows that nobody is halted";
    eventually!(halted, (policy(&room).await?["status"]["bots"]["halted"] == json!(0)).then_some(()));
    let fields = "involvedObject.kind=ArbPolicy";
    let columns = "custom-columns=R:.reason,M:.message";
    let events = room.kubectl(&["get", "events", "--field-selector", fields, "-o", columns]).await?;
    for reason in ["KillSwitchEngaged", "Halted", "Flat", "Released", "Loosened"] {
        ensure!(events.lines().any(|line| line.starts_with(reason)), "no Event {reason}: {events}");
    }
    ensure!(events.contains("field manager arb-incident"), "{events}");
    Ok(())
}

async fn a_bot_created_under_an_engaged_policy_starts_latched(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("born-latched").await?;
    room.apply(&objects::policy("desk")).await?;
    patch_policy(&room, json!({"spec": {"killSwitch": {"engaged": true}}})).await?;
    let bot = room.bot("bot", json!({})).await?;
    let incident = bot.wait_kill_finished().await?;
    ensure!(incident.source == "ArbPolicy/desk", "{incident:?}");
    wait_policy(&room, "Flat").await?;
    let events = bot.journal().await?;
    ensure!(Journal(&events).accepted() == 0, "it traded before it was latched");
    Ok(())
}

async fn a_policy_that_is_relabelled_away_while_engaged_releases_nothing(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("relabelled").await?;
    room.apply(&objects::policy("desk")).await?;
    let bot = room.trading_bot("bot").await?;
    patch_policy(&room, json!({"spec": {"killSwitch": {"engaged": true}}})).await?;
    let incident = bot.wait_kill_finished().await?;
    let flat = monotonic_ns();
    room.kubectl(&["label", "arbbot/bot", "desk=b", "--overwrite"]).await?;
    let nobody = "the policy selects nobody";
    eventually!(nobody, (policy(&room).await?["status"]["bots"]["matched"] == json!(0)).then_some(()));
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    let applied = |bot: &ArbBot| {
        let said = bot.status.as_ref().and_then(|status| status.bot.as_ref());
        said.and_then(|said| said.applied_generation) >= Some(patched.generation)
    };
    let now = bot.wait("the bot has read it", applied).await?;
    ensure!(incidents(&now).iter().any(|open| open.id == incident.id), "the latch is gone");
    let events = bot.journal().await?;
    ensure!(Journal(&events).raising(flat, u64::MAX).is_empty(), "it trades again");
    let told = bot.events().await?;
    ensure!(told.contains("Loosened"), "a label that leaves a policy loosens: {told}");
    Ok(())
}

/// Everything that an operator restores. The Deployment's selector and the claim's spec cannot be edited at all.
const CHILDREN: [&str; 7] = [
    "serviceaccount/arbbot-bot",
    "role/arbbot-bot",
    "rolebinding/arbbot-bot",
    "service/arbbot-bot",
    "networkpolicy/arbbot-bot",
    "persistentvolumeclaim/arbbot-bot-ledger",
    DEPLOYMENT,
];

async fn child(room: &Room<'_>, name: &str) -> Result<Option<Value>> {
    let text = room.kubectl(&["get", name, "--ignore-not-found", "-o", "json"]).await?;
    if text.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
}

/// What was wanted of it, without what every write changes.
fn content(child: &Value) -> Value {
    let mut content = child.clone();
    if let Some(object) = content.as_object_mut() {
        object.remove("status");
        let labels = object.remove("metadata").map(|metadata| metadata["labels"].clone());
        object.insert("labels".to_owned(), labels.unwrap_or_default());
    }
    content
}

async fn every_child_changed_by_hand_is_restored_and_then_nothing_is_written(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("drift").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await?;
    let mut wanted = Vec::new();
    for name in CHILDREN {
        wanted.push(content(&child(&room, name).await?.with_context(|| format!("{name} is missing"))?));
    }
    let edits: [(&str, Value); 6] = [
        ("serviceaccount/arbbot-bot", json!({"automountServiceAccountToken": true})),
        ("role/arbbot-bot", json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})),
        ("service/arbbot-bot", json!({"spec": {"externalName": null, "sessionAffinity": "ClientIP"}})),
        ("networkpolicy/arbbot-bot", json!({"spec": {"policyTypes": ["Ingress", "Egress"]}})),
        ("persistentvolumeclaim/arbbot-bot-ledger", json!({"metadata": {"labels": {"arbbot.io/bot": "other"}}})),
        (DEPLOYMENT, json!({"spec": {"replicas": 3}})),
    ];
    for (name, edit) in edits {
        room.kubectl(&["patch", name, "--type=merge", "-p", &edit.to_string()]).await?;
    }
    room.kubectl(&["set", "env", DEPLOYMENT, "FOREIGN=1"]).await?;
    restored(&room, &wanted).await.context("after edits")?;
    // The claim outlives everything, and the account is last: its end takes the running bot's token with it.
    for name in
        CHILDREN.into_iter().filter(|name| !name.starts_with("persistent") && !name.starts_with("serviceaccount"))
    {
        room.kubectl(&["delete", name, "--cascade=foreground", "--wait=false"]).await?;
    }
    restored(&room, &wanted).await.context("after deletions")?;
    bot.wait_exchange("both legs are there", Portfolio::is_carrying).await?;
    bot.wait("available", |bot| ready_because(bot, "Available")).await?;
    let versions = async || {
        let mut versions = Vec::new();
        for name in CHILDREN.into_iter().filter(|name| *name != DEPLOYMENT) {
            versions.push(child(&room, name).await?.map(|child| child["metadata"]["resourceVersion"].clone()));
        }
        // Its status is Kubernetes' own.
        versions.push(child(&room, DEPLOYMENT).await?.map(|child| child["metadata"]["generation"].clone()));
        Ok::<_, anyhow::Error>(versions)
    };
    let before = versions().await?;
    // A change that reconciles the bot and is none of the children's business.
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    bot.wait("reconciled", |bot| {
        bot.status.as_ref().and_then(|status| status.observed_generation) >= Some(patched.generation)
    })
    .await?;
    ensure!(versions().await? == before, "a child was written again");
    room.kubectl(&["delete", "serviceaccount/arbbot-bot"]).await?;
    restored(&room, &wanted).await.context("after the account's deletion")
}

async fn restored(room: &Room<'_>, wanted: &[Value]) -> Result<()> {
    for (name, wanted) in CHILDREN.iter().zip(wanted) {
        let what = format!("{name} is {wanted}");
        eventually!(&what, {
            let live = child(room, name).await?.filter(|child| child["metadata"]["deletionTimestamp"].is_null());
            live.filter(|live| without_given(&content(live)) == without_given(wanted))
        });
    }
    Ok(())
}

/// Without what the API server chooses anew for each object.
fn without_given(content: &Value) -> Value {
    let mut content = content.clone();
    if let Some(spec) = content.get_mut("spec").and_then(Value::as_object_mut) {
        for given in ["clusterIP", "clusterIPs", "volumeName"] {
            spec.remove(given);
        }
    }
    content
}

async fn a_cold_change_hands_over_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("cold").await?;
    let bot = room.trading_bot("bot").await?;
    let before = bot.portfolio().await?;
    let first = bot.container()?.pod;
    let patched = bot.patch(json!({"spec": {"podTemplate": {"annotations": {"example.com/rollout": "1"}}}})).await?;
    eventually!("another pod runs", bot.container().ok().filter(|container| container.pod != first));
    bot.wait("available again", |bot| {
        ready_because(bot, "Available") && bot.metadata.generation == Some(patched.generation)
    })
    .await?;
    // Only when the second trader has placed an order is there something to judge.
    trades_more(&bot).await?;
    let events = eventually!("the second trader has an order accepted", {
        let events = bot.journal().await?;
        (Journal(&events).traders() > 1).then_some(events)
    });
    let journal = Journal(&events);
    ensure!(journal.out_of_turn().is_empty(), "two traded at once: {:?}", journal.out_of_turn());
    ensure!(journal.flat(patched.sent_ns).is_none(), "the position was closed");
    let after = bot.portfolio().await?;
    ensure!(after.is_carrying(), "before {before:?}, after {after:?}");
    Ok(())
}

async fn stored_loosely(room: &Room<'_>, odd: &Value) -> Result<()> {
    eventually!("the loose schema is served", room.apply(odd).await.ok());
    Ok(())
}

async fn an_object_that_nobody_can_read_says_so_and_stops_no_other(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreadable").await?;
    let bot = room.bot("bot", json!({})).await?;
    // What an older, laxer schema would have let in: the schema is loosened for a moment.
    let crd = "crd/arbbots.arbbot.io";
    let mode = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/logLevel";
    let enum_of = format!("{mode}/enum");
    let strict = desk.kubectl.run(&["get", crd, "-o", "json"]).await?;
    let strict: Value = serde_json::from_str(&strict)?;
    let values = strict.pointer(&enum_of).context("logLevel has no enum")?.clone();
    let remove = json!([{"op": "remove", "path": enum_of}]).to_string();
    let restore = json!([{"op": "add", "path": enum_of, "value": values}]).to_string();
    desk.kubectl.run(&["patch", crd, "--type=json", "-p", &remove]).await?;
    let (mut odd, account) = room.draft("odd").await?;
    objects::merge(&mut odd, &json!({"spec": {"logLevel": "verbose"}}));
    let stored = stored_loosely(&room, &odd).await;
    desk.kubectl.run(&["patch", crd, "--type=json", "-p", &restore]).await?;
    stored?;
    let shown = eventually!("the odd bot says that it cannot be read", {
        let odd = child(&room, "arbbot/odd").await?.context("the odd bot is gone")?;
        let conditions = odd["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let invalid = |c: &&Value| c["type"] == "Stalled" && c["status"] == "True" && c["reason"] == "InvalidSpec";
        conditions.iter().find(invalid).map(|c| c["message"].to_string())
    });
    ensure!(shown.contains("verbose"), "the message names nothing: {shown}");
    bot.wait_until_trading().await?;
    let repair = r#"{"spec":{"logLevel":"info"}}"#;
    room.kubectl(&["patch", "arbbot/odd", "--type=merge", "-p", repair]).await?;
    room.handle("odd", &account).wait_until_trading().await
}

async fn a_policy_with_a_broken_selector_says_so_and_binds_every_bot(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("selector").await?;
    let bot = room.trading_bot("bot").await?;
    let mut broken = objects::policy("desk");
    broken["spec"] = json!({"mode": "ReduceOnly", "selector": {"matchExpressions": [{"key": "desk", "operator": "Like", "values": ["x"]}]}});
    room.apply(&broken).await?;
    wait_policy(&room, "Stalled").await?;
    let status = policy(&room).await?["status"].clone();
    ensure!(status.to_string().contains("SelectorInvalid") && status["bots"]["matched"] == json!(1), "{status}");
    let bound = |bot: &ArbBot| {
        let effective = bot.status.as_ref().and_then(|status| status.effective.as_ref());
        effective.is_some_and(|effective| effective.sources.iter().any(|source| source.name == "ArbPolicy/desk"))
    };
    bot.wait("bound by the policy", bound).await.map(drop)
}
