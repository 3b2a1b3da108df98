//! Requests per second: of each portfolio, and of each address that asks without a key.

use std::collections::HashMap;
use std::hash::Hash;

const SECOND_NS: u64 = 1_000_000_000;

/// Who is remembered; those that have their whole allowance again are forgotten first.
const REMEMBERED: usize = 10_000;

/// A bucket of requests for each portfolio or address, refilled continuously. A limit of 0 means none.
#[derive(Debug)]
pub struct RateLimiter<K> {
    per_second: u32,
    /// When each bucket will be full again, on the monotonic clock.
    full_at_ns: HashMap<K, u64>,
}

/// What the `x-ratelimit-*` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub allowed: bool,
    pub limit: u32,
    pub remaining: u32,
    /// Seconds until the bucket is full.
    pub reset_seconds: u64,
}

impl<K: Eq + Hash> RateLimiter<K> {
    pub fn new(per_second: u32) -> Self {
        Self { per_second, full_at_ns: HashMap::new() }
    }

    /// Takes one request from a bucket; `None` without a limit.
    pub fn take(&mut self, of: K, now_ns: u64) -> Option<Allowance> {
        let interval = SECOND_NS.checked_div(u64::from(self.per_second))?;
        if self.full_at_ns.len() >= REMEMBERED {
            self.full_at_ns.retain(|_, full_at| *full_at > now_ns);
        }
        let full_at = self.full_at_ns.entry(of).or_default();
        let next = (*full_at).max(now_ns) + interval;
        let allowed = next - now_ns <= SECOND_NS;
        if allowed {
            *full_at = next;
        }
        let used_ns = full_at.saturating_sub(now_ns);
        let remaining = u32::try_from(SECOND_NS.saturating_sub(used_ns) / interval).unwrap_or(u32::MAX);
        Some(Allowance { allowed, limit: self.per_second, remaining, reset_seconds: used_ns.div_ceil(SECOND_NS) })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_second_has_as_many_requests_as_the_limit_and_they_come_back() {
        let mut limiter = RateLimiter::new(30);
        let portfolio = Uuid::nil();
        let allowed = |limiter: &mut RateLimiter<Uuid>, at| limiter.take(portfolio, at).unwrap().allowed;
        assert_eq!((0..60).filter(|_| allowed(&mut limiter, 0)).count(), 30);
        assert!(!allowed(&mut limiter, SECOND_NS / 40));
        assert!(allowed(&mut limiter, SECOND_NS / 29));
        assert_eq!((0..60).filter(|_| allowed(&mut limiter, 10 * SECOND_NS)).count(), 30);
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(RateLimiter::new(0).take(Uuid::nil(), 0), None);
    }
}
