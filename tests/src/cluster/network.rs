//! The addresses of a cluster with a node: free ones, so that clusters run side by side.
//!
//! ```text
//! host ── arbbot<n> 10.201.<2n+1>.1 ══ veth ══ 10.201.<2n+1>.2 uplink ── bridge cni0 10.201.<2n>.1 ── pods 10.201.<2n>.0/24
//! ```

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::namespaces::{Namespaces, enter};
use super::process::run;
use crate::command;

/// How many clusters with a node can run at the same time.
const MOST: u8 = 100;

/// Where the module br_netfilter is loaded, translated packets would be bridged, not routed, and a pod could
/// not reach itself through its Service. Off, every machine behaves the same.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The number of a cluster, and all addresses that follow from it.
#[derive(Clone, Copy)]
pub struct Network(u8);

/// A line of `ip -json route`.
#[derive(Deserialize)]
struct Route {
    dst: String,
}

impl Network {
    /// Takes the first free number and connects the namespaces with the host. The interface's name is the
    /// claim: the kernel lets one cluster have it, and removes it with the cluster's namespaces.
    pub fn connect(namespaces: &Namespaces) -> Result<Self> {
        let routes = run(&command!["ip", "-json", "-4", "route", "show", "table", "all"])?;
        let routes: Vec<Route> = serde_json::from_str(&routes).context("read the output of `ip -json route`")?;
        let mut refusal = None;
        for network in (0..MOST).map(Network).filter(|network| network.is_free(&routes)) {
            let claim = command![
                "ip",
                "link",
                "add",
                network.interface(),
                "type",
                "veth",
                "peer",
                "name",
                "uplink",
                "netns",
                namespaces.pid().to_string(),
            ];
            match run(&claim) {
                Ok(_) => {
                    network.configure(namespaces)?;
                    return Ok(network);
                }
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error.context("connect the node with this host")),
            None => bail!("no free addresses: every 10.201.x.0/23 with x < {} is routed already", 2 * MOST),
        }
    }

    fn configure(self, namespaces: &Namespaces) -> Result<()> {
        let (interface, host, uplink) = (self.interface(), self.host(), self.address(1, 2));
        let (gateway, pods) = (self.gateway(), self.pods());
        let outside = format!(
            "ip address add {host}/30 dev {interface}
             ip link set {interface} up
             ip route add {pods} via {uplink} dev {interface}"
        );
        // A fixed address: otherwise the bridge would take another with every new pod, and pods would lose it.
        let within = format!(
            "ip link set lo up
             ip address add {uplink}/30 dev uplink
             ip link set uplink up
             ip route add default via {host}
             ip link add cni0 address 0a:58:0a:c9:{:02x}:01 type bridge
             ip address add {gateway}/24 dev cni0
             ip link set cni0 up
             echo 1 >/proc/sys/net/ipv4/ip_forward
             [ ! -e {BRIDGE_FILTER} ] || echo 0 >{BRIDGE_FILTER}",
            2 * self.0
        );
        // Inside first: the route outside needs the other end to be up.
        let mut inside = enter(namespaces.pid());
        inside.extend(command!["sh", "-ec", within]);
        run(&inside)?;
        run(&command!["sh", "-ec", outside])?;
        Ok(())
    }

    fn is_free(self, routes: &[Route]) -> bool {
        let ours = u32::from(self.address(0, 0));
        let overlaps = |start: u32, length: u32| {
            let mask = u32::MAX << (32 - length.min(23));
            start & mask == ours & mask
        };
        // A default route reaches everything, and is meant to be overridden.
        let destinations = routes.iter().filter_map(|route| destination(&route.dst));
        !destinations.filter(|(_, length)| *length > 0).any(|(start, length)| overlaps(start, length))
    }

    fn address(self, half: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 201, 2 * self.0 + half, host)
    }

    /// The host's end; its name is also the start of the cluster's other names on the host.
    pub fn interface(self) -> String {
        format!("arbbot{}", self.0)
    }

    /// The pods' subnet.
    pub fn pods(self) -> String {
        format!("{}/24", self.address(0, 0))
    }

    /// The node's address: of the API server, the kubelet and the DNS.
    pub fn gateway(self) -> IpAddr {
        self.address(0, 1).into()
    }

    /// The host's address as pods see it.
    pub fn host(self) -> IpAddr {
        self.address(1, 1).into()
    }
}

/// The start and the prefix length of a route's destination; `None` for `default` and what is no address.
fn destination(text: &str) -> Option<(u32, u32)> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?), length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(destinations: &[&str]) -> Vec<Route> {
        destinations.iter().map(|dst| Route { dst: (*dst).to_owned() }).collect()
    }

    #[test]
    fn a_network_that_overlaps_a_route_is_not_free() {
        for taken in ["10.201.0.0/16", "10.201.2.0/24", "10.201.3.1", "10.201.2.0/23", "10.0.0.0/8"] {
            assert!(!Network(1).is_free(&routed(&[taken])), "{taken}");
        }
    }

    #[test]
    fn neighbours_and_the_default_route_leave_a_network_free() {
        assert!(Network(1).is_free(&routed(&[
            "default",
            "10.201.0.0/23",
            "10.201.4.0/24",
            "10.244.0.0/16",
            "0.0.0.0/0"
        ])));
    }
}
