//! What each mode, limit, kill and deletion does at the exchange.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason};
use arbbot_crds::status::EffectiveMode;
use arbbot_tests::clock::{milliseconds, monotonic_ns};
use arbbot_tests::exchange::FUTURE;
use arbbot_tests::harness::{Desk, condition_is, incidents};
use arbbot_tests::measure::Journal;
use arbbot_tests::objects;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{effective_mode, nothing_raised_after_stop, wait_applied};

/// A patch that came in so many milliseconds came by the watch: a bot whose watch is dead reads its ArbBot again with the next
/// renewal of the Lease only, which with these timeouts is a quarter of an hour away. How fast a kill is, `make bench-kill`
/// measures: six scenarios on a core that they share were seen to take 1.9 s.
const BY_WATCH_MS: f64 = 10_000.0;

pub async fn a_bot_becomes_ready_and_every_printer_column_shows(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("ready").await?;
    let bot = room.trading_bot("bot").await?;
    room.kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=60s"]).await?;
    let priced = |bot: &ArbBot| {
        let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
        bot.is_some_and(|bot| bot.pnl.is_some() && bot.position.as_ref().is_some_and(|p| !p.leverage.is_empty()))
    };
    bot.wait("position and P&L are in status", priced).await?;
    for (output, columns) in [
        ("", "NAME EXECUTION MODE EFFECTIVE READY HALTED FLAT P&L AGE"),
        (
            "wide",
            "NAME EXECUTION MODE EFFECTIVE READY HALTED FLAT P&L AGE REASON INCIDENT CONTRACTS SPOT LEVERAGE KEY NODE",
        ),
    ] {
        let table = room.kubectl(&["get", "arbbots", "-o", output]).await?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(rows[0] == columns.split(' ').collect::<Vec<_>>(), "columns: {table}");
        // No incident is open.
        let empty = usize::from(rows[0].contains(&"INCIDENT"));
        ensure!(rows[1].len() + empty == rows[0].len() && !rows[1].contains(&"<none>"), "a column is empty: {table}");
    }
    Ok(())
}

pub async fn one_patch_stops_acknowledges_cancels_and_flattens(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("kill").await?;
    let timeouts = json!({"lease": "1h", "stale": "2h", "lost": "3h"});
    let bot = room.bot("bot", json!({"spec": {"controlTimeouts": timeouts}})).await?;
    bot.wait_until_trading().await?;
    let patched = bot.kill().await?;
    room.kubectl(&["wait", "--for=condition=Halted", "arbbot/bot", "--timeout=60s"]).await?;
    room.kubectl(&["wait", "--for=condition=Flat", "arbbot/bot", "--timeout=60s"]).await?;
    wait_applied(&bot, patched.generation).await?;
    let incident = bot.wait_kill_finished().await?;
    ensure!(incident.source == "ArbBot/bot" && incident.reason == "test", "{incident:?}");
    ensure!(incident.orders_cancelled_at.is_some() && incident.flat_at.is_some(), "{incident:?}");

    let stopped = bot.stopped_ns(patched.generation).await?;
    let after = |ns| milliseconds(patched.sent_ns, ns);
    let events = bot.journal().await?;
    let journal = Journal(&events);
    // It was entering: an order rested when the patch was sent, or the next one was placed before it arrived.
    let entering = journal.open_orders(patched.sent_ns) > 0 || !journal.raising(patched.sent_ns, stopped).is_empty();
    ensure!(
        entering,
        "no order rested, so nothing was proven: the gate closed {} ms after the patch was sent",
        after(stopped)
    );
    let gone = journal.orders_gone(stopped).context("orders work at the exchange")?;
    let flat = journal.flat(patched.sent_ns).context("the exchange shows a position")?;
    let figures = format!(
        "ms after the patch was sent: gate {}, orders gone {}, flat {}",
        after(stopped),
        after(gone),
        after(flat)
    );
    ensure!(patched.sent_ns < stopped && gone <= flat, "out of order, in {figures}");
    ensure!(after(stopped) < BY_WATCH_MS, "too late for the watch, in {figures}");
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    nothing_raised_after_stop(&bot, stopped).await
}

