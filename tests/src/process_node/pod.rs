//! The life of one pod, as a kubelet leads it.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Binding, Container, Event, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::container::{self, Facts, Mount};
use super::probe::{self, Finding};
use super::status::{ContainerView, State, Terminated};
use super::volumes::Volumes;
use super::{Running, Shared, identity, now};
use crate::child::{Child, Program};

const MOUNT_RETRY: Duration = Duration::from_millis(500);
/// A kubelet waits 10 s and more before it starts a crashed container again; here the first restart is immediate too.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A container that ran this long has recovered: its next restart is immediate again.
const RESTART_RESET: Duration = Duration::from_secs(60);

/// The newest state of a pod.
#[derive(Clone)]
pub struct Latest {
    pub pod: Arc<Pod>,
    /// Whether it is gone from the API server.
    pub gone: bool,
}

impl Latest {
    fn is_ending(&self) -> bool {
        self.gone || self.pod.metadata.deletion_timestamp.is_some()
    }
}

pub struct PodTask {
    node: Arc<Shared>,
    latest: watch::Receiver<Latest>,
    pods: Api<Pod>,
    pod: Arc<Pod>,
    facts: Facts,
    directory: PathBuf,
    view: ContainerView,
    published: Value,
}

/// Why a running container needs attention.
enum Attention {
    Ended(ExitStatus),
    Dead,
    PodEnding,
}

impl PodTask {
    pub fn new(node: Arc<Shared>, latest: watch::Receiver<Latest>) -> Self {
        let pod = latest.borrow().pod.clone();
        let uid = pod.uid().unwrap_or_default();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let restarts = statuses.and_then(|all| all.first()).map_or(0, |status| i64::from(status.restart_count) + 1);
        let facts = Facts {
            node: node.name.clone(),
            pod_ip: node.subnet.next().to_string(),
            host_ip: node.subnet.node().to_string(),
        };
        let state = State::Waiting { reason: "ContainerCreating", message: String::new() };
        Self {
            pods: Api::namespaced(node.client.clone(), &pod.namespace().unwrap_or_default()),
            directory: node.directory.join("pods").join(uid),
            view: ContainerView { state, last: None, restarts, ready: false, over: false },
            published: json!({}),
            node,
            latest,
            pod,
            facts,
        }
    }

    /// From binding to deletion.
    pub async fn run(mut self) {
        let name = format!("{}/{}", self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let mut ending = self.latest.clone();
        if let Err(error) = self.live().await {
            warn!(pod = name, "{error:#}");
            self.event("FailedSync", &format!("{error:#}")).await;
        }
        // A pod whose container could not be started waits for its deletion.
        let _ = ending.wait_for(Latest::is_ending).await;
        self.end().await;
        self.node.running().remove(&self.pod.uid().unwrap_or_default());
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(pod = name, %error, "the directory of the pod stays");
        }
    }

    async fn live(&mut self) -> Result<()> {
        self.bind().await?;
        std::fs::create_dir_all(&self.directory)?;
        let spec = self.pod.spec.as_ref().ok_or_else(|| anyhow!("the pod has no spec"))?;
        let [container] = spec.containers.as_slice() else {
            return Err(anyhow!("a process node runs pods of exactly one container"));
        };
        let container = container.clone();
        let image = container.image.clone().unwrap_or_default();
        let Some(path) = self.node.programs.get(container::program_name(&image)).cloned() else {
            let message = format!("Failed to pull image {image:?}: not a program of this process node");
            self.event("Failed", &message).await;
            self.wait("ImagePullBackOff", message).await;
            return Ok(());
        };
        self.publish().await;
        let Some(mounts) = self.mount().await else { return Ok(()) };
        identity::renew(&self.node.client, &self.pod, &self.directory).await?;
        let namespace = self.pod.namespace().unwrap_or_default();
        let server = self.node.api_server_of(&self.pod);
        let kubeconfig = identity::write_kubeconfig(&self.directory, &server, &namespace)?;
        let mut environment = match container::environment(&container, &self.pod, &self.facts, &mounts) {
            Ok(environment) => environment,
            Err(error) => {
                self.event("Failed", &error.to_string()).await;
                self.wait("CreateContainerConfigError", error.to_string()).await;
                return Ok(());
            }
        };
        let arguments = container::arguments(&container, &environment, &self.facts, &mounts);
        environment.insert("KUBECONFIG".into(), kubeconfig.to_string_lossy().into_owned());
        environment.insert("HOME".into(), self.directory.to_string_lossy().into_owned());
        let log = self.node.log_of(&namespace, &self.pod.name_any());
        let arguments = arguments.into_iter().map(OsString::from).collect();
        self.keep_running(&container, &Program { path, arguments, environment, log, output: None }).await
    }

