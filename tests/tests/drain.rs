//! Stopped: the drain on the real API server, by the exchange's own word, and what a pod leaves behind when it ends.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::status::{BotStatus, DrainPhase, EffectiveMode};
use arbbot_crds::{ArbBot, names};
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::exchange::FUTURE;
use arbbot_tests::harness::{Bot, Desk, ON_THE_WAY_NS, condition_is, run};
use arbbot_tests::measure::Journal;
use arbbot_tests::{objects, scenarios};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use tokio::time::sleep;

fn main() -> ExitCode {
    run(
        8,
        scenarios![
            stopped_closes_both_legs_maker_first_and_ends_flat,
            a_drain_under_a_halted_policy_waits_and_says_so,
            a_drain_that_takes_too_long_is_flattened_where_that_is_asked_for,
            a_drain_that_takes_too_long_holds_what_is_left_and_a_person_is_called,
            a_drained_pod_that_ends_leaves_words_that_stay_true,
            a_pod_that_ends_hands_its_position_over,
        ],
    )
}

fn status(bot: &ArbBot) -> BotStatus {
    bot.status.as_ref().and_then(|status| status.bot.clone()).unwrap_or_default()
}

fn phase(bot: &ArbBot) -> Option<DrainPhase> {
    status(bot).drain.map(|drain| drain.phase)
}

/// Reason and message of a condition.
fn said(bot: &ArbBot, type_: ConditionType) -> (String, String) {
    let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    find(&conditions, type_).map(|c| (c.reason.clone(), c.message.clone())).unwrap_or_default()
}

async fn wait_phase(bot: &Bot<'_>, wanted: DrainPhase) -> Result<ArbBot> {
    bot.wait(&format!("the drain is {wanted}"), |bot| phase(bot) == Some(wanted)).await
}

/// Every order that the exchange accepted since then is of one of these classes.
async fn only_classes_since(bot: &Bot<'_>, from: u64, classes: &[&str]) -> Result<()> {
    let events = bot.journal().await?;
    let accepted = events.iter().filter(|event| event.monotonic_ns >= from && event.size > 0.into());
    for event in accepted.filter(|event| event.kind == arbbot_tests::exchange::Kind::OrderAccepted) {
        let class = event.client_order_id.rsplit('-').next().unwrap_or_default();
        ensure!(classes.contains(&class), "an order of class {class} was accepted: {event:?}");
    }
    Ok(())
}

async fn stopped_closes_both_legs_maker_first_and_ends_flat(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("stopped").await?;
    let bot = room.trading_bot("bot").await?;
    let patched = bot.patch(json!({"spec": {"mode": "Stopped"}})).await?;
    let closing = wait_phase(&bot, DrainPhase::ClosingPosition).await?;
    let drain = status(&closing).drain.context("no drain")?;
    ensure!(drain.deadline.is_some() && status(&closing).effective_mode == Some(EffectiveMode::Drain), "{drain:?}");
    let (reason, message) = said(&closing, ConditionType::Trading);
    ensure!(reason == Reason::Draining.to_string(), "{reason}: {message}");
    ensure!(condition_is(&closing, ConditionType::Halted, "False"), "a drain is no halt");
    let finished = wait_phase(&bot, DrainPhase::Finished).await?;
    ensure!(condition_is(&finished, ConditionType::Flat, "True"), "{:?}", said(&finished, ConditionType::Flat));
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    let drained = patched.accepted_ns + ON_THE_WAY_NS;
    only_classes_since(&bot, drained, &["Reduce"]).await?;
    let raising = bot.journal().await?;
    ensure!(Journal(&raising).raising(drained, u64::MAX).is_empty(), "a leg was raised");
    // Set back, it trades again.
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    bot.wait("no drain is under way", |bot| phase(bot).is_none()).await?;
    bot.wait_until_trading().await
}

async fn a_drain_under_a_halted_policy_waits_and_says_so(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("held").await?;
    let bot = room.trading_bot("bot").await?;
    room.apply(&objects::policy("brake")).await?;
    room.kubectl(&["patch", "arbpolicy/brake", "--type=merge", "-p", r#"{"spec":{"mode":"Halted"}}"#]).await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    let position = bot.portfolio().await?.position(FUTURE);
    bot.patch(json!({"spec": {"mode": "Stopped"}})).await?;
    let held = wait_phase(&bot, DrainPhase::HeldByHalt).await?;
    ensure!(status(&held).drain.is_some_and(|drain| drain.deadline.is_none()), "the time must stand still");
    let (_, message) = said(&held, ConditionType::Flat);
    ensure!(message.contains("ArbPolicy/brake") && message.contains("kill switch"), "{message}");
    ensure!(bot.portfolio().await?.position(FUTURE) == position, "the position is kept");
    room.kubectl(&["delete", "arbpolicy/brake"]).await?;
    wait_phase(&bot, DrainPhase::Finished).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    Ok(())
}

async fn a_drain_that_takes_too_long_is_flattened_where_that_is_asked_for(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("timeout").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"mode": "Stopped", "drainTimeout": "1s", "onDrainTimeout": "Flatten"}})).await?;
    let finished = wait_phase(&bot, DrainPhase::Finished).await?;
    ensure!(status(&finished).effective_mode == Some(EffectiveMode::Flatten), "{:?}", status(&finished));
    ensure!(said(&finished, ConditionType::Trading).0 == Reason::DrainTimedOut.to_string(), "a reason");
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    ensure!(finished.status.and_then(|s| s.kill_switch).is_none_or(|kill| kill.incidents.is_empty()), "no latch");
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    bot.wait_until_trading().await
}

