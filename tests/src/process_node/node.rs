//! The Node object: registered, and kept ready by its Lease.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::warn;

/// The controller-manager takes a node for lost after 50 s without a sign of life.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Taint that keeps a scheduler, where there is one, from binding other pods here.
pub const TAINT: &str = "arbbot.io/process-node";

/// Registers the node.
///
/// # Errors
/// The API server refuses.
pub async fn register(client: &Client, name: &str, address: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]},
    }))?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).with_context(|| format!("register Node {name}")),
        Ok(_) => {}
    }
    let now = super::now();
    let condition = |kind, status, reason| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "a process node",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "1000", "ephemeral-storage": "100Gi"});
    let status = json!({"status": {
        "capacity": room, "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
        "nodeInfo": {
            "architecture": std::env::consts::ARCH, "operatingSystem": "linux", "osImage": "processes of this host",
            "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            "containerRuntimeVersion": "process://1", "kubeletVersion": "v0.0.0-process-node", "kubeProxyVersion": "",
        },
    }});
    let patched = nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(|_| ()).with_context(|| format!("status of Node {name}"))
}

/// Renews the node's Lease for ever.
pub async fn keep_alive(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut every = tokio::time::interval(RENEW_EVERY);
    loop {
        every.tick().await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": super::now_micros()},
        });
        let apply = PatchParams::apply("process-node").force();
        if let Err(error) = leases.patch(&name, &apply, &Patch::Apply(&lease)).await {
            warn!(%error, "the Lease of the process node was not renewed; next try in 10 s");
        }
    }
}
