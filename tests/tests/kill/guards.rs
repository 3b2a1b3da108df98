//! A guard on a running bot: one patch trips it, status proves it, a restart does not end it, its own id does.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::guards::GuardStatus;
use arbbot_crds::status::{EffectiveMode, IncidentKind};
use arbbot_tests::harness::{Desk, condition_is};
use serde_json::json;

use super::latch::wait_for_other_process;
use super::{effective_mode, wait_applied};

const GUARD: &str = "test-positions";

fn shown(bot: &ArbBot) -> Option<&GuardStatus> {
    let bot = bot.status.as_ref()?.bot.as_ref()?;
    bot.guards.iter().find(|guard| guard.name == GUARD)
}

/// The bot is halted by the guard's incident and says so.
fn is_tripped(bot: &ArbBot, incident: &str) -> bool {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let within = find(conditions, ConditionType::WithinRiskLimits);
    let says = within.is_some_and(|condition| {
        condition.reason == Reason::GuardTripped.to_string() && condition.message.contains(incident)
    });
    let level = bot.status.as_ref().and_then(|status| status.bot.as_ref()?.risk_level);
    shown(bot).and_then(|guard| guard.incident.as_deref()) == Some(incident)
        && effective_mode(bot) == Some(EffectiveMode::Halted)
        && condition_is(bot, ConditionType::Halted, "True")
        && says
        && level == Some(3)
}

pub async fn a_tripped_guard_outlives_the_bot_and_its_own_spec_and_ends_by_its_id(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("guard").await?;
    let bot = room.trading_bot("bot").await?;
    // A figure that is always there, and a threshold that it is always beyond; and one that nobody can use.
    let guards = json!([
        {"name": GUARD, "metric": "PositionCount", "tripAt": "0", "action": "Halt", "release": "Manual"},
        {"name": "no-order", "metric": "Leverage", "warnAt": "3", "tripAt": "2"},
    ]);
    let patched = bot.patch(json!({"spec": {"risk": {"guards": guards}}})).await?;
    room.kubectl(&["wait", "--for=condition=WithinRiskLimits=False", "arbbot/bot", "--timeout=30s"]).await?;
    room.kubectl(&["wait", "--for=condition=Halted", "arbbot/bot", "--timeout=30s"]).await?;
    let seen = wait_applied(&bot, patched.generation).await?;
    ensure!(seen.spec.risk.guards.list.len() == 2, "the second guard was refused");
    let tripped = bot.wait("the guard is in status", |bot| shown(bot).is_some()).await?;
    let incident = shown(&tripped).and_then(|guard| guard.incident.clone()).context("an incident")?;
    ensure!(incident.ends_with(&format!("-{}", patched.generation)), "{incident} of {}", patched.generation);
    bot.wait("the guard halts", |bot| is_tripped(bot, &incident)).await?;
    let invalid = |bot: &ArbBot| condition_is(bot, ConditionType::ControlApplied, "False");
    bot.wait("the guard that nobody can use is told of", invalid).await?;
    let recorded = |bot: &ArbBot| {
        let mut incidents = bot.status.iter().flat_map(|status| &status.incidents);
        incidents.any(|past| past.id == incident && past.kind == IncidentKind::Guard && past.resolved_at.is_none())
    };
    bot.wait("the operator records it", recorded).await?;

    // Neither the end of the guard, nor another process, nor another id ends it.
    let patched =
        bot.patch(json!({"spec": {"risk": {"guards": null}, "killSwitch": {"release": "00000000-9"}}})).await?;
    wait_applied(&bot, patched.generation).await?;
    let before = bot.container()?;
    before.kill();
    wait_for_other_process(&bot, before.child.pid()).await?;
    bot.wait("it is still tripped", |bot| is_tripped(bot, &incident)).await?;

    bot.patch(json!({"spec": {"killSwitch": {"release": incident}}})).await?;
    bot.wait("the trip has ended", |bot| shown(bot).is_none()).await?;
    bot.wait_until_trading().await?;
    let resolved = |bot: &ArbBot| {
        let mut incidents = bot.status.iter().flat_map(|status| &status.incidents);
        incidents.any(|past| past.id == incident && past.resolved_at.is_some())
    };
    bot.wait("the operator records its end", resolved).await?;
    let events = bot.events().await?;
    ensure!(events.contains("GuardTripped"), "{events}");
    Ok(())
}
