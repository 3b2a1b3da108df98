//! Limits of an address: connections per second, and messages without a token per second.

use std::collections::HashMap;
use std::net::IpAddr;

const SECOND_NS: u64 = 1_000_000_000;
/// Addresses remembered; those that have their whole allowance again are forgotten first.
const ADDRESSES: usize = 10_000;

/// Two buckets per address, refilled continuously.
#[derive(Debug)]
pub struct Limits {
    per_second: u32,
    connections: Buckets,
    messages: Buckets,
}

/// When each address's bucket will be full again, on the monotonic clock.
type Buckets = HashMap<IpAddr, u64>;

impl Limits {
    /// 0 for no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, connections: HashMap::new(), messages: HashMap::new() }
    }

    /// Whether this address may connect now.
    pub fn connect(&mut self, address: IpAddr, now_ns: u64) -> bool {
        take(&mut self.connections, self.per_second, address, now_ns)
    }

    /// Whether a message without a token from this address is read now.
    pub fn message(&mut self, address: IpAddr, now_ns: u64) -> bool {
        take(&mut self.messages, self.per_second, address, now_ns)
    }
}

fn take(buckets: &mut Buckets, per_second: u32, address: IpAddr, now_ns: u64) -> bool {
    let Some(interval) = SECOND_NS.checked_div(u64::from(per_second)) else { return true };
    if buckets.len() >= ADDRESSES {
        buckets.retain(|_, full_at| *full_at > now_ns);
    }
    let full_at = buckets.entry(address).or_default();
    let next = (*full_at).max(now_ns) + interval;
    let allowed = next - now_ns <= SECOND_NS;
    if allowed {
        *full_at = next;
    }
    allowed
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn eight_a_second_and_no_more() {
        let mut limits = Limits::new(8);
        assert_eq!((0..20).filter(|_| limits.connect(ADDRESS, 0)).count(), 8);
        assert_eq!((0..20).filter(|_| limits.message(ADDRESS, 0)).count(), 8);
        assert_eq!((0..20).filter(|_| limits.connect(ADDRESS, SECOND_NS)).count(), 8);
        assert!(limits.connect(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 0));
        assert!((0..100).all(|_| Limits::new(0).connect(ADDRESS, 0)));
    }
}
