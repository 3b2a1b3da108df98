//! Contact with the API server: the Lease is renewed, and on the same tick the own ArbBot and every ArbPolicy are read
//! by quorum, so that a silently dead watch cannot blind the bot (SAFETY §4).

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::{ArbBot, ControlTimeouts};
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::decode::Unreadable;
use kube::Client;
use kube::api::{DynamicObject, ListParams};
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::control::lease::{BotLease, CALL, Standing};
use crate::control::observed::untyped;
use crate::risk::Gate;

/// What one tick brought. A part that failed is None.
#[derive(Debug)]
pub struct Round {
    pub standing: Option<Standing>,
    pub bot: Option<DynamicObject>,
    /// Why this bot does not count as it is, though it may be readable: only a file can be wrong in this way.
    pub refused: Option<Unreadable>,
    /// All policies of the namespace, and the resourceVersion of the list.
    pub policies: Option<(Vec<DynamicObject>, Option<String>)>,
}

/// The contact task.
pub struct ContactTask {
    pub client: Client,
    pub namespace: String,
    pub name: String,
    pub bot_uid: String,
    pub clock: Clock,
    pub gate: Arc<Gate>,
    pub lease: BotLease,
    pub spec: watch::Receiver<ArbBot>,
    pub rounds: mpsc::Sender<Round>,
}

impl ContactTask {
    /// Runs until it is told to stop; then gives the Lease up, so that the next pod takes over at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let timeouts = self.spec.borrow().spec.control_timeouts.clone();
            let ok = tokio::select! {
                () = shutdown.cancelled() => break,
                ok = self.tick(&timeouts) => ok,
            };
            failures = if ok { 0 } else { failures.saturating_add(1) };
            // Shorter timeouts count at once; nothing else of the spec asks for a contact.
            let other_timeouts = self.spec.wait_for(|bot| bot.spec.control_timeouts != timeouts);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause(&timeouts, failures)) => {}
                _ = other_timeouts => {}
            }
        }
        if let Err(error) = self.lease.release().await {
            tracing::warn!(%error, "the Lease was not given up; the next pod waits until it has expired");
        }
    }

    /// One contact. Returns whether all of it worked.
    async fn tick(&mut self, timeouts: &ControlTimeouts) -> bool {
        let began = self.clock.boottime();
        let bots = untyped::<ArbBot>(&self.client, &self.namespace);
        let policies = untyped::<ArbPolicy>(&self.client, &self.namespace);
        let everything = ListParams::default();
        let (standing, bot, policies) = tokio::join!(
            self.lease.renew(timeouts.lost.0),
            timeout(CALL, bots.get(&self.name)),
            timeout(CALL, policies.list(&everything)),
        );
        let standing = standing.inspect_err(|error| tracing::warn!(%error, "contact failed")).ok();
        let bot = read("ArbBot", bot).filter(|bot| bot.metadata.uid.as_deref() == Some(&self.bot_uid));
        let policies = read("ArbPolicy", policies).map(|list| (list.items, list.metadata.resource_version));
        let complete = bot.is_some() && policies.is_some();
        match &standing {
            Some(Standing::Trader { .. }) if complete => self.gate.in_contact(began),
            Some(Standing::Waiting { .. }) => self.gate.not_the_trader(),
            _ => {}
        }
        let ok = complete && standing.is_some();
        // The control task ends only with the program.
        self.rounds.send(Round { standing, bot, refused: None, policies }).await.ok();
        ok
    }
}

fn read<T>(kind: &'static str, result: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> Option<T> {
    match result {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(kind, %error, "contact failed: the object cannot be read");
            None
        }
        Err(_) => {
            tracing::warn!(kind, seconds = CALL.as_secs(), "contact failed: no answer");
            None
        }
    }
}

/// A third of `lease`, jittered; sooner after a failure.
fn pause(timeouts: &ControlTimeouts, failures: u32) -> Duration {
    let third = timeouts.lease.0 / 3;
    let regular = third.mul_f64(rand::rng().random_range(0.85..1.0));
    match failures {
        0 => regular,
        _ => regular.min(Duration::from_millis(250) * failures.min(20)),
    }
}
