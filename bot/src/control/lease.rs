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
        let next = if self.held.is_some() && holder == self.holder {
            self.renewed(&spec, lost)
        } else {
            self.taken(spec.lease_transitions.max(self.last_epoch()), lost).spec.unwrap_or_default()
        };
        lease.spec = Some(next);
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(ANNOTATION_TERMINATED);
        }
        self.call("update", self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        Ok(self.standing(&lease))
    }

    /// There is no Lease: this is the bot's first pod, or somebody has deleted it. Then who held it last may still run, and
    /// its epoch is used.
    async fn create(&mut self, lost: Duration) -> Result<Standing, LeaseError> {
        let last = self.last.clone().filter(|last| last.holder != self.holder && self.held.is_none());
        if let Some(last) = last
            && !self.has_waited_for(&last.holder, None, lost)
        {
            return Ok(self.waiting(last, lost));
        }
        let created = self.taken(self.last_epoch(), lost);
        self.call("create", self.api.create(&PostParams::default(), &created)).await?;
        Ok(self.standing(&created))
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
        if self.held.take().is_none() {
            return Ok(());
        }
        let mut lease = self.call("get", self.api.get(&self.name)).await?;
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
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        // The holder's own fence counts, if it is longer than ours.
        let theirs = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let fence = lost.max(Duration::from_secs(theirs.unsigned_abs().into()));
        self.has_waited_for(holder, renewed, fence)
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

    fn taken(&self, transitions: Option<i32>, lost: Duration) -> Lease {
        let now = self.micro_now();
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(
                    [(LABEL_BOT, &self.bot), (LABEL_BOT_UID, &self.bot_uid)]
                        .map(|(key, value)| (key.to_owned(), value.clone()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: Some(whole_seconds(lost)),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions.unwrap_or(0).saturating_add(1)),
                ..LeaseSpec::default()
            }),
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

fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs().max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbbot_crds::status::{ArbBotStatus, BotStatus};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use kube::core::Status;
    use serde_json::{from_slice, json, to_vec};
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    const LOST: Duration = Duration::from_secs(30);

    /// An API server that knows one Lease.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Option<Lease>>>);

    impl Server {
        fn client(&self) -> Client {
            let kept = self.0.clone();
            let service = tower::service_fn(move |request: axum::http::Request<Body>| {
                let kept = kept.clone();
                async move {
                    let is_write = request.method() != "GET";
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    let mut lease = kept.lock().unwrap();
                    if is_write {
                        *lease = Some(from_slice(&sent).unwrap());
                    }
                    let (code, body) = match &*lease {
                        Some(lease) => (200, to_vec(lease).unwrap()),
                        None => (404, to_vec(&Status::failure("none", "NotFound").with_code(404)).unwrap()),
                    };
                    let answer = axum::http::Response::builder().status(code).body(Body::from(body)).unwrap();
                    Ok::<_, Infallible>(answer)
                }
            });
            Client::new(service, "desk")
        }

        fn delete(&self) {
            *self.0.lock().unwrap() = None;
        }

        fn epoch(&self) -> Option<i32> {
            self.0.lock().unwrap().as_ref()?.spec.as_ref()?.lease_transitions
        }

        fn lease(&self, pod: &str, clock: &Clock, before: Option<LeaseStatus>) -> BotLease {
            let carry = json!({"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1"});
            let spec = json!({
                "execution": "Live", "venue": {"coinbase": {"portfolio": "p"}}, "strategy": {"fundingCarry": carry},
                "credentials": {"secretRef": {"name": "s"}},
            });
            let mut bot = ArbBot::new("carry", serde_json::from_value(spec).unwrap());
            let said = BotStatus { lease: before, ..BotStatus::default() };
            bot.status = Some(ArbBotStatus { bot: Some(said), ..ArbBotStatus::default() });
            BotLease::new(self.client(), &bot, pod, clock.clone())
        }
    }

    fn trader(epoch: i64) -> Standing {
        Standing::Trader { epoch }
    }

    #[tokio::test]
    async fn a_lease_that_is_deleted_by_hand_leaves_the_fence_and_the_epoch() {
        let (server, clock) = (Server::default(), Clock::manual());
        let mut first = server.lease("a", &clock, None);
        assert_eq!(first.renew(LOST).await.unwrap(), trader(1), "a bot's first pod waits for nobody");
        server.delete();
        let last = LeaseStatus { holder: "a".to_owned(), epoch: 1 };
        let mut second = server.lease("b", &clock, Some(last.clone()));
        for _ in 0..2 {
            assert!(matches!(second.renew(LOST).await.unwrap(), Standing::Waiting { last: said, .. } if said == last));
            clock.advance(LOST);
        }
        assert_eq!(second.renew(LOST).await.unwrap(), trader(2), "no two processes mint the same order id");
        assert!(matches!(first.renew(LOST).await.unwrap(), Standing::Waiting { .. }));
    }

    #[tokio::test]
    async fn a_trader_whose_lease_is_deleted_goes_on_under_another_epoch() {
        let (server, clock) = (Server::default(), Clock::manual());
        let mut lease = server.lease("a", &clock, None);
        lease.renew(LOST).await.unwrap();
        server.delete();
        assert_eq!(lease.renew(LOST).await.unwrap(), trader(2));
        assert_eq!(lease.renew(LOST).await.unwrap(), trader(2), "a renewal");
        let mut restarted = server.lease("a", &clock, Some(LeaseStatus { holder: "a".to_owned(), epoch: 2 }));
        server.delete();
        assert_eq!(restarted.renew(LOST).await.unwrap(), trader(3), "the same pod, another process");
        assert_eq!(server.epoch(), Some(3));
    }

    #[tokio::test]
    async fn a_holder_is_followed_when_it_has_released_is_terminated_or_was_silent_for_long() {
        let (server, clock) = (Server::default(), Clock::manual());
        let mut first = server.lease("a", &clock, None);
        first.renew(LOST).await.unwrap();
        let mut second = server.lease("b", &clock, None);
        for _ in 0..4 {
            first.renew(LOST).await.unwrap();
            assert!(matches!(second.renew(LOST).await.unwrap(), Standing::Waiting { .. }), "it is renewed");
            clock.advance(LOST);
        }
        second.renew(LOST).await.unwrap();
        clock.advance(LOST + TOKEN_LIFE);
        assert_eq!(second.renew(LOST).await.unwrap(), trader(2));
        second.release().await.unwrap();
        let mut third = server.lease("c", &clock, None);
        assert_eq!(third.renew(LOST).await.unwrap(), trader(3));
        let terminated = Some([(ANNOTATION_TERMINATED.to_owned(), "c".to_owned())].into());
        server.0.lock().unwrap().as_mut().unwrap().metadata.annotations = terminated;
        assert_eq!(server.lease("d", &clock, None).renew(LOST).await.unwrap(), trader(4));
    }
}
