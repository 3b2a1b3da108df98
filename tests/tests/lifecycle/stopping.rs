//! Stopped and back, paused, rolled out.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, find};
use arbbot_tests::harness::{Bot, Desk, Room, incidents};
use arbbot_tests::measure::Journal;
use serde_json::json;

use super::{deployment, ready_because, trades_more};

async fn stopped_bot<'a>(room: &Room<'a>) -> Result<Bot<'a>> {
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"mode": "Stopped"}})).await?;
    bot.wait("drained and stopped", |bot| ready_because(bot, "Stopped")).await?;
    Ok(bot)
}

pub async fn stopped_drains_then_scales_to_zero_and_comes_back(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_kill_on_a_stopped_bot_is_latched(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_pause_does_not_pause_a_kill(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_cold_change_hands_over_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
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
