//! The gate: the one place where an order is allowed.
//!
//! `risk::admit` checks an order against the control and the limits and returns a [`Permit`];
//! once the intent is durable, [`Gate::clear`] checks the control again and turns the permit into a [`Cleared`], which
//! is the only thing that an exchange accepts. A gate that closes in between wins, and so does a limit that is lowered.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arbbot_crds::arbbot::ControlTimeouts;
use arbbot_crds::control::{Control, Duty, Entry, Restriction, effective};
use arbbot_crds::limits::RiskLimits;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::exchange::NewOrder;

/// What an order is for; decides when it is allowed (SAFETY §2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::EnumString, Serialize, Deserialize,
)]
pub enum Class {
    /// Raises a leg.
    Enter,
    /// Completes the other leg of an entry under way.
    Hedge,
    /// Lowers the larger leg to repair an imbalance.
    Trim,
    /// Lowers a leg: normal exit or drain.
    Reduce,
    /// Lowers a leg in the kill saga.
    Kill,
}

impl Class {
    /// Whether an order of this class raises exposure, so that limits bind it.
    #[must_use]
    pub fn raises(self) -> bool {
        matches!(self, Self::Enter | Self::Hedge)
    }
}

/// How long contact with the API server has been lost (SAFETY §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, strum::Display, Serialize, Deserialize)]
pub enum Contact {
    /// In contact.
    #[default]
    Fresh,
    /// Longer than `lease`: nothing raises a leg.
    Late,
    /// Longer than `stale`: working orders are cancelled, only reducing orders are sent.
    Stale,
    /// Longer than `lost`, or not the trader: only cancels are sent.
    Lost,
}

/// Sources of restrictions, each replaced as a whole by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Spec, policies and latches: written by the control task.
    Control,
    /// Claim on the account: written by the control task.
    Claim,
    /// Connections, products, reconciliation, limits exceeded: written by the engine.
    Engine,
    /// The program itself, when it stops.
    Process,
    /// An API key that must not be relied on: written by the session task.
    Credentials,
    /// Guards that have tripped.
    Guards,
    /// A ledger that cannot be relied on: written by the ledger's task.
    Ledger,
    /// A machine whose clock is not the exchange's: written by the driver.
    Clock,
}

const SLOTS: usize = 8;

/// Why an order is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("{class} orders are not allowed while the bot is {mode}")]
    Mode { class: Class, mode: String },
    #[error("{class} orders are not allowed: contact with the API server is {contact}, or another pod is the trader")]
    Contact { class: Class, contact: Contact },
    #[error("{limit}: {message}")]
    Limit { limit: &'static str, message: String },
}

/// An admitted order. Only `risk::admit` makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    pub(in crate::risk) order: NewOrder,
    pub(in crate::risk) class: Class,
    /// The limits that it was admitted under; None: none binds it.
    pub(in crate::risk) limits: Option<RiskLimits>,
}

impl Permit {
    /// The order, to be written to the ledger before it is cleared.
    #[must_use]
    pub fn order(&self) -> &NewOrder {
        &self.order
    }

    /// What it is for.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }
}

/// An order that may be sent now. Only [`Gate::clear`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleared {
    order: NewOrder,
    class: Class,
    expires_at: Duration,
}

impl Cleared {
    /// The order.
    #[must_use]
    pub fn order(&self) -> &NewOrder {
        &self.order
    }

    /// What it is for.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// CLOCK_BOOTTIME at which its authentication must expire: at most 20 s after it was cleared, and not past the
    /// bot's own fence. A bot that is frozen after the clearance wakes up with a dead token.
    #[must_use]
    pub fn expires_at(&self) -> Duration {
        self.expires_at
    }

    /// A clearance for the tests of an exchange.
    #[cfg(test)]
    #[must_use]
    pub fn for_test(order: NewOrder) -> Self {
        Self::until(order, Clock::system().boottime() + TOKEN_LIFE)
    }

