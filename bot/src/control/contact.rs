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
        while !shutdown.is_cancelled() {
            let timeouts = self.spec.borrow().spec.control_timeouts.clone();
            // Not cut off by the end: a Lease that is taken after the last look at it would stay taken.
            let ok = self.tick(&timeouts).await;
            failures = if ok { 0 } else { failures.saturating_add(1) };
            // Shorter timeouts count at once; nothing else of the spec asks for a contact.
            let other_timeouts = self.spec.wait_for(|bot| bot.spec.control_timeouts != timeouts);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause(&timeouts, failures)) => {}
                _ = other_timeouts => {}
            }
        }
        // Whatever the last contact has allowed: the next pod may begin.
        self.gate.not_the_trader();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixtures::{ApiServer, bot};
    use k8s_openapi::jiff::Timestamp;
    use tokio::task::JoinHandle;

    const SOON: Duration = Duration::from_secs(60);

    /// A contact task of pod `a` at work.
    struct Running {
        gate: Arc<Gate>,
        stop: CancellationToken,
        task: JoinHandle<()>,
        rounds: mpsc::Receiver<Round>,
        _spec: watch::Sender<ArbBot>,
    }

    fn run(server: &ApiServer) -> Running {
        let (clock, bot) = (Clock::driven_by_tokio(Timestamp::UNIX_EPOCH), bot());
        let gate = Arc::new(Gate::new(clock.clone()));
        let (rounds_sent, rounds) = mpsc::channel(16);
        let (spec_sent, spec) = watch::channel(bot.clone());
        let contact = ContactTask {
            client: server.client(),
            namespace: "desk".to_owned(),
            name: "carry".to_owned(),
            bot_uid: bot.metadata.uid.clone().unwrap(),
            clock: clock.clone(),
            gate: Arc::clone(&gate),
            lease: BotLease::new(server.client(), &bot, "a", clock),
            spec,
            rounds: rounds_sent,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(contact.run(stop.clone()));
        Running { gate, stop, task, rounds, _spec: spec_sent }
    }

    /// Until a write of the Lease is under way.
    async fn writing(server: &ApiServer) {
        let under_way = async {
            while !server.is_under_way() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, under_way).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_stopped_during_a_renewal_gives_the_lease_up() {
        let server = ApiServer::default();
        let mut running = run(&server);
        let first = timeout(SOON, running.rounds.recv()).await.unwrap().unwrap();
        assert_eq!(first.standing, Some(Standing::Trader { epoch: 1 }));
        assert!(running.gate.contact_age().is_some());
        server.hold_next_write();
        writing(&server).await;
        running.stop.cancel();
        timeout(SOON, running.task).await.unwrap().unwrap();
        assert_eq!((server.is_under_way(), server.held()), (false, None), "the renewal has arrived late");
        assert_eq!(running.gate.contact_age(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_stopped_while_it_takes_the_lease_gives_it_up() {
        let server = ApiServer::default();
        server.hold_next_write();
        let mut running = run(&server);
        writing(&server).await;
        running.stop.cancel();
        let early = timeout(Duration::from_secs(1), &mut running.task).await;
        assert!(early.is_err(), "it ends before it knows whether it has the Lease");
        server.do_what_is_under_way();
        timeout(SOON, running.task).await.unwrap().unwrap();
        assert_eq!(server.held(), None);
        assert_eq!(running.gate.contact_age(), None);
    }
}
