//! Latches: made durable, followed through their kill, and released.

use std::sync::atomic::Ordering;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::control;
use arbbot_crds::status::IncidentPhase;
use tokio::time::timeout;

use super::{ControlTask, State};
use crate::ledger::{GuardTrip, IncidentRecord, KILL_DEADLINE};

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

    /// Writes how far an incident is; returns whether it is durable. A hung disk must not hold up the next kill.
    async fn keep_progress(&self, incident: &IncidentRecord) -> bool {
        let written = timeout(KILL_DEADLINE, self.ledger.update_incident(incident)).await;
        let failure = match &written {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the ledger does not answer".to_owned(),
        };
        tracing::warn!(incident = %incident.id, failure, "progress is not durable; it is tried again");
        false
    }

    /// What the disk refused before: latches and their progress that are not durable, releases that were not written.
    pub(super) async fn try_again(&mut self, state: &mut State) {
        if self.unkept.swap(false, Ordering::Relaxed) {
            self.keep(&self.latches.records()).await;
        }
        if std::mem::take(&mut state.progress_failed) {
            for incident in self.latches.records() {
                state.progress_failed |= !self.keep_progress(&incident).await;
            }
        }
        if !self.latches.is_release_refused() {
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

    /// Makes an incident of a guard's kill. The gate flattens already, by the guard's own word.
    pub(super) async fn guard_kill(&mut self, state: &mut State, trip: &GuardTrip) {
        let Some(record) = self.latches.engage_by_guard(trip, self.clock.now()) else { return };
        let changed = [record];
        let Some((bot, policies)) = state.observed.complete() else {
            // What is read first puts it in force.
            return self.keep(&changed).await;
        };
        let (bot, policies): (ArbBot, Vec<ArbPolicy>) = (bot.clone(), policies.into_iter().cloned().collect());
        let all: Vec<&ArbPolicy> = policies.iter().collect();
        let matching = control::matching(&bot, all.iter().copied());
        self.set_gate(&bot, &matching, state.releases);
        tokio::join!(self.keep(&changed), async { self.tell_engine(&bot, &matching, state) });
        let unreadable = state.observed.unreadable(&matching);
        self.publish(&bot, &all, &matching, unreadable);
    }

    /// Follows the saga, and releases what a human has released once its kill is finished.
    pub(super) async fn follow_saga(&mut self, state: &mut State) {
        let view = self.view.borrow_and_update().clone();
        let heard_of_release = view.releases == state.releases && std::mem::take(&mut state.release_unheard);
        // A proof from before the last incident began says nothing of it.
        let current = view.incidents == self.latches.began();
        let kill_began = self.latches.kill_began();
        let changed = if current { self.latches.progress(&view.proof, self.clock.now()) } else { Vec::new() };
        if changed.is_empty() && !heard_of_release {
            return;
        }
        for incident in &changed {
            state.progress_failed |= !self.keep_progress(incident).await;
            self.measure(incident);
        }
        let Some((bot, policies)) = state.observed.complete() else { return };
        let (bot, policies): (ArbBot, Vec<ArbPolicy>) = (bot.clone(), policies.into_iter().cloned().collect());
        let all: Vec<&ArbPolicy> = policies.iter().collect();
        let matching = control::matching(&bot, all.iter().copied());
        if heard_of_release {
            self.set_gate(&bot, &matching, state.releases);
        }
        if self.latches.kill_began() != kill_began {
            // It has finished, or what had finished was opened again.
            self.tell_engine(&bot, &matching, state);
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
                Err(_) => {
                    tracing::error!(incident = %id, "the ledger does not answer: not released; it is tried again");
                }
                Ok(Ok(())) => {
                    tracing::info!(incident = %id, "released");
                    self.latches.release(id);
                    state.releases += 1;
                    state.release_unheard = true;
                }
                Ok(Err(error)) => {
                    tracing::error!(incident = %id, reason = error.reason(), %error, "not released");
                }
            }
        }
        self.latches.release_refused(state.releases - released_before < releasable.len() as u64);
        if !releasable.is_empty() {
            self.set_gate(bot, matching, state.releases);
            self.tell_engine(bot, matching, state);
        }
    }
}
