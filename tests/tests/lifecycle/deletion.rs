//! Deleted in every way.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::ConditionType;
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::harness::{Desk, condition_is};
use arbbot_tests::measure::Journal;
use arbbot_tests::objects;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{commands, patch_policy, run_line, stalled_because, trades_more};

pub async fn foreground_deletion_closes_the_position_first(desk: Arc<Desk>) -> Result<()> {
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

pub async fn a_deletion_under_a_halted_policy_names_both_ways_out(desk: Arc<Desk>) -> Result<()> {
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
    for (bot, way) in [(&closed, 0), (&lifted, 1)] {
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

pub async fn a_namespace_can_be_deleted_and_nothing_rests_at_the_exchange(desk: Arc<Desk>) -> Result<()> {
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

pub async fn the_ledger_is_adopted_by_a_bot_of_the_same_name(desk: Arc<Desk>) -> Result<()> {
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
