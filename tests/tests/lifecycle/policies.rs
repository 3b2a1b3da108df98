//! One policy for a whole desk.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::harness::{Desk, Room, incidents};
use arbbot_tests::measure::Journal;
use arbbot_tests::objects;
use serde_json::{Value, json};

use super::{patch_policy, wait_policy};

async fn policy(room: &Room<'_>) -> Result<Value> {
    Ok(serde_json::from_str(&room.kubectl(&["get", "arbpolicy/desk", "-o", "json"]).await?)?)
}

pub async fn a_desk_is_killed_and_released_by_one_policy(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_bot_created_under_an_engaged_policy_starts_latched(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_policy_that_is_relabelled_away_while_engaged_releases_nothing(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_policy_with_a_broken_selector_says_so_and_binds_every_bot(desk: Arc<Desk>) -> Result<()> {
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