pub async fn halted_cancels_every_order_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("halted").await?;
    let bot = room.trading_bot("bot").await?;
    let patched = bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    let halted = bot.wait_condition(ConditionType::Halted, "True").await?;
    ensure!(effective_mode(&halted) == Some(EffectiveMode::Halted), "{:?}", effective_mode(&halted));
    ensure!(condition_is(&halted, ConditionType::Flat, "False"), "the position is kept");
    let portfolio = bot.portfolio().await?;
    ensure!(portfolio.open_orders.is_empty() && portfolio.is_carrying(), "{portfolio:?}");
    nothing_raised_after_stop(&bot, bot.stopped_ns(patched.generation).await?).await?;
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    bot.wait_until_trading().await
}

pub async fn a_kill_with_cancel_orders_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("cancel-orders").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"killSwitch": {"engaged": true, "action": "CancelOrders"}}})).await?;
    bot.wait_kill_finished().await?;
    let portfolio = bot.portfolio().await?;
    ensure!(portfolio.open_orders.is_empty() && portfolio.is_carrying(), "{portfolio:?}");
    // The action of a running kill may rise.
    bot.patch(json!({"spec": {"killSwitch": {"action": "Flatten"}}})).await?;
    bot.wait_exchange("flat", |portfolio| portfolio.is_flat()).await?;
    bot.wait_condition(ConditionType::Flat, "True").await.map(|_| ())
}

