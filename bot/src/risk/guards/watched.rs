//! One guard: how its values stand to its thresholds, when it warns, trips and rises, and what people are told of it.

use arbbot_crds::guards::{Guard, GuardAction, GuardRelease, GuardState, GuardStatus, RELEASED_AFTER};
use arbbot_crds::incident::IncidentId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Change, Reading, Shown, Source};
use crate::ledger::GuardTrip;

/// One guard.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) guard: Guard,
    /// Whether the spec, or the defaults, still have it: one that is gone stays until its trip is released by hand.
    pub(super) is_wanted: bool,
    pub(super) warning: Level,
    pub(super) trip: Level,
    pub(super) warns: Option<Began>,
    pub(super) tripped: Option<GuardTrip>,
}

/// When a warning began, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Began {
    at: Timestamp,
    value: Decimal,
    threshold: Decimal,
}

/// A threshold and how the last values stood to it. Nothing but the values moves the two counts: so a worse series of values
/// is never further from being active.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Evaluations in a row that were beyond it.
    beyond: u32,
    /// Evaluations in a row that were better by the hysteresis.
    better: u32,
    pub(super) active: bool,
}

impl Level {
    fn evaluate(&mut self, guard: &Guard, threshold: Option<Decimal>, reading: Reading) {
        let Some(threshold) = threshold else {
            *self = Self::default();
            return;
        };
        let (is_beyond, is_better) = match reading {
            // Nobody knows: neither worse nor better.
            Reading::Unknown => return,
            Reading::Nothing => (false, true),
            Reading::Value(value) => {
                let is_beyond = guard.is_beyond(value, threshold);
                let ends_at = guard.ends_at(threshold);
                (is_beyond, !is_beyond && (value == ends_at || !guard.is_beyond(value, ends_at)))
            }
        };
        self.beyond = if is_beyond { self.beyond.saturating_add(1) } else { 0 };
        self.better = if is_better { self.better.saturating_add(1) } else { 0 };
        if self.beyond >= guard.confirmations {
            self.active = true;
        } else if self.better >= RELEASED_AFTER {
            self.active = false;
        }
    }
}

impl Watched {
    pub(super) fn new(guard: Guard) -> Self {
        Self { guard, is_wanted: true, warning: Level::default(), trip: Level::default(), warns: None, tripped: None }
    }

    /// A guard of which only a trip is known.
    pub(super) fn gone(trip: &GuardTrip) -> Self {
        let guard = Guard {
            name: trip.guard.clone(),
            metric: trip.metric,
            warn_at: None,
            trip_at: None,
            action: trip.action,
            confirmations: 1,
            release: trip.incident.as_ref().map(|_| GuardRelease::Manual),
        };
        Self { is_wanted: false, ..Self::new(guard) }
    }

    pub(super) fn change(&mut self, guard: &Guard) {
        self.is_wanted = true;
        if self.guard == *guard {
            return;
        }
        if self.guard.metric != guard.metric {
            // Its values so far were of something else.
            self.warning = Level::default();
            self.trip = Level { active: self.tripped.is_some(), ..Level::default() };
        }
        self.guard = guard.clone();
    }

    pub(super) fn is_latched(&self) -> bool {
        self.tripped.as_ref().is_some_and(|trip| trip.incident.is_some())
    }

    /// What the trip does: the action of a trip may rise, never fall, while it lasts by hand.
    pub(super) fn action(&self) -> GuardAction {
        match &self.tripped {
            Some(trip) if trip.incident.is_some() => trip.action.stronger(self.guard.action),
            _ => self.guard.action,
        }
    }

    /// What a trip demands rises with its guard: a kill always does, anything else while the trip ends by hand. It is a trip
    /// of its own then, with the incident of this generation: neither a good value, nor a release of the milder trip, nor a
    /// weaker guard ends what a kill began.
    fn raise(&mut self, source: &Source, now: Timestamp) -> Option<Change> {
        let action = self.guard.action;
        let trip = self.tripped.as_mut()?;
        let rises = action.rank() > trip.action.rank();
        let counts = action == GuardAction::Kill || (trip.incident.is_some() && action != GuardAction::Restart);
        if !rises || !counts {
            return None;
        }
        let instead_of = trip.tripped_at;
        trip.action = action;
        trip.tripped_at = now;
        trip.incident = Some(IncidentId::new(&source.uid, source.generation));
        Some(Change::Raised { trip: trip.clone(), instead_of })
    }

