//! The control task: takes in what is seen of the bot's own ArbBot and of the ArbPolicies, closes or opens the gate, and
//! makes latches durable. Where the news comes from, a cluster or a file, makes no difference here.
//!
//! The gate changes first, in memory; everything that waits (ledger, engine, status) comes after it.

mod claim;
mod incident;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::control::{self, Entry, Restriction};
use arbbot_crds::decode::Decoded;
use arbbot_crds::status::AppliedPolicy;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::control::contact::Round;
use crate::control::latch::Latches;
use crate::control::lease::Standing;
use crate::control::observed::Observed;
use crate::control::report::{Claim, ControlFacts};
use crate::execution::drain::{Demand, Terms};
use crate::execution::engine::{ControlChange, Event, Params, View};
use crate::ledger::{GuardTrip, Ledger};
use crate::risk::Gate;
use crate::risk::gate::{PolicyVersion, Slot};
use crate::strategy::funding_carry::edge::Terms as CarryTerms;
use crate::telemetry::metrics::Metrics;

/// What of the seen objects decides the control; as long as it is equal, nothing is computed again.
#[derive(Debug, PartialEq)]
struct Key {
    generation: Option<i64>,
    deletion: Option<Time>,
    labels: BTreeMap<String, String>,
    claim: Option<(String, String, bool)>,
    policies: Vec<(Option<String>, Option<i64>)>,
}

/// An event of a watch.
type Seen = Option<Result<watcher::Event<DynamicObject>, watcher::Error>>;

/// A watch of one kind.
pub type Watch = BoxStream<'static, Result<watcher::Event<DynamicObject>, watcher::Error>>;

/// News beside the rounds of a contact.
pub struct Watches {
    /// The own ArbBot.
    pub bots: Watch,
    pub policies: Watch,
}

impl Watches {
    /// Never any news.
    #[must_use]
    pub fn none() -> Self {
        Self { bots: futures::stream::pending().boxed(), policies: futures::stream::pending().boxed() }
    }
}

/// The control task.
pub struct ControlTask {
    pub clock: Clock,
    pub gate: Arc<Gate>,
    pub ledger: Ledger,
    pub latches: Latches,
    /// Account and product of the claim that the ledger remembers.
    pub remembered_claim: Option<(String, String)>,
    pub engine: mpsc::Sender<Event>,
    pub view: watch::Receiver<View>,
    pub rounds: mpsc::Receiver<Round>,
    /// Trips of guards that kill.
    pub guard_kills: mpsc::Receiver<GuardTrip>,
    pub facts: watch::Sender<ControlFacts>,
    /// The spec in force, for the parts that other tasks follow (endpoints, log level, timeouts).
    pub spec: watch::Sender<ArbBot>,
    pub ready: watch::Sender<bool>,
    pub metrics: Metrics,
    /// Whether a latch is open that no disk took.
    pub unkept: AtomicBool,
}

/// What changes while the task runs.
struct State {
    observed: Observed,
    key: Option<Key>,
    standing: Option<Standing>,
    releases: u64,
    /// A release that the engine has not yet heard of.
    release_unheard: bool,
    /// Progress of an incident that the disk did not take; tried again in the same way.
    progress_failed: bool,
}

