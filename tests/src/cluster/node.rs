//! A node: containerd, kubelet, scheduler, kube-proxy, DNS and volumes.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node as NodeObject, PersistentVolume};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::certificates::write_private;
use super::home::Home;
use super::namespaces::{self, Janitor, Namespaces, remove_stale_cgroups};
use super::network::Network;
use super::node_files as files;
use super::process::{Processes, run};
use super::tools::Tools;
use crate::{command, images};

pub const NODE_NAME: &str = "node-1";
/// The tool that is the first process of the namespaces and, as an image, of every pod.
const PAUSE: &str = "pause";
/// Its image, which every node has. It can also `serve ADDRESS` and `get URL`.
pub const PAUSE_IMAGE: &str = "docker.io/local/pause:1";
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// How many PersistentVolumes there are, and how large each says it is (nothing enforces it).
const VOLUMES: usize = 16;
const VOLUME_SIZE: &str = "10Gi";

/// What of a cluster with a node is outside of its processes. The order of the fields is that of their end:
/// everything inside first, then the cgroups.
pub struct Node {
    namespaces: Namespaces,
    _janitor: Janitor,
    pub network: Network,
    cgroup: String,
}

impl Node {
    /// Checks what a node needs, then makes its namespaces, network and cgroups.
    pub fn prepare(processes: &mut Processes, tools: &Tools, state: &Path) -> Result<Self> {
        check_requirements()?;
        let namespaces = Namespaces::start(processes, &state.join("node"), tools.path(PAUSE)?)?;
        let network = Network::connect(&namespaces)?;
        remove_stale_cgroups(&format!("{}-", network.interface()))?;
        let cgroup = format!("{}-{}", network.interface(), std::process::id());
        let janitor = Janitor::start(&cgroup)?;
        Ok(Self { namespaces, _janitor: janitor, network, cgroup })
    }

    /// The words before a command that make it run inside.
    pub fn enter(&self) -> Vec<std::ffi::OsString> {
        namespaces::enter(self.pid())
    }

    /// Starts containerd. It needs no API server, so it comes first.
    pub fn start_containerd(&self, home: &mut Home) -> Result<()> {
        let state = home.state("containerd")?;
        let (config, networks) = (state.join("config.toml"), state.join("networks"));
        fs::create_dir_all(&networks)?;
        write_private(&networks.join("10-bridge.conflist"), &files::network_list(&self.network.pods(), &state))?;
        write_private(&config, &files::containerd(&state, &networks))?;
        let arguments = command!["--config", config].into();
        home.start_program("containerd", Path::new("containerd"), "containerd", arguments)
    }

    /// Starts everything that needs the API server, and waits until pods can run and find Services.
    pub async fn start(&self, home: &mut Home, client: &Client) -> Result<()> {
        let image = images::write(home.tools.path(PAUSE)?, PAUSE_IMAGE, &home.state("images")?)?;
        home.wait_for("containerd", "containerd has taken the pause image", || self.import_image(&image)).await?;
        self.start_kubelet(home)?;
        start_scheduler(home)?;
        self.start_kube_proxy(home)?;
        self.start_coredns(home)?;
        create_volumes(home, client).await?;
        home.wait_for("kubelet", "the node is ready", || node_is_ready(client.clone())).await?;
        let address = self.network.gateway();
        home.wait_for("kube-proxy", "Services are routed", || answers(address, 10256, "healthz")).await?;
        home.wait_for("coredns", "names are resolved", || answers(address, 8181, "ready")).await
    }

    /// The first process of the namespaces.
    pub fn pid(&self) -> u32 {
        self.namespaces.pid()
    }

    async fn import_image(&self, archive: &Path) -> Result<()> {
        let (pid, archive) = (self.pid(), archive.to_owned());
        tokio::task::spawn_blocking(move || import_image(pid, &archive)).await?
    }

    fn start_kubelet(&self, home: &mut Home) -> Result<()> {
        let user = format!("system:node:{NODE_NAME}");
        let kubeconfig = home.component_kubeconfig("kubelet", &user, Some("system:nodes"))?;
        let config = home.state("kubelet")?.join("config.yaml");
        let authority = home.certificates.file("ca.crt");
        write_private(&config, &files::kubelet(self.network.gateway(), &authority, &self.cgroup))?;
        let arguments = command![
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={}", self.network.gateway()),
        ];
        home.start("kubelet", "kubelet", arguments.into())
    }

