//! The Lease that makes one pod the trader (DESIGN §3, SAFETY §4).
//!
//! `holderIdentity` is the pod's uid and `leaseTransitions` the epoch: it rises with every process that takes the
//! Lease, so that no two processes ever mint the same order id.

use std::time::Duration;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::names::{ANNOTATION_TERMINATED, LABEL_BOT, LABEL_BOT_UID, child_name};
use arbbot_crds::status::LeaseStatus;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::risk::gate::TOKEN_LIFE;

/// Deadline of one call to the API server.
pub const CALL: Duration = Duration::from_secs(5);

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("failed to {verb} Lease {name}: {source}; the bot's Role must allow it")]
    Api {
        verb: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("no answer to {verb} Lease {name} within {} s", CALL.as_secs())]
    Timeout { verb: &'static str, name: String },
}

impl LeaseError {
    /// Somebody else has written in between.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409))
    }
}

/// Whether this pod is the trader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is, under this epoch.
    Trader { epoch: i64 },
    /// Another pod may still be: `last`, until the time that the text says.
    Waiting { why: String, last: LeaseStatus },
}

/// The Lease of one bot.
#[derive(Debug)]
pub struct BotLease {
    api: Api<Lease>,
    name: String,
    bot: String,
    bot_uid: String,
    holder: String,
    clock: Clock,
    held: Option<i64>,
    /// Holder and epoch as they were last known, also after somebody has deleted the Lease.
    last: Option<LeaseStatus>,
    /// Another holder, its last renewal, and since when both were seen unchanged here.
    other: Option<(String, Option<MicroTime>, Duration)>,
}