    /// A clearance that ends at a time of a test's clock.
    #[cfg(test)]
    #[must_use]
    pub fn until(order: NewOrder, expires_at: Duration) -> Self {
        Self { order, class: Class::Reduce, expires_at }
    }
}

/// Longest life of an order's authentication (SAFETY §4).
pub const TOKEN_LIFE: Duration = Duration::from_secs(20);

/// One change of the gate, as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Transition {
    pub sequence: u64,
    /// metadata.generation of the ArbBot it came from, where it came from one.
    pub generation: Option<i64>,
    /// Policies it came from.
    pub policies: Vec<PolicyVersion>,
    pub entry: Entry,
    pub duty: Duty,
    /// CLOCK_MONOTONIC at which it was in force.
    pub monotonic_ns: u64,
}

/// Name and generation of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyVersion {
    pub name: String,
    pub generation: i64,
}

/// Transitions kept for `/status`.
const HISTORY: usize = 256;

#[derive(Debug)]
struct State {
    limits: RiskLimits,
    slots: [Vec<Restriction>; SLOTS],
    control: Control,
    timeouts: ControlTimeouts,
    /// CLOCK_BOOTTIME of the last contact; None until the Lease is held.
    contact_at: Option<Duration>,
    generation: Option<i64>,
    policies: Vec<PolicyVersion>,
    sequence: u64,
    history: std::collections::VecDeque<Transition>,
}

/// The gate. Shared by the control task, which closes it, and the engine, which asks it.
#[derive(Debug)]
pub struct Gate {
    clock: Clock,
    state: Mutex<State>,
}

