//! Guards: what a bot watches all the time, from where on it matters, and what happens then (SAFETY §7).
//!
//! A guard is one threshold pair on one metric. Those of [`defaults`] are in force unless the spec has a guard of the same
//! name. Nothing about a guard refuses a patch: what cannot be used is ignored and said in a condition.

mod defaults;
mod metric;
pub mod reference;
mod status;

use std::fmt;

use rust_decimal::{Decimal, dec};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use strum::{Display, EnumString};

use crate::decimal::DecimalString;
pub use defaults::defaults;
pub use metric::{GuardMetric, Meaning, Worse};
pub use status::{GuardState, GuardStatus};

/// How often every guard is evaluated, in seconds: what `confirmations` counts.
pub const EVALUATED_EVERY_SECONDS: u32 = 1;
/// Evaluations in a row after which a value that is better again ends a warning or an Auto trip.
pub const RELEASED_AFTER: u32 = 30;
/// How much better than its threshold a value must be for that: a tenth of the threshold.
pub const HYSTERESIS: Decimal = dec!(0.1);
/// Most guards that a spec may have.
pub const MOST: usize = 64;

/// One guard: a metric, from where on it warns and trips, and what a trip does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Name; a guard with the name of a default (docs/guards.md) replaces it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is watched. Unit, window and behaviour without data of each: docs/guards.md.
    pub metric: GuardMetric,
    /// From this value on it warns, in the metric's unit. Absent: it never warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_at: Option<DecimalString>,
    /// From this value on it trips, in the metric's unit. Absent: it never trips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip_at: Option<DecimalString>,
    /// What a trip does: Warn tells; ReduceOnly lets nothing raise a leg; Halt also cancels every order and keeps the
    /// position; Kill closes the position as the kill switch does; Restart ends the process, at most three times an hour,
    /// so that Kubernetes starts it anew. Default ReduceOnly.
    #[serde(default)]
    pub action: GuardAction,
    /// Evaluations in a row, one a second, that must be beyond a threshold before it counts. Default 3.
    #[serde(default = "confirmations")]
    #[schemars(range(min = 1, max = 3600), extend("format" = "int32"))]
    pub confirmations: u32,
    /// How a trip ends: Auto by itself, once the value has been a tenth better than `tripAt` for 30 s; Manual when
    /// `spec.killSwitch.release` names its incident, from status.bot.guards[].incident. Default: Manual for loss and
    /// liquidation metrics, Auto for all others. What Kill began always ends by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<GuardRelease>,
}

const fn confirmations() -> u32 {
    3
}

/// What a trip does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, Display, EnumString)]
pub enum GuardAction {
    Warn,
    #[default]
    ReduceOnly,
    Halt,
    Kill,
    Restart,
}

impl GuardAction {
    /// How much it takes from the bot; a smaller rank is looser.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Warn => 0,
            Self::Restart => 1,
            Self::ReduceOnly => 2,
            Self::Halt => 3,
            Self::Kill => 4,
        }
    }

    /// The action that takes more.
    #[must_use]
    pub fn stronger(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// How a trip ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, Display, EnumString)]
pub enum GuardRelease {
    Auto,
    Manual,
}

impl Guard {
    /// How a trip of it ends.
    #[must_use]
    pub fn release(&self) -> GuardRelease {
        match (self.action, self.release) {
            // A kill is a latch, whatever began it.
            (GuardAction::Kill, _) => GuardRelease::Manual,
            (_, Some(release)) => release,
            (_, None) if self.metric.is_about_loss() => GuardRelease::Manual,
            (_, None) => GuardRelease::Auto,
        }
    }

    /// Whether a value is at or beyond a threshold.
    #[must_use]
    pub fn is_beyond(&self, value: Decimal, threshold: Decimal) -> bool {
        match self.metric.worse() {
            Worse::Higher => value >= threshold,
            Worse::Lower { .. } => value <= threshold,
        }
    }

    /// Where a value must be for a warning or an Auto trip to end.
    #[must_use]
    pub fn ends_at(&self, threshold: Decimal) -> Decimal {
        let margin = threshold * HYSTERESIS;
        match self.metric.worse() {
            Worse::Higher => (threshold - margin).normalize(),
            Worse::Lower { best: None } => (threshold + margin).normalize(),
            Worse::Lower { best: Some(best) } => {
                // A tenth more than 95 % is never reached.
                let room = (best - threshold).max(Decimal::ZERO) / dec!(2);
                (threshold + margin.min(room)).normalize()
            }
        }
    }

    /// The guard in a few words, for Events.
    #[must_use]
    pub fn summary(&self) -> String {
        let at = |at: Option<DecimalString>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let Self { name, metric, warn_at: _, trip_at, action, confirmations, .. } = self;
        let (trip, release) = (at(*trip_at), self.release());
        format!("{name}: {metric} tripAt {trip}, {action}, confirmations {confirmations}, release {release}")
    }
}

/// The guards of a spec, as far as they can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    pub list: Vec<Guard>,
    /// Guards that cannot be read, of another release perhaps. They are ignored.
    pub unreadable: Vec<GuardProblem>,
}

