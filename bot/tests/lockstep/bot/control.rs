//! What is in force: given by the test itself, or by the control task of `arb-bot run`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arb_bot::control::contact::Round;
use arb_bot::control::latch::Latches;
use arb_bot::control::report::ControlFacts;
use arb_bot::control::task::{ControlTask, Watches, params};
use arb_bot::execution::drain::Demand;
use arb_bot::execution::engine::{ControlChange, Event};
use arb_bot::ledger::GuardTrip;
use arb_bot::telemetry::metrics::Metrics;
use arbbot_crds::ArbBot;
use arbbot_crds::control::{Control, Duty, Restriction, effective};
use arbbot_crds::decode::Decoded;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Bot;

/// What a control task begins with.
pub(super) struct ControlParts {
    pub(super) latches: Latches,
    pub(super) guard_kills: mpsc::Receiver<GuardTrip>,
    pub(super) facts: watch::Sender<ControlFacts>,
}

impl Bot {
    /// Puts restrictions in force, as the control task does.
    pub async fn control(&mut self, restrictions: Vec<Restriction>) {
        self.generation += 1;
        let kill = restrictions.iter().any(|restriction| restriction.source.starts_with("incident/"));
        self.incidents += u64::from(kill);
        self.releases += u64::from(self.is_killed && !kill);
        self.is_killed = kill;
        let bot = self.spec.borrow().clone();
        let generation = Some(self.generation);
        let (limits, timeouts) = (&bot.spec.risk.limits, &bot.spec.control_timeouts);
        let in_force = effective(limits, &restrictions);
        let flattens = in_force.duty == Duty::Flatten;
        self.kill_began = flattens.then(|| self.kill_began.unwrap_or(self.clock.now()));
        let drain = Demand::of(&restrictions);
        self.acknowledged.lock().unwrap().push((self.clock.now(), in_force));
        self.gate.set_control(limits, timeouts, restrictions, generation, Vec::new());
        let change = ControlChange {
            generation,
            params: params(&bot),
            incidents: self.incidents,
            releases: self.releases,
            kill_began: self.kill_began,
            drain,
        };
        self.events.send(Event::Control(change)).await.unwrap();
    }

    /// Puts the control task of `arb-bot run` to work in place of [`Self::control`]: it opens incidents, follows and releases
    /// them. Returns where the API server's ArbBot is shown to it, as a contact does.
    pub async fn under_control(&mut self, first: ArbBot) -> mpsc::Sender<Round> {
        let (rounds, round_events) = mpsc::channel(16);
        let ControlParts { latches, guard_kills, facts } = self.control.take().unwrap();
        let control = ControlTask {
            clock: self.clock.clone(),
            gate: Arc::clone(&self.gate),
            ledger: self.ledger.clone().unwrap(),
            latches,
            remembered_claim: Some((
                first.spec.account().to_owned(),
                first.spec.strategy.funding_carry.future_product.clone(),
            )),
            engine: self.events.clone(),
            view: self.view.clone(),
            rounds: round_events,
            guard_kills,
            facts,
            spec: self.spec.clone(),
            ready: watch::channel(false).0,
            metrics: Metrics::new().unwrap(),
            unkept: AtomicBool::new(false),
        };
        let first = Decoded { object: first, unreadable: Vec::new() };
        self.tasks.spawn(control.run(first, Watches::none(), CancellationToken::new()));
        let no_policies = Some((Vec::new(), None));
        rounds.send(Round { standing: None, bot: None, refused: None, policies: no_policies }).await.unwrap();
        rounds
    }

    /// Notes what the control task acknowledges, at the moment at which it shows it to people; `binds` says which control
    /// that is, where it is another one.
    pub fn note_acknowledged(&mut self, mut binds: impl FnMut(&ControlFacts) -> Option<Control> + Send + 'static) {
        let (clock, acknowledged) = (self.clock.clone(), Arc::clone(&self.acknowledged));
        let mut shown = self.control_facts.clone();
        self.tasks.spawn(async move {
            while shown.changed().await.is_ok() {
                if let Some(control) = binds(&shown.borrow_and_update()) {
                    acknowledged.lock().unwrap().push((clock.now(), control));
                }
            }
        });
    }
}
