//! The configuration files of the node's programs.

use std::net::IpAddr;
use std::path::Path;

use super::node::{CONTAINERD_SOCKET, NODE_NAME, PAUSE_IMAGE};

/// Where Debian's package containernetworking-plugins puts them.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";

pub fn containerd(state: &Path, networks: &Path) -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE no pod would start otherwise.
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        root = state.join("root").display(),
        networks = networks.display(),
    )
}

pub fn network_list(pods: &str, state: &Path) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": state.join("addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

pub fn kubelet(address: IpAddr, authority: &Path, cgroup: &str) -> String {
    // failCgroupV1: machines with only v1 are still common in CI, and refused by default since 1.35.
    // The thresholds: a developer's disk is often nearly full, and images are imported, never pulled again.
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{authority}"}}
authorization: {{mode: Webhook}}
address: {address}
clusterDNS: [{address}]
clusterDomain: cluster.local
resolvConf: ""
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failSwapOn: false
failCgroupV1: false
hairpinMode: none
maxPods: 200
serializeImagePulls: false
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 100
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
"#,
        authority = authority.display(),
    )
}

pub fn kube_proxy(kubeconfig: &Path, pods: &str) -> String {
    // masqueradeAll: pods share a bridge, so an answer would otherwise go straight back, past the translation
    // of the Service's address. conntrack: its limit is the host's to choose.
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{kubeconfig}"}}
mode: nftables
nftables: {{masqueradeAll: true}}
clusterCIDR: {pods}
hostnameOverride: {NODE_NAME}
conntrack: {{maxPerCore: 0}}
"#,
        kubeconfig = kubeconfig.display(),
    )
}

pub fn coredns(address: IpAddr, kubeconfig: &Path) -> String {
    format!(
        "cluster.local in-addr.arpa {{
  bind {address}
  errors
  ready {address}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
  }}
}}
",
        kubeconfig = kubeconfig.display(),
    )
}