impl BotLease {
    #[must_use]
    pub fn new(client: Client, bot: &ArbBot, pod_uid: &str, clock: Clock) -> Self {
        let namespace = bot.namespace().unwrap_or_default();
        Self {
            api: Api::namespaced(client, &namespace),
            name: child_name(&bot.name_any()),
            bot: bot.name_any(),
            bot_uid: bot.uid().unwrap_or_default(),
            holder: pod_uid.to_owned(),
            clock,
            held: None,
            last: bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|said| said.lease.clone()),
            other: None,
        }
    }

    /// Takes or renews the Lease, if this pod may.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn renew(&mut self, lost: Duration) -> Result<Standing, LeaseError> {
        let current = self.call("get", self.api.get_opt(&self.name)).await?;
        let Some(mut lease) = current else { return self.create(lost).await };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.holder && !holder.is_empty() {
            let last = LeaseStatus { holder: holder.clone(), epoch: spec.lease_transitions.unwrap_or(0).into() };
            self.last = Some(last.clone());
            if !self.may_follow(&lease, &holder, lost) {
                return Ok(self.waiting(last, lost));
            }
        }
        // An epoch that is not this process's own is an earlier one: another pod made a deleted Lease again from status.
        let is_ours =
            holder == self.holder && self.held.is_some() && self.held == spec.lease_transitions.map(i64::from);
        lease.spec = Some(if is_ours {
            self.renewed(&spec, lost)
        } else {
            self.taken(spec.lease_transitions.max(self.last_epoch()), lost)
        });
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(ANNOTATION_TERMINATED);
        }
        self.call("update", self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        Ok(self.standing(&lease))
    }

    /// There is no Lease: this is the bot's first pod, or somebody has deleted it. Then who held it last may still run, and
    /// it is made again in that holder's name and epoch: the operator can show on it that the holder has ended, a holder
    /// that runs just renews it, and it tells the next process whom to wait for.
    async fn create(&mut self, lost: Duration) -> Result<Standing, LeaseError> {
        let theirs = self.last.clone().filter(|last| last.holder != self.holder && self.held.is_none());
        let spec = match &theirs {
            Some(last) => self.held_by(&last.holder, self.last_epoch(), lost),
            None => self.taken(self.last_epoch(), lost),
        };
        let lease = Lease { metadata: self.metadata(), spec: Some(spec) };
        let created = self.call("create", self.api.create(&PostParams::default(), &lease)).await?;
        let Some(last) = theirs else { return Ok(self.standing(&created)) };
        tracing::warn!(
            lease = self.name,
            holder = last.holder,
            "the Lease was deleted; it is made again for its last holder"
        );
        self.other = Some((last.holder.clone(), renewed_at(&created), self.clock.boottime()));
        Ok(self.waiting(last, lost))
    }

    fn last_epoch(&self) -> Option<i32> {
        self.last.as_ref().and_then(|last| i32::try_from(last.epoch).ok())
    }

    fn waiting(&mut self, last: LeaseStatus, lost: Duration) -> Standing {
        self.held = None;
        let why = format!(
            "pod {} held the Lease {} last; it is waited for until the operator shows it terminated or {} s have passed \
             without a renewal",
            last.holder,
            self.name,
            (lost + TOKEN_LIFE).as_secs()
        );
        Standing::Waiting { why, last }
    }

    /// Gives the Lease up, so that the next pod takes over at once.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        self.held = None;
        match self.give_up().await {
            // A renewal that was given up without an answer has arrived after all.
            Err(error) if error.is_conflict() => self.give_up().await,
            given_up => given_up,
        }
    }

    /// Whoever holds the Lease is read, not remembered: a write without an answer may have taken it.
    async fn give_up(&self) -> Result<(), LeaseError> {
        let Some(mut lease) = self.call("get", self.api.get_opt(&self.name)).await? else { return Ok(()) };
        if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.holder)) {
            spec.holder_identity = None;
            spec.renew_time = Some(self.micro_now());
            self.call("update", self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        }
        Ok(())
    }

    /// Whether the other holder can send nothing any more: shown terminated, or silent for longer than its fence and
    /// the life of its last token.
    fn may_follow(&mut self, lease: &Lease, holder: &str, lost: Duration) -> bool {
        if lease.annotations().get(ANNOTATION_TERMINATED).is_some_and(|uid| uid == holder) {
            return true;
        }
        // The holder's own fence counts, if it is longer than ours.
        let theirs = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let fence = lost.max(Duration::from_secs(theirs.unsigned_abs().into()));
        self.has_waited_for(holder, renewed_at(lease), fence)
    }

    /// Whether this holder was seen without another renewal for as long as its fence and the life of its last token.
    fn has_waited_for(&mut self, holder: &str, renewed: Option<MicroTime>, fence: Duration) -> bool {
        let now = self.clock.boottime();
        match &self.other {
            Some((seen, at, since)) if seen == holder && *at == renewed => now >= *since + fence + TOKEN_LIFE,
            _ => {
                self.other = Some((holder.to_owned(), renewed, now));
                false
            }
        }
    }

    fn standing(&mut self, lease: &Lease) -> Standing {
        let epoch = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(1).into();
        self.held = Some(epoch);
        self.last = Some(LeaseStatus { holder: self.holder.clone(), epoch });
        self.other = None;
        Standing::Trader { epoch }
    }

    fn renewed(&self, spec: &LeaseSpec, lost: Duration) -> LeaseSpec {
        LeaseSpec {
            renew_time: Some(self.micro_now()),
            lease_duration_seconds: Some(whole_seconds(lost)),
            ..spec.clone()
        }
    }

    fn taken(&self, transitions: Option<i32>, lost: Duration) -> LeaseSpec {
        self.held_by(&self.holder, Some(transitions.unwrap_or(0).saturating_add(1)), lost)
    }

    fn held_by(&self, holder: &str, epoch: Option<i32>, lost: Duration) -> LeaseSpec {
        let now = self.micro_now();
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(whole_seconds(lost)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: epoch,
            ..LeaseSpec::default()
        }
    }

    fn metadata(&self) -> ObjectMeta {
        let labels = [(LABEL_BOT, &self.bot), (LABEL_BOT_UID, &self.bot_uid)];
        ObjectMeta {
            name: Some(self.name.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.clone())).into()),
            ..ObjectMeta::default()
        }
    }

    fn micro_now(&self) -> MicroTime {
        MicroTime(self.clock.now())
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        match timeout(CALL, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(LeaseError::Api { verb, name: self.name.clone(), source: Box::new(source) }),
            Err(_) => Err(LeaseError::Timeout { verb, name: self.name.clone() }),
        }
    }
}

