//! A cluster with a real node, our programs as containers in it, the exchange too.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use kube::Client;
use serde_json::{Value, json};

use super::desk::{OPERATOR, OPERATOR_NAMESPACE, Setup, config, rolled_out};
use crate::cluster::{Cluster, Kind, Options};
use crate::exchange::Account;
use crate::helm::{CHART, Helm};
use crate::kubectl::Kubectl;
use crate::programs::{self, Programs};
use crate::{images, objects};

/// Namespaces that it makes, besides the operator's.
pub const NODE_NAMESPACES: &[&str] = &[NAMESPACE];
/// Namespace of the exchange.
const NAMESPACE: &str = "exchange";
const SIMULATOR: &str = "exchange-simulator";
/// The exchange as pods know it; its Service listens on the usual port.
const AUTHORITY: &str = "exchange-simulator.exchange.svc";
const PORT: u16 = 8443;

/// A cluster with a real node, and everything in containers.
pub struct NodeDesk {
    pub client: Client,
    pub kubectl: Kubectl,
    /// The exchange's data directory.
    pub data: PathBuf,
    /// The exchange as this machine reaches it: `host:port`.
    pub admin: String,
    _forward: Forward,
    // Last: what ends before it may still talk to it.
    cluster: Cluster,
}

impl NodeDesk {
    /// Starts everything; `step` is told what comes next.
    ///
    /// # Errors
    /// Something does not start; the message says what.
    pub async fn start(setup: Setup<'_>, mut step: impl FnMut(&str) -> Result<()>) -> Result<Self> {
        let Setup { programs, directory, accounts, fsync, audit } = setup;
        step("Kubernetes with a node: kubelet, containerd, kube-proxy, CoreDNS")?;
        let options = Options { fsync, audit, ..Options::new(directory, Kind::Node) };
        let cluster = Cluster::start(options).await?;
        let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
        let client = Client::try_from(config(cluster.kubeconfig_path()).await?)?;
        step("Images: one static program each, no shell, no root")?;
        load_images(&cluster, programs).await?;
        step("Exchange: a Coinbase-compatible simulator in a pod")?;
        let data = directory.join("exchange/data");
        initialise(&programs.path(SIMULATOR)?, &data, accounts)?;
        deploy_exchange(&kubectl, &data).await?;
        let forward = Forward::start(&kubectl)?;
        step("Operator: helm install --wait")?;
        install_chart(&kubectl).await?;
        Ok(Self { client, kubectl, data, admin: forward.address.clone(), _forward: forward, cluster })
    }

    /// The exchange as bots reach it.
    pub const fn exchange(&self) -> &'static str {
        AUTHORITY
    }

    /// Applies a bot on this account, with its key and all that it needs in its namespace; `changes` are merged into its
    /// object first.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply_bot(&self, namespace: &str, name: &str, account: &Account, changes: &Value) -> Result<()> {
        let secret = format!("{name}-key");
        let mut bot = objects::bot(name, account, AUTHORITY, &secret);
        objects::merge(&mut bot, changes);
        self.kubectl.apply(&objects::namespace(namespace)).await?;
        for mut object in [
            objects::authority(&std::fs::read_to_string(self.data.join("ca.crt"))?),
            objects::secret(&secret, &account.key),
            bot,
        ] {
            object["metadata"]["namespace"] = json!(namespace);
            self.kubectl.apply(&object).await?;
        }
        Ok(())
    }

    /// Loads operator and bot under another tag, as a new release would come.
    ///
    /// # Errors
    /// They cannot be read, or not be loaded.
    pub async fn load_release(&self, programs: &Programs, tag: &str) -> Result<()> {
        let directory = tempfile::tempdir()?;
        for name in ["arbbot-operator", "arb-bot"] {
            let reference = format!("docker.io/library/{name}:{tag}");
            let archive = images::write(&programs.path(name)?, &reference, directory.path())?;
            self.cluster.import_image(&archive).await?;
        }
        Ok(())
    }

    /// # Errors
    /// A program of the cluster has ended; the message names it and shows its log.
    pub fn check(&mut self) -> Result<()> {
        self.cluster.check()
    }
}