async fn a_drain_that_takes_too_long_holds_what_is_left_and_a_person_is_called(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("hold").await?;
    let bot = room.trading_bot("bot").await?;
    let pod = bot.container()?.pod;
    let portfolio = &bot.account.portfolio;
    let refusal = json!({"kind": "reject_orders", "reason": "INSUFFICIENT_FUND", "for": "30s", "portfolio": portfolio});
    desk.exchange.admin.fault(refusal).await?;
    bot.patch(json!({"spec": {"mode": "Stopped", "drainTimeout": "1s"}})).await?;
    wait_phase(&bot, DrainPhase::TimedOut).await?;
    let stalled = bot.wait_condition(ConditionType::Stalled, "True").await?;
    let (reason, message) = said(&stalled, ConditionType::Stalled);
    ensure!(reason == Reason::DrainTimedOut.to_string() && message.contains("onDrainTimeout"), "{reason}: {message}");
    let held = bot.portfolio().await?.position(FUTURE);
    ensure!(!held.is_zero(), "nothing was left to hold");
    let from = monotonic_ns();
    sleep(Duration::from_secs(3)).await; // an observation: what must not happen
    ensure!(bot.container()?.pod == pod, "it stays up while it holds a position");
    let journal = bot.journal().await?;
    ensure!(Journal(&journal).raising(from, u64::MAX).is_empty(), "a leg was raised");
    // The way out that the message names.
    bot.patch(json!({"spec": {"onDrainTimeout": "Flatten"}})).await?;
    wait_phase(&bot, DrainPhase::Finished).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    Ok(())
}

async fn a_drained_pod_that_ends_leaves_words_that_stay_true(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("last-words").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"mode": "Stopped"}})).await?;
    let pod = bot.container()?.pod;
    wait_phase(&bot, DrainPhase::Finished).await?;
    // The operator scales it to zero.
    room.kubectl(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=60s"]).await?;
    let last = bot.get().await?;
    ensure!(condition_is(&last, ConditionType::Flat, "True"), "{:?}", said(&last, ConditionType::Flat));
    ensure!(condition_is(&last, ConditionType::Halted, "False"), "{:?}", said(&last, ConditionType::Halted));
    ensure!(phase(&last) == Some(DrainPhase::Finished), "{:?}", status(&last));
    ensure!(status(&last).effective_mode == Some(EffectiveMode::Drain), "{:?}", status(&last));
    let leases: Api<Lease> = Api::namespaced(desk.client.clone(), &room.name);
    let lease = leases.get(&names::child_name("bot")).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    ensure!(holder.as_deref().unwrap_or_default().is_empty(), "the Lease was not released: {holder:?}");
    Ok(())
}

async fn a_pod_that_ends_hands_its_position_over(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("hand-over").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait_exchange("8 contracts", |portfolio| portfolio.position(FUTURE) <= (-8).into()).await?;
    let before = status(&bot.get().await?).pod_uid.context("no pod")?;
    let from = monotonic_ns();
    let held = bot.portfolio().await?.position(FUTURE);
    room.kubectl(&["delete", "pod", &bot.container()?.pod]).await?;
    bot.wait("another pod is the trader", |bot| {
        let status = status(bot);
        let holder = status.lease.map(|lease| lease.holder);
        status.pod_uid.as_deref() != Some(&before) && holder == status.pod_uid
    })
    .await?;
    bot.wait_condition(ConditionType::Trading, "True").await?;
    bot.wait_condition(ConditionType::PositionsReconciled, "True").await?;
    // Neither flattened nor entered a second time.
    let journal = bot.journal().await?;
    let least = journal.iter().filter(|e| e.monotonic_ns >= from && e.product_id == FUTURE).map(|e| e.position).max();
    ensure!(least.is_none_or(|least| least <= held), "the position of {held} fell to {least:?}");
    only_classes_since(&bot, from, &["Enter", "Hedge"]).await?;
    let now = bot.portfolio().await?.position(FUTURE);
    ensure!(now >= (-17).into(), "entered beyond the target: {now}");
    Ok(())
}