fn renewed_at(lease: &Lease) -> Option<MicroTime> {
    lease.spec.as_ref()?.renew_time.clone()
}

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixtures::{ApiServer, bot};
    use arbbot_crds::status::{ArbBotStatus, BotStatus};

    const LOST: Duration = Duration::from_secs(30);

    /// The Lease as a new process of this pod knows it.
    fn lease(server: &ApiServer, pod: &str, clock: &Clock, before: Option<LeaseStatus>) -> BotLease {
        let mut bot = bot();
        let said = BotStatus { lease: before, ..BotStatus::default() };
        bot.status = Some(ArbBotStatus { bot: Some(said), ..ArbBotStatus::default() });
        BotLease::new(server.client(), &bot, pod, clock.clone())
    }

    fn held(holder: &str, epoch: i64) -> LeaseStatus {
        LeaseStatus { holder: holder.to_owned(), epoch }
    }

    fn trader(epoch: i64) -> Standing {
        Standing::Trader { epoch }
    }

    #[tokio::test]
    async fn a_lease_that_is_deleted_by_hand_leaves_the_fence_and_the_epoch() {
        let (server, clock) = (ApiServer::default(), Clock::manual());
        let mut first = lease(&server, "a", &clock, None);
        assert_eq!(first.renew(LOST).await.unwrap(), trader(1), "a bot's first pod waits for nobody");
        server.delete_lease();
        let last = held("a", 1);
        let mut second = lease(&server, "b", &clock, Some(last.clone()));
        for _ in 0..2 {
            assert!(matches!(second.renew(LOST).await.unwrap(), Standing::Waiting { last: said, .. } if said == last));
            assert_eq!(server.held(), Some(last.clone()));
            clock.advance(LOST);
        }
        assert_eq!(second.renew(LOST).await.unwrap(), trader(2), "no two processes mint the same order id");
        assert!(matches!(first.renew(LOST).await.unwrap(), Standing::Waiting { .. }));
    }

    #[tokio::test]
    async fn the_end_of_the_holder_of_a_deleted_lease_can_be_shown_also_to_the_process_after_the_next() {
        let (server, clock) = (ApiServer::default(), Clock::manual());
        let mut waiting = lease(&server, "b", &clock, Some(held("a", 7)));
        assert!(matches!(waiting.renew(LOST).await.unwrap(), Standing::Waiting { .. }));
        // Its status is gone, too: the Lease alone tells whom it waited for.
        let mut restarted = lease(&server, "b", &clock, None);
        let why = restarted.renew(LOST).await.unwrap();
        assert!(matches!(why, Standing::Waiting { last, .. } if last == held("a", 7)));
        server.annotate_lease(ANNOTATION_TERMINATED, "a");
        assert_eq!(restarted.renew(LOST).await.unwrap(), trader(8));
    }

    #[tokio::test]
    async fn a_holder_that_runs_keeps_the_lease_that_another_pod_made_again_for_it() {
        let (server, clock) = (ApiServer::default(), Clock::manual());
        let mut holder = lease(&server, "a", &clock, Some(held("a", 4)));
        assert_eq!(holder.renew(LOST).await.unwrap(), trader(1 + 4));
        for (said, epoch) in [(5, 5), (4, 6)] {
            server.delete_lease();
            let mut other = lease(&server, "b", &clock, Some(held("a", said)));
            assert!(matches!(other.renew(LOST).await.unwrap(), Standing::Waiting { .. }));
            let renewed = holder.renew(LOST).await.unwrap();
            assert_eq!(renewed, trader(epoch), "an epoch that an earlier process had is not taken up again");
        }
    }

    #[tokio::test]
    async fn a_trader_whose_lease_is_deleted_goes_on_under_another_epoch() {
        let (server, clock) = (ApiServer::default(), Clock::manual());
        let mut first = lease(&server, "a", &clock, None);
        first.renew(LOST).await.unwrap();
        server.delete_lease();
        assert_eq!(first.renew(LOST).await.unwrap(), trader(2));
        assert_eq!(first.renew(LOST).await.unwrap(), trader(2), "a renewal");
        let mut restarted = lease(&server, "a", &clock, Some(held("a", 2)));
        server.delete_lease();
        assert_eq!(restarted.renew(LOST).await.unwrap(), trader(3), "the same pod, another process");
        assert_eq!(server.held(), Some(held("a", 3)));
    }

    #[tokio::test]
    async fn a_holder_is_followed_when_it_has_released_is_terminated_or_was_silent_for_long() {
        let (server, clock) = (ApiServer::default(), Clock::manual());
        let mut first = lease(&server, "a", &clock, None);
        first.renew(LOST).await.unwrap();
        let mut second = lease(&server, "b", &clock, None);
        for _ in 0..4 {
            first.renew(LOST).await.unwrap();
            assert!(matches!(second.renew(LOST).await.unwrap(), Standing::Waiting { .. }), "it is renewed");
            clock.advance(LOST);
        }
        second.renew(LOST).await.unwrap();
        clock.advance(LOST + TOKEN_LIFE);
        assert_eq!(second.renew(LOST).await.unwrap(), trader(2));
        first.release().await.unwrap();
        assert_eq!(server.held(), Some(held("b", 2)), "nobody gives up what another holds");
        second.release().await.unwrap();
        let mut third = lease(&server, "c", &clock, None);
        assert_eq!(third.renew(LOST).await.unwrap(), trader(3));
        server.annotate_lease(ANNOTATION_TERMINATED, "c");
        assert_eq!(lease(&server, "d", &clock, None).renew(LOST).await.unwrap(), trader(4));
    }
}
