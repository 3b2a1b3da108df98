//! What Helm, Flux and every other tool that judges by kstatus' rules makes of an ArbBot, from the live object.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::ConditionType;
use arbbot_tests::harness::{Bot, Desk, Room, condition_is, run_in_turn};
use arbbot_tests::kstatus::{Verdict, verdict};
use arbbot_tests::scenarios;
use serde_json::{Value, json};
use tokio::time::sleep;

/// No registry has it.
const BROKEN_IMAGE: &str = "nowhere.invalid/no-such-bot:0";
/// A verdict that must last is looked at this often, this many times.
const LOOKS: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    run_in_turn(
        12,
        scenarios![
            a_new_bot_is_in_progress_before_the_operator_has_seen_it,
            a_bot_that_is_applied_is_in_progress_until_it_is_current,
            a_changed_bot_is_never_current_before_the_change_is_acknowledged,
            a_halted_bot_and_a_killed_bot_are_current,
            a_broken_image_fails_and_its_repair_is_current,
            a_deleted_bot_is_terminating,
        ],
    )
}

async fn a_new_bot_is_in_progress_before_the_operator_has_seen_it(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unseen").await?;
    desk.scale_operator(0).await?;
    let made = async {
        let bot = room.bot("bot", json!({})).await?;
        let verdict = judged(&bot).await?;
        Ok::<_, anyhow::Error>((bot, verdict))
    };
    let made = made.await;
    desk.scale_operator(1).await?;
    let (bot, verdict) = made?;
    ensure!(verdict == Verdict::InProgress, "without the operator a new bot counts as done");
    wait_for(&bot, Verdict::Current).await
}

async fn a_bot_that_is_applied_is_in_progress_until_it_is_current(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("applying").await?;
    let bot = room.bot("bot", json!({})).await?;
    ensure!(judged(&bot).await? == Verdict::InProgress, "a bot without a pod counts as done");
    let ready = bot.wait("Ready", |bot| condition_is(bot, ConditionType::Ready, "True")).await?;
    ensure!(verdict(&json!(ready)) == Verdict::Current, "{}", bot.describe().await);
    room.kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=10s"]).await?;
    Ok(())
}

async fn a_changed_bot_is_never_current_before_the_change_is_acknowledged(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("changing").await?;
    let bot = room.trading_bot("bot").await?;
    wait_for(&bot, Verdict::Current).await?;
    bot.container()?.pause();
    let seen = async {
        let patched = bot.patch(json!({"spec": {"risk": {"limits": {"maxOpenOrders": 4}}}})).await?;
        for _ in 0..LOOKS * 3 {
            let now = bot.get().await?;
            ensure!(verdict(&json!(now)) != Verdict::Current, "a bot that answers nothing counts as done");
            sleep(LOOK_EVERY).await;
        }
        Ok(patched)
    };
    let patched = seen.await;
    bot.container()?.resume();
    let patched = patched?;
    wait_for(&bot, Verdict::Current).await?;
    let applied = bot.get().await?.status.and_then(|status| status.bot).and_then(|bot| bot.applied_generation);
    ensure!(applied >= Some(patched.generation), "current at {applied:?}, patched to {}", patched.generation);
    Ok(())
}

async fn a_halted_bot_and_a_killed_bot_are_current(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("halted").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    wait_for(&bot, Verdict::Current).await?;
    room.kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=10s"]).await?;
    bot.kill().await?;
    bot.wait_kill_finished().await?;
    wait_for(&bot, Verdict::Current).await?;
    stays(&bot, Verdict::Current).await
}

async fn a_broken_image_fails_and_its_repair_is_current(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("broken-image").await?;
    let bot = room.bot("bot", json!({"spec": {"image": BROKEN_IMAGE}})).await?;
    wait_for(&bot, Verdict::Failed).await?;
    stays(&bot, Verdict::Failed).await?;
    let waits = room.try_kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=1s"]).await?;
    ensure!(!waits.success, "kubectl wait takes it for ready");
    room.kubectl(&["wait", "--for=condition=Stalled", "arbbot/bot", "--timeout=10s"]).await?;
    bot.patch(json!({"spec": {"image": null}})).await?;
    wait_for(&bot, Verdict::Current).await
}

async fn a_deleted_bot_is_terminating(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("deleted").await?;
    let bot = room.trading_bot("bot").await?;
    // Held Halted, the drain cannot begin and the deletion lasts.
    bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    bot.delete().await?;
    stays(&bot, Verdict::Terminating).await?;
    bot.patch(json!({"spec": {"mode": "Active", "deletionPolicy": "Flatten"}})).await?;
    bot.wait_gone().await
}

/// The verdict on the object as the API server has it now.
async fn judged(bot: &Bot<'_>) -> Result<Verdict> {
    Ok(verdict(&live(bot).await?))
}

/// The object as every tool sees it: with what our own types do not know.
async fn live(bot: &Bot<'_>) -> Result<Value> {
    let room = Room { desk: bot.desk, name: bot.namespace.clone() };
    let object = room.kubectl(&["get", &format!("arbbot/{}", bot.name), "-o", "json"]).await?;
    serde_json::from_str(&object).context("read what kubectl printed")
}

async fn wait_for(bot: &Bot<'_>, wanted: Verdict) -> Result<()> {
    let what = format!("kstatus says {wanted:?}");
    bot.wait(&what, |bot: &ArbBot| verdict(&json!(bot)) == wanted).await?;
    let now = judged(bot).await?;
    ensure!(now == wanted, "kstatus says {now:?}, not {wanted:?}\n{}", bot.describe().await);
    Ok(())
}

async fn stays(bot: &Bot<'_>, wanted: Verdict) -> Result<()> {
    for _ in 0..LOOKS {
        let now = judged(bot).await?;
        ensure!(now == wanted, "kstatus says {now:?}, no more {wanted:?}\n{}", bot.describe().await);
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}
