//! Addresses for pods that are processes: on Linux every address of 127.0.0.0/8 can be bound without preparation.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, anyhow};

/// A /16 of 127.0.0.0/8 that no other process node of this machine uses.
pub struct Subnet {
    second: u8,
    next: AtomicU16,
    /// Bound for as long as the subnet is ours.
    _lock: UdpSocket,
}

/// Any fixed port does: nobody listens there, it only marks the subnet as taken.
const LOCK_PORT: u16 = 47_113;

impl Subnet {
    /// # Errors
    /// 250 process nodes run already.
    pub fn reserve() -> Result<Self> {
        (2..=251)
            .find_map(|second| {
                let lock = UdpSocket::bind((Ipv4Addr::new(127, second, 255, 254), LOCK_PORT)).ok()?;
                Some(Self { second, next: AtomicU16::new(1), _lock: lock })
            })
            .ok_or_else(|| anyhow!("no loopback subnet is free: are 250 process nodes running?"))
    }

    /// The node's own address.
    pub fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, 0, 1)
    }

    /// The next pod's address. They come round after 64,000 pods.
    pub fn next(&self) -> Ipv4Addr {
        let host = self.next.fetch_add(1, Ordering::Relaxed) % 64_000 + 2;
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(127, self.second, high, low)
    }
}
