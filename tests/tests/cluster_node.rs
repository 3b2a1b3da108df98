//! A cluster with a node: pods under the restricted standard, Services, names, volumes; and nothing of it is
//! left when it ends. Needs root.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arbbot_tests::cluster::{Cluster, Kind, Options, PAUSE_IMAGE, Record};

const DEADLINE: Duration = Duration::from_secs(60);

/// A namespace that enforces the restricted Pod Security Standard, and in it a claim, a pod that serves HTTP,
/// its Service, and a pod to ask from.
const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: desk, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: desk}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: desk}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: desk, labels: {app: server}}
spec:
  securityContext: $POD
  containers:
  - name: server
    image: $PAUSE
    args: [serve, ":8080"]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    securityContext: $CONTAINER
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: desk}
spec:
  securityContext: $POD
  containers:
  - {name: client, image: "$PAUSE", securityContext: $CONTAINER}
"#;

/// What the restricted standard demands of `$POD` and `$CONTAINER`.
const POD_SECURITY: &str =
    "{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}";
const CONTAINER_SECURITY: &str =
    "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}";

fn write_manifest(directory: &Path) -> Result<String> {
    let file = directory.join("manifest.yaml");
    let manifest = MANIFEST.replace("$PAUSE", PAUSE_IMAGE);
    std::fs::write(&file, manifest.replace("$POD", POD_SECURITY).replace("$CONTAINER", CONTAINER_SECURITY))?;
    Ok(file.display().to_string())
}

struct Kubectl<'a>(&'a Cluster);

impl Kubectl<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.0.kubectl())
            .args(arguments)
            .env("KUBECONFIG", self.0.kubeconfig_path())
            .stdin(Stdio::null())
            .output()?;
        let (answer, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "kubectl {arguments:?}: {answer}{error}");
        Ok(answer.trim().to_owned())
    }

    fn get(&self, pod: &str, url: &str) -> Result<String> {
        self.run(&["--namespace=desk", "exec", pod, "--", "/pause", "get", url])
    }
}

/// What a cluster could leave on the host.
fn leftovers() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/sys/class/net")?.chain(std::fs::read_dir("/sys/fs/cgroup")?) {
        found.insert(entry?.path().display().to_string());
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for cgroup in std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if cgroup.file_type()?.is_dir() {
                found.insert(cgroup.path().display().to_string());
            }
        }
    }
    for line in std::fs::read_to_string("/proc/self/mounts")?.lines() {
        found.insert(format!("mount {line}"));
    }
    let rules = Command::new("nft").args(["list", "tables"]).output().context("run nft")?;
    found.extend(String::from_utf8_lossy(&rules.stdout).lines().map(ToOwned::to_owned));
    let routes = Command::new("ip").arg("route").output().context("run ip")?;
    found.extend(String::from_utf8_lossy(&routes.stdout).lines().map(ToOwned::to_owned));
    Ok(found)
}

/// The processes (not zombies) whose command line names `directory`: all of ours do, but a pod's own.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.to_string_lossy().into_owned();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|words| String::from_utf8_lossy(&words).replace('\0', " "))
        .filter(|words| words.contains(&name) || words.starts_with("/pause serve :8080"))
        .collect()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn apply(cluster: &Cluster, directory: &Path) -> Result<()> {
    let kubectl = Kubectl(cluster);
    kubectl.run(&["apply", "-f", &write_manifest(directory)?])?;
    let pods = ["pod/server", "pod/client"];
    let wait = ["--namespace=desk", "wait", "--for=condition=Ready", "--timeout=60s"];
    kubectl.run(&[wait.as_slice(), pods.as_slice()].concat())?;
    Ok(())
}

// One test, because it looks at the whole host: another cluster beside it would count as left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_restricted_pods_with_services_names_and_volumes_and_leaves_nothing_behind() -> Result<()> {
    let before = leftovers()?;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(Options::new(directory.path(), Kind::Node).without_fsync()).await?;
    apply(&cluster, directory.path()).await?;
    let kubectl = Kubectl(&cluster);

    for name in ["server", "server.desk", "server.desk.svc.cluster.local"] {
        assert_eq!(kubectl.get("client", &format!("http://{name}/"))?, "server", "by {name}");
    }
    // A pod may also reach itself through its own Service.
    assert_eq!(kubectl.get("server", "http://server.desk.svc.cluster.local/")?, "server");
    assert_eq!(kubectl.run(&["--namespace=desk", "get", "pvc", "data", "-o=jsonpath={.status.phase}"])?, "Bound");

    let host = cluster.host_address().context("a node has a host address")?;
    let listener = tokio::net::TcpListener::bind((host, 0)).await?;
    let port = listener.local_addr()?.port();
    let accepted = tokio::spawn(async move { listener.accept().await.map(|_| ()) });
    // Nothing answers HTTP there: that the host was reached is enough.
    let _ = kubectl.get("client", &format!("http://{host}:{port}/"));
    tokio::time::timeout(DEADLINE, accepted).await.context("a pod reaches the host")???;

    let root = kubectl.run(&["--namespace=desk", "run", "root", &format!("--image={}", PAUSE_IMAGE)]);
    let refusal = root.err().context("a pod that may be root is refused")?.to_string();
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");

    // A second one beside it, with pods on the same names.
    let second_directory = tempfile::tempdir()?;
    let second = Cluster::start(Options::new(second_directory.path(), Kind::Node).without_fsync()).await?;
    assert_ne!(second.host_address(), cluster.host_address());
    apply(&second, second_directory.path()).await?;
    assert_eq!(Kubectl(&second).get("client", "http://server/")?, "server");
    second.stop();
    assert_eq!(Kubectl(&cluster).get("client", "http://server/")?, "server", "the end of one does not touch the other");

    cluster.stop();
    assert_eq!(processes_of(directory.path()), Vec::<String>::new());
    eventually("only what was there before is there", || Ok(leftovers()?.is_subset(&before))).await.with_context(
        || format!("{:?}", leftovers().map(|now| now.difference(&before).cloned().collect::<Vec<_>>())),
    )?;

    killing_the_owner_leaves_nothing_behind(&before).await
}

async fn killing_the_owner_leaves_nothing_behind(before: &BTreeSet<String>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut owner = Command::new(env!("CARGO_BIN_EXE_cluster"))
        .args(["own", "--no-fsync", "--dir"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the cluster is ready", || Ok(Record::of_running(directory.path())?.is_some())).await?;
    let record = Record::of_running(directory.path())?.context("it runs")?;
    record.import_image(&directory.path().join("state/images/pause.tar"))?;
    let kubectl = |arguments: &[&str]| -> Result<()> {
        let tool = arbbot_tests::cluster::kubectl()?;
        let status = Command::new(tool).args(arguments).env("KUBECONFIG", &record.kubeconfig).status()?;
        ensure!(status.success(), "kubectl {arguments:?}");
        Ok(())
    };
    kubectl(&["apply", "-f", &write_manifest(directory.path())?])?;
    kubectl(&["--namespace=desk", "wait", "--for=condition=Ready", "pod/server", "--timeout=60s"])?;
    assert!(processes_of(directory.path()).len() > 8, "{:?}", processes_of(directory.path()));
    owner.kill()?;
    owner.wait()?;
    eventually("every process has ended", || Ok(processes_of(directory.path()).is_empty())).await?;
    eventually("only what was there before is there", || Ok(leftovers()?.is_subset(before)))
        .await
        .with_context(|| format!("{:?}", leftovers().map(|now| now.difference(before).cloned().collect::<Vec<_>>())))
}
