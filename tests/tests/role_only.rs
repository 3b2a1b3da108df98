//! The operator with rights in named namespaces only, installed by Helm by a team without cluster-wide rights.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arbbot_crds::conditions::ConditionType;
use arbbot_tests::harness::{Desk, MANIFESTS, OPERATOR, OPERATOR_NAMESPACE, PATIENCE, run_in_turn};
use arbbot_tests::helm::{CHART, Helm};
use arbbot_tests::{objects, scenarios};
use serde_json::json;
use tokio::time::sleep;

/// Where the team's operator runs.
const TEAM: &str = "team";
const ACCOUNT: &str = "--as=system:serviceaccount:team:arbbot-operator";

fn main() -> ExitCode {
    run_in_turn(8, scenarios![an_operator_with_roles_only_serves_its_namespaces_and_no_other])
}

async fn an_operator_with_roles_only_serves_its_namespaces_and_no_other(desk: Arc<Desk>) -> Result<()> {
    // The desk has an operator for the whole cluster; what it leaves is what a platform team installs: the definitions.
    let file = |name: &str| format!("{MANIFESTS}/{name}.yaml");
    desk.kubectl.run(&["delete", "-f", &file("deployment")]).await?;
    // It gives its Lease back first, which it must still be allowed to.
    desk.kubectl.run(&["-n", OPERATOR_NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=60s"]).await?;
    for name in ["rbac", "serviceaccount", "bot-status-policy"] {
        desk.kubectl.run(&["delete", "-f", &file(name)]).await?;
    }
    let (served, unpermitted, foreign) =
        (desk.room("served").await?, desk.room("unpermitted").await?, desk.room("foreign").await?);

    desk.kubectl.apply(&objects::namespace(TEAM)).await?;
    let helm = Helm::for_cluster(&desk.kubectl)?;
    let namespaces = "watchNamespaces={served,unpermitted},crds.enabled=false,botStatusPolicy.enabled=false";
    let install = ["install", OPERATOR, CHART, "--namespace", TEAM, "--set", namespaces, "--wait", "--timeout=90s"];
    helm.run(&install).await?;
    it_may_nothing_elsewhere(&desk).await?;

    let bot = served.trading_bot("bot").await?;
    bot.wait_condition(ConditionType::Ready, "True").await?;
    let stranger = foreign.bot("bot", json!({})).await?;

    // Somebody takes one namespace's rights away, and every replica starts anew.
    let binding = format!("rolebinding/{OPERATOR}");
    let taken = unpermitted.kubectl(&["get", &binding, "-o", "json"]).await?;
    unpermitted.kubectl(&["delete", &binding]).await?;
    desk.kubectl.run(&["-n", TEAM, "delete", "pod", "--all"]).await?;
    says_what_it_may_not_read(&desk).await?;
    let other = served.trading_bot("other").await?;
    other.wait_condition(ConditionType::Ready, "True").await?;
    bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    bot.wait_condition(ConditionType::Halted, "True").await?;
    bot.wait_condition(ConditionType::Ready, "True").await?;

    // Given back, that namespace's bots are served, too, without a restart.
    let waiting = unpermitted.bot("bot", json!({})).await?;
    desk.kubectl.apply(&serde_json::from_str(&taken)?).await?;
    waiting.wait_condition(ConditionType::Ready, "True").await?;
    // Only what the definition itself fills in: nobody has looked at it.
    let status = stranger.get().await?.status.unwrap_or_default();
    let untouched = status.conditions.is_empty() && status.claim.is_none() && status.effective.is_none();
    ensure!(untouched, "a bot of a namespace that is not watched has a status: {status:?}");
    for bot in [&bot, &other, &waiting] {
        bot.patch(json!({"spec": {"deletionPolicy": "Flatten", "mode": "Active"}})).await?;
        bot.delete().await?;
        bot.wait_gone().await?;
    }
    Ok(())
}

async fn it_may_nothing_elsewhere(desk: &Desk) -> Result<()> {
    for (question, expected) in [
        (&["list", "arbbots.arbbot.io", "-n", "served"][..], "yes"),
        (&["get", "namespaces/served", "-n", "served"], "yes"),
        (&["list", "arbbots.arbbot.io", "-A"], "no"),
        (&["list", "arbbots.arbbot.io", "-n", "foreign"], "no"),
        (&["get", "secrets", "-n", "served"], "no"),
        (&["get", "secrets", "-n", TEAM], "no"),
        (&["list", "pods", "-n", TEAM], "no"),
    ] {
        let answer = desk.kubectl.output(&[&["auth", "can-i", ACCOUNT], question].concat(), "").await?;
        ensure!(answer.stdout.trim() == expected, "{question:?}: {answer:?}");
    }
    Ok(())
}

/// A replica that cannot read a namespace is ready for the others and names it.
async fn says_what_it_may_not_read(desk: &Desk) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let began = Instant::now();
    loop {
        let pods = desk.node.containers();
        let pod = pods.iter().find(|pod| pod.namespace == TEAM).cloned();
        let answer = match &pod {
            Some(pod) => readiness(&client, &pod.ip).await.unwrap_or_else(|error| error.to_string()),
            None => "no pod".to_owned(),
        };
        if answer.contains("unpermitted") && !answer.contains("served") {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "/readyz does not name the namespace: {answer}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn readiness(client: &reqwest::Client, ip: &str) -> Result<String> {
    let answer = client.get(format!("http://{ip}:8081/readyz")).timeout(Duration::from_secs(2)).send().await?;
    ensure!(answer.status().is_success(), "not ready");
    answer.text().await.context("read the answer")
}
