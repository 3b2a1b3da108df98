//! What the session task shows in status, and what it tells the gate.

use arbbot_crds::arbbot::Execution;
use arbbot_crds::conditions::Reason;
use arbbot_crds::control::{Entry, Restriction};

use super::super::key::{ApiKey, KeyError};
use super::state::State;
use super::{SessionTask, Wanted};
use crate::exchange::SessionFacts;
use crate::risk::Slot;

impl SessionTask {
    /// Shows what is known, and tells the gate what it forbids.
    pub(super) fn show(&self, state: &mut State, wanted: &Wanted) {
        let in_use = state.open.as_ref().map(|open| open.inputs.key);
        let pending = state.tried.as_ref().map(|(inputs, _)| inputs).filter(|inputs| {
            let used = state.open.as_ref().map(|open| &open.inputs);
            used != Some(*inputs)
        });
        let pending_key = pending.map(|inputs| ApiKey::load(self.dir(inputs.key)));
        // A Secret that a person deleted cuts the key off that is in memory.
        let cut_off = match &pending_key {
            Some(Err(error @ KeyError::Missing { .. })) if in_use.is_some() && pending.map(|p| p.key) == in_use => {
                let why = format!("{error}; until then the earlier key only cancels and lowers the position");
                Some((Reason::SecretMissing, why))
            }
            _ => None,
        };
        let unfit = cut_off.or_else(|| state.unfit.clone());
        self.gate.set(Slot::Credentials, unfit.iter().map(restriction).collect());
        let now = self.connector.clock.now();
        let is_old =
            state.verified_at.as_ref().is_some_and(|at| now.duration_since(at.0).unsigned_abs() > wanted.max_age);
        let facts = SessionFacts {
            execution: Some(Execution::Live),
            endpoint: state.open.as_ref().map(|open| open.endpoint.name.clone()).unwrap_or_default(),
            active: in_use,
            fingerprint: state.fingerprint.clone(),
            account: state.open.as_ref().map(|open| open.session.permissions().portfolio.clone()),
            verified_at: state.verified_at.clone(),
            pending: pending_key.and_then(Result::ok).map(|key| key.fingerprint()).unwrap_or_default(),
            problem: state.problem.clone(),
            unfit,
            failed_over: state.failed_over.as_ref().map(|failed_over| failed_over.why.clone()),
            is_old,
            without_expiry: state
                .open
                .as_ref()
                .map(|open| open.session.exchange().without_expiry())
                .unwrap_or_default(),
            open: state.open.is_some(),
        };
        self.facts.send_if_modified(|old| {
            let changed = *old != facts;
            *old = facts;
            changed
        });
    }
}

/// What an unfit key forbids: entry; and where it is of another account, everything.
fn restriction((reason, why): &(Reason, String)) -> Restriction {
    let entry = if *reason == Reason::PortfolioMismatch { Entry::Halted } else { Entry::ReduceOnly };
    Restriction::entry("credentials", entry, why.clone())
}