    fn start_kube_proxy(&self, home: &mut Home) -> Result<()> {
        let kubeconfig = home.component_kubeconfig("kube-proxy", "system:kube-proxy", None)?;
        let config = home.state("kube-proxy")?.join("config.yaml");
        write_private(&config, &files::kube_proxy(&kubeconfig, &self.network.pods()))?;
        home.start("kube-proxy", "kube-proxy", command![format!("--config={}", config.display())].into())
    }

    fn start_coredns(&self, home: &mut Home) -> Result<()> {
        // No built-in role fits, and it is our own program in our own cluster.
        let kubeconfig = home.component_kubeconfig("coredns", "coredns", Some("system:masters"))?;
        let config = home.state("coredns")?.join("Corefile");
        write_private(&config, &files::coredns(self.network.gateway(), &kubeconfig))?;
        home.start("coredns", "coredns", command!["-conf", config].into())
    }
}

/// Loads an OCI archive into the image store of the node whose first process is `pid`. Blocks.
pub fn import_image(pid: u32, archive: &Path) -> Result<()> {
    let mut command = namespaces::enter(pid);
    let archive = std::path::absolute(archive)?;
    command.extend(command![
        "ctr",
        "--address",
        CONTAINERD_SOCKET,
        "--namespace",
        "k8s.io",
        "images",
        "import",
        archive
    ]);
    run(&command).map(|_| ())
}

fn start_scheduler(home: &mut Home) -> Result<()> {
    let kubeconfig = home.component_kubeconfig("scheduler", "system:kube-scheduler", None)?;
    let arguments =
        command![format!("--kubeconfig={}", kubeconfig.display()), "--leader-elect=false", "--secure-port=0"];
    home.start("kube-scheduler", "scheduler", arguments.into())
}

/// A default StorageClass without a provisioner, and the volumes that serve it.
async fn create_volumes(home: &Home, client: &Client) -> Result<()> {
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }))?;
    let create = PostParams::default();
    Api::all(client.clone()).create(&create, &class).await.context("create the StorageClass")?;
    for number in 0..VOLUMES {
        let name = format!("local-{number:02}");
        let path = home.state("volumes")?.join(&name);
        fs::create_dir_all(&path)?;
        let volume = persistent_volume(&name, &path)?;
        Api::all(client.clone()).create(&create, &volume).await.with_context(|| format!("create volume {name}"))?;
    }
    Ok(())
}

fn persistent_volume(name: &str, path: &Path) -> Result<PersistentVolume> {
    let on_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", // the only one that needs no provisioner
            "storageClassName": "local",
            "local": {"path": path}, // unlike hostPath, it honours fsGroup: a pod need not be root to write
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }))?)
}

async fn node_is_ready(client: Client) -> Result<()> {
    let node = Api::<NodeObject>::all(client).get(NODE_NAME).await?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.ok_or_else(|| anyhow!("the node has no condition Ready yet"))?;
    if ready.status != "True" {
        bail!("the node is not ready: {}", ready.message.as_deref().unwrap_or("no reason given"));
    }
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    match taints.first() {
        Some(taint) => bail!("the node still has the taint {}", taint.key),
        None => Ok(()),
    }
}

async fn answers(address: IpAddr, port: u16, path: &str) -> Result<()> {
    reqwest::get(format!("http://{address}:{port}/{path}")).await?.error_for_status()?;
    Ok(())
}

/// Says all that is missing at once, and what to do about it.
fn check_requirements() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a cluster with a node needs root (namespaces, containers). Without root: --control-plane-only, or `make demo FAST=1`"
        );
    }
    let programs = ["containerd", "runc", "ctr", "nft", "iptables", "conntrack", "ip", "nsenter", "unshare", "setpriv"];
    let search_path = super::process::search_path();
    let in_path = |program: &str| std::env::split_paths(&search_path).any(|directory| directory.join(program).exists());
    let mut missing: Vec<String> =
        programs.into_iter().filter(|program| !in_path(program)).map(ToOwned::to_owned).collect();
    let plugins = PathBuf::from(files::CNI_PLUGINS);
    missing.extend(
        ["bridge", "portmap", "host-local"]
            .into_iter()
            .map(|plugin| plugins.join(plugin))
            .filter(|plugin| !plugin.exists())
            .map(|plugin| plugin.display().to_string()),
    );
    if !missing.is_empty() {
        bail!(
            "a cluster with a node needs programs that are not here: {}. `make tools` installs them or says how",
            missing.join(", ")
        );
    }
    Ok(())
}
