//! Objects that our types cannot hold, stored under a laxer schema: a kill is never unread, and one broken object neither
//! blinds a bot nor stops another policy.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_tests::harness::{Bot, Desk, Room, condition_is, incidents, run};
use arbbot_tests::{crds, objects, scenarios};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

fn main() -> ExitCode {
    run(
        4,
        scenarios![
            a_kill_inside_an_unreadable_bot_is_obeyed_latched_and_survives_a_restart,
            an_unreadable_policy_restricts_its_bots_and_blinds_none,
            an_unreadable_bot_is_deleted_once_its_position_is_closed,
        ],
    )
}

/// From now on the API server stores anything under `spec` of both kinds.
async fn lax_schema(desk: &Desk) -> Result<()> {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let spec = json!([{"op": "replace", "path": format!("{schema}/properties/spec"), "value": anything}]);
    desk.kubectl.run(&["patch", "crd/arbpolicies.arbbot.io", "--type=json", "-p", &spec.to_string()]).await?;
    // Its rules name fields of the spec.
    crds::allow_any_spec(&desk.kubectl).await
}

/// Stores something unreadable; the new schema may take a moment to be in force.
async fn store(room: &Room<'_>, desk: &Desk, resource: &ApiResource, name: &str, patch: &Value) -> Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(desk.client.clone(), &room.name, resource);
    let parameters = PatchParams { field_manager: Some("arb-incident".to_owned()), ..PatchParams::default() };
    for _ in 0..100 {
        match api.patch(name, &parameters, &Patch::Merge(patch)).await {
            Ok(stored) if stored.data.pointer("/spec").is_some_and(|spec| holds(spec, &patch["spec"])) => return Ok(()),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "not yet stored"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("the API server does not store {patch}")
}

fn holds(stored: &Value, wanted: &Value) -> bool {
    match wanted.as_object() {
        Some(fields) => fields.iter().all(|(name, value)| stored.get(name).is_some_and(|stored| holds(stored, value))),
        None => stored == wanted,
    }
}

fn bots() -> ApiResource {
    ApiResource::erase::<ArbBot>(&())
}

fn applied(bot: &ArbBot) -> (String, String) {
    let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    find(&conditions, ConditionType::ControlApplied).map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default()
}

/// The bot as it is stored, read as leniently as the bot itself does: the harness's own watch is typed.
async fn seen(bot: &Bot<'_>) -> Result<ArbBot> {
    let api: Api<DynamicObject> = Api::namespaced_with(bot.desk.client.clone(), &bot.namespace, &bots());
    let stored = api.get(&bot.name).await?;
    Ok(arbbot_crds::decode::arb_bot(stored.metadata, &stored.data, None)?.object)
}

async fn wait_seen(bot: &Bot<'_>, what: &str, wanted: impl Fn(&ArbBot) -> bool) -> Result<ArbBot> {
    for _ in 0..600 {
        let seen = seen(bot).await?;
        if wanted(&seen) {
            return Ok(seen);
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("not in time: {what}\n{}", bot.log())
}

fn is(bot: &ArbBot, type_: ConditionType, status: &str) -> bool {
    condition_is(bot, type_, status)
}

async fn a_kill_inside_an_unreadable_bot_is_obeyed_latched_and_survives_a_restart(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreadable-bot").await?;
    let bot = room.trading_bot("bot").await?;
    lax_schema(&desk).await?;
    store(&room, &desk, &bots(), "bot", &json!({"spec": {"logLevel": {"of": "tomorrow"}, "drainTimeout": 5}})).await?;
    let invalid = |bot: &ArbBot| applied(bot).0 == Reason::InvalidSpec.to_string();
    let told = wait_seen(&bot, "InvalidSpec", invalid).await?;
    ensure!(applied(&told).1.contains("spec.logLevel"), "{:?}", applied(&told));
    ensure!(is(&told, ConditionType::Trading, "True"), "what does not restrict changes nothing");
    store(&room, &desk, &bots(), "bot", &json!({"spec": {"killSwitch": {"engaged": true, "deadline": 7}}})).await?;
    let finished = |bot: &ArbBot| {
        is(bot, ConditionType::Halted, "True") && is(bot, ConditionType::Flat, "True") && incidents(bot).len() == 1
    };
    let killed = wait_seen(&bot, "halted, flat and latched", finished).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    // A process that never read it before goes on with the kill.
    let before = bot.container()?;
    before.kill();
    let mut page = Value::Null;
    for _ in 0..300 {
        if bot.container().is_ok_and(|container| container.child.pid() != before.child.pid()) {
            page = bot.status_page().await.unwrap_or_default();
        }
        if page["effective_mode"] == "Flatten" {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    ensure!(page["effective_mode"] == "Flatten", "{page}");
    // Not even its release counts before it is mended.
    let id = incidents(&killed)[0].id.clone();
    let release = json!({"spec": {"killSwitch": {"engaged": false, "release": id}}});
    store(&room, &desk, &bots(), "bot", &release).await?;
    sleep(Duration::from_secs(2)).await; // an observation, not a synchronisation: a release that must not come
    ensure!(incidents(&seen(&bot).await?).len() == 1, "released by an object that cannot be read");
    let mended = json!({"spec": {"logLevel": "info", "drainTimeout": "10m", "killSwitch": {"deadline": "2m"}}});
    store(&room, &desk, &bots(), "bot", &mended).await?;
    bot.wait("released", |bot| incidents(bot).is_empty()).await?;
    bot.wait_until_trading().await
}

async fn an_unreadable_policy_restricts_its_bots_and_blinds_none(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreadable-policy").await?;
    let bot = room.trading_bot("bot").await?;
    lax_schema(&desk).await?;
    room.apply(&objects::policy("broken")).await?;
    room.apply(&objects::policy("brake")).await?;
    let policies = ApiResource::erase::<arbbot_crds::ArbPolicy>(&());
    store(&room, &desk, &policies, "broken", &json!({"spec": {"mode": {"until": "noon"}}})).await?;
    let reduce_only = |bot: &ArbBot| is(bot, ConditionType::Trading, "False") && applied(bot).0 == "InvalidSpec";
    let told = wait_seen(&bot, "ReduceOnly", reduce_only).await?;
    ensure!(applied(&told).1.contains("ArbPolicy broken: spec.mode"), "{:?}", applied(&told));
    store(&room, &desk, &policies, "brake", &json!({"spec": {"mode": "Halted"}})).await?;
    wait_seen(&bot, "another policy still reaches the bot", |bot| is(bot, ConditionType::Halted, "True")).await?;
    store(&room, &desk, &policies, "broken", &json!({"spec": {"killSwitch": {"engaged": true}}})).await?;
    wait_seen(&bot, "its kill is a kill", |bot| is(bot, ConditionType::Flat, "True") && !incidents(bot).is_empty())
        .await?;
    Ok(())
}

async fn an_unreadable_bot_is_deleted_once_its_position_is_closed(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreadable-end").await?;
    let bot = room.trading_bot("bot").await?;
    lax_schema(&desk).await?;
    store(&room, &desk, &bots(), "bot", &json!({"spec": {"logLevel": {"of": "tomorrow"}}})).await?;
    wait_seen(&bot, "Stalled", |bot| is(bot, ConditionType::Stalled, "True")).await?;
    ensure!(!bot.portfolio().await?.is_flat(), "there is nothing to close");
    room.kubectl(&["delete", "arbbot/bot", "--timeout=60s"]).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    let left =
        room.kubectl(&["get", "deployment,service,serviceaccount,role,rolebinding", "-o=name", "-l=arbbot.io/bot=bot"]);
    let left = left.await?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}
