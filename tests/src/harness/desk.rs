//! A control plane, a process node, the operator and an exchange.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::room::Room;
use crate::api_proxy::ApiProxy;
use crate::audit;
use crate::cluster::{Cluster, Kind, Options};
use crate::exchange::{self, Account, Exchange};
use crate::kubectl::Kubectl;
use crate::objects;
use crate::process_node::{self, ProcessNode, Running};
use crate::programs::{self, Programs};

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "arbbot-system";
/// What installs it.
pub const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");
/// Name of its Deployment.
pub const OPERATOR: &str = "arbbot-operator";

/// Everything that the scenarios of a test share.
pub struct Desk {
    pub client: Client,
    pub kubectl: Kubectl,
    pub node: ProcessNode,
    pub exchange: Exchange,
    accounts: Vec<Account>,
    next: AtomicUsize,
    names: Mutex<std::collections::BTreeSet<String>>,
    // Last: what ends before it may still talk to it.
    cluster: Mutex<Cluster>,
}

/// What a desk is made of.
pub struct Setup<'a> {
    pub programs: &'a Programs,
    /// Receives everything: the cluster's `kubeconfig` and `logs/`, `exchange/`, `node/`.
    pub directory: &'a Path,
    /// Accounts of the exchange.
    pub accounts: usize,
    /// Whether etcd waits for the disk.
    pub fsync: bool,
    /// Whether the API server writes down who did what.
    pub audit: bool,
}

impl Desk {
    /// Starts everything; `step` is told what comes next.
    ///
    /// # Errors
    /// Something does not start; the message says what and where its log is.
    pub async fn start(setup: Setup<'_>, mut step: impl FnMut(&str) -> Result<()>) -> Result<Self> {
        let Setup { programs, directory, accounts, fsync, audit } = setup;
        step("Kubernetes: etcd, kube-apiserver, kube-controller-manager")?;
        let options = Options { fsync, audit, ..Options::new(directory, Kind::ControlPlaneOnly) };
        let cluster = Cluster::start(options).await?;
        let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
        let kube = config(cluster.kubeconfig_path()).await?;
        let client = Client::try_from(kube.clone())?;
        refuse_real_nodes(&client).await?;
        step("Exchange: a Coinbase-compatible simulator")?;
        let simulator = directory.join("exchange");
        let exchange = Exchange::start(&programs.path("exchange-simulator")?, &simulator, accounts).await?;
        let accounts = exchange::accounts(exchange.directory())?;
        step("Node: pods run as processes of this machine")?;
        let programs = programs::ALL.iter().map(|name| Ok(((*name).to_owned(), programs.path(name)?)));
        let node = ProcessNode::start(process_node::Config {
            name: "process-node".into(),
            directory: directory.join("node"),
            programs: programs.collect::<Result<_>>()?,
            kube,
        })
        .await?;
        step("Operator: manifests/ applied, Deployment available")?;
        install(&kubectl).await?;
        Ok(Self {
            client,
            kubectl,
            node,
            exchange,
            accounts,
            // Account 0 also has the simulator's bad keys.
            next: AtomicUsize::new(1),
            names: Mutex::default(),
            cluster: Mutex::new(cluster),
        })
    }

    /// # Errors
    /// A program of the cluster has ended; the message names it and shows its log.
    pub fn check(&self) -> Result<()> {
        self.cluster.lock().map_err(|_| anyhow!("a check of the cluster has panicked"))?.check()
    }

