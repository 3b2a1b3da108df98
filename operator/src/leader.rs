//! The election of the leader among the operator's replicas, by client-go's rules: a Lease is expired when nobody has
//! renewed it for its duration *by the observer's own clock*, and the holder gives up earlier by its own clock.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::names::LEADER_LEASE;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::ApiError;
use crate::leadership::{Leadership, Moment};

/// The times of an election.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Others wait this long after the last renewal that they saw.
    pub lease: Duration,
    /// The leader gives up this long after it sent its last successful renewal. What it sent just before reaches the API
    /// server before another leads: the difference to `lease` must exceed the time of a request.
    pub deadline: Duration,
    /// Pause between two renewals, and between two looks.
    pub retry: Duration,
}

/// One replica's part in the election.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    leadership: Arc<Leadership>,
    timing: Timing,
    /// The Lease as it was last seen, and when its renewal was first seen.
    seen: Option<(Lease, Instant)>,
    /// Since when there is none.
    gone_since: Option<Instant>,
}

impl Elector {
    /// `client` is not gated: this is how leadership begins. `identity` differs for every process.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, leadership: Arc<Leadership>, timing: Timing) -> Self {
        let namespace = namespace.to_owned();
        Self {
            api: Api::namespaced(client, &namespace),
            namespace,
            identity,
            leadership,
            timing,
            seen: None,
            gone_since: None,
        }
    }

    /// Takes part until `release`; then gives leadership back, so that another replica leads at once.
    pub async fn run(mut self, release: CancellationToken) {
        while !release.is_cancelled() {
            if let Some(lease) = self.acquire(&release).await {
                tracing::info!(identity = self.identity, "this replica leads");
                self.lead(lease, &release).await;
                self.leadership.end();
                tracing::info!(identity = self.identity, "this replica does not lead any more");
            }
        }
    }

    /// Waits until the Lease is ours. None: `release`.
    async fn acquire(&mut self, release: &CancellationToken) -> Option<Lease> {
        let only = watcher::Config::default().fields(&format!("metadata.name={LEADER_LEASE}"));
        let mut changes = pin!(watcher(self.api.clone(), only));
        loop {
            match self.try_acquire().await {
                Ok(Some(lease)) => return Some(lease),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot take part in the election of the leader; it is tried again")
                }
            }
            let look_again = tokio::time::sleep(jittered(self.timing.retry));
            tokio::select! {
                () = release.cancelled() => return None,
                () = look_again => {}
                // A released Lease is taken at once.
                () = released(&mut changes) => {}
            }
        }
    }

    async fn try_acquire(&mut self) -> Result<Option<Lease>, ApiError> {
        let found = self.call("read", self.api.get_opt(LEADER_LEASE)).await?;
        let Some(lease) = found else {
            // Deleted by hand: its holder does not know yet, and leads on until it has made it again or its time is over.
            let since = *self.gone_since.get_or_insert_with(Instant::now);
            if self.seen.is_some() && since.elapsed() < self.timing.lease {
                return Ok(None);
            }
            let sent = Moment::now();
            return self.won(self.create().await, sent);
        };
        self.gone_since = None;
        self.observe(lease.clone(), Instant::now());
        if !self.is_free(&lease) {
            return Ok(None);
        }
        let sent = Moment::now();
        let claimed = self.claimed(lease);
        self.won(self.call("take", self.api.replace(LEADER_LEASE, &PostParams::default(), &claimed)).await, sent)
    }

    async fn create(&self) -> Result<Lease, ApiError> {
        let new = self.claimed(Lease::default());
        self.call("create", self.api.create(&PostParams::default(), &new)).await
    }

    /// A conflict is another replica that was faster.
    fn won(&self, written: Result<Lease, ApiError>, sent: Moment) -> Result<Option<Lease>, ApiError> {
        match written {
            Ok(lease) => {
                self.leadership.extend(sent, self.timing.deadline);
                Ok(self.leadership.is_leader().then_some(lease))
            }
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renews until it is lost, or released.
    async fn lead(&mut self, mut lease: Lease, release: &CancellationToken) {
        loop {
            tokio::select! {
                () = release.cancelled() => return self.give_back(lease).await,
                () = self.leadership.ended() => return,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let renewed = tokio::select! {
                // Even while the API server hangs.
                () = self.leadership.ended() => {
                    tracing::warn!("leadership ends: the Lease could not be renewed in time");
                    return;
                }
                renewed = self.renew(lease) => renewed,
            };
            match renewed {
                Some(renewed) => lease = renewed,
                None => return,
            }
        }
    }

    /// Tries until it succeeds. None: another replica leads. The caller ends it at the deadline.
    async fn renew(&self, mut lease: Lease) -> Option<Lease> {
        loop {
            let sent = Moment::now();
            let renewal = self.claimed(lease.clone());
            match self.call("renew", self.api.replace(LEADER_LEASE, &PostParams::default(), &renewal)).await {
                Ok(renewed) => {
                    self.leadership.extend(sent, self.timing.deadline);
                    return Some(renewed);
                }
                Err(error) => tracing::warn!(%error, "the Lease of the leader is not renewed; it is tried again"),
            }
            tokio::time::sleep(jittered(self.timing.retry / 4)).await;
            // The write may have arrived although its answer did not, and the Lease may have been edited or deleted.
            match self.call("read", self.api.get_opt(LEADER_LEASE)).await {
                Ok(Some(found)) if holder(&found) == Some(&self.identity) => lease = found,
                Ok(Some(found)) => {
                    let by = holder(&found).unwrap_or("nobody");
                    tracing::warn!(holder = by, "leadership ends: the Lease is not ours any more");
                    return None;
                }
                // The others wait until our time is over.
                Ok(None) => {
                    let sent = Moment::now();
                    match self.create().await {
                        Ok(created) => {
                            tracing::warn!("somebody has deleted the Lease of the leader: it is made again");
                            self.leadership.extend(sent, self.timing.deadline);
                            return Some(created);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the Lease of the leader is gone; making it is tried again")
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the Lease of the leader cannot be read"),
            }
        }
    }

    /// Nothing is written any more when this begins: the caller has ended the reconciles.
    async fn give_back(&self, mut lease: Lease) {
        self.leadership.end();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let written = self.call("release", self.api.replace(LEADER_LEASE, &PostParams::default(), &lease)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the Lease of the leader is not released: another replica leads when it has expired");
        }
    }

    /// Notes the Lease. A renewal is what was not seen before; its own time is not looked at: the clocks may differ.
    fn observe(&mut self, lease: Lease, now: Instant) {
        let at = match &self.seen {
            Some((before, at)) if before.spec == lease.spec && before.metadata.uid == lease.metadata.uid => *at,
            _ => now,
        };
        self.seen = Some((lease, at));
    }

    fn is_free(&self, lease: &Lease) -> bool {
        let Some(holder) = holder(lease) else { return true };
        if holder == self.identity {
            return true; // an earlier process of this pod
        }
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        // A holder with another idea of the duration is believed, within reason.
        let lasts = seconds.and_then(|s| u64::try_from(s).ok()).map_or(self.timing.lease, Duration::from_secs);
        let lasts = lasts.clamp(Duration::from_secs(1), Duration::from_secs(300));
        self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() >= lasts)
    }

    /// The Lease as it is with us as the holder. With its resourceVersion, so that only one can win.
    fn claimed(&self, lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let metadata = ObjectMeta {
            name: Some(LEADER_LEASE.to_owned()),
            namespace: Some(self.namespace.clone()),
            managed_fields: None,
            ..lease.metadata
        };
        let transitions = before.lease_transitions.unwrap_or(0);
        let seconds = self.timing.lease.as_millis().div_ceil(1000);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    /// A request that hangs leaves time for another before leadership ends.
    async fn call<T>(&self, verb: &str, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
        let action = format!("{verb} the Lease {}/{LEADER_LEASE}", self.namespace);
        crate::api::call_within(self.timing.deadline / 3, action, request).await
    }
}

/// Returns when the watch shows the Lease without a holder. After an error it waits to be called again: the watch
/// is tried again with the next look, which reads the Lease anyway.
async fn released<S>(changes: &mut S)
where
    S: futures::Stream<Item = Result<watcher::Event<Lease>, watcher::Error>> + Unpin,
{
    use watcher::Event::{Apply, InitApply};
    while let Some(change) = changes.next().await {
        match change {
            Ok(Apply(lease) | InitApply(lease)) if holder(&lease).is_none() => return,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    std::future::pending().await
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.75 + 0.25 * rand::random::<f64>())
}