    async fn bind(&self) -> Result<()> {
        let bound = self.pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if bound {
            return Ok(());
        }
        let target =
            ObjectReference { kind: Some("Node".into()), name: Some(self.node.name.clone()), ..Default::default() };
        let mut binding = Binding { target, ..Default::default() };
        binding.metadata.name = self.pod.metadata.name.clone();
        let name = self.pod.name_any();
        let reply: kube::Result<Status> =
            self.pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        reply.map(|_| ()).context("bind the pod")
    }

    /// Mounts the volumes; retries until it succeeds or the pod ends.
    async fn mount(&mut self) -> Option<Vec<Mount>> {
        let volumes = self.volumes();
        let mut told = String::new();
        loop {
            let error = match volumes.mount(&self.pod).await {
                Ok(mounts) => return Some(mounts),
                Err(error) => error.to_string(),
            };
            if error != told {
                self.event("FailedMount", &error).await;
                told = error;
            }
            if timeout(MOUNT_RETRY, self.ending()).await.is_ok() {
                return None;
            }
        }
    }

    fn volumes(&self) -> Volumes {
        Volumes {
            client: self.node.client.clone(),
            namespace: self.pod.namespace().unwrap_or_default(),
            directory: self.directory.join("volumes"),
            claims: self.node.directory.join("claims"),
        }
    }

    /// Starts the container, and again whenever it ends, until the pod ends.
    async fn keep_running(&mut self, container: &Container, program: &Program) -> Result<()> {
        let mut backoff = Duration::ZERO;
        loop {
            let child = self.node.parent.start(program).await?;
            let since = now();
            let started = Instant::now();
            self.view.state = State::Running { since: since.clone() };
            self.remember(&child, program);
            self.publish().await;
            let attention = self.supervise(container, &child).await;
            let grace = match attention {
                Attention::Ended(_) => None,
                Attention::Dead => Some(self.grace()),
                Attention::PodEnding => return self.stop(&child, since).await,
            };
            let status = match (attention, grace) {
                (Attention::Ended(status), _) => status,
                (_, grace) => {
                    self.event("Killing", "Container failed its liveness probe, will be restarted").await;
                    child.stop(grace.unwrap_or_default()).await
                }
            };
            let end = terminated(status, since);
            info!(pod = self.pod.name_any(), exit_code = end.exit_code, signal = end.signal, "container ended");
            self.view.last = Some(end.clone());
            self.view.ready = false;
            self.view.restarts += 1;
            if started.elapsed() > RESTART_RESET {
                backoff = Duration::ZERO;
            }
            let message =
                format!("back-off {backoff:?} restarting failed container; its log: {}", program.log.display());
            self.view.state = State::Waiting { reason: "CrashLoopBackOff", message };
            self.publish().await;
            if timeout(backoff, self.ending()).await.is_ok() {
                self.view.state = State::Terminated(end);
                return Ok(());
            }
            backoff = (backoff * 2).clamp(RESTART_MIN, RESTART_MAX);
        }
    }

    fn remember(&self, child: &Child, program: &Program) {
        let running = Running {
            namespace: self.pod.namespace().unwrap_or_default(),
            pod: self.pod.name_any(),
            ip: self.facts.pod_ip.clone(),
            labels: self.pod.metadata.labels.clone().unwrap_or_default(),
            log: program.log.clone(),
            child: child.clone(),
        };
        self.node.running().insert(self.pod.uid().unwrap_or_default(), running);
    }

    /// Until the container or the pod ends: probes, fresh volumes, a fresh token.
    async fn supervise(&mut self, container: &Container, child: &Child) -> Attention {
        let (sender, mut findings) = mpsc::unbounded_channel();
        let _probes = probe::start(&self.node.http, container, &self.facts.pod_ip, sender);
        let mut changes = self.node.changes.subscribe();
        let mut renewal = Instant::now() + identity::RENEW_EVERY;
        loop {
            tokio::select! {
                status = child.ended() => return Attention::Ended(status),
                () = self.ending() => return Attention::PodEnding,
                Some(finding) = findings.recv() => match finding {
                    Finding::Ready(ready) => { self.view.ready = ready; self.publish().await; }
                    Finding::Dead => return Attention::Dead,
                },
                change = changes.recv() => if self.concerns(change) { self.refresh().await; },
                () = sleep_until(renewal) => {
                    renewal = Instant::now() + identity::RENEW_EVERY;
                    if let Err(error) = identity::renew(&self.node.client, &self.pod, &self.directory).await {
                        warn!(pod = self.pod.name_any(), "{error:#}; next try in a minute");
                        renewal = Instant::now() + Duration::from_secs(60);
                    }
                }
            }
        }
    }