/// Loads the images of our programs into the node. Into a cluster that was not started here nothing can be loaded:
/// there they must be to be had already.
async fn load_images(cluster: &Cluster, programs: &Programs) -> Result<()> {
    if cluster.is_external() {
        return Ok(());
    }
    for name in programs::ALL {
        let archive = images::write(&programs.path(name)?, &images::reference(name), &images::directory())?;
        cluster.import_image(&archive).await?;
    }
    Ok(())
}

/// Installs the chart, as the README says; where the operator is installed already, it stays as it is.
async fn install_chart(kubectl: &Kubectl) -> Result<()> {
    let crd = kubectl.run(&["get", "crd", "arbbots.arbbot.io", "--ignore-not-found", "-o", "name"]).await?;
    if !crd.trim().is_empty() {
        return rolled_out(kubectl).await;
    }
    // Made beforehand, so that the restricted Pod Security Standard holds for the operator, too.
    kubectl.apply(&objects::namespace(OPERATOR_NAMESPACE)).await?;
    let install = ["install", OPERATOR, CHART, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout=120s"];
    Helm::for_cluster(kubectl)?.run(&install).await.map(|_| ())
}

/// Makes the exchange's keys and certificates.
fn initialise(program: &Path, data: &Path, accounts: usize) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["init", "--accounts", &accounts.to_string(), "--dns-name", AUTHORITY, "--data-dir"]).arg(data);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!("exchange-simulator init failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

async fn deploy_exchange(kubectl: &Kubectl, data: &Path) -> Result<()> {
    let mut files = serde_json::Map::new();
    for name in ["server.crt", "server.key", "accounts.json", "admin.token", "ca.crt"] {
        let path = data.join(name);
        let content = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        files.insert(name.to_owned(), json!(content));
    }
    let labels = json!({"app.kubernetes.io/name": SIMULATOR});
    let metadata = json!({"name": SIMULATOR, "namespace": NAMESPACE, "labels": labels});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": PORT}]},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": exchange_pod()},
        },
    });
    for object in [objects::namespace(NAMESPACE), secret, service, deployment] {
        kubectl.apply(&object).await?;
    }
    let name = format!("deployment/{SIMULATOR}");
    kubectl.run(&["-n", NAMESPACE, "rollout", "status", &name, "--timeout=90s"]).await?;
    Ok(())
}

fn exchange_pod() -> Value {
    let data = "/data";
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 2,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "exchange", "image": format!("{SIMULATOR}:{}", env!("CARGO_PKG_VERSION")),
            "args": ["serve", "--listen", format!("0.0.0.0:{PORT}"), "--data-dir", data, "--accounts", "1"],
            "ports": [{"containerPort": PORT}],
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": data, "readOnly": true}],
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        }],
        "volumes": [{"name": "data", "secret": {"secretName": SIMULATOR}}],
    })
}

/// `kubectl port-forward` to the exchange, for as long as this lives: works with any cluster.
struct Forward {
    child: Child,
    address: String,
}

impl Forward {
    fn start(kubectl: &Kubectl) -> Result<Self> {
        let service = format!("service/{SIMULATOR}");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(&kubectl.program).env("KUBECONFIG", &kubectl.kubeconfig);
        command.args(["-n", NAMESPACE, "port-forward", "--address=127.0.0.1", &service, ":443"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| anyhow!("kubectl has no standard output"))?;
        let mut lines = BufReader::new(output).lines();
        let line = lines.next().ok_or_else(|| anyhow!("kubectl port-forward ended"))??;
        // "Forwarding from 127.0.0.1:41234 -> 8443"
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).map(str::to_owned);
        let address = address.ok_or_else(|| anyhow!("kubectl port-forward says {line:?}"))?;
        // It writes a line for each connection: somebody must read them.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended with the cluster.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
