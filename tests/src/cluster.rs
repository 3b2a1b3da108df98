//! A real Kubernetes that starts in seconds, belongs to one process and ends with it.
//!
//! - [`Kind::ControlPlaneOnly`]: etcd, kube-apiserver and kube-controller-manager on a free port of
//!   127.0.0.1, without root.
//! - [`Kind::Node`]: also a node (kubelet, containerd), kube-scheduler, kube-proxy, CoreDNS and
//!   PersistentVolumes, all inside Linux namespaces of its own; needs root.
//!
//! The programs are the pinned ones of `tests/tools` (`make tools`). Any number of clusters run side by side,
//! one per directory. With `ARBBOT_KUBECONFIG` set nothing is started and that cluster is used instead.

mod audit_policy;
mod certificates;
mod control_plane;
mod detached;
mod home;
mod namespaces;
mod network;
mod node;
mod node_files;
mod process;
mod record;
mod tools;

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};

use certificates::Certificates;
use control_plane::Endpoint;
pub use detached::{down, up};
use home::Home;
use node::Node;
pub use node::PAUSE_IMAGE;
use process::Processes;
pub use record::{Component, Record};
use tools::Tools;

/// The variable that names the kubeconfig of a cluster to use instead of starting one. Never plain
/// `KUBECONFIG`: nobody's production is tested by accident.
pub const EXTERNAL_KUBECONFIG: &str = "ARBBOT_KUBECONFIG";

/// How much of a Kubernetes is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    ControlPlaneOnly,
    Node,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Receives `kubeconfig`, `cluster.json`, `cluster.lock`, `logs/` and `state/`; made if it is not there.
    /// What a dead cluster left of these is removed first; other files in it are left alone.
    pub directory: PathBuf,
    pub kind: Kind,
    /// Whether etcd waits for the disk. `false` is faster and for tests that do not measure writes.
    pub fsync: bool,
    /// Whether the API server writes down who did what: [`Cluster::audit_log`].
    pub audit: bool,
    /// Whether kube-controller-manager runs. Without it nothing makes pods, collects garbage or writes by itself; a
    /// node needs it.
    pub controllers: bool,
}

impl Options {
    /// etcd with fsync, as in production; no audit log.
    pub fn new(directory: impl Into<PathBuf>, kind: Kind) -> Self {
        Self { directory: directory.into(), kind, fsync: true, audit: false, controllers: true }
    }

    pub fn without_fsync(mut self) -> Self {
        self.fsync = false;
        self
    }

    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }
}

/// A running cluster. Dropping it ends it; so does the end of the process, however that comes.
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// Nothing of an external cluster is ours.
    own: Option<Own>,
}

/// The order of the fields is that of their end.
struct Own {
    /// First, so that the kernel ends all that is inside the namespaces at once.
    node: Option<Node>,
    home: Home,
    kind: Kind,
    /// Held until the programs have ended, so last.
    _lock: File,
}

impl Cluster {
    /// Starts a cluster and returns when it can be used: pods, Deployments and service accounts can be
    /// created. Takes about 3 s without and 6 s with a node. An error names the program that failed and shows
    /// the end of its log.
    pub async fn start(options: Options) -> Result<Self> {
        if let Some(kubeconfig) = external_kubeconfig() {
            let kubectl = kubectl()?;
            return Ok(Self { kubeconfig, kubectl, own: None });
        }
        let directory = make_directory(&options.directory)?;
        let lock = record::lock(&directory)?;
        let mut own = Own::prepare(&directory, options.kind, lock)?;
        own.start(&options).await?;
        own.record().write(&directory)?;
        let kubectl = own.home.tools.kubectl()?;
        Ok(Self { kubeconfig: own.home.kubeconfig(), kubectl, own: Some(own) })
    }

    /// A kubeconfig with all rights (mode 0600).
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// A new client with all rights.
    pub async fn client(&self) -> Result<Client> {
        kubeconfig_client(&self.kubeconfig).await
    }

    /// The pinned kubectl, or the one in PATH when only an external cluster is used.
    pub fn kubectl(&self) -> &Path {
        &self.kubectl
    }

