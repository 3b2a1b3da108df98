//! The operator restarts, or is not there at all. One after the other: they all share the operator.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_tests::harness::{Desk, OPERATOR, OPERATOR_NAMESPACE, incidents, run_in_turn};
use arbbot_tests::process_node::Running;
use arbbot_tests::scenarios;
use serde_json::json;

fn main() -> ExitCode {
    run_in_turn(
        8,
        scenarios![
            the_latch_survives_an_operator_restart,
            without_the_operator_the_kill_and_kubectl_wait_work,
            a_killed_operator_comes_back_and_goes_on,
        ],
    )
}

async fn the_latch_survives_an_operator_restart(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("operator-restart").await?;
    let bot = room.trading_bot("bot").await?;
    bot.kill().await?;
    let incident = bot.wait_kill_finished().await?;
    bot.patch(json!({"spec": {"killSwitch": {"engaged": false}}})).await?;
    let restart = format!("deployment/{OPERATOR}");
    desk.kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "restart", &restart]).await?;
    desk.kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "status", &restart, "--timeout=60s"]).await?;
    // The new operator has seen the bot once it reports this change.
    let patched = bot.patch(json!({"spec": {"logLevel": "debug"}})).await?;
    let reported = |bot: &arbbot_crds::ArbBot| {
        bot.status.as_ref().and_then(|status| status.observed_generation) >= Some(patched.generation)
    };
    let now = bot.wait("the new operator has reconciled the bot", reported).await?;
    ensure!(incidents(&now).iter().any(|open| open.id == incident.id), "the latch is gone");
    ensure!(bot.portfolio().await?.is_flat(), "it trades again");
    Ok(())
}

async fn without_the_operator_the_kill_and_kubectl_wait_work(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("no-operator").await?;
    let bot = room.trading_bot("bot").await?;
    desk.scale_operator(0).await?;
    let killed = async {
        let kill = r#"{"spec":{"killSwitch":{"engaged":true}}}"#;
        room.kubectl(&["patch", "arbbot/bot", "--type=merge", "--field-manager=arb-incident", "-p", kill]).await?;
        room.kubectl(&["wait", "--for=condition=Halted", "arbbot/bot", "--timeout=30s"]).await?;
        room.kubectl(&["wait", "--for=condition=Flat", "arbbot/bot", "--timeout=30s"]).await
    };
    let killed = killed.await;
    let flat = bot.portfolio().await?.is_flat();
    desk.scale_operator(1).await?;
    killed.context("without the operator")?;
    ensure!(flat, "the exchange shows {:?}", bot.portfolio().await?);
    Ok(())
}

async fn a_killed_operator_comes_back_and_goes_on(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("operator-killed").await?;
    let operators = desk.operators();
    ensure!(!operators.is_empty(), "no operator runs");
    operators.iter().for_each(Running::kill);
    let bot = room.trading_bot("bot").await?;
    room.kubectl(&["wait", "--for=condition=Ready", "arbbot/bot", "--timeout=60s"]).await?;
    bot.delete().await?;
    bot.wait_gone().await?;
    ensure!(bot.portfolio().await?.is_flat(), "the exchange shows {:?}", bot.portfolio().await?);
    Ok(())
}