/// What is wrong with a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardProblem {
    /// Its name, or its place in the list where it has none.
    pub guard: String,
    /// What is wrong, what is done instead, and what to do.
    pub why: String,
}

impl fmt::Display for GuardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.risk.guards[{}] {}", self.guard, self.why)
    }
}

/// Longest text that is quoted of a guard that cannot be read.
const QUOTED: usize = 120;

impl<'de> Deserialize<'de> for Guards {
    /// Never fails for a guard that cannot be read: it must not keep the rest of the spec, a kill say, from being read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let mut guards = Self::default();
        let Some(entries) = raw.as_array() else {
            if !raw.is_null() {
                guards.unreadable.push(unreadable("0".to_owned(), "the guards are not a list"));
            }
            return Ok(guards);
        };
        for (i, entry) in entries.iter().enumerate() {
            match Guard::deserialize(entry) {
                Ok(guard) => guards.list.push(guard),
                Err(error) => {
                    let name = entry.get("name").and_then(Value::as_str).map(|name| name.chars().take(63).collect());
                    guards.unreadable.push(unreadable(name.unwrap_or_else(|| i.to_string()), &error.to_string()));
                }
            }
        }
        Ok(guards)
    }
}

fn unreadable(guard: String, why: &str) -> GuardProblem {
    let why: String = why.chars().take(QUOTED).collect();
    let why = format!(
        "cannot be read ({why}): it is ignored, and a default of its name stays in force; mend it, or upgrade the bot"
    );
    GuardProblem { guard, why }
}

impl Serialize for Guards {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl JsonSchema for Guards {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Guards".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = <Vec<Guard>>::json_schema(generator);
        schema.insert("maxItems".to_owned(), MOST.into());
        schema.insert("x-kubernetes-list-type".to_owned(), "map".into());
        schema.insert("x-kubernetes-list-map-keys".to_owned(), serde_json::json!(["name"]));
        schema
    }
}

/// The guards that are in force, and what is wrong with those that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// By name, each once.
    pub guards: Vec<Guard>,
    pub problems: Vec<GuardProblem>,
}

impl Guards {
    /// Whether the spec names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The defaults, replaced by the spec's own of the same name.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let mut guards = defaults();
        let mut problems = self.unreadable.clone();
        for own in &self.list {
            let mut own = own.clone();
            if let (Some(warn), Some(trip)) = (own.warn_at, own.trip_at)
                && warn != trip
                && own.is_beyond(warn.0, trip.0)
            {
                let why = format!("has warnAt {warn} beyond tripAt {trip}: it trips and never warns; exchange the two");
                problems.push(GuardProblem { guard: own.name.clone(), why });
                own.warn_at = None;
            }
            own.confirmations = own.confirmations.max(1);
            match guards.iter_mut().find(|guard| guard.name == own.name) {
                Some(guard) => *guard = own,
                None => guards.push(own),
            }
        }
        guards.sort_by(|a, b| a.name.cmp(&b.name));
        InForce { guards, problems }
    }
}

#[cfg(test)]
mod tests;
