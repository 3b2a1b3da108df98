//! The process node does for pods what a kubelet does. Its programs here are a shell and sleep.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_tests::cluster::{Cluster, Kind, Options};
use arbbot_tests::harness::config;
use arbbot_tests::kubectl::Kubectl;
use arbbot_tests::process_node::{Config, ProcessNode};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// A pod that runs a shell script.
fn pod(name: &str, script: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "main", "image": "docker.io/local/sh:1", "args": ["-c", script],
                "env": [
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                ],
            }],
        },
    });
    arbbot_tests::objects::merge(&mut pod, &json!({"spec": spec}));
    pod
}

struct Fixture {
    node: ProcessNode,
    kubectl: Kubectl,
    pods: Api<Pod>,
    _cluster: Cluster,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let options = Options::new(directory.path().join("cluster"), Kind::ControlPlaneOnly).without_fsync();
        let cluster = Cluster::start(options).await?;
        let kubectl = Kubectl::new(cluster.kubectl(), cluster.kubeconfig_path());
        let kube = config(cluster.kubeconfig_path()).await?;
        let pods = Api::namespaced(Client::try_from(kube.clone())?, "default");
        let node = ProcessNode::start(Config {
            name: "test-node".into(),
            directory: directory.path().join("node"),
            programs: [("sh".to_owned(), "/bin/sh".into())].into(),
            kube,
        })
        .await?;
        Ok(Self { node, kubectl, pods, _cluster: cluster, _directory: directory })
    }

    async fn wait(&self, name: &str, what: &str, wanted: impl Fn(Option<&Value>, &str) -> bool) -> Result<()> {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let pod = self.pods.get_opt(name).await?.map(|pod| json!(pod));
            let log = std::fs::read_to_string(self.node.logs().join(format!("default_{name}.log"))).unwrap_or_default();
            if wanted(pod.as_ref(), &log) {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "{name} is not {what}: {pod:?}\n{log}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_process_node_runs_pods_as_a_kubelet_does() -> Result<()> {
    let fixture = Fixture::start().await.context("start")?;
    a_pod_gets_its_environment_and_a_token_of_its_own(&fixture).await?;
    a_missing_secret_holds_the_pod_back_and_a_changed_one_arrives(&fixture).await?;
    a_crashed_container_starts_again_in_its_pod(&fixture).await?;
    a_claim_outlives_its_pod(&fixture).await?;
    a_pod_that_ignores_sigterm_is_killed_after_its_grace(&fixture).await?;
    fixture.node.stop().await
}

async fn a_pod_gets_its_environment_and_a_token_of_its_own(fixture: &Fixture) -> Result<()> {
    let script = "echo ip=$POD_IP uid=$UID_OF_POD; cat $KUBECONFIG; exec sleep 600";
    fixture.kubectl.apply(&pod("env", script, json!({}))).await?;
    let printed = |pod: Option<&Value>, log: &str| {
        let Some(pod) = pod else { return false };
        let ip = pod["status"]["podIP"].as_str().unwrap_or("none");
        let uid = pod["metadata"]["uid"].as_str().unwrap_or("none");
        log.contains(&format!("ip={ip} uid={uid}")) && log.contains("tokenFile")
    };
    fixture.wait("env", "printing its environment", printed).await?;
    fixture.wait("env", "ready", |pod, _| pod.is_some_and(|p| p["status"]["phase"] == "Running")).await?;
    fixture.kubectl.run(&["wait", "--for=condition=Ready", "pod/env", "--timeout=10s"]).await?;
    let kubeconfig = fixture.node.pod("default", "env")?;
    ensure!(kubeconfig.ip.starts_with("127."), "the pod has an address of its own");
    Ok(())
}

async fn a_missing_secret_holds_the_pod_back_and_a_changed_one_arrives(fixture: &Fixture) -> Result<()> {
    let script = "while true; do cat /etc/key/name; echo; sleep 0.1; done";
    let mut pod = pod("secret", script, json!({"volumes": [{"name": "key", "secret": {"secretName": "the-key"}}]}));
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "key", "mountPath": "/etc/key"}]);
    // The path stands inside a script, where only a whole argument would be found.
    pod["spec"]["containers"][0]["args"] =
        json!(["-c", "while true; do cat \"$0\"; echo; sleep 0.1; done", "/etc/key/name"]);
    fixture.kubectl.apply(&pod).await?;
    let limit = Instant::now() + Duration::from_secs(20);
    while !fixture.kubectl.run(&["get", "events"]).await?.contains("secret \"the-key\" not found") {
        ensure!(Instant::now() < limit, "no Event FailedMount");
        sleep(Duration::from_millis(100)).await;
    }
    for content in ["first", "second"] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "the-key", "namespace": "default"},
            "stringData": {"name": content},
        });
        fixture.kubectl.apply(&secret).await?;
        fixture.wait("secret", content, |_, log| log.contains(content)).await?;
    }
    Ok(())
}

async fn a_crashed_container_starts_again_in_its_pod(fixture: &Fixture) -> Result<()> {
    let before = fixture.node.pod("default", "env")?;
    before.kill();
    let restarted = |pod: Option<&Value>, log: &str| {
        let status = pod.map(|pod| pod["status"]["containerStatuses"][0].clone()).unwrap_or_default();
        status["restartCount"] == 1
            && status["ready"] == true
            && status["lastState"]["terminated"]["exitCode"] == 137
            && log.matches("ip=").count() == 2
    };
    fixture.wait("env", "restarted", restarted).await?;
    ensure!(fixture.node.pod("default", "env")?.ip == before.ip, "the address stays");
    Ok(())
}

async fn a_claim_outlives_its_pod(fixture: &Fixture) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    fixture.kubectl.apply(&claim).await?;
    for (name, expected) in [("claim-1", "written 1 times"), ("claim-2", "written 2 times")] {
        let script = "echo x >>\"$0\"; echo written $(wc -l <\"$0\") times; exec sleep 600";
        let volume = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
        let mut pod = pod(name, script, volume);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        pod["spec"]["containers"][0]["args"] = json!(["-c", script, "/data/lines"]);
        fixture.kubectl.apply(&pod).await?;
        fixture.wait(name, expected, |_, log| log.contains(expected)).await?;
        fixture.kubectl.run(&["delete", "pod", name, "--timeout=20s"]).await?;
    }
    fixture.kubectl.run(&["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=20s"]).await?;
    Ok(())
}

async fn a_pod_that_ignores_sigterm_is_killed_after_its_grace(fixture: &Fixture) -> Result<()> {
    let script = "trap '' TERM; echo deaf; while true; do sleep 0.1; done";
    fixture.kubectl.apply(&pod("deaf", script, json!({}))).await?;
    fixture.wait("deaf", "running", |_, log| log.contains("deaf")).await?;
    let started = Instant::now();
    fixture.kubectl.run(&["delete", "pod", "deaf", "--timeout=20s"]).await?;
    ensure!(started.elapsed() > Duration::from_millis(1500), "killed before its grace period was over");
    fixture.wait("deaf", "gone", |pod, _| pod.is_none()).await
}
