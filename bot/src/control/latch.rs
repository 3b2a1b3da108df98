//! Latches: every engagement of a kill switch that no human has released yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use arbbot_crds::arbbot::{ArbBot, KillAction};
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::control::{Engagement, GUARD_SOURCE, Restriction, is_released};
use arbbot_crds::incident::{IncidentId, uid8};
use arbbot_crds::status::{IncidentPhase, IncidentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::execution::proof::Proof;
use crate::ledger::{GuardTrip, IncidentRecord};

/// Every open latch. The OR of ledger, status and every live source: losing one of them releases nothing.
#[derive(Clone, Debug, Default)]
pub struct Latches {
    open: BTreeMap<IncidentId, IncidentRecord>,
    released: BTreeSet<IncidentId>,
    /// Since when those of the open that are closing the position do so.
    flattening: BTreeMap<IncidentId, Timestamp>,
    /// Counts the incidents that ever began in this process.
    began: u64,
    /// The ledger did not take a release that a person has asked for, so it is none yet.
    is_release_refused: bool,
}

impl Latches {
    /// The latches that the ledger remembers, and since when those that are closing the position do so.
    #[must_use]
    pub fn recovered(
        incidents: Vec<IncidentRecord>,
        flattening: BTreeMap<IncidentId, Timestamp>,
        released: Vec<IncidentId>,
    ) -> Self {
        let began = u64::try_from(incidents.len()).unwrap_or(u64::MAX);
        let open = incidents.into_iter().map(|incident| (incident.id.clone(), incident)).collect();
        Self { open, released: released.into_iter().collect(), flattening, began, is_release_refused: false }
    }

    /// Takes in the latches that status remembers and the ledger may have lost. Returns those that are new here. Status does
    /// not say when a kill was raised to Flatten, so their deadline counts from the first [`observe`](Self::observe) on.
    pub fn remember(&mut self, incidents: &[IncidentStatus]) -> Vec<IncidentRecord> {
        let mut new = Vec::new();
        for incident in incidents {
            let Ok(id) = incident.id.parse::<IncidentId>() else { continue };
            if self.open.contains_key(&id) || self.released.contains(&id) {
                continue;
            }
            let record = IncidentRecord {
                id: id.clone(),
                source: incident.source.clone(),
                action: incident.action,
                reason: incident.reason.clone(),
                engaged_at: incident.engaged_at.0,
                phase: incident.phase,
                source_engaged: true,
                orders_cancelled_at: incident.orders_cancelled_at.as_ref().map(|time| time.0),
                flat_at: incident.flat_at.as_ref().map(|time| time.0),
            };
            self.open.insert(id, record.clone());
            self.began += 1;
            new.push(record);
        }
        new
    }

    /// Takes in what is engaged now. Returns every record that is new or changed, to be made durable.
    pub fn observe(&mut self, engagements: &[Engagement], now: Timestamp) -> Vec<IncidentRecord> {
        let mut changed = Vec::new();
        for record in self.open.values_mut() {
            let engagement = engagements.iter().find(|engagement| engagement.id.source == record.id.source);
            let engaged = engagement.is_some();
            // The release of the open incident stands in the spec: somebody let go, released and engaged again before
            // this bot looked.
            let released = engagement.is_some_and(|e| e.release.as_ref().is_some_and(|r| r.releases(&record.id)));
            let continues = record.source_engaged && engaged && !released;
            let action = engagement.filter(|_| continues).map_or(record.action, |e| record.action.max(e.action));
            if record.source_engaged != (engaged && continues) || record.action != action {
                if record.action != action {
                    record.phase = IncidentPhase::CancellingOrders;
                }
                record.source_engaged = continues;
                record.action = action;
                changed.push(record.clone());
            }
        }
        for engagement in engagements {
            let continues = |record: &IncidentRecord| record.id.source == engagement.id.source && record.source_engaged;
            if self.open.values().any(continues) || self.released.contains(&engagement.id) {
                continue;
            }
            // A source that was let go and is engaged again opens an incident of its own: a release of the first
            // must not free the second.
            let record = IncidentRecord {
                id: engagement.id.clone(),
                source: engagement.source.clone(),
                action: engagement.action,
                reason: engagement.reason.clone(),
                engaged_at: now,
                phase: IncidentPhase::CancellingOrders,
                source_engaged: true,
                orders_cancelled_at: None,
                flat_at: None,
            };
            self.open.insert(engagement.id.clone(), record.clone());
            self.began += 1;
            changed.push(record);
        }
        self.note_flattening(now);
        changed
    }

    /// Since when a kill closes the position: not since it was engaged, where it only cancelled at first, and anew where a
    /// late fill opens a finished one again.
    fn note_flattening(&mut self, now: Timestamp) {
        let Self { open, flattening, .. } = self;
        flattening.retain(|id, _| open.get(id).is_some_and(IncidentRecord::is_flattening));
        for record in open.values().filter(|record| record.is_flattening()) {
            flattening.entry(record.id.clone()).or_insert(now);
        }
    }

    /// Takes in the kill of a guard of the bot. Returns the record, where it is new or changed.
    pub fn engage_by_guard(&mut self, trip: &GuardTrip, now: Timestamp) -> Option<IncidentRecord> {
        let id = trip.incident.clone()?;
        if self.released.contains(&id) {
            return None;
        }
        if let Some(open) = self.open.get_mut(&id) {
            // The kill switch was engaged in the same generation: one incident, and the stronger action.
            let rises = open.action < KillAction::Flatten;
            if rises {
                (open.action, open.phase) = (KillAction::Flatten, IncidentPhase::CancellingOrders);
            }
            let changed = rises.then(|| open.clone());
            self.note_flattening(now);
            return changed;
        }
        let GuardTrip { guard, metric, value, threshold, .. } = trip;
        let record = IncidentRecord {
            id: id.clone(),
            source: format!("{GUARD_SOURCE}{guard}"),
            action: KillAction::Flatten,
            reason: format!("{metric} was {}, tripAt is {threshold}", value.round_dp(4).normalize()),
            engaged_at: now,
            phase: IncidentPhase::CancellingOrders,
            // The kill switch of the bot is another source, and opens another incident.
            source_engaged: false,
            orders_cancelled_at: None,
            flat_at: None,
        };
        self.open.insert(id, record.clone());
        self.began += 1;
        self.note_flattening(now);
        Some(record)
    }

    /// Follows the saga. Returns the records that changed.
    pub fn progress(&mut self, proof: &Proof, now: Timestamp) -> Vec<IncidentRecord> {
        let mut changed = Vec::new();
        for record in self.open.values_mut() {
            let before = record.clone();
            let gone = proof.orders_gone.first.map(|(_, wall)| wall);
            let flat = proof.flat.first.map(|(_, wall)| wall);
            let flatten = record.action == KillAction::Flatten;
            record.orders_cancelled_at = record.orders_cancelled_at.or(gone);
            record.flat_at = record.flat_at.or(flat);
            let (shown, confirmed) =
                if flatten { (flat, proof.flat.confirmed) } else { (gone, proof.orders_gone.confirmed) };
            record.phase = match (gone, shown) {
                _ if confirmed => IncidentPhase::Finished,
                (_, Some(_)) => IncidentPhase::Confirming,
                (Some(_), None) => IncidentPhase::Flattening,
                (None, None) if record.orders_cancelled_at.is_some() && flatten => IncidentPhase::Flattening,
                (None, None) => IncidentPhase::CancellingOrders,
            };
            if *record != before {
                changed.push(record.clone());
            }
        }
        self.note_flattening(now);
        changed
    }

    /// The latches that a human has released and whose kill has finished (SAFETY §3).
    #[must_use]
    pub fn releasable(&self, bot: &ArbBot, policies: &[&ArbPolicy]) -> Vec<IncidentId> {
        self.open
            .values()
            .filter(|record| record.phase == IncidentPhase::Finished && is_released(&record.id, bot, policies))
            .map(|record| record.id.clone())
            .collect()
    }

    /// Notes whether the ledger did not take a release.
    pub fn release_refused(&mut self, is: bool) {
        self.is_release_refused = is;
    }

    /// Whether a release that a person has asked for is none yet, because the ledger did not take it.
    #[must_use]
    pub fn is_release_refused(&self) -> bool {
        self.is_release_refused
    }

    /// Ends a latch, once its release is durable.
    pub fn release(&mut self, id: &IncidentId) {
        self.open.remove(id);
        self.flattening.remove(id);
        self.released.insert(id.clone());
    }

    /// What the open latches demand.
    #[must_use]
    pub fn restrictions(&self) -> Vec<Restriction> {
        self.open
            .values()
            .map(|record| Restriction::kill(format!("incident/{}", record.id), record.action, record.reason.clone()))
            .collect()
    }

    /// Ids of the open latches whose source is neither the bot nor one of the policies of its namespace.
    #[must_use]
    pub fn orphaned(&self, bot: &ArbBot, policies: &[&ArbPolicy]) -> Vec<String> {
        let uids = policies.iter().map(|policy| &policy.metadata.uid).chain([&bot.metadata.uid]);
        let sources: Vec<_> = uids.map(|uid| uid8(uid.as_deref().unwrap_or_default())).collect();
        self.open.keys().filter(|id| !sources.contains(&id.source)).map(ToString::to_string).collect()
    }

    /// The open latches, for status.
    #[must_use]
    pub fn status(&self) -> Vec<IncidentStatus> {
        self.open
            .values()
            .map(|record| IncidentStatus {
                id: record.id.to_string(),
                source: record.source.clone(),
                phase: record.phase,
                action: record.action,
                reason: record.reason.clone(),
                engaged_at: Time(record.engaged_at),
                orders_cancelled_at: record.orders_cancelled_at.map(Time),
                flat_at: record.flat_at.map(Time),
            })
            .collect()
    }

    /// Since when the position is being closed: the oldest of the kills that do so and have not finished.
    #[must_use]
    pub fn kill_began(&self) -> Option<Timestamp> {
        self.flattening.values().min().copied()
    }

    /// The records of all open latches.
    #[must_use]
    pub fn records(&self) -> Vec<IncidentRecord> {
        self.open.values().cloned().collect()
    }

    /// Counts the incidents that ever began.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.began
    }
}

#[cfg(test)]
mod tests;
