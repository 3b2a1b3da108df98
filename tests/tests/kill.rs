//! The kill switch, modes and policies on the real API server: real operator, real bots, real kubectl, and the exchange's
//! own word for what happened.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason};
use arbbot_crds::status::EffectiveMode;
use arbbot_tests::api_proxy::{ApiProxy, Fault};
use arbbot_tests::clock::{milliseconds, monotonic_ns};
use arbbot_tests::exchange::FUTURE;
use arbbot_tests::harness::{Bot, Desk, Room, condition_is, incidents, run};
use arbbot_tests::measure::Journal;
use arbbot_tests::{objects, scenarios};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

fn main() -> ExitCode {
    run(
        32,
        scenarios![
            a_bot_becomes_ready_and_every_printer_column_shows,
            one_patch_stops_acknowledges_cancels_and_flattens,
            halted_cancels_every_order_and_keeps_the_position,
            a_kill_with_cancel_orders_keeps_the_position,
            the_latch_survives_a_bot_restart,
            the_latch_survives_a_lost_ledger,
            the_latch_survives_a_revert_by_another_field_manager,
            a_kill_is_resumed_after_kill_9,
            only_the_incidents_own_id_releases_it,
            reduce_only_never_raises_a_leg,
            a_tightened_limit_cancels_what_no_longer_fits,
            a_policy_patch_reaches_every_bot_it_matches_and_no_other,
            a_latch_outlives_its_policy,
            deletion_with_flatten_ends_flat_and_leaves_only_the_ledgers_claim,
            deletion_with_orphan_cancels_and_keeps_the_position,
            a_watch_that_is_silently_dropped_does_not_blind_the_bot,
            a_bot_without_contact_closes_entry_and_then_cancels,
            bots_that_were_frozen_while_they_were_killed_wake_up_without_a_wrong_order,
        ],
    )
}

/// The exchange accepted no order that raises a leg from `from` on.
async fn nothing_raised_since(bot: &Bot<'_>, from: u64) -> Result<()> {
    let events = bot.journal().await?;
    let raising: Vec<_> = Journal(&events).raising(from, u64::MAX).into_iter().cloned().collect();
    ensure!(raising.is_empty(), "{} raised a leg: {raising:?}", bot.name);
    Ok(())
}

async fn wait_applied(bot: &Bot<'_>, generation: i64) -> Result<ArbBot> {
    let applied = |bot: &ArbBot| {
        let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
        bot.and_then(|bot| bot.applied_generation) >= Some(generation)
    };
    bot.wait(&format!("generation {generation} is acknowledged"), applied).await
}

fn effective_mode(bot: &ArbBot) -> Option<EffectiveMode> {
    bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|bot| bot.effective_mode)
}

/// A bot that was killed and is flat; and when the kill was sent.
async fn killed_bot<'a>(room: &Room<'a>) -> Result<(Bot<'a>, String, u64)> {
    let bot = room.trading_bot("bot").await?;
    let patched = bot.kill().await?;
    let incident = bot.wait_kill_finished().await?;
    Ok((bot, incident.id, patched.sent_ns))
}

/// The incident is still open and the bot still obeys it.
async fn still_latched(bot: &Bot<'_>, incident: &str) -> Result<()> {
    let latched = |bot: &ArbBot| {
        incidents(bot).iter().any(|open| open.id == incident)
            && effective_mode(bot) == Some(EffectiveMode::Flatten)
            && condition_is(bot, ConditionType::Halted, "True")
            && condition_is(bot, ConditionType::Flat, "True")
    };
    bot.wait(&format!("incident {incident} is latched, the bot halted and flat"), latched).await.map(|_| ())
}

