//! The least that an operator can take on this machine: a process that lists and watches the same objects and does
//! nothing with them. It keeps them as kube-rs' own stores do: ArbBots and policies whole, children as metadata.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arbbot_crds::names::LABEL_BOT_UID;
use arbbot_crds::{ArbBot, ArbPolicy};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::config;
use crate::operator_process::usage;

const DEADLINE: Duration = Duration::from_secs(120);

/// What the floor took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Floor {
    /// From the first request until every store is complete.
    pub sync_s: f64,
    pub resident_mib: f64,
    pub peak_mib: f64,
    pub cpu_s: f64,
}

/// Measures in a process of its own: `program` is this bench.
///
/// # Errors
/// It fails or does not end.
pub async fn measure(program: &Path, kubeconfig: &Path) -> Result<Floor> {
    let mut command = Command::new(program);
    command.arg("--floor").arg(kubeconfig).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.context("the floor does not end")??;
    ensure!(output.status.success(), "the floor failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("read what the floor printed")
}

/// Lists and watches with this kubeconfig; for the process that [`measure`] starts.
///
/// # Errors
/// A watch fails.
pub async fn run(kubeconfig: &Path) -> Result<Floor> {
    let client = Client::try_from(config(kubeconfig).await?)?;
    let started = Instant::now();
    let (bots, policies) = (watched::<ArbBot>(&client, None), watched::<ArbPolicy>(&client, None));
    let children = futures::future::join_all([
        child::<ServiceAccount>(&client),
        child::<Role>(&client),
        child::<RoleBinding>(&client),
        child::<Service>(&client),
        child::<PersistentVolumeClaim>(&client),
        child::<Deployment>(&client),
        child::<Pod>(&client),
        child::<Lease>(&client),
    ]);
    // What is listed is kept until the end.
    let (_bots, _policies, _children) = tokio::join!(bots, policies, children);
    let sync_s = started.elapsed().as_secs_f64();
    let usage = usage(i32::try_from(std::process::id())?)?;
    Ok(Floor { sync_s, resident_mib: usage.resident_mib, peak_mib: usage.peak_mib, cpu_s: usage.cpu_s })
}

type Kept = std::pin::Pin<Box<dyn Future<Output = Box<dyn std::any::Any + Send>> + Send>>;

fn child<K>(client: &Client) -> Kept
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let listed = watched::<PartialObjectMeta<K>>(client, Some(LABEL_BOT_UID));
    Box::pin(async move { Box::new(listed.await) as Box<dyn std::any::Any + Send> })
}

fn watched<K>(client: &Client, label: Option<&str>) -> impl Future<Output = reflector::Store<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let mut config = watcher::Config::default();
    if let Some(label) = label {
        config = config.labels(label);
    }
    let (store, writer) = reflector::store();
    let events = watcher(api, config).default_backoff().modify(|object| {
        object.meta_mut().managed_fields = None;
    });
    let mut events = Box::pin(events.reflect(writer));
    async move {
        let mut feed = tokio::spawn(async move { while events.next().await.is_some() {} });
        tokio::select! {
            _ = store.wait_until_ready() => {}
            _ = &mut feed => {}
        }
        store
    }
}
