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
    /// Counts the incidents that ever began in this process.
    began: u64,
    /// The ledger did not take a release that a person has asked for, so it is none yet.
    is_release_refused: bool,
}

impl Latches {
    /// The latches that the ledger remembers.
    #[must_use]
    pub fn recovered(incidents: Vec<IncidentRecord>, released: Vec<IncidentId>) -> Self {
        let began = u64::try_from(incidents.len()).unwrap_or(u64::MAX);
        let open = incidents.into_iter().map(|incident| (incident.id.clone(), incident)).collect();
        Self { open, released: released.into_iter().collect(), began, is_release_refused: false }
    }

    /// Takes in the latches that status remembers and the ledger may have lost. Returns those that are new here.
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
        changed
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
            return rises.then(|| open.clone());
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
        Some(record)
    }

    /// Follows the saga. Returns the records that changed.
    pub fn progress(&mut self, proof: &Proof) -> Vec<IncidentRecord> {
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

    /// When the oldest open incident began.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.values().map(|record| record.engaged_at).min()
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
mod tests {
    use super::*;

    fn engaged(id: &str) -> Engagement {
        Engagement {
            id: id.parse().unwrap(),
            source: "ArbBot/carry".into(),
            action: KillAction::Flatten,
            reason: "drill".into(),
            release: None,
        }
    }

    fn ids(latches: &Latches) -> Vec<String> {
        latches.status().into_iter().map(|incident| incident.id).collect()
    }

    /// Invariant 2. Proven by mutation: `observe` dropping what is no longer engaged.
    #[test]
    fn a_latch_outlives_its_source() {
        let mut latches = Latches::default();
        latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
        latches.observe(&[], Timestamp::UNIX_EPOCH);
        assert_eq!(ids(&latches), ["aaaaaaaa-3"]);
        assert_eq!(latches.restrictions().len(), 1);
    }

    #[test]
    fn a_kill_that_stays_engaged_is_one_incident_and_one_engaged_again_is_another() {
        let mut latches = Latches::default();
        latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
        latches.observe(&[engaged("aaaaaaaa-4")], Timestamp::UNIX_EPOCH);
        assert_eq!(ids(&latches), ["aaaaaaaa-3"], "another field of the spec changed");
        latches.observe(&[], Timestamp::UNIX_EPOCH);
        latches.observe(&[engaged("aaaaaaaa-6")], Timestamp::UNIX_EPOCH);
        assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-6"]);
    }

    #[test]
    fn a_release_that_the_bot_slept_through_does_not_cover_the_next_kill() {
        let mut latches = Latches::default();
        latches.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
        // Released in generation 4, engaged again in 5; only 5 was seen.
        let again = Engagement { release: "aaaaaaaa-3".parse().ok(), ..engaged("aaaaaaaa-5") };
        latches.observe(&[again], Timestamp::UNIX_EPOCH);
        assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-5"]);
    }

    #[test]
    fn status_restores_a_latch_that_the_ledger_lost_but_not_one_that_was_released() {
        let mut first = Latches::default();
        first.observe(&[engaged("aaaaaaaa-3")], Timestamp::UNIX_EPOCH);
        let status = first.status();
        let mut lost = Latches::default();
        assert_eq!(lost.remember(&status).len(), 1);
        assert_eq!(ids(&lost), ["aaaaaaaa-3"]);
        let mut released = Latches::recovered(Vec::new(), vec!["aaaaaaaa-3".parse().unwrap()]);
        assert!(released.remember(&status).is_empty());
    }

    fn trip(id: &str) -> GuardTrip {
        GuardTrip {
            guard: "loss".into(),
            metric: arbbot_crds::guards::GuardMetric::DailyLossPercent,
            action: arbbot_crds::guards::GuardAction::Kill,
            value: rust_decimal::Decimal::TWO,
            threshold: rust_decimal::Decimal::ONE,
            tripped_at: Timestamp::UNIX_EPOCH,
            incident: id.parse().ok(),
        }
    }

    #[test]
    fn a_guards_kill_is_an_incident_of_its_own_and_the_switch_opens_another() {
        let mut latches = Latches::default();
        let now = Timestamp::UNIX_EPOCH;
        let record = latches.engage_by_guard(&trip("aaaaaaaa-3"), now).unwrap();
        assert_eq!((record.source.as_str(), record.action), ("guard/loss", KillAction::Flatten));
        assert_eq!(latches.engage_by_guard(&trip("aaaaaaaa-3"), now), None, "it is open");
        latches.observe(&[], now);
        latches.observe(&[engaged("aaaaaaaa-4")], now);
        assert_eq!(ids(&latches), ["aaaaaaaa-3", "aaaaaaaa-4"]);
        latches.release(&"aaaaaaaa-3".parse().unwrap());
        assert_eq!(latches.engage_by_guard(&trip("aaaaaaaa-3"), now), None, "it was released");
        // In the generation of a kill that is open it is the same incident, and flattens.
        let mut both = Latches::default();
        both.observe(&[Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") }], now);
        let record = both.engage_by_guard(&trip("aaaaaaaa-3"), now).unwrap();
        assert_eq!((record.source.as_str(), record.action), ("ArbBot/carry", KillAction::Flatten));
    }

    #[test]
    fn the_action_of_a_running_kill_may_rise_but_never_fall() {
        let mut latches = Latches::default();
        let cancel = Engagement { action: KillAction::CancelOrders, ..engaged("aaaaaaaa-3") };
        latches.observe(std::slice::from_ref(&cancel), Timestamp::UNIX_EPOCH);
        latches.observe(&[engaged("aaaaaaaa-4")], Timestamp::UNIX_EPOCH);
        assert_eq!(latches.status()[0].action, KillAction::Flatten);
        latches.observe(&[cancel], Timestamp::UNIX_EPOCH);
        assert_eq!(latches.status()[0].action, KillAction::Flatten);
    }
}