impl ControlTask {
    /// Runs until it is told to stop.
    pub async fn run(mut self, first: Decoded<ArbBot>, watches: Watches, shutdown: CancellationToken) {
        let Watches { mut bots, mut policies } = watches;
        let mut state = State {
            observed: Observed::new(first),
            key: None,
            standing: None,
            releases: 0,
            release_unheard: false,
            progress_failed: false,
        };
        loop {
            let changed = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = bots.next() => self.bot_event(&mut state, event),
                event = policies.next() => self.policy_event(&mut state, event),
                Some(trip) = self.guard_kills.recv() => {
                    self.guard_kill(&mut state, &trip).await;
                    false
                }
                Some(round) = self.rounds.recv() => {
                    if self.round(&mut state, round) {
                        self.recompute(&mut state).await;
                    }
                    // After what is new: a kill waits for no disk that did not answer before.
                    self.try_again(&mut state).await;
                    false
                }
                Ok(()) = self.view.changed() => {
                    self.follow_saga(&mut state).await;
                    false
                }
            };
            if changed {
                self.recompute(&mut state).await;
            }
        }
    }

    fn bot_event(&self, state: &mut State, event: Seen) -> bool {
        match event {
            Some(Ok(watcher::Event::Apply(bot) | watcher::Event::InitApply(bot))) => state.observed.bot_seen(bot, None),
            Some(Ok(_)) => false,
            Some(Err(error)) => self.watch_failed("ArbBot", &error),
            None => false,
        }
    }

    fn policy_event(&self, state: &mut State, event: Seen) -> bool {
        match event {
            Some(Ok(watcher::Event::Apply(policy) | watcher::Event::InitApply(policy))) => {
                state.observed.policy_seen(policy)
            }
            Some(Ok(watcher::Event::Delete(policy))) => state.observed.policy_gone(&policy),
            Some(Ok(watcher::Event::InitDone)) => state.observed.policies_synced(),
            Some(Ok(watcher::Event::Init)) | None => false,
            Some(Err(error)) => self.watch_failed("ArbPolicy", &error),
        }
    }

    /// The watch starts again by itself, with backoff; until then the reads of each contact carry the news.
    fn watch_failed(&self, kind: &'static str, error: &watcher::Error) -> bool {
        self.metrics.watch_restarts.inc();
        tracing::warn!(kind, %error, "the watch failed; it is started again");
        false
    }

    fn round(&self, state: &mut State, round: Round) -> bool {
        let mut changed = false;
        if let Some(bot) = round.bot {
            changed |= state.observed.bot_seen(bot, round.refused);
        }
        if let Some((policies, version)) = round.policies {
            changed |= state.observed.policies_listed(policies, version.as_deref());
        }
        if let Some(standing) = round.standing
            && state.standing.as_ref() != Some(&standing)
        {
            if let Standing::Trader { epoch } = standing {
                self.tell(Event::Lease { epoch });
            }
            state.standing = Some(standing.clone());
            self.facts.send_modify(|facts| facts.standing = Some(standing));
        }
        changed
    }

    fn tell(&self, event: Event) {
        let engine = self.engine.clone();
        // The engine drains its queue within milliseconds; where it is full for an instant, the order is kept by
        // the engine reading the gate itself on every event.
        if let Err(mpsc::error::TrySendError::Full(event)) = engine.try_send(event) {
            tokio::spawn(async move { engine.send(event).await });
        }
    }

    /// Puts what was seen in force.
    async fn recompute(&mut self, state: &mut State) {
        let Some((bot, policies)) = state.observed.complete() else { return };
        let (bot, policies): (ArbBot, Vec<ArbPolicy>) = (bot.clone(), policies.into_iter().cloned().collect());
        let key = key(&bot, &policies);
        if state.key.as_ref() == Some(&key) {
            return;
        }
        state.key = Some(key);
        let began = std::time::Instant::now();
        let all: Vec<&ArbPolicy> = policies.iter().collect();
        let matching = control::matching(&bot, all.iter().copied());
        let changed = self.latches.observe(&control::engagements(&bot, &matching), self.clock.now());
        self.set_gate(&bot, &matching, state.releases);
        self.metrics.control_apply.observe(began.elapsed().as_secs_f64());
        self.metrics.control_changes.inc();
        // The latch takes its place at the disk before the orders of the saga do; cancels wait for neither.
        tokio::join!(self.keep(&changed), async { self.tell_engine(&bot, &matching, state) });
        let unreadable = state.observed.unreadable(&matching);
        if !changed.is_empty() {
            // A kill is acknowledged before anything waits for the release of another.
            self.publish(&bot, &all, &matching, unreadable.clone());
        }
        self.release(state, &bot, &all, &matching).await;
        self.publish(&bot, &all, &matching, unreadable);
        self.ready.send_replace(true);
        self.spec.send_replace(bot);
    }

    /// `releases`: how many incidents were released. Until the engine has heard of the last one, and keeps entry closed
    /// by itself until positions are compared, it is closed here.
    fn set_gate(&self, bot: &ArbBot, matching: &[&ArbPolicy], releases: u64) {
        let mut restrictions = self.restrictions(bot, matching);
        if self.view.borrow().releases != releases {
            let why = "released; positions are compared before entry opens";
            restrictions.push(Restriction::entry("reconciliation", Entry::ReduceOnly, why));
        }
        let spec = &bot.spec;
        let versions = matching
            .iter()
            .map(|policy| PolicyVersion {
                name: policy.name_any(),
                generation: policy.metadata.generation.unwrap_or_default(),
            })
            .collect();
        let generation = bot.metadata.generation;
        self.gate.set_control(&spec.risk.limits, &spec.control_timeouts, restrictions, generation, versions);
        self.gate.set(Slot::Claim, self.claim_restriction(bot));
    }

    /// What spec, policies and open latches demand.
    fn restrictions(&self, bot: &ArbBot, matching: &[&ArbPolicy]) -> Vec<Restriction> {
        let mut restrictions = control::spec_restrictions(bot);
        restrictions.extend(matching.iter().map(|policy| control::policy_restriction(policy)));
        restrictions.extend(self.latches.restrictions());
        restrictions
    }

    fn tell_engine(&self, bot: &ArbBot, matching: &[&ArbPolicy], state: &State) {
        self.tell(Event::Control(ControlChange {
            generation: bot.metadata.generation,
            params: params(bot),
            incidents: self.latches.began(),
            releases: state.releases,
            kill_began: self.latches.kill_began(),
            drain: Demand::of(&self.restrictions(bot, matching)),
        }));
    }

    fn publish(&mut self, bot: &ArbBot, all: &[&ArbPolicy], matching: &[&ArbPolicy], unreadable: Vec<String>) {
        let claim = self.claim(bot);
        if claim == Claim::Granted && self.remembered_claim.is_none() {
            self.remember_claim(bot);
        }
        let applied = |policy: &&ArbPolicy| AppliedPolicy {
            name: policy.name_any(),
            uid: policy.uid().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
        };
        let selectors = matching.iter().filter(|policy| policy.selects(bot).is_err());
        let unreadable_policies = selectors.map(|policy| policy.name_any()).collect();
        let facts = ControlFacts {
            generation: bot.metadata.generation,
            policies: matching.iter().map(applied).collect(),
            unreadable_policies,
            unreadable,
            incidents: self.latches.status(),
            orphaned: self.latches.orphaned(bot, all),
            claim,
            release: bot.spec.kill_switch.release.clone(),
            is_release_refused: self.latches.is_release_refused(),
            standing: self.facts.borrow().standing.clone(),
        };
        if facts.unreadable != self.facts.borrow().unreadable {
            let unreadable = facts.unreadable.join("; ");
            tracing::error!(unreadable, "what can be read is in force, and everything else as it was before");
        }
        let open = i64::try_from(facts.incidents.len()).unwrap_or(i64::MAX);
        self.metrics.incidents_open.set(open);
        self.facts.send_if_modified(|old| {
            let changed = *old != facts;
            *old = facts;
            changed
        });
    }
}

