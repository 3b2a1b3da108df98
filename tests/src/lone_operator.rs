//! An operator on a control plane without pods: for what has nothing to do with them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Kind, Options};
use crate::exchange::{Account, KeyFile};
use crate::harness::{MANIFESTS, config};
use crate::kubectl::Kubectl;
use crate::objects;
use crate::operator_process::{self, Operator};
use crate::process_node::ApiServer;
use crate::programs::Programs;

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// A control plane with the operator's ServiceAccount and shipped permissions, without its CustomResourceDefinitions.
pub struct Site {
    pub kubectl: Kubectl,
    server: ApiServer,
    // Last: what ends before it may still talk to it.
    _cluster: Cluster,
}

impl Site {
    /// # Errors
    /// Something does not start.
    pub async fn start(directory: &Path) -> Result<Self> {
        let options = Options::new(directory, Kind::ControlPlaneOnly).without_fsync().without_controllers();
        let cluster = Cluster::start(options).await?;
        let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
        let server = ApiServer::of(&config(cluster.kubeconfig_path()).await?);
        for file in ["namespace", "serviceaccount", "rbac"] {
            kubectl.run(&["apply", "-f", &format!("{MANIFESTS}/{file}.yaml")]).await?;
        }
        Ok(Self { kubectl, server, _cluster: cluster })
    }

    /// Starts the operator as its ServiceAccount.
    ///
    /// # Errors
    /// It does not start.
    pub async fn operator(&self, directory: &Path, flags: &[&str]) -> Result<Operator> {
        let program = Programs::build()?.path("arbbot-operator")?;
        let kubeconfig = operator_process::kubeconfig(&self.kubectl, &self.server, &directory.join("operator")).await?;
        Operator::start(&program, &kubeconfig, &directory.join("operator.log"), flags).await
    }

    /// Makes a namespace, and an ArbBot in it for which no pod will run.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply_bot(&self, namespace: &str, name: &str) -> Result<()> {
        self.kubectl.apply(&objects::namespace(namespace)).await?;
        let key = KeyFile { name: String::new(), private_key: String::new() };
        // An account for each namespace.
        let number = namespace.bytes().fold(0_u64, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        let account = Account { portfolio: format!("f931ff79-a4b0-48d6-9aa2-{:012x}", number & 0xffff_ffff_ffff), key };
        let mut bot = objects::bot(name, &account, "exchange.example:443", "coinbase-key");
        bot["metadata"]["namespace"] = json!(namespace);
        self.kubectl.apply(&bot).await
    }

    /// An object of a namespace, for example `arbbot/carry`.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn get(&self, namespace: &str, object: &str) -> Result<Value> {
        let object = self.kubectl.run(&["-n", namespace, "get", object, "-o", "json"]).await?;
        Ok(serde_json::from_str(&object)?)
    }

    /// Waits until an object exists.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_until_exists(&self, namespace: &str, object: &str) -> Result<()> {
        self.kubectl.run(&["-n", namespace, "wait", "--for=create", object, "--timeout=60s"]).await?;
        Ok(())
    }

    /// Waits for an Event about an object with this reason, whose line has these words, too.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn wait_for_event(&self, namespace: &str, about: &str, words: &[&str]) -> Result<()> {
        let columns = "custom-columns=R:.reason,O:.involvedObject.name,N:.note,M:.message";
        let limit = Instant::now() + PATIENCE;
        loop {
            let events = self.kubectl.run(&["-n", namespace, "get", "events", "-o", columns]).await?;
            if events.lines().any(|line| line.contains(about) && words.iter().all(|word| line.contains(word))) {
                return Ok(());
            }
            if Instant::now() > limit {
                bail!("no Event about {about} says {words:?}:\n{events}");
            }
            sleep(POLL).await;
        }
    }
}