    fn concerns(&self, change: Result<(String, String), broadcast::error::RecvError>) -> bool {
        match change {
            Ok((namespace, name)) => {
                let spec = self.pod.spec.as_ref();
                let mut volumes = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
                self.pod.metadata.namespace.as_ref() == Some(&namespace)
                    && volumes.any(|volume| {
                        volume.secret.as_ref().is_some_and(|s| s.secret_name.as_ref() == Some(&name))
                            || volume.config_map.as_ref().is_some_and(|map| map.name == name)
                    })
            }
            // Some changes were missed: look at everything.
            Err(_) => true,
        }
    }

    async fn refresh(&self) {
        // A kubelet too leaves the old files in place while the Secret is missing.
        if let Err(error) = self.volumes().mount(&self.pod).await {
            self.event("FailedMount", &error.to_string()).await;
        }
    }

    /// Ends the container because the pod ends; a shorter grace period may be asked for meanwhile.
    async fn stop(&mut self, child: &Child, since: String) -> Result<()> {
        let begun = Instant::now();
        child.signal(Signal::TERM);
        let status = loop {
            let mut latest = self.latest.clone();
            latest.mark_unchanged();
            tokio::select! {
                status = child.ended() => break status,
                () = sleep_until(begun + self.grace()) => {
                    child.signal(Signal::KILL);
                    break child.ended().await;
                }
                changed = latest.changed() => if changed.is_err() { sleep(Duration::from_millis(100)).await },
            }
        };
        self.view.ready = false;
        self.view.state = State::Terminated(terminated(status, since));
        Ok(())
    }

    fn grace(&self) -> Duration {
        let latest = self.latest.borrow();
        let asked = latest.pod.metadata.deletion_grace_period_seconds;
        let default = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(asked.or(default).and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }

    /// Shows that every container has terminated, then lets the API server forget the pod.
    async fn end(&mut self) {
        if self.latest.borrow().gone {
            return;
        }
        self.view.over = true;
        self.publish().await;
        let preconditions = Preconditions { uid: self.pod.uid(), resource_version: None };
        let now =
            DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..Default::default() };
        match self.pods.delete(&self.pod.name_any(), &now).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => warn!(pod = self.pod.name_any(), %error, "the pod could not be removed"),
            Ok(_) => {}
        }
    }

    async fn ending(&self) {
        // The sender lives as long as the node; when it is gone the node is being dropped.
        let _ = self.latest.clone().wait_for(Latest::is_ending).await;
    }

    async fn wait(&mut self, reason: &'static str, message: String) {
        self.view.state = State::Waiting { reason, message };
        self.publish().await;
    }

    async fn publish(&mut self) {
        let Facts { pod_ip, host_ip, .. } = &self.facts;
        let status = self.view.pod_status(&self.pod, &self.published, pod_ip, host_ip, &now());
        if status == self.published {
            return;
        }
        let patch = json!({"metadata": {"uid": self.pod.uid()}, "status": status});
        let name = self.pod.name_any();
        match self.pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => self.published = status,
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => warn!(pod = name, %error, "the status of the pod was not written"),
        }
    }

    async fn event(&self, reason: &str, message: &str) {
        let namespace = self.pod.namespace().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.node.client.clone(), &namespace);
        let mut event = Event {
            involved_object: self.pod.object_ref(&()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            type_: Some("Warning".into()),
            ..Default::default()
        };
        event.first_timestamp = serde_json::from_value::<Time>(json!(now())).ok();
        event.last_timestamp = event.first_timestamp.clone();
        event.count = Some(1);
        event.metadata.generate_name = Some(format!("{}.", self.pod.name_any()));
        event.source =
            Some(k8s_openapi::api::core::v1::EventSource { component: Some("process-node".into()), host: None });
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            warn!(pod = self.pod.name_any(), reason, message, %error, "an Event was not written");
        }
    }
}

fn terminated(status: ExitStatus, started_at: String) -> Terminated {
    let signal = status.signal().unwrap_or(0);
    Terminated { exit_code: status.code().unwrap_or(128 + signal), signal, started_at, finished_at: now() }
}
