//! The installed CustomResourceDefinitions are missing, or of an earlier release: the operator names them and the command
//! that mends it, goes on as far as it can, and needs no restart afterwards. No pods run here.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use arbbot_tests::cluster::{Cluster, Kind, Options};
use arbbot_tests::exchange::{Account, KeyFile};
use arbbot_tests::harness::{MANIFESTS, config};
use arbbot_tests::kubectl::Kubectl;
use arbbot_tests::operator_process::{self, Operator};
use arbbot_tests::process_node::ApiServer;
use arbbot_tests::programs::Programs;
use arbbot_tests::{crds, objects};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const NAMESPACE: &str = "desk";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// What a person has to run.
const REMEDY: &str = "kubectl apply --server-side -f crds/";

/// An operator with its shipped permissions on a control plane.
struct Stage {
    kubectl: Kubectl,
    operator: Operator,
    _cluster: Cluster,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_definition_is_named_and_waited_for() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let stage = start(directory.path(), false).await?;
    stage.wait_for("the log names the remedy", |stage| Ok(stage.operator.log()?.contains(REMEDY))).await?;
    let (ready, says) = stage.operator.readiness().await?;
    ensure!(!ready && says.contains("arbbots"), "/readyz says {says}");

    crds::install(&stage.kubectl).await?;
    stage.apply_bot("bot").await?;
    stage.wait_until_exists("deployment/arbbot-bot").await?;
    ensure!(stage.operator.readiness().await?.0, "not ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_definition_is_named_on_the_bot_and_the_bot_still_gets_its_children() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let stage = start(directory.path(), true).await?;
    crds::remove_status_field(&stage.kubectl, "claim").await?;
    stage.apply_bot("bot").await?;
    stage.wait_until_exists("deployment/arbbot-bot").await?;
    stage.wait_for_event("CrdOutdated", "bot").await?;
    stage.wait_for("the log names the remedy", |stage| Ok(stage.operator.log()?.contains(REMEDY))).await?;
    let metrics = stage.operator.metrics().await?;
    ensure!(metrics.contains("CrdOutdated"), "no metric counts CrdOutdated");

    crds::install(&stage.kubectl).await?;
    let limit = Instant::now() + PATIENCE;
    while stage.bot("bot").await?["status"]["claim"].is_null() {
        ensure!(Instant::now() < limit, "status is not written under the new definition");
        sleep(POLL).await;
    }
    Ok(())
}

async fn start(directory: &Path, with_definitions: bool) -> Result<Stage> {
    let programs = Programs::build()?;
    let options = Options::new(directory, Kind::ControlPlaneOnly).without_fsync().without_controllers();
    let cluster = Cluster::start(options).await?;
    let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
    for file in ["namespace", "serviceaccount", "rbac"] {
        kubectl.run(&["apply", "-f", &format!("{MANIFESTS}/{file}.yaml")]).await?;
    }
    kubectl.apply(&objects::namespace(NAMESPACE)).await?;
    if with_definitions {
        crds::install(&kubectl).await?;
    }
    let server = ApiServer::of(&config(cluster.kubeconfig_path()).await?);
    let kubeconfig = operator_process::kubeconfig(&kubectl, &server, &directory.join("operator")).await?;
    let program = programs.path("arbbot-operator")?;
    let operator = Operator::start(&program, &kubeconfig, &directory.join("operator.log"), &[]).await?;
    Ok(Stage { kubectl, operator, _cluster: cluster })
}

impl Stage {
    async fn apply_bot(&self, name: &str) -> Result<()> {
        let key = KeyFile { name: String::new(), private_key: String::new() };
        let account = Account { portfolio: "f931ff79-a4b0-48d6-9aa2-6d63950c07f9".to_owned(), key };
        let mut bot = objects::bot(name, &account, "exchange.example:443", "coinbase-key");
        bot["metadata"]["namespace"] = json!(NAMESPACE);
        self.kubectl.apply(&bot).await
    }

    async fn bot(&self, name: &str) -> Result<Value> {
        let bot = self.kubectl.run(&["-n", NAMESPACE, "get", &format!("arbbot/{name}"), "-o", "json"]).await?;
        Ok(serde_json::from_str(&bot)?)
    }

    async fn wait_until_exists(&self, object: &str) -> Result<()> {
        self.kubectl.run(&["-n", NAMESPACE, "wait", "--for=create", object, "--timeout=60s"]).await?;
        Ok(())
    }

    async fn wait_for_event(&self, reason: &str, bot: &str) -> Result<()> {
        let columns = "custom-columns=R:.reason,O:.involvedObject.name,N:.note,M:.message";
        let limit = Instant::now() + PATIENCE;
        loop {
            let events = self.kubectl.run(&["-n", NAMESPACE, "get", "events", "-o", columns]).await?;
            let told = |line: &str| line.contains(reason) && line.contains(bot) && line.contains(REMEDY);
            if events.lines().any(told) {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "no Event says {reason} and {REMEDY:?} of {bot}:\n{events}");
            sleep(POLL).await;
        }
    }

    async fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if Instant::now() > limit {
                bail!("not within {} s: {what}\n{}", PATIENCE.as_secs(), self.operator.log()?);
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}
