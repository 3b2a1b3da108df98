//! The kill with our images in containers on a real node, in a namespace that enforces the restricted Pod Security
//! Standard.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::exchange::{self, Admin, Portfolio};
use arbbot_tests::harness::{NodeDesk, Setup};
use arbbot_tests::measure::Journal;
use arbbot_tests::programs::Programs;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const NAMESPACE: &str = "desk-a";

#[tokio::test]
async fn a_kill_works_in_containers_that_may_do_nothing_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let programs = Programs::build()?;
    let setup = Setup { programs: &programs, directory: directory.path(), accounts: 2, fsync: false, audit: false };
    let desk = NodeDesk::start(setup, |_| Ok(())).await?;
    let account = exchange::accounts(&desk.data)?.remove(0);
    let admin = Admin::new(&desk.admin, &desk.data)?;
    let kubectl = &desk.kubectl;

    desk.apply_bot(NAMESPACE, "bot", &account, &json!({})).await?;
    let trading = |portfolio: &Portfolio| portfolio.is_carrying() && !portfolio.open_orders.is_empty();
    let result = async {
        wait(&admin, &account.portfolio, "trading", trading).await?;
        kubectl.run(&["-n", NAMESPACE, "wait", "--for=condition=Ready", "arbbot/bot", "--timeout=60s"]).await?;
        the_pod_may_do_nothing_else(&desk).await?;

        let sent = monotonic_ns();
        let kill = r#"{"spec":{"killSwitch":{"engaged":true}}}"#;
        let patch =
            ["-n", NAMESPACE, "patch", "arbbot/bot", "--type=merge", "--field-manager=arb-incident", "-p", kill];
        kubectl.run(&patch).await?;
        for condition in ["Halted", "Flat"] {
            let condition = format!("--for=condition={condition}");
            kubectl.run(&["-n", NAMESPACE, "wait", &condition, "arbbot/bot", "--timeout=60s"]).await?;
        }
        let portfolio = admin.portfolio(&account.portfolio).await?;
        ensure!(portfolio.is_flat(), "the exchange shows {portfolio:?}");
        let events = admin.journal(&account.portfolio, 0).await?;
        let journal = Journal(&events);
        ensure!(journal.open_orders(sent) > 0, "no order rested, so nothing was proven");
        ensure!(journal.orders_gone(sent).is_some() && journal.flat(sent).is_some(), "the journal disagrees");

        after_the_incident(&desk).await?;

        // The ledger's volume, the Lease and the ServiceAccount work as deployed: deletion ends clean.
        kubectl.run(&["-n", NAMESPACE, "delete", "arbbot/bot", "--timeout=60s"]).await?;
        kubectl.run(&["-n", NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=60s"]).await
    };
    if let Err(error) = result.await {
        let shown = kubectl.run(&["-n", NAMESPACE, "describe", "arbbots,pods"]).await.unwrap_or_default();
        let log =
            kubectl.run(&["-n", NAMESPACE, "logs", "deployment/arbbot-bot", "--tail=20"]).await.unwrap_or_default();
        return Err(error).context(format!("{shown}\n{log}"));
    }
    Ok(())
}

/// What docs/operations.md says of the review, in the bot's own pod.
async fn after_the_incident(desk: &NodeDesk) -> Result<()> {
    let page = include_str!("../../docs/operations.md");
    let id = "jsonpath={.status.killSwitch.incidents[0].id}";
    let id = desk.kubectl.run(&["-n", NAMESPACE, "get", "arbbot/bot", "-o", id]).await?;
    for (command, says) in
        [("report incident", "| flat, seen once |"), ("ledger verify", "whole"), ("ledger export orders", "Kill")]
    {
        ensure!(page.contains(&format!("/arb-bot {command}")), "the page does not name `arb-bot {command}`");
        let mut arguments = vec!["-n", NAMESPACE, "exec", "deployment/arbbot-bot", "--", "/arb-bot"];
        arguments.extend(command.split(' '));
        arguments.extend((command == "report incident").then_some(id.trim()));
        let said = desk.kubectl.run(&arguments).await?;
        ensure!(said.contains(says), "{command} says {said}");
    }
    Ok(())
}

async fn wait(admin: &Admin, portfolio: &str, what: &str, wanted: impl Fn(&Portfolio) -> bool) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(90);
    loop {
        let now = admin.portfolio(portfolio).await?;
        if wanted(&now) {
            return Ok(());
        }
        ensure!(Instant::now() < limit, "not {what}: {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn the_pod_may_do_nothing_else(desk: &NodeDesk) -> Result<()> {
    let labels = desk.kubectl.run(&["get", "namespace", NAMESPACE, "-o", "jsonpath={.metadata.labels}"]).await?;
    ensure!(labels.contains(r#""pod-security.kubernetes.io/enforce":"restricted""#), "{labels}");
    let pods = desk.kubectl.run(&["-n", NAMESPACE, "get", "pods", "-l", "arbbot.io/bot=bot", "-o", "json"]).await?;
    let pods: Value = serde_json::from_str(&pods)?;
    let spec = &pods["items"][0]["spec"];
    let security = &spec["containers"][0]["securityContext"];
    ensure!(spec["securityContext"]["runAsNonRoot"] == true || security["runAsNonRoot"] == true, "{spec}");
    ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
    ensure!(security["allowPrivilegeEscalation"] == false, "{security}");
    ensure!(security["capabilities"]["drop"] == json!(["ALL"]), "{security}");
    Ok(())
}