async fn a_bot_becomes_ready_and_every_printer_column_shows(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("ready").await?;
    let bot = room.trading_bot("bot").await?;
    room.kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=30s"]).await?;
    let priced = |bot: &ArbBot| {
        let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
        bot.is_some_and(|bot| bot.pnl.is_some() && bot.position.as_ref().is_some_and(|p| !p.leverage.is_empty()))
    };
    bot.wait("position and P&L are in status", priced).await?;
    for (output, columns) in [
        ("", "NAME MODE EFFECTIVE READY HALTED FLAT P&L AGE"),
        ("wide", "NAME MODE EFFECTIVE READY HALTED FLAT P&L AGE REASON INCIDENT CONTRACTS SPOT LEVERAGE KEY NODE"),
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

async fn one_patch_stops_acknowledges_cancels_and_flattens(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("kill").await?;
    let bot = room.trading_bot("bot").await?;
    let patched = bot.kill().await?;
    room.kubectl(&["wait", "--for=condition=Halted", "arbbot/bot", "--timeout=30s"]).await?;
    room.kubectl(&["wait", "--for=condition=Flat", "arbbot/bot", "--timeout=30s"]).await?;
    wait_applied(&bot, patched.generation).await?;
    let incident = bot.wait_kill_finished().await?;
    ensure!(incident.source == "ArbBot/bot" && incident.reason == "test", "{incident:?}");
    ensure!(incident.orders_cancelled_at.is_some() && incident.flat_at.is_some(), "{incident:?}");

    let stopped = bot.stopped_ns(patched.generation).await?;
    let events = bot.journal().await?;
    let journal = Journal(&events);
    ensure!(journal.open_orders(patched.sent_ns) > 0, "no order rested, so nothing was proven");
    let gone = journal.orders_gone(patched.sent_ns).context("orders work at the exchange")?;
    let flat = journal.flat(patched.sent_ns).context("the exchange shows a position")?;
    // The last order may also have gone by being filled, before the gate closed.
    ensure!(patched.sent_ns < stopped && gone <= flat, "{stopped} {gone} {flat}");
    let stopped_ms = milliseconds(patched.sent_ns, stopped);
    ensure!(stopped_ms < 1000.0, "stopped {stopped_ms} ms after the patch was sent");
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    // An order that had passed the gate may reach the exchange a moment later; nothing after that.
    nothing_raised_since(&bot, stopped + 100_000_000).await
}

async fn halted_cancels_every_order_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("halted").await?;
    let bot = room.trading_bot("bot").await?;
    let patched = bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    let halted = bot.wait_condition(ConditionType::Halted, "True").await?;
    ensure!(effective_mode(&halted) == Some(EffectiveMode::Halted), "{:?}", effective_mode(&halted));
    ensure!(condition_is(&halted, ConditionType::Flat, "False"), "the position is kept");
    let portfolio = bot.portfolio().await?;
    ensure!(portfolio.open_orders.is_empty() && portfolio.is_carrying(), "{portfolio:?}");
    nothing_raised_since(&bot, bot.stopped_ns(patched.generation).await? + 100_000_000).await?;
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    bot.wait_until_trading().await
}

async fn a_kill_with_cancel_orders_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
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

async fn the_latch_survives_a_bot_restart(desk: Arc<Desk>) -> Result<()> {
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

async fn wait_for_other_process(bot: &Bot<'_>, pid: i32) -> Result<()> {
    for _ in 0..600 {
        if bot.container().is_ok_and(|container| container.child.pid() != pid) && bot.status_page().await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("no new process of {}\n{}", bot.name, bot.describe().await)
}

async fn the_latch_survives_a_lost_ledger(desk: Arc<Desk>) -> Result<()> {
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

async fn the_latch_survives_a_revert_by_another_field_manager(desk: Arc<Desk>) -> Result<()> {
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

async fn a_kill_is_resumed_after_kill_9(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("resumed").await?;
    let bot = room.trading_bot("bot").await?;
    let container = bot.container()?;
    let patched = bot.kill().await?;
    container.kill();
    let incident = bot.wait_kill_finished().await?;
    still_latched(&bot, &incident.id).await?;
    ensure!(bot.portfolio().await?.is_flat(), "{:?}", bot.portfolio().await?);
    nothing_raised_since(&bot, patched.accepted_ns + 100_000_000).await
}

async fn only_the_incidents_own_id_releases_it(desk: Arc<Desk>) -> Result<()> {
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

async fn reduce_only_never_raises_a_leg(desk: Arc<Desk>) -> Result<()> {
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
    nothing_raised_since(&bot, stopped + 100_000_000).await?;
    let gone = Journal(&bot.journal().await?).raising_orders_gone(patched.sent_ns);
    ensure!(gone.is_some(), "an entry order still works");
    bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    let raised = monotonic_ns();
    bot.wait_exchange("more than before", |portfolio| portfolio.position(FUTURE) < (-20).into()).await?;
    ensure!(!Journal(&bot.journal().await?).raising(raised, u64::MAX).is_empty(), "so the check above was not vacuous");
    Ok(())
}

async fn a_tightened_limit_cancels_what_no_longer_fits(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("tighten").await?;
    let bot = room.trading_bot("bot").await?;
    bot.wait_exchange("8 contracts", |portfolio| portfolio.position(FUTURE) <= (-8).into()).await?;
    let tight = json!({"spec": {"risk": {"limits": {"maxPositionNotional": "3000"}}}});
    let patched = bot.patch(tight).await?;
    let bot_now = bot.wait_condition(ConditionType::WithinRiskLimits, "False").await?;
    let status = bot_now.status.unwrap_or_default();
    let condition = arbbot_crds::conditions::find(&status.conditions, ConditionType::WithinRiskLimits);
    let condition = condition.context("no condition")?;
    ensure!(condition.reason == Reason::LimitExceeded.to_string(), "{condition:?}");
    ensure!(condition.message.contains("maxPositionNotional"), "the message does not name the limit: {condition:?}");
    bot.wait_exchange("entry orders are cancelled", |portfolio| portfolio.open_orders.is_empty()).await?;
    ensure!(bot.portfolio().await?.is_carrying(), "tightening does not trade by itself");
    nothing_raised_since(&bot, patched.accepted_ns + 200_000_000).await?;
    bot.patch(json!({"spec": {"risk": {"limits": {"maxPositionNotional": "25000"}}}})).await?;
    bot.wait_condition(ConditionType::WithinRiskLimits, "True").await.map(|_| ())
}

async fn a_policy_patch_reaches_every_bot_it_matches_and_no_other(desk: Arc<Desk>) -> Result<()> {
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

async fn a_latch_outlives_its_policy(desk: Arc<Desk>) -> Result<()> {
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

async fn deletion_with_flatten_ends_flat_and_leaves_only_the_ledgers_claim(desk: Arc<Desk>) -> Result<()> {
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

async fn deletion_with_orphan_cancels_and_keeps_the_position(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("orphan").await?;
    let bot = room.trading_bot("bot").await?;
    bot.patch(json!({"spec": {"deletionPolicy": "Orphan"}})).await?;
    bot.delete().await?;
    bot.wait_gone().await?;
    let portfolio = bot.portfolio().await?;
    ensure!(portfolio.open_orders.is_empty() && portfolio.is_carrying(), "{portfolio:?}");
    Ok(())
}

/// A bot that reaches the API server through a proxy.
async fn bot_behind_a_proxy<'a>(room: &Room<'a>) -> Result<(Bot<'a>, ApiProxy)> {
    let proxy = ApiProxy::start(room.desk.node.api_server()).await?;
    room.desk.node.route(&room.name, "bot", proxy.server().clone());
    Ok((room.trading_bot("bot").await?, proxy))
}

async fn a_watch_that_is_silently_dropped_does_not_blind_the_bot(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("silent-watch").await?;
    let (bot, proxy) = bot_behind_a_proxy(&room).await?;
    proxy.set(Fault::SilentWatches);
    let patched = bot.kill().await?;
    bot.wait_kill_finished().await?;
    let stopped = bot.stopped_ns(patched.generation).await?;
    // It reads its ArbBot again with every renewal of the Lease, a third of 6 s apart.
    let stopped_ms = milliseconds(patched.sent_ns, stopped);
    ensure!(stopped_ms < 3500.0, "stopped {stopped_ms} ms after the patch was sent");
    ensure!(stopped_ms > 20.0, "the watch was not silent, so nothing was proven: {stopped_ms} ms");
    nothing_raised_since(&bot, stopped + 100_000_000).await
}

async fn a_bot_without_contact_closes_entry_and_then_cancels(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("no-contact").await?;
    let (bot, proxy) = bot_behind_a_proxy(&room).await?;
    let silent = monotonic_ns();
    proxy.set(Fault::Hang);
    // lease 6 s, stale 12 s.
    let portfolio = bot.wait_exchange("orders are cancelled", |portfolio| portfolio.open_orders.is_empty()).await?;
    ensure!(portfolio.is_carrying(), "the position is kept: {portfolio:?}");
    let cancelled_ms = milliseconds(silent, monotonic_ns());
    ensure!(cancelled_ms < 16_000.0, "cancelled {cancelled_ms} ms after the contact was lost");
    nothing_raised_since(&bot, silent + 8_500_000_000).await?;
    proxy.set(Fault::None);
    bot.wait_until_trading().await
}

/// Longer than `controlTimeouts.lease`: what such a bot had checked and signed before is not good any more.
const FROZEN: Duration = Duration::from_secs(8);

async fn bots_that_were_frozen_while_they_were_killed_wake_up_without_a_wrong_order(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("frozen").await?;
    let bots = futures::future::try_join_all(["a", "b", "c"].map(|name| room.trading_bot(name))).await?;
    for (number, bot) in (1..).zip(&bots) {
        // Each at another moment of its work.
        sleep(Duration::from_millis(137 * number)).await;
        bot.container()?.pause();
        bot.kill().await?;
    }
    sleep(FROZEN).await;
    for bot in &bots {
        let woken = monotonic_ns();
        bot.container()?.resume();
        bot.wait_kill_finished().await?;
        nothing_raised_since(bot, woken).await?;
        ensure!(bot.portfolio().await?.is_flat(), "{} is not flat", bot.name);
    }
    Ok(())
}