    /// Whether this is the cluster of `ARBBOT_KUBECONFIG`.
    pub fn is_external(&self) -> bool {
        self.own.is_none()
    }

    /// The host's address as seen from pods; `None` without a node of our own.
    pub fn host_address(&self) -> Option<IpAddr> {
        self.own.as_ref().and_then(Own::host_address)
    }

    /// Loads an OCI archive into the node's image store, under the name that its annotation
    /// `io.containerd.image.name` gives.
    pub async fn import_image(&self, archive: &Path) -> Result<()> {
        let record = self.own.as_ref().map(Own::record).context(
            "images cannot be loaded into a cluster that was not started here: push them to a registry that it can reach",
        )?;
        let archive = archive.to_owned();
        tokio::task::spawn_blocking(move || record.import_image(&archive)).await?
    }

    /// What the API server wrote down, if it was told to; `None` for an external cluster.
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| audit_policy::log(&own.home.directory)).filter(|log| log.exists())
    }

    /// An error if one of the cluster's programs has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.own.as_mut().map_or(Ok(()), |own| own.home.processes.check())
    }

    /// Ends everything that was started and waits for it. The directory keeps the logs.
    pub fn stop(self) {
        drop(self);
    }
}

impl Own {
    /// Makes everything that the programs need, and starts none of them.
    fn prepare(directory: &Path, kind: Kind, lock: File) -> Result<Self> {
        let tools = Tools::locate()?;
        let logs = home::log_directory(directory);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let state = home::state_directory(directory);
        let certificates = Certificates::create(&state.join("certificates"))?;
        let mut processes = Processes::new(&logs)?;
        let (node, endpoint, prefix) = match kind {
            Kind::ControlPlaneOnly => (None, Endpoint::on_loopback()?, Vec::new()),
            Kind::Node => {
                let node = Node::prepare(&mut processes, &tools, &state)?;
                let endpoint = Endpoint::on_own_address(node.network.gateway());
                let prefix = node.enter();
                (Some(node), endpoint, prefix)
            }
        };
        let directory = directory.to_owned();
        let home = Home { directory, tools, certificates, endpoint, prefix, processes };
        Ok(Self { node, home, kind, _lock: lock })
    }

    async fn start(&mut self, options: &Options) -> Result<()> {
        let home = &mut self.home;
        if let Some(node) = &self.node {
            node.start_containerd(home)?;
        }
        let client = control_plane::start(home, options).await?;
        if let Some(node) = &self.node {
            node.start(home, &client).await?;
        }
        if options.controllers {
            control_plane::wait_for_controllers(home, &client).await?;
        }
        Ok(())
    }

    fn host_address(&self) -> Option<IpAddr> {
        self.node.as_ref().map(|node| node.network.host())
    }

    fn record(&self) -> Record {
        let component = |process: &process::Process| Component {
            name: process.name.clone(),
            pid: process.pid(),
            log: process.log.clone(),
        };
        Record {
            owner_pid: std::process::id(),
            kind: self.kind,
            server: self.home.endpoint.url(),
            kubeconfig: self.home.kubeconfig(),
            host_address: self.host_address(),
            node_pid: self.node.as_ref().map(Node::pid),
            components: self.home.processes.running().iter().map(component).collect(),
        }
    }
}

/// The kubeconfig of the cluster to use instead of one of our own, if the user named one.
pub fn external_kubeconfig() -> Option<PathBuf> {
    std::env::var_os(EXTERNAL_KUBECONFIG).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn make_directory(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)
        .and_then(|()| directory.canonicalize())
        .with_context(|| format!("create the cluster's directory {}", directory.display()))
}

/// The pinned kubectl, or the one in PATH where the tools are not built.
pub fn kubectl() -> Result<PathBuf> {
    Tools::locate()?.kubectl()
}

async fn kubeconfig_client(file: &Path) -> Result<Client> {
    // An error says that this process has a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(file)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use {}", file.display()))?;
    Ok(Client::try_from(config)?)
}

/// The pinned Helm.
pub fn helm() -> Result<PathBuf> {
    Ok(Tools::locate()?.path("helm")?.to_owned())
}
