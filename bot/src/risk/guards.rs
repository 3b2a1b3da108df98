//! Guards: figures that are watched all the time, and what a bad one takes from the bot (SAFETY §7). Pure.
//!
//! [`Guards`] turns readings into verdicts, once a second. [`meters`], [`equity`] and [`trades`] gather what the readings are
//! made of, [`watch`] puts the verdicts in force.

pub mod equity;
pub mod meters;
pub mod readings;
pub mod restarts;
pub mod trades;
pub mod watch;
mod watched;

use std::collections::BTreeMap;
use std::time::Duration;

use arbbot_crds::control::{Restriction, guard_restriction};
use arbbot_crds::guards::{
    EVALUATED_EVERY_SECONDS, Guard, GuardAction, GuardMetric, GuardProblem, GuardState, GuardStatus,
};
use arbbot_crds::incident::IncidentId;
use k8s_openapi::jiff::Timestamp;

use crate::ledger::GuardTrip;
pub use readings::{Reading, Readings};
pub use watch::GuardWatch;
use watched::{Level, Watched};

/// How often the guards are evaluated.
pub const EVERY: Duration = Duration::from_secs(EVALUATED_EVERY_SECONDS as u64);

/// The guards of a bot, and how far each is.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    watched: BTreeMap<String, Watched>,
    problems: Vec<GuardProblem>,
}

/// What an evaluation has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A guard has tripped; what it demands is in [`Guards::restrictions`].
    Tripped(GuardTrip),
    /// What a trip demands has risen: it is another trip, in place of the one of `instead_of`.
    Raised { trip: GuardTrip, instead_of: Timestamp },
    /// A trip has ended by itself.
    Ended { guard: String, tripped_at: Timestamp },
}

impl Change {
    fn ended(trip: &GuardTrip) -> Self {
        Self::Ended { guard: trip.guard.clone(), tripped_at: trip.tripped_at }
    }
}

/// Who names an incident of this bot now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// uid of the ArbBot.
    pub uid: String,
    /// metadata.generation in force.
    pub generation: i64,
}

impl Guards {
    /// The guards with the trips that an earlier process left.
    #[must_use]
    pub fn recovered(guards: &[Guard], problems: Vec<GuardProblem>, trips: Vec<GuardTrip>) -> Self {
        let mut this = Self::default();
        this.configure(guards, problems);
        for trip in trips {
            this.remember(trip);
        }
        this
    }

    /// Takes in a trip that the ledger or status remembers. Of two of one guard, where the process ended while the second was
    /// taking the place of the first, the stronger lasts.
    pub fn remember(&mut self, trip: GuardTrip) {
        let watched = self.watched.entry(trip.guard.clone()).or_insert_with(|| Watched::gone(&trip));
        if watched.tripped.as_ref().is_none_or(|known| trip.action.rank() > known.action.rank()) {
            watched.trip.active = true;
            watched.tripped = Some(trip);
        }
    }

    /// Puts other guards in force. A trip that ends by hand lasts, whatever becomes of its guard; that of another ends
    /// with it.
    pub fn configure(&mut self, guards: &[Guard], problems: Vec<GuardProblem>) -> Vec<Change> {
        self.problems = problems;
        for watched in self.watched.values_mut() {
            watched.is_wanted = false;
        }
        for guard in guards {
            match self.watched.get_mut(&guard.name) {
                Some(watched) => watched.change(guard),
                None => drop(self.watched.insert(guard.name.clone(), Watched::new(guard.clone()))),
            }
        }
        let mut ended = Vec::new();
        self.watched.retain(|_, watched| {
            let stays = watched.is_wanted || watched.is_latched();
            ended.extend(watched.tripped.as_ref().filter(|_| !stays).map(Change::ended));
            stays
        });
        ended
    }

    /// One evaluation of every guard.
    pub fn evaluate(&mut self, readings: &Readings, source: &Source, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for watched in self.watched.values_mut().filter(|watched| watched.is_wanted) {
            changes.extend(watched.evaluate(readings.of_guard(&watched.guard), source, now));
        }
        changes
    }

    /// The trips that end by hand.
    pub fn latched(&self) -> impl Iterator<Item = (&GuardTrip, &IncidentId)> {
        self.trips().filter_map(|trip| Some((trip, trip.incident.as_ref()?)))
    }

    /// Every trip that has not ended.
    pub fn trips(&self) -> impl Iterator<Item = &GuardTrip> {
        self.watched.values().filter_map(|watched| watched.tripped.as_ref())
    }

    /// Ends the trip of `tripped_at`, once its release is durable. Returns what its guard watches; None: it has not tripped,
    /// or what it demands has risen since, which nobody has released.
    pub fn release(&mut self, guard: &str, tripped_at: Timestamp) -> Option<GuardMetric> {
        let watched = self.watched.get_mut(guard)?;
        watched.tripped.take_if(|trip| trip.tripped_at == tripped_at)?;
        (watched.trip, watched.warning, watched.warns) = (Level::default(), Level::default(), None);
        let metric = watched.guard.metric;
        if !watched.is_wanted {
            self.watched.remove(guard);
        }
        Some(metric)
    }

    /// What the trips demand.
    #[must_use]
    pub fn restrictions(&self) -> Vec<Restriction> {
        let demand = |watched: &Watched| {
            let trip = watched.tripped.as_ref()?;
            guard_restriction(&trip.guard, watched.action(), watched.why(trip))
        };
        self.watched.values().filter_map(demand).collect()
    }

    /// How far the worst guard of each metric is.
    #[must_use]
    pub fn states(&self) -> BTreeMap<GuardMetric, GuardState> {
        let mut states = BTreeMap::new();
        for watched in self.watched.values() {
            let state: &mut GuardState = states.entry(watched.guard.metric).or_default();
            *state = (*state).max(watched.state());
        }
        states
    }

    /// The guards as status shows them.
    #[must_use]
    pub fn view(&self) -> GuardsView {
        GuardsView {
            shown: self.watched.values().filter_map(Watched::shown).collect(),
            problems: self.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The guards that warn or have tripped, and what is wrong with the spec's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardsView {
    pub shown: Vec<Shown>,
    pub problems: Vec<String>,
}

/// A guard that warns or has tripped.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub status: GuardStatus,
    /// For people: guard, value, threshold, and what ends it.
    pub message: String,
}

impl Shown {
    /// Whether it takes something from the bot.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.status.state == GuardState::Tripped
            && !matches!(self.status.action, GuardAction::Warn | GuardAction::Restart)
    }
}

#[cfg(test)]
mod tests;