pub async fn reduce_only_never_raises_a_leg(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("reduce-only").await?;
    let bot = room.trading_bot("bot").await?;
    let patched = bot.patch(json!({"spec": {"mode": "ReduceOnly"}})).await?;
    wait_applied(&bot, patched.generation).await?;
    let stopped = bot.stopped_ns(patched.generation).await?;
    bot.wait_condition(ConditionType::Trading, "False").await?;
    // A new target and a restart tempt it to enter.
    bot.patch(json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": "20000"}}}})).await?;
    bot.container()?.kill();
    sleep(Duration::from_secs(5)).await; // an observation, not a synchronisation: orders that must not come
    nothing_raised_after_stop(&bot, stopped).await?;
    let gone = Journal(&bot.journal().await?).raising_orders_gone(patched.sent_ns);
    ensure!(gone.is_some(), "an entry order still works");
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    let raised = monotonic_ns();
    bot.wait_exchange("more than before", |portfolio| portfolio.position(FUTURE) < (-20).into()).await?;
    ensure!(!Journal(&bot.journal().await?).raising(raised, u64::MAX).is_empty(), "so the check above was not vacuous");
    Ok(())
}

pub async fn a_tightened_limit_cancels_what_no_longer_fits(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("tighten").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait_exchange("8 contracts", |portfolio| portfolio.position(FUTURE) <= (-8).into()).await?;
    let tight = json!({"spec": {"risk": {"limits": {"maxPositionNotional": "3000"}}}});
    bot.patch(tight).await?;
    let bot_now = bot.wait_condition(ConditionType::WithinRiskLimits, "False").await?;
    let acknowledged = monotonic_ns();
    let status = bot_now.status.unwrap_or_default();
    let condition = arbbot_crds::conditions::find(&status.conditions, ConditionType::WithinRiskLimits);
    let condition = condition.context("no condition")?;
    ensure!(condition.reason == Reason::LimitExceeded.to_string(), "{condition:?}");
    ensure!(condition.message.contains("maxPositionNotional"), "the message does not name the limit: {condition:?}");
    bot.wait_exchange("entry orders are cancelled", |portfolio| portfolio.open_orders.is_empty()).await?;
    ensure!(bot.portfolio().await?.is_carrying(), "tightening does not trade by itself");
    nothing_raised_after_stop(&bot, acknowledged).await?;
    bot.patch(json!({"spec": {"risk": {"limits": {"maxPositionNotional": "25000"}}}})).await?;
    bot.wait_condition(ConditionType::WithinRiskLimits, "True").await.map(|_| ())
}

pub async fn a_policy_patch_reaches_every_bot_it_matches_and_no_other(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("policy").await?;
    room.apply(&objects::policy("brake")).await?;
    let one = room.bot("one", json!({})).await?;
    let two = room.bot("two", json!({})).await?;
    let other = room.bot("other", json!({"metadata": {"labels": {"desk": "b"}}})).await?;
    for bot in [&one, &two, &other] {
        bot.wait_until_trading().await?;
    }
    let patch = |patch: Value| {
        let room = &room;
        async move {
            let patch = patch.to_string();
            room.kubectl(&["patch", "arbpolicy/brake", "--type=merge", "--field-manager=arb-incident", "-p", &patch])
                .await
        }
    };
    patch(json!({"spec": {"mode": "ReduceOnly"}})).await?;
    for bot in [&one, &two] {
        bot.wait("ReduceOnly", |bot| effective_mode(bot) == Some(EffectiveMode::ReduceOnly)).await?;
    }
    ensure!(
        effective_mode(&other.get().await?) == Some(EffectiveMode::Active),
        "a bot it does not match is restricted"
    );
    // The operator reports who restricts the bot.
    let named = |bot: &ArbBot| {
        let effective = bot.status.as_ref().and_then(|status| status.effective.as_ref());
        effective.is_some_and(|effective| effective.sources.iter().any(|source| source.name == "ArbPolicy/brake"))
    };
    one.wait("status.effective names the policy", named).await?;

    patch(json!({"spec": {"killSwitch": {"engaged": true, "reason": "desk halt"}}})).await?;
    let mut ids = Vec::new();
    for bot in [&one, &two] {
        let incident = bot.wait_kill_finished().await?;
        ensure!(incident.source == "ArbPolicy/brake", "{incident:?}");
        ensure!(bot.portfolio().await?.is_flat(), "{} is not flat", bot.name);
        ids.push(incident.id);
    }
    ensure!(other.portfolio().await?.is_carrying(), "a bot it does not match was flattened");
    // One release of the policy's incident frees all its bots.
    let release = ids.iter().max().cloned().context("an id")?;
    patch(json!({"spec": {"mode": "Active", "killSwitch": {"engaged": false, "release": release}}})).await?;
    for bot in [&one, &two] {
        bot.wait("released", |bot| incidents(bot).is_empty()).await?;
        bot.wait_until_trading().await?;
    }
    Ok(())
}

pub async fn deletion_with_flatten_ends_flat_and_leaves_only_the_ledgers_claim(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("deletion").await?;
    let bot = room.trading_bot("bot").await?;
    bot.delete().await?;
    bot.wait_gone().await?;
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    let kinds =
        "deployments,replicasets,pods,services,roles,rolebindings,leases,serviceaccounts,persistentvolumeclaims";
    let selector = ["get", kinds, "-l", "arbbot.io/bot=bot", "-o", "name"];
    // The garbage collector takes the ReplicaSet a moment later.
    let mut left = String::new();
    for _ in 0..200 {
        left = room.kubectl(&selector).await?;
        if left.trim() == "persistentvolumeclaim/arbbot-bot-ledger" {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("left: {left}")
}

pub async fn deletion_with_orphan_cancels_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("orphan").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"deletionPolicy": "Orphan"}})).await?;
    bot.delete().await?;
    bot.wait_gone().await?;
    let portfolio = bot.portfolio().await?;
    ensure!(portfolio.open_orders.is_empty() && portfolio.is_carrying(), "{portfolio:?}");
    Ok(())
}