    pub(super) fn evaluate(&mut self, reading: Reading, source: &Source, now: Timestamp) -> Option<Change> {
        if let Some(raised) = self.raise(source, now) {
            return Some(raised);
        }
        let (guard, value) = (&self.guard, reading.value());
        let (warn_at, trip_at) = (guard.warn_at.map(|at| at.0), guard.trip_at.map(|at| at.0));
        self.warning.evaluate(guard, warn_at, reading);
        let began = |threshold: Option<Decimal>| Began {
            at: now,
            value: value.unwrap_or_default(),
            threshold: threshold.unwrap_or_default(),
        };
        self.warns = self.warning.active.then(|| self.warns.take().unwrap_or_else(|| began(warn_at)));
        let level = self.trip;
        self.trip.evaluate(guard, trip_at, reading);
        match &self.tripped {
            None if self.trip.active => {
                let Began { at, value, threshold } = began(trip_at);
                let by_hand = guard.release() == GuardRelease::Manual;
                let trip = GuardTrip {
                    guard: guard.name.clone(),
                    metric: guard.metric,
                    action: guard.action,
                    value,
                    threshold,
                    tripped_at: at,
                    incident: by_hand.then(|| IncidentId::new(&source.uid, source.generation)),
                };
                self.tripped = Some(trip.clone());
                Some(Change::Tripped(trip))
            }
            // It stays active until a person has released it, and then counts anew.
            Some(trip) if trip.incident.is_some() => {
                self.trip.active = level.active;
                None
            }
            Some(trip) if !self.trip.active => {
                let ended = Change::ended(trip);
                self.tripped = None;
                Some(ended)
            }
            _ => None,
        }
    }

    pub(super) fn state(&self) -> GuardState {
        match (&self.tripped, &self.warns) {
            (Some(_), _) => GuardState::Tripped,
            (None, Some(_)) => GuardState::Warns,
            (None, None) => GuardState::Good,
        }
    }

    pub(super) fn why(&self, trip: &GuardTrip) -> String {
        let GuardTrip { metric, value, threshold, .. } = trip;
        let ends = match &trip.incident {
            Some(id) => format!("find the cause, then set spec.killSwitch.release to {id}"),
            None => format!(
                "it ends by itself once the value is {} or better for {RELEASED_AFTER} s",
                self.guard.ends_at(*threshold)
            ),
        };
        format!("{metric} was {}, tripAt is {threshold}: {}; {ends}", short(*value), self.action())
    }

    pub(super) fn shown(&self) -> Option<Shown> {
        let Guard { name, metric, .. } = &self.guard;
        let (state, value, threshold, since, incident, message) = match (&self.tripped, &self.warns) {
            (Some(trip), _) => {
                let incident = trip.incident.as_ref().map(ToString::to_string);
                (GuardState::Tripped, trip.value, trip.threshold, trip.tripped_at, incident, self.why(trip))
            }
            (None, Some(Began { at, value, threshold })) => {
                let trips = self
                    .guard
                    .trip_at
                    .map_or_else(String::new, |at| format!(", and at {at} it trips: {}", self.guard.action));
                let message = format!("{metric} was {}, warnAt is {threshold}{trips}", short(*value));
                (GuardState::Warns, *value, *threshold, *at, None, message)
            }
            (None, None) => return None,
        };
        let status = GuardStatus {
            name: name.clone(),
            metric: *metric,
            state,
            action: self.action(),
            value: short(value),
            threshold: threshold.normalize().to_string(),
            since: Time(since),
            incident,
        };
        Some(Shown { status, message: format!("guard {name}: {message}") })
    }
}

/// A value for people: four decimals, or four digits of what is below one, as a funding rate of 0.00003 is.
fn short(value: Decimal) -> String {
    let digits = if value.abs() < Decimal::ONE { value.round_sf(4) } else { None };
    digits.unwrap_or_else(|| value.round_dp(4)).normalize().to_string()
}
