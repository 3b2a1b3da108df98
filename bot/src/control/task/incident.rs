//! Latches: made durable, followed through their kill, and released.

use std::sync::atomic::Ordering;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::control;
use arbbot_crds::status::IncidentPhase;
use tokio::time::timeout;

use super::{ControlTask, State};
use crate::ledger::{IncidentRecord, KILL_DEADLINE};

impl ControlTask {
    /// Makes latches durable. A kill never waits for the disk longer than the ledger's own deadline; what no disk took
    /// is tried again with every contact.
    pub(super) async fn keep(&self, changed: &[IncidentRecord]) {
        for incident in changed {
            if let Err(error) = self.ledger.open_incident(incident).await {
                self.unkept.store(true, Ordering::Relaxed);
                tracing::error!(incident = %incident.id, reason = error.reason(), %error,
                    "the latch is not durable; it holds in memory and in status");
            }
        }
    }

    /// What the disk refused before: latches that are not durable, releases that were not written.
    pub(super) async fn try_again(&mut self, state: &mut State) {
        if self.unkept.swap(false, Ordering::Relaxed) {
            self.keep(&self.latches.records()).await;
        }
        if !state.release_failed {
            return;
        }
        let Some((bot, policies)) = state.observed.complete() else { return };
        let (bot, policies): (ArbBot, Vec<ArbPolicy>) = (bot.clone(), policies.into_iter().cloned().collect());
        let all: Vec<&ArbPolicy> = policies.iter().collect();
        let matching = control::matching(&bot, all.iter().copied());
        self.release(state, &bot, &all, &matching).await;
        let unreadable = state.observed.unreadable(&matching);
        self.publish(&bot, &all, &matching, unreadable);
    }

    /// Follows the saga, and releases what a human has released once its kill is finished.
    pub(super) async fn follow_saga(&mut self, state: &mut State) {
        let view = self.view.borrow_and_update().clone();
        let heard_of_release = view.releases == state.releases && std::mem::take(&mut state.release_unheard);
        // A proof from before the last incident began says nothing of it.
        let current = view.incidents == self.latches.began();
        let changed = if current { self.latches.progress(&view.proof) } else { Vec::new() };
        if changed.is_empty() && !heard_of_release {
            return;
        }
        for incident in &changed {
            // A hung disk must not hold up the next kill.
            match timeout(KILL_DEADLINE, self.ledger.update_incident(incident)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(incident = %incident.id, reason = error.reason(), %error, "progress is not durable");
                }
                Err(_) => tracing::warn!(incident = %incident.id, "the disk does not answer; progress is not durable"),
            }
            self.measure(incident);
        }
        let Some((bot, policies)) = state.observed.complete() else { return };
        let (bot, policies): (ArbBot, Vec<ArbPolicy>) = (bot.clone(), policies.into_iter().cloned().collect());
        let all: Vec<&ArbPolicy> = policies.iter().collect();
        let matching = control::matching(&bot, all.iter().copied());
        if heard_of_release {
            self.set_gate(&bot, &matching, state.releases);
        }
        self.release(state, &bot, &all, &matching).await;
        let unreadable = state.observed.unreadable(&matching);
        self.publish(&bot, &all, &matching, unreadable);
    }

    /// Counts the two times of a kill once it is finished.
    pub(super) fn measure(&self, incident: &IncidentRecord) {
        let since = |at: k8s_openapi::jiff::Timestamp| at.duration_since(incident.engaged_at).as_secs_f64();
        if incident.phase != IncidentPhase::Finished {
            return;
        }
        if let Some(gone) = incident.orders_cancelled_at {
            self.metrics.kill_orders_gone.observe(since(gone));
        }
        if let Some(flat) = incident.flat_at {
            self.metrics.kill_flat.observe(since(flat));
        }
    }

    pub(super) async fn release(
        &mut self,
        state: &mut State,
        bot: &ArbBot,
        all: &[&ArbPolicy],
        matching: &[&ArbPolicy],
    ) {
        let releasable = self.latches.releasable(bot, all);
        let released_before = state.releases;
        for id in &releasable {
            // A release that is not durable would latch again after a restart: it is tried again on the next change.
            match timeout(KILL_DEADLINE, self.ledger.release_incident(id, self.clock.now())).await {
                Err(_) => tracing::error!(incident = %id, "the disk does not answer: not released"),
                Ok(Ok(())) => {
                    tracing::info!(incident = %id, "released");
                    self.latches.release(id);
                    state.releases += 1;
                    state.release_unheard = true;
                }
                Ok(Err(error)) => tracing::error!(incident = %id, reason = error.reason(), %error, "not released"),
            }
        }
        state.release_failed = state.releases - released_before < releasable.len() as u64;
        if !releasable.is_empty() {
            self.set_gate(bot, matching, state.releases);
            self.tell_engine(bot, matching, state);
        }
    }
}
