//! The Lease that makes one pod the trader (DESIGN §3, SAFETY §4).
//!
//! `holderIdentity` is the pod's uid and `leaseTransitions` the epoch: it rises with every process that takes the
//! Lease, so that no two processes ever mint the same order id.

use std::time::Duration;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::names::{ANNOTATION_TERMINATED, LABEL_BOT, LABEL_BOT_UID, child_name};
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
    /// Another pod may still be; the text says which and until when it is waited for.
    Waiting { why: String },
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
            other: None,
        }
    }

    /// Takes or renews the Lease, if this pod may.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn renew(&mut self, lost: Duration) -> Result<Standing, LeaseError> {
        let current = self.call("get", self.api.get_opt(&self.name)).await?;
        let Some(mut lease) = current else {
            let created = self.taken(None, lost);
            self.call("create", self.api.create(&PostParams::default(), &created)).await?;
            return Ok(self.standing(&created));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.holder && !holder.is_empty() && !self.may_follow(&lease, &holder, lost) {
            self.held = None;
            let why = format!(
                "pod {holder} held the Lease {} last; it is waited for until the operator shows it terminated or {} s \
                 have passed without a renewal",
                self.name,
                (lost + TOKEN_LIFE).as_secs()
            );
            return Ok(Standing::Waiting { why });
        }
        let next = if self.held.is_some() && holder == self.holder {
            self.renewed(&spec, lost)
        } else {
            self.taken(spec.lease_transitions, lost).spec.unwrap_or_default()
        };
        lease.spec = Some(next);
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(ANNOTATION_TERMINATED);
        }
        self.call("update", self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        Ok(self.standing(&lease))
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
