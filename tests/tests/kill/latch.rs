//! What a latch survives, and what alone releases it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::harness::{Bot, Desk, ON_THE_WAY_NS, incidents};
use arbbot_tests::objects;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use super::{killed_bot, nothing_raised_since, still_latched, wait_applied};

pub async fn the_latch_survives_a_bot_restart(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("bot-restart").await?;
    let (bot, incident, _) = killed_bot(&room).await?;
    let flat = monotonic_ns();
    bot.patch(json!({"spec": {"killSwitch": {"engaged": false}}})).await?;
    let before = bot.container()?;
    before.kill();
    wait_for_other_process(&bot, before.child.pid()).await?;
    still_latched(&bot, &incident).await?;
    // Another pod, too.
    let before = bot.container()?;
    room.kubectl(&["delete", "pod", &before.pod]).await?;
    wait_for_other_process(&bot, before.child.pid()).await?;
    still_latched(&bot, &incident).await?;
    nothing_raised_since(&bot, flat).await
}

pub(super) async fn wait_for_other_process(bot: &Bot<'_>, pid: i32) -> Result<()> {
    for _ in 0..600 {
        if bot.container().is_ok_and(|container| container.child.pid() != pid) && bot.status_page().await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no new process of {}\n{}", bot.name, bot.describe().await)
}

pub async fn the_latch_survives_a_lost_ledger(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("lost-ledger").await?;
    let (bot, incident, _) = killed_bot(&room).await?;
    let flat = monotonic_ns();
    bot.patch(json!({"spec": {"killSwitch": {"engaged": false}}})).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(desk.client.clone(), &room.name);
    let claim = claims.get("arbbot-bot-ledger").await?;
    let ledger = desk.node.claim(&claim.uid().context("the claim has no uid")?);
    let before = bot.container()?;
    before.pause();
    for file in std::fs::read_dir(&ledger)? {
        std::fs::remove_file(file?.path())?;
    }
    before.kill();
    wait_for_other_process(&bot, before.child.pid()).await?;
    still_latched(&bot, &incident).await?;
    nothing_raised_since(&bot, flat).await
}

pub async fn the_latch_survives_a_revert_by_another_field_manager(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("revert").await?;
    let (mut spec, account) = room.draft("bot").await?;
    // What a GitOps controller applies, again and again.
    spec["metadata"]["namespace"] = json!(room.name);
    spec["spec"]["killSwitch"] = json!({"engaged": false});
    let sync = ["apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-"];
    let synced = desk.kubectl.output(&sync, &spec.to_string()).await?;
    ensure!(synced.success, "{}", synced.stderr);
    let bot = room.handle("bot", &account);
    bot.wait_until_trading().await?;
    bot.kill().await?;
    // The sync comes while the kill runs, and once more after it.
    let synced = desk.kubectl.output(&sync, &spec.to_string()).await?;
    ensure!(synced.success, "{}", synced.stderr);
    ensure!(!bot.get().await?.spec.kill_switch.engaged, "the patch was not reverted");
    let incident = bot.wait_kill_finished().await?;
    let flat = monotonic_ns();
    still_latched(&bot, &incident.id).await?;
    ensure!(bot.portfolio().await?.is_flat(), "a reverted kill must end flat");
    let patched = bot
        .patch_as("gitops", json!({"metadata": {"labels": {"synced": "yes"}}, "spec": {"logLevel": "debug"}}))
        .await?;
    wait_applied(&bot, patched.generation).await?;
    still_latched(&bot, &incident.id).await?;
    nothing_raised_since(&bot, flat).await
}

pub async fn a_kill_is_resumed_after_kill_9(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("resumed").await?;
    let bot = room.trading_bot("bot").await?;
    let container = bot.container()?;
    let patched = bot.kill().await?;
    container.kill();
    let incident = bot.wait_kill_finished().await?;
    still_latched(&bot, &incident.id).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    nothing_raised_since(&bot, patched.accepted_ns + ON_THE_WAY_NS).await
}

pub async fn only_the_incidents_own_id_releases_it(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("release").await?;
    let (bot, incident, _) = killed_bot(&room).await?;
    let flat = monotonic_ns();
    let (uid8, generation) = incident.split_once('-').context("an incident id")?;
    let generation: i64 = generation.parse()?;
    let wrong = [
        "yes".to_owned(),
        "00000000-99".to_owned(),
        format!("{uid8}-{}", generation - 1),
        // Of the future: it would free the next incident too.
        format!("{uid8}-{}", generation + 99),
    ];
    for id in wrong {
        let patched = bot.patch(json!({"spec": {"killSwitch": {"engaged": false, "release": id}}})).await?;
        wait_applied(&bot, patched.generation).await?;
        still_latched(&bot, &incident).await.with_context(|| format!("release: {id}"))?;
    }
    nothing_raised_since(&bot, flat).await?;
    // The right id does nothing while the kill is still engaged.
    let patched = bot.patch(json!({"spec": {"killSwitch": {"engaged": true, "release": incident}}})).await?;
    wait_applied(&bot, patched.generation).await?;
    ensure!(!incidents(&bot.get().await?).is_empty(), "an engaged kill was released");
    let newest = incidents(&bot.get().await?).iter().map(|open| open.id.clone()).max().context("an incident")?;
    bot.wait_kill_finished().await?;
    bot.patch(json!({"spec": {"killSwitch": {"engaged": false, "release": newest}}})).await?;
    bot.wait("no incident is open", |bot| incidents(bot).is_empty()).await?;
    bot.wait_until_trading().await
}

pub async fn a_latch_outlives_its_policy(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy-gone").await?;
    room.apply(&objects::policy("brake")).await?;
    let bot = room.trading_bot("bot").await?;
    let engage = r#"{"spec":{"killSwitch":{"engaged":true}}}"#;
    room.kubectl(&["patch", "arbpolicy/brake", "--type=merge", "-p", engage]).await?;
    let incident = bot.wait_kill_finished().await?;
    let flat = monotonic_ns();
    room.kubectl(&["delete", "arbpolicy", "brake"]).await?;
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    wait_applied(&bot, patched.generation).await?;
    still_latched(&bot, &incident.id).await?;
    nothing_raised_since(&bot, flat).await?;
    // With the policy gone it is released on the bot.
    bot.patch(json!({"spec": {"killSwitch": {"release": incident.id}}})).await?;
    bot.wait("released", |bot| incidents(bot).is_empty()).await?;
    bot.wait_until_trading().await
}
