//! etcd, kube-apiserver and kube-controller-manager.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use rustix::net::sockopt::set_socket_reuseport;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

use super::home::Home;
use super::{Options, audit_policy, kubeconfig_client};
use crate::command;

/// Service addresses exist only inside a cluster, so every cluster can use the same ones.
pub const SERVICE_CIDR: &str = "10.96.0.0/24";
const KUBERNETES_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// Unix sockets in etcd's own directory: no port to choose, and nobody else on the machine can connect.
/// etcd insists on "host:port", so that is what the socket files are called.
const ETCD_CLIENTS: &str = "unix://clients:0";
const ETCD_PEERS: &str = "unix://peers:0";

/// Where the API server listens.
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    /// Keeps the port ours; see [`Endpoint::on_loopback`].
    reservation: Option<OwnedFd>,
}

impl Endpoint {
    /// A free port on 127.0.0.1. The socket is bound but does not listen: it keeps the port from everybody
    /// else, while the API server can bind the same port with `--permit-port-sharing`.
    pub fn on_loopback() -> Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseport(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("reserve a port on 127.0.0.1")?;
        let port = SocketAddrV4::try_from(getsockname(&socket)?)?.port();
        Ok(Self { address: Ipv4Addr::LOCALHOST.into(), port, reservation: Some(socket) })
    }

    /// The usual port on an address that belongs to this cluster alone, and that its pods can reach.
    pub fn on_own_address(address: IpAddr) -> Self {
        Self { address, port: 6443, reservation: None }
    }

    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    fn is_reachable_by_pods(&self) -> bool {
        self.reservation.is_none()
    }
}

/// Starts etcd and the API server, waits until it serves, then starts the controller manager.
/// Returns a client with all rights.
pub async fn start(home: &mut Home, options: &Options) -> Result<Client> {
    start_etcd(home, options.fsync)?;
    start_api_server(home, options.audit)?;
    home.certificates.kubeconfig(
        &home.kubeconfig(),
        "arbbot",
        &home.endpoint.url(),
        "admin",
        Some("system:masters"),
    )?;
    let client = kubeconfig_client(&home.kubeconfig()).await?;
    home.wait_for("kube-apiserver", "the API server is ready", || api_server_is_ready(client.clone())).await?;
    // It would give up if it had to wait for the API server.
    if options.controllers {
        start_controller_manager(home)?;
    }
    Ok(client)
}

/// Waits until pods and Deployments can be created: the controllers have made the namespace's account.
pub async fn wait_for_controllers(home: &mut Home, client: &Client) -> Result<()> {
    home.wait_for("kube-controller-manager", "the controllers are at work", || {
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        async move { Ok(accounts.get("default").await.map(|_| ())?) }
    })
    .await
}

async fn api_server_is_ready(client: Client) -> Result<()> {
    // /readyz says what is missing, which is worth an error message.
    client.request_text(http::Request::get("/readyz?verbose").body(Vec::new())?).await?;
    Ok(())
}

fn start_etcd(home: &mut Home, fsync: bool) -> Result<()> {
    let mut arguments = Vec::from(command![
        "--data-dir=data",
        format!("--listen-client-urls={ETCD_CLIENTS}"),
        format!("--advertise-client-urls={ETCD_CLIENTS}"),
        format!("--listen-peer-urls={ETCD_PEERS}"),
        format!("--initial-advertise-peer-urls={ETCD_PEERS}"),
        format!("--initial-cluster=default={ETCD_PEERS}"),
        "--log-level=warn",
    ]);
    if !fsync {
        arguments.push("--unsafe-no-fsync".into());
    }
    home.start("etcd", "etcd", arguments)
}

fn start_api_server(home: &mut Home, audit: bool) -> Result<()> {
    let file = |name: &str| home.certificates.file(name).display().to_string();
    let address = home.endpoint.address;
    home.certificates.server("apiserver", &[address, Ipv4Addr::LOCALHOST.into(), KUBERNETES_SERVICE])?;
    let mut arguments = Vec::from(command![
        format!("--etcd-servers={ETCD_CLIENTS}"),
        format!("--bind-address={address}"),
        format!("--secure-port={}", home.endpoint.port),
        "--permit-port-sharing",
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
    ]);
    if home.endpoint.is_reachable_by_pods() {
        home.certificates.client("apiserver-kubelet", "kube-apiserver", Some("system:masters"))?;
        arguments.extend(command![
            format!("--kubelet-client-certificate={}", file("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
            "--kubelet-preferred-address-types=InternalIP", // the node's name is in no DNS; logs and exec need this
        ]);
    } else {
        // A loopback address is not valid in Endpoints, and no pod is there to use them.
        arguments.push("--endpoint-reconciler-type=none".into());
    }
    if audit {
        arguments.extend(audit_policy::flags(&home.state("audit")?, &audit_policy::log(&home.directory))?);
    }
    // In etcd's directory, because the sockets are named relative to it.
    home.start("kube-apiserver", "etcd", arguments)
}

fn start_controller_manager(home: &mut Home) -> Result<()> {
    let kubeconfig = home.component_kubeconfig("controller-manager", "system:kube-controller-manager", None)?;
    let file = |name: &str| home.certificates.file(name).display().to_string();
    let mut arguments = Vec::from(command![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--use-service-account-credentials",
        format!("--service-account-private-key-file={}", file("sa.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        "--leader-elect=false",
        "--secure-port=0",      // serves nobody; one port less to choose
        "--kube-api-qps=200",   // tests create many bots at once; the default of 20 would be
        "--kube-api-burst=400", // the slowest part of them
    ]);
    if !home.endpoint.is_reachable_by_pods() {
        // The pods of a process node have loopback addresses. No EndpointSlice may hold one, so these would fail and
        // try again for ever.
        arguments.push("--controllers=*,-endpoints-controller,-endpointslice-controller".into());
    }
    home.start("kube-controller-manager", "controller-manager", arguments)
}
