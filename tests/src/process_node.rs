//! A node without containers: it does for pods what a kubelet does, but runs their programs as processes of this host.
//!
//! On a control plane without nodes the operator's Deployments become Pods that nobody runs. A process node registers a
//! Node, binds those pods and runs the program that their image is named after, with the container's arguments and
//! environment, its volumes as directories, an address of its own (of 127.0.0.0/8), probes, restarts, graceful deletion
//! and a kubeconfig of the pod's ServiceAccount in `KUBECONFIG`. No root, no images; what it cannot show is isolation.

mod container;
mod identity;
mod node;
mod pod;
mod probe;
mod status;
mod subnet;
mod volumes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::DeleteParams;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use rustix::process::Signal;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tracing::warn;

pub use self::identity::{ApiServer, write_kubeconfig};
pub use self::node::TAINT;
use self::pod::{Latest, PodTask};
use self::subnet::Subnet;
use crate::child::{Child, Parent};

/// Label of the pods that the operator makes: they are bound here even if their image is unknown, to show that.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "arbbot-operator");
/// Label of a bot's pod.
const BOT: &str = arbbot_crds::names::LABEL_BOT;

/// What a process node needs.
pub struct Config {
    /// Name of the Node.
    pub name: String,
    /// Logs, volumes, claims.
    pub directory: PathBuf,
    /// Program of each image, by the last part of the image's name, without a tag.
    pub programs: BTreeMap<String, PathBuf>,
    /// Of an administrator.
    pub kube: kube::Config,
}

/// A running process node. Dropping it kills its processes; `stop` also removes the Node.
pub struct ProcessNode {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    name: String,
    directory: PathBuf,
    programs: BTreeMap<String, PathBuf>,
    client: Client,
    http: reqwest::Client,
    api_server: ApiServer,
    /// Bots that reach the API server another way: `namespace/name`.
    routes: Mutex<HashMap<String, ApiServer>>,
    subnet: Subnet,
    parent: Parent,
    /// Namespace and name of each Secret and ConfigMap that changes.
    changes: broadcast::Sender<(String, String)>,
    running: Mutex<HashMap<String, Running>>,
}

/// The container of a pod, as a process.
#[derive(Clone, Debug)]
pub struct Running {
    pub namespace: String,
    pub pod: String,
    pub ip: String,
    pub labels: BTreeMap<String, String>,
    pub log: PathBuf,
    pub child: Child,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<String, ApiServer>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_of(&self, namespace: &str, pod: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{namespace}_{pod}.log"))
    }

    fn api_server_of(&self, pod: &Pod) -> ApiServer {
        let bot = pod.labels().get(BOT).cloned().unwrap_or_default();
        let key = format!("{}/{bot}", pod.namespace().unwrap_or_default());
        self.routes().get(&key).unwrap_or(&self.api_server).clone()
    }

    /// Whether the pod is this node's to run.
    fn takes(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        match &spec.node_name {
            Some(node) => *node == self.name,
            None => {
                let mut images = spec.containers.iter().filter_map(|container| container.image.as_deref());
                let known = images.any(|image| self.programs.contains_key(container::program_name(image)));
                let ours = pod.labels().get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1);
                (known || ours) && pod.metadata.deletion_timestamp.is_none()
            }
        }
    }
}