impl Gate {
    /// A gate that is closed: ReduceOnly until the control is known, and no order at all until the Lease is held.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let starting = Restriction::entry("starting", Entry::ReduceOnly, "the bot has not yet read its ArbBot");
        let unclaimed = Restriction::entry("claim", Entry::ReduceOnly, "the claim on the account is not yet granted");
        let engine = Restriction::entry("exchange", Entry::ReduceOnly, "the exchange is not yet connected");
        Self {
            clock,
            state: Mutex::new(State {
                limits: RiskLimits::default(),
                slots: [
                    vec![starting],
                    vec![unclaimed],
                    vec![engine],
                    Vec::new(),
                    Vec::new(),
                    Vec::new(),
                    Vec::new(),
                    Vec::new(),
                ],
                control: Control::unknown(),
                timeouts: ControlTimeouts::default(),
                contact_at: None,
                generation: None,
                policies: Vec::new(),
                sequence: 0,
                history: std::collections::VecDeque::with_capacity(HISTORY),
            }),
        }
    }

    /// Puts spec, policies and latches in force. Returns the monotonic time at which they were.
    pub fn set_control(
        &self,
        limits: &RiskLimits,
        timeouts: &ControlTimeouts,
        restrictions: Vec<Restriction>,
        generation: Option<i64>,
        policies: Vec<PolicyVersion>,
    ) -> u64 {
        let mut state = self.state();
        state.limits = limits.clone();
        state.timeouts = timeouts.clone();
        state.generation = generation;
        state.policies = policies;
        self.replace(&mut state, Slot::Control, restrictions)
    }

    /// Replaces the restrictions of another source.
    pub fn set(&self, slot: Slot, restrictions: Vec<Restriction>) {
        let mut state = self.state();
        if state.slots.get(slot as usize) != Some(&restrictions) {
            self.replace(&mut state, slot, restrictions);
        }
    }

    fn replace(&self, state: &mut State, slot: Slot, restrictions: Vec<Restriction>) -> u64 {
        if let Some(old) = state.slots.get_mut(slot as usize) {
            *old = restrictions;
        }
        state.control = effective(&state.limits, state.slots.iter().flatten());
        let monotonic_ns = self.clock.monotonic_ns();
        state.sequence += 1;
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        let transition = Transition {
            sequence: state.sequence,
            generation: state.generation,
            policies: state.policies.clone(),
            entry: state.control.entry,
            duty: state.control.duty,
            monotonic_ns,
        };
        state.history.push_back(transition);
        monotonic_ns
    }

    /// Notes a contact that began at `at` (CLOCK_BOOTTIME): the Lease was renewed and both kinds were read.
    pub fn in_contact(&self, at: Duration) {
        self.state().contact_at = Some(at);
    }

    /// Notes that this pod is not the trader.
    pub fn not_the_trader(&self) {
        self.state().contact_at = None;
    }

    /// Time since the last contact; None while this pod is not the trader.
    #[must_use]
    pub fn contact_age(&self) -> Option<Duration> {
        self.state().contact_at.map(|at| self.clock.boottime().saturating_sub(at))
    }

    /// Control and contact in force now.
    #[must_use]
    pub fn current(&self) -> (Control, Contact) {
        let state = self.state();
        (state.control.clone(), self.contact(&state))
    }

    /// Generation of the ArbBot in force, and the policies in force.
    #[must_use]
    pub fn versions(&self) -> (Option<i64>, Vec<PolicyVersion>) {
        let state = self.state();
        (state.generation, state.policies.clone())
    }

    /// Every restriction in force, for people.
    #[must_use]
    pub fn restrictions(&self) -> Vec<Restriction> {
        self.state().slots.iter().flatten().filter(|restriction| restriction.restricts()).cloned().collect()
    }

    /// The latest transitions, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Transition> {
        self.state().history.iter().cloned().collect()
    }

    /// Whether an order of this class may be sent now.
    ///
    /// # Errors
    /// It may not; the error says why.
    pub fn allows(&self, class: Class) -> Result<(), Denied> {
        let state = self.state();
        allowed(class, &state.control, self.contact(&state))
    }

    /// Turns a permit into what the exchange accepts, if the control still allows it and none of the limits that bind
    /// it was lowered: the exposure is not known here, so the next tick decides anew. Called last, after the intent is
    /// durable.
    ///
    /// # Errors
    /// The control no longer allows it, or a limit is lower than when it was admitted.
    pub fn clear(&self, permit: Permit) -> Result<Cleared, Denied> {
        let state = self.state();
        allowed(permit.class, &state.control, self.contact(&state))?;
        if let Some(limit) = permit.limits.and_then(|before| state.control.limits.lowered_since(&before)) {
            let message = "it was lowered while the order waited for the ledger; it is decided anew".to_owned();
            return Err(Denied::Limit { limit, message });
        }
        let now = self.clock.boottime();
        let fence = state.contact_at.unwrap_or_default().saturating_add(state.timeouts.lost.0);
        let expires_at = fence.min(now + TOKEN_LIFE);
        if expires_at < now + Duration::from_secs(1) {
            return Err(Denied::Contact { class: permit.class, contact: Contact::Lost });
        }
        Ok(Cleared { order: permit.order, class: permit.class, expires_at })
    }

    fn contact(&self, state: &State) -> Contact {
        let Some(at) = state.contact_at else { return Contact::Lost };
        let since = self.clock.boottime().saturating_sub(at);
        let timeouts = &state.timeouts;
        match since {
            since if since >= timeouts.lost.0 => Contact::Lost,
            since if since >= timeouts.stale.0 => Contact::Stale,
            since if since >= timeouts.lease.0 => Contact::Late,
            _ => Contact::Fresh,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a state that is complete: every change is made in place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table of SAFETY §2.
pub(in crate::risk) fn allowed(class: Class, control: &Control, contact: Contact) -> Result<(), Denied> {
    if contact == Contact::Lost || (class.raises() && contact > Contact::Fresh) {
        return Err(Denied::Contact { class, contact });
    }
    let allowed = match class {
        Class::Enter | Class::Hedge => control.entry == Entry::Active && control.duty == Duty::Hold,
        Class::Trim => true,
        Class::Reduce => control.entry <= Entry::ReduceOnly && control.duty < Duty::Flatten,
        Class::Kill => control.duty == Duty::Flatten,
    };
    if allowed { Ok(()) } else { Err(Denied::Mode { class, mode: control.mode().to_string() }) }
}
#[cfg(test)]
mod tests;
