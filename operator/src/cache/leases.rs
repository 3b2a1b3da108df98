//! The bots' Leases as they were last read. They are renewed all the time, so they are not watched: one list at the start,
//! then each is read when its expiry comes near.

use std::time::{Duration, Instant};

use arbbot_crds::names::LABEL_BOT_UID;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::ListParams;
use serde_json::json;

use super::raw::Raw;
use super::store::{Facts, Key, Store, key_of};
use super::watch::{Health, Scope};
use crate::api::{ApiError, call};

/// Leases per page of the list.
const PAGE: u32 = 200;

#[derive(Clone, Debug)]
struct LeaseFacts {
    /// When this process first saw this renewal. Only its own clock counts: the holder's may be wrong.
    seen: Instant,
}

impl Facts for LeaseFacts {
    fn group(&self) -> Option<&str> {
        None
    }
}

/// A Lease as it was last read.
#[derive(Clone, Debug)]
pub struct SeenLease {
    pub lease: Lease,
    /// How long this process has seen no renewal.
    pub unchanged: Duration,
}

/// Every Lease of a bot.
#[derive(Default)]
pub struct Leases(Store<LeaseFacts>);

impl Leases {
    /// A Lease as it was last read.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<SeenLease> {
        let kept = self.0.get(key)?;
        Some(SeenLease { lease: serde_json::from_slice(&kept.json).ok()?, unchanged: kept.facts.seen.elapsed() })
    }

    /// Notes what was read. A renewal that is new begins a new time.
    pub fn observe(&self, mut lease: Lease, now: Instant) {
        let key = key_of(&lease.metadata);
        lease.metadata.managed_fields = None;
        let renewal = |lease: &Lease| {
            let spec = lease.spec.clone().unwrap_or_default();
            (lease.metadata.uid.clone(), spec.holder_identity, spec.renew_time, spec.acquire_time)
        };
        let before = self.get(&key).filter(|before| renewal(&before.lease) == renewal(&lease));
        let seen = before.and_then(|_| self.0.facts(&key)).map_or(now, |facts| facts.seen);
        let json = json!(lease).to_string();
        self.0.put(key, &lease.metadata, 0, LeaseFacts { seen }, json.as_bytes());
    }

    /// The Lease does not exist.
    pub fn forget(&self, key: &Key) {
        self.0.remove(key);
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self, scope: &Scope) -> usize {
        self.0.count(scope.namespace())
    }

    /// Reads all Leases of the scope, page by page.
    ///
    /// # Errors
    /// The API server did not answer; what was read is kept.
    pub async fn list(&self, client: &Client, scope: &Scope) -> Result<(), ApiError> {
        let api = scope.api::<Raw<Lease>>(client);
        let mut params = ListParams::default().labels(LABEL_BOT_UID).limit(PAGE);
        loop {
            let page = call("list the bots' Leases", api.list(&params)).await?;
            let now = Instant::now();
            for lease in page.items.iter().filter_map(Raw::decode_built_in) {
                self.observe(lease, now);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Lists until it succeeds once.
    pub async fn follow(&self, client: &Client, health: &Health) {
        let mut wait = Duration::from_secs(1);
        while let Err(error) = self.list(client, &health.scope).await {
            if health.set_error(error.to_string(), error.is_forbidden()) {
                tracing::warn!(%error, "it is tried again with backoff");
            }
            tokio::time::sleep(wait.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::lease;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn the_time_without_a_renewal_runs_on_until_a_renewal_is_seen() {
        let leases = Leases::default();
        let renewed = |second| {
            let mut lease = lease("pod-1", Timestamp::from_second(second).unwrap(), 300);
            lease.metadata.namespace = Some("desk".to_owned());
            lease
        };
        let start = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        leases.observe(renewed(1000), start);
        leases.observe(renewed(1000), Instant::now());
        assert!(leases.get("desk/arbbot-carry").unwrap().unchanged >= Duration::from_secs(60));
        leases.observe(renewed(1010), Instant::now());
        assert!(leases.get("desk/arbbot-carry").unwrap().unchanged < Duration::from_secs(30));
    }
}
