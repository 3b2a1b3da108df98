//! How a person's release ends a trip: asked for by the spec, durable, and only then in force.

use std::sync::Arc;

use arbbot_crds::control::is_released;
use arbbot_crds::guards::{GuardAction, GuardMetric};
use k8s_openapi::jiff::Timestamp;

use super::GuardWatch;
use super::record::Record;
use crate::execution::engine::Now;
use crate::ledger::GuardTrip;
use crate::risk::{Gate, Slot};

impl GuardWatch {
    /// Asks the ledger to end the trips that the spec's `release` names. A kill is first released as a kill.
    pub(super) fn release_what_a_person_releases(&mut self, now: Now) {
        let bot = self.wiring.spec.borrow().clone();
        let released = |trip: &&GuardTrip| {
            let Some(id) = &trip.incident else { return false };
            is_released(id, &bot, &[])
                && !(trip.action == GuardAction::Kill && (self.wiring.open_kills)(&id.to_string()))
                && !self.releasing.contains(&trip.guard)
        };
        let released: Vec<GuardTrip> = self.guards.trips().filter(released).cloned().collect();
        for GuardTrip { guard, tripped_at, .. } in released {
            self.releasing.insert(guard.clone());
            self.keep(Record::Ended { guard, tripped_at, at: now.wall, by_hand: true });
        }
    }

    /// A release counts once it is durable: otherwise the trip would be back after a restart.
    pub(super) fn take_releases_in(&mut self, gate: &Gate, now: Now) {
        while let Ok(record) = self.kept.try_recv() {
            match record {
                Record::Ended { guard, tripped_at, at, by_hand: true } => {
                    self.releasing.remove(&guard);
                    if let Some(metric) = self.guards.release(&guard, tripped_at) {
                        tracing::info!(guard, "released");
                        self.begin_anew(&guard, metric, at, now);
                        gate.set(Slot::Guards, self.guards.restrictions());
                        self.shown = Arc::new(self.guards.view());
                    }
                }
                // The bound on restarts holds in the next process only if the ledger has it.
                Record::Tripped(trip) if trip.action == GuardAction::Restart => self.restart_due = Some(trip),
                _ => {}
            }
        }
    }

    /// Who releases a trip has accepted what led to it, and nothing else: no other metric begins anew, and a loss does for no
    /// other guard.
    fn begin_anew(&mut self, guard: &str, metric: GuardMetric, at: Timestamp, now: Now) {
        match metric {
            GuardMetric::DailyLossPercent | GuardMetric::HourlyLossQuote => self.equity.accept(guard, at),
            _ => {
                self.trades.restart(metric, now.boot);
                self.wiring.meters.lock().restart(metric);
            }
        }
    }
}
