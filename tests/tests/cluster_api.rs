//! The control plane on its own: it starts without root, runs beside another, and ends with its owner.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use arbbot_tests::cluster::{self, Cluster, Kind, Options, Record};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};

const DEADLINE: Duration = Duration::from_secs(30);

fn control_plane(directory: &Path) -> Options {
    Options::new(directory, Kind::ControlPlaneOnly).without_fsync()
}

/// Waits until `condition` holds; fails with `what` after the deadline.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes (not zombies) whose command line or working directory names `directory`.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id().to_string();
    processes
        .filter(|entry| entry.file_name() != own.as_str())
        .filter_map(|entry| {
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let working = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            (words.contains(&name) || working.starts_with(directory)).then_some(words)
        })
        .collect()
}

fn cluster_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_cluster"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_serves_kubectl_and_runs_its_controllers() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(control_plane(directory.path())).await?;
    let kubectl = Command::new(cluster.kubectl())
        .args(["create", "deployment", "sleeper", "--image=none"])
        .env("KUBECONFIG", cluster.kubeconfig_path())
        .output()?;
    assert!(kubectl.status.success(), "{}", String::from_utf8_lossy(&kubectl.stderr));

    let client = cluster.client().await?;
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let replica_sets = Api::<ReplicaSet>::default_namespaced(client);
    wait_for_count(&replica_sets, 1).await?; // the Deployment controller
    deployments.delete("sleeper", &DeleteParams::background()).await?;
    wait_for_count(&replica_sets, 0).await?; // the garbage collector
    Ok(())
}

async fn wait_for_count(replica_sets: &Api<ReplicaSet>, count: usize) -> Result<()> {
    let started = Instant::now();
    while replica_sets.list(&ListParams::default()).await?.items.len() != count {
        assert!(started.elapsed() < DEADLINE, "there are not {count} ReplicaSets");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_run_side_by_side_and_share_nothing() -> Result<()> {
    let (first, second) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (first, second) =
        tokio::try_join!(Cluster::start(control_plane(first.path())), Cluster::start(control_plane(second.path())),)?;
    let named = |name: &str| {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    };
    for (cluster, name) in [(&first, "first"), (&second, "second")] {
        let maps = Api::<ConfigMap>::default_namespaced(cluster.client().await?);
        maps.create(&PostParams::default(), &named(name)).await?;
    }
    for (cluster, name) in [(&first, "first"), (&second, "second")] {
        let maps = Api::<ConfigMap>::default_namespaced(cluster.client().await?);
        let names: Vec<_> = maps.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        assert!(names.contains(&name.to_owned()) && names.len() == 2, "{names:?}"); // and kube-root-ca.crt
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_cluster_leaves_no_process_and_its_directory_can_be_used_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(control_plane(directory.path())).await?;
    assert!(Record::of_running(directory.path())?.is_some());
    let second = Cluster::start(control_plane(directory.path())).await;
    let refusal = second.err().expect("one directory cannot hold two clusters").to_string();
    assert!(refusal.contains("already running"), "{refusal}");
    cluster.stop();
    assert_eq!(processes_of(directory.path()), Vec::<String>::new());
    assert!(Record::of_running(directory.path())?.is_none());
    Cluster::start(control_plane(directory.path())).await?.stop();
    Ok(())
}

#[test]
fn killing_the_owner_leaves_no_process() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut owner = Command::new(cluster_program())
        .args(["own", "--control-plane-only", "--no-fsync", "--dir"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the cluster is ready", || matches!(Record::of_running(directory.path()), Ok(Some(_))));
    assert_eq!(processes_of(directory.path()).len(), 4, "{:?}", processes_of(directory.path()));
    owner.kill()?;
    owner.wait()?;
    eventually("every process has ended", || processes_of(directory.path()).is_empty());
    Ok(())
}

#[test]
fn a_cluster_that_was_brought_up_outlives_the_command_until_it_is_brought_down() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let record = cluster::up(&cluster_program(), &control_plane(directory.path()))?;
    let output = Command::new(cluster_program()).arg("kubeconfig").arg("--dir").arg(directory.path()).output()?;
    assert_eq!(String::from_utf8(output.stdout)?.trim(), record.kubeconfig.to_string_lossy());
    assert!(cluster::down(directory.path())?);
    assert_eq!(processes_of(directory.path()), Vec::<String>::new());
    assert!(!record.kubeconfig.exists());
    assert!(!cluster::down(directory.path())?, "nothing is left to end");
    Ok(())
}

#[test]
fn a_cluster_that_is_being_started_can_be_brought_down() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut owner = Command::new(cluster_program())
        .args(["own", "--control-plane-only", "--no-fsync", "--dir"])
        .arg(directory.path())
        .stderr(Stdio::null())
        .spawn()?;
    eventually("the first program runs", || directory.path().join("logs/etcd.log").exists());
    assert!(cluster::down(directory.path())?);
    owner.wait()?;
    assert_eq!(processes_of(directory.path()), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_is_named_with_the_end_of_its_log() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(control_plane(directory.path())).await?;
    cluster.check()?;
    let record = Record::of_running(directory.path())?.expect("it runs");
    let etcd = record.components.iter().find(|component| component.name == "etcd").expect("etcd is recorded");
    assert!(Command::new("kill").arg("-9").arg(etcd.pid.to_string()).status()?.success());
    eventually("the end of etcd is noticed", || {
        cluster.check().is_err_and(|error| {
            let text = error.to_string();
            text.contains("etcd ended (signal 9)") && text.contains("logs/etcd.log")
        })
    });
    Ok(())
}