impl ProcessNode {
    /// Registers the node and starts to run pods.
    ///
    /// # Errors
    /// The API server cannot be reached, or the directory cannot be made.
    pub async fn start(config: Config) -> Result<Self> {
        let Config { name, directory, programs, kube } = config;
        std::fs::create_dir_all(directory.join("logs")).with_context(|| format!("create {}", directory.display()))?;
        let client = Client::try_from(kube.clone())?;
        let subnet = Subnet::reserve()?;
        node::register(&client, &name, &subnet.node().to_string()).await?;
        let shared = Arc::new(Shared {
            http: reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?,
            api_server: ApiServer::of(&kube),
            routes: Mutex::default(),
            parent: Parent::new()?,
            changes: broadcast::channel(1024).0,
            running: Mutex::default(),
            name,
            directory,
            programs,
            client,
            subnet,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(node::keep_alive(shared.client.clone(), shared.name.clone()));
        tasks.spawn(watch_changes::<Secret>(shared.clone()));
        tasks.spawn(watch_changes::<ConfigMap>(shared.clone()));
        tasks.spawn(run_pods(shared.clone()));
        Ok(Self { shared, tasks })
    }

    /// Kills every container and removes the Node. The pods stay where they are.
    ///
    /// # Errors
    /// The Node cannot be deleted.
    pub async fn stop(mut self) -> Result<()> {
        self.tasks.shutdown().await;
        let nodes: Api<Node> = Api::all(self.shared.client.clone());
        nodes.delete(&self.shared.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The running container of a bot.
    ///
    /// # Errors
    /// The bot has no running container.
    pub fn bot(&self, namespace: &str, bot: &str) -> Result<Running> {
        self.find(|running| running.namespace == namespace && running.labels.get(BOT).is_some_and(|label| label == bot))
            .ok_or_else(|| anyhow!("bot {namespace}/{bot} has no running container"))
    }

    /// The running container of a pod whose name starts with `prefix`.
    ///
    /// # Errors
    /// There is none.
    pub fn pod(&self, namespace: &str, prefix: &str) -> Result<Running> {
        self.find(|running| running.namespace == namespace && running.pod.starts_with(prefix))
            .ok_or_else(|| anyhow!("no container of a pod {namespace}/{prefix}* is running"))
    }

    fn find(&self, wanted: impl Fn(&Running) -> bool) -> Option<Running> {
        let running = self.shared.running();
        running.values().find(|running| running.child.is_running() && wanted(running)).cloned()
    }

    /// Every running container.
    pub fn containers(&self) -> Vec<Running> {
        self.shared.running().values().filter(|running| running.child.is_running()).cloned().collect()
    }

    /// Lets the pods of a bot that start from now on reach the API server another way; without a name, those of the
    /// namespace that are no bot's.
    pub fn route(&self, namespace: &str, bot: &str, server: ApiServer) {
        self.shared.routes().insert(format!("{namespace}/{bot}"), server);
    }

    /// How pods reach the API server.
    pub fn api_server(&self) -> &ApiServer {
        &self.shared.api_server
    }

    /// Directory of the logs: one `<namespace>_<pod>.log` each.
    pub fn logs(&self) -> PathBuf {
        self.shared.directory.join("logs")
    }

    /// Where the directory of a claim is, by its uid.
    pub fn claim(&self, uid: &str) -> PathBuf {
        self.shared.directory.join("claims").join(uid)
    }

    /// Directory of the node's files.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }
}

impl Running {
    /// `kill -9` of the container's process: its pod stays and starts it again.
    pub fn kill(&self) {
        self.child.signal(Signal::KILL);
    }

    /// Freezes the process.
    pub fn pause(&self) {
        self.child.signal(Signal::STOP);
    }

    /// Lets a frozen process go on.
    pub fn resume(&self) {
        self.child.signal(Signal::CONT);
    }

    /// Everything that its pod has logged.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Now, as Kubernetes writes times.
fn now() -> String {
    Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string()
}

/// Now, as Kubernetes writes times with microseconds.
fn now_micros() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

async fn watch_changes<K>(shared: Arc<Shared>)
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(shared.client.clone());
    let events = kube::runtime::watcher(api, watcher::Config::default()).default_backoff();
    let mut changed = Box::pin(events.touched_objects());
    while let Some(object) = changed.next().await {
        match object {
            // Nobody listens while no pod runs.
            Ok(object) => drop(shared.changes.send((object.namespace().unwrap_or_default(), object.name_any()))),
            Err(error) => warn!(%error, "the watch of Secrets and ConfigMaps starts again"),
        }
    }
}

async fn run_pods(shared: Arc<Shared>) {
    let api: Api<Pod> = Api::all(shared.client.clone());
    let mut events = Box::pin(kube::runtime::watcher(api, watcher::Config::default()).default_backoff());
    let mut pods: HashMap<String, watch::Sender<Latest>> = HashMap::new();
    let mut listed = HashSet::new();
    let mut tasks = JoinSet::new();
    while let Some(event) = events.next().await {
        while tasks.try_join_next().is_some() {}
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(pod.uid().unwrap_or_default());
                apply(&shared, &mut pods, &mut tasks, pod);
            }
            Ok(Event::InitDone) => {
                pods.retain(|uid, latest| listed.contains(uid) || gone(latest));
            }
            Ok(Event::Apply(pod)) => apply(&shared, &mut pods, &mut tasks, pod),
            Ok(Event::Delete(pod)) => {
                if let Some(latest) = pods.remove(&pod.uid().unwrap_or_default()) {
                    gone(&latest);
                }
            }
            Err(error) => warn!(%error, "the watch of Pods starts again"),
        }
    }
}

/// Tells a pod's task that the pod is gone.
fn gone(latest: &watch::Sender<Latest>) -> bool {
    latest.send_modify(|latest| latest.gone = true);
    false
}

fn apply(shared: &Arc<Shared>, pods: &mut HashMap<String, watch::Sender<Latest>>, tasks: &mut JoinSet<()>, pod: Pod) {
    let uid = pod.uid().unwrap_or_default();
    if let Some(latest) = pods.get(&uid) {
        latest.send_modify(|latest| latest.pod = Arc::new(pod));
    } else if shared.takes(&pod) {
        let (sender, receiver) = watch::channel(Latest { pod: Arc::new(pod), gone: false });
        pods.insert(uid, sender);
        tasks.spawn(PodTask::new(shared.clone(), receiver).run());
    }
}