fn key(bot: &ArbBot, policies: &[ArbPolicy]) -> Key {
    let claim = bot.status.as_ref().and_then(|status| status.claim.clone());
    Key {
        generation: bot.metadata.generation,
        deletion: bot.metadata.deletion_timestamp.clone(),
        labels: bot.labels().clone(),
        claim: claim.map(|claim| (claim.account, claim.product, claim.granted)),
        policies: policies.iter().map(|policy| (policy.uid(), policy.metadata.generation)).collect(),
    }
}

fn hours(duration: Duration) -> Decimal {
    Decimal::from(duration.as_secs()) / Decimal::from(3600)
}

/// What of the spec the engine needs.
#[must_use]
pub fn params(bot: &ArbBot) -> Params {
    let carry = &bot.spec.strategy.funding_carry;
    Params {
        target_notional: carry.target_notional.0,
        leg_timeout: carry.orders.leg_timeout.0,
        max_rest: carry.orders.max_rest.0.max(Duration::from_secs(1)),
        kill_slippage_bps: bot.spec.kill_switch.slippage_bps.0,
        kill_deadline: bot.spec.kill_switch.deadline.0,
        carry: CarryTerms {
            min_edge_bps: carry.entry.min_edge_bps.0,
            horizon_hours: hours(carry.entry.horizon.0),
            min_samples: carry.entry.min_samples.max(1).into(),
            max_negative_hours: hours(carry.exit.max_negative_funding.0).ceil().to_usize().unwrap_or(usize::MAX).max(1),
            min_hold: carry.exit.min_hold.0,
            min_collateral_ratio: carry.collateral.min_ratio.0,
        },
        drain: Terms { timeout: bot.spec.drain_timeout.0, on_timeout: bot.spec.on_drain_timeout },
    }
}