    /// An account that no other scenario uses.
    ///
    /// # Errors
    /// All are in use.
    pub fn account(&self) -> Result<Account> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let account = self.accounts.get(next).cloned();
        account.ok_or_else(|| anyhow!("all {} accounts are in use: start the desk with more", self.accounts.len()))
    }

    /// A namespace with the exchange's certificate authority in it.
    ///
    /// # Errors
    /// The API server refuses, or another scenario has a room of this name.
    pub async fn room(&self, name: &str) -> Result<Room<'_>> {
        if !self.names.lock().map_err(|_| anyhow!("another scenario has panicked"))?.insert(name.to_owned()) {
            bail!("two scenarios use the room {name}");
        }
        self.kubectl.apply(&objects::namespace(name)).await?;
        let room = Room::new(self, name);
        let authority = std::fs::read_to_string(self.exchange.directory().join("ca.crt"))?;
        room.apply(&objects::authority(&authority)).await?;
        Ok(room)
    }

    /// What the accounts of pods have asked the API server so far, oldest first.
    ///
    /// # Errors
    /// The desk was started without an audit log, or in somebody else's cluster.
    pub fn audit(&self) -> Result<Vec<audit::Request>> {
        let cluster = self.cluster.lock().map_err(|_| anyhow!("a check of the cluster has panicked"))?;
        audit::read(&cluster.audit_log().context("this cluster has no audit log: start the desk with `audit`")?)
    }

    /// Lets the operator reach the API server through a proxy, from now on, and restarts it.
    ///
    /// # Errors
    /// It is not ready again in time.
    pub async fn put_operator_behind(&self, proxy: &ApiProxy) -> Result<()> {
        self.node.route(OPERATOR_NAMESPACE, "", proxy.server().clone());
        let restart = format!("deployment/{OPERATOR}");
        self.kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "restart", &restart]).await?;
        rolled_out(&self.kubectl).await
    }

    /// Gives the operator more arguments.
    ///
    /// # Errors
    /// It is not ready again in time, for example because it does not know them.
    pub async fn operator_arguments(&self, arguments: &[&str]) -> Result<()> {
        let add = |argument| json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": argument});
        let patch = Value::from_iter(arguments.iter().map(add)).to_string();
        let deployment = format!("deployment/{OPERATOR}");
        self.kubectl.run(&["-n", OPERATOR_NAMESPACE, "patch", &deployment, "--type=json", "-p", &patch]).await?;
        rolled_out(&self.kubectl).await
    }

    /// The operator's running replicas.
    pub fn operators(&self) -> Vec<Running> {
        let mut running = self.node.containers();
        running.retain(|running| running.namespace == OPERATOR_NAMESPACE && running.pod.starts_with(OPERATOR));
        running
    }

    /// The logs of the operator's running replicas.
    pub fn operator_log(&self) -> String {
        self.operators().iter().map(Running::log).collect()
    }

    /// Scales the operator and waits until it is so.
    ///
    /// # Errors
    /// It is not so in time.
    pub async fn scale_operator(&self, replicas: u32) -> Result<()> {
        let deployment = format!("deployment/{OPERATOR}");
        let replicas_flag = format!("--replicas={replicas}");
        self.kubectl.run(&["-n", OPERATOR_NAMESPACE, "scale", &deployment, &replicas_flag]).await?;
        if replicas == 0 {
            let wait = ["-n", OPERATOR_NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=60s"];
            return self.kubectl.run(&wait).await.map(|_| ());
        }
        rolled_out(&self.kubectl).await
    }
}

/// Installs the CustomResourceDefinitions and the operator from `manifests/`, as those do who have no Helm. Clusters with
/// a node get the chart, so both ways are tested.
///
/// # Errors
/// It is not ready in time.
pub async fn install(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["apply", "--server-side", "-k", MANIFESTS]).await?;
    let crds = ["crd/arbbots.arbbot.io", "crd/arbpolicies.arbbot.io"];
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", crds[0], crds[1]]).await?;
    rolled_out(kubectl).await
}

pub(super) async fn rolled_out(kubectl: &Kubectl) -> Result<()> {
    let deployment = format!("deployment/{OPERATOR}");
    let status = ["-n", OPERATOR_NAMESPACE, "rollout", "status", &deployment, "--timeout=90s"];
    kubectl.run(&status).await.map(|_| ())
}

/// The configuration of a kubeconfig's current context.
///
/// # Errors
/// The file cannot be used.
pub async fn config(kubeconfig: &Path) -> Result<Config> {
    // An error says that this process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("use {}", kubeconfig.display()))
}

/// These tests kill processes and read their memory's truth over loopback, which they cannot do on somebody's nodes.
async fn refuse_real_nodes(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let real = nodes.items.iter().find(|node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        !taints.into_iter().flatten().any(|taint| taint.key == process_node::TAINT)
    });
    match real {
        Some(node) => bail!(
            "the cluster of ARBBOT_KUBECONFIG has nodes ({}): tests of the API need one without, as `cluster up --control-plane-only` starts it",
            node.metadata.name.as_deref().unwrap_or_default()
        ),
        None => Ok(()),
    }
}
