//! Scenarios: faults at given or random times, from a YAML file. The same seed gives the same times.

pub mod random;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faults::request::{FaultRequest, parse_duration};
use super::{App, State};
use crate::exchange::Now;
use random::Random;

/// Largest file, and most steps in it.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_STEPS: usize = 100_000;
/// Shortest time between two repetitions.
const SHORTEST: SignedDuration = SignedDuration::from_millis(10);

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Default: the exchange's.
    seed: Option<u64>,
    #[serde(default)]
    steps: Vec<Map<String, Value>>,
    /// A script made from the seed, besides the steps.
    random: Option<Random>,
}

/// When a step happens.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Times {
    at: Option<String>,
    every: Option<String>,
    until: Option<String>,
    jitter: Option<String>,
}

#[derive(Debug, Clone)]
struct Step {
    request: FaultRequest,
    /// As it stands in the file, for people.
    shown: Value,
    repeat: Option<Repeat>,
    jitter: SignedDuration,
}

#[derive(Debug, Clone, Copy)]
struct Repeat {
    every: SignedDuration,
    until: Timestamp,
    /// The time of the next repetition before its jitter.
    next: Timestamp,
}

/// What is still to come, by time.
#[derive(Debug)]
pub struct Scenario {
    steps: BTreeMap<(Timestamp, u64), Step>,
    added: u64,
    rng: ChaCha8Rng,
    seed: u64,
}

impl Scenario {
    pub fn none() -> Self {
        Self { steps: BTreeMap::new(), added: 0, rng: ChaCha8Rng::seed_from_u64(0), seed: 0 }
    }

    /// Reads YAML (or JSON). Times count from `start`.
    ///
    /// # Errors
    /// Names the step and what is wrong with it.
    pub fn read(text: &str, seed: u64, start: Timestamp) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("a scenario has at most {MAX_BYTES} bytes"));
        }
        if text.trim().is_empty() {
            return Ok(Self::none());
        }
        let file: File = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let seed = file.seed.unwrap_or(seed);
        let mut scenario = Self { steps: BTreeMap::new(), added: 0, rng: ChaCha8Rng::seed_from_u64(seed), seed };
        let mut steps = file.steps;
        if let Some(random) = &file.random {
            steps.extend(random.steps(&mut scenario.rng)?);
        }
        if steps.len() > MAX_STEPS {
            return Err(format!("a scenario has at most {MAX_STEPS} steps"));
        }
        for (index, step) in steps.into_iter().enumerate() {
            scenario.add(step, start).map_err(|error| format!("step {}: {error}", index + 1))?;
        }
        Ok(scenario)
    }

    fn add(&mut self, mut step: Map<String, Value>, start: Timestamp) -> Result<(), String> {
        let shown = Value::Object(step.clone());
        let times: Map<String, Value> =
            ["at", "every", "until", "jitter"].iter().filter_map(|name| step.remove_entry(*name)).collect();
        let times: Times = serde_json::from_value(Value::Object(times)).map_err(|e| format!("a time: {e}"))?;
        let request = FaultRequest::from_object(step)?;
        let duration = |text: &Option<String>| text.as_deref().map(parse_duration).transpose();
        let (at, every) = (duration(&times.at)?, duration(&times.every)?);
        let first = at.or(every).ok_or("it needs at or every")?;
        if every.is_some_and(|every| every < SHORTEST) {
            return Err(format!("every must be at least {SHORTEST}"));
        }
        if times.until.is_some() && every.is_none() {
            return Err("until is for every; use for".into());
        }
        let until = duration(&times.until)?.map_or(Timestamp::MAX, |until| after(start, until));
        let next = after(start, first);
        let repeat = every.map(|every| Repeat { every, until, next });
        self.schedule(Step { request, shown, repeat, jitter: duration(&times.jitter)?.unwrap_or_default() }, next);
        Ok(())
    }

    fn schedule(&mut self, step: Step, at: Timestamp) {
        let jitter = i64::try_from(step.jitter.as_millis()).unwrap_or(i64::MAX);
        let late = if jitter > 0 { self.rng.random_range(0..=jitter) } else { 0 };
        self.added += 1;
        self.steps.insert((after(at, SignedDuration::from_millis(late)), self.added), step);
    }

    /// The next fault that is due; call until there is none.
    fn due(&mut self, now: Timestamp) -> Option<FaultRequest> {
        if self.steps.first_key_value().is_none_or(|((at, _), _)| *at > now) {
            return None;
        }
        let (_, step) = self.steps.pop_first()?;
        if let Some(repeat) = step.repeat {
            let next = after(repeat.next, repeat.every);
            if next <= repeat.until {
                self.schedule(Step { repeat: Some(Repeat { next, ..repeat }), ..step.clone() }, next);
            }
        }
        Some(step.request)
    }

    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|((at, _), step)| json!({"time": at, "repeats": step.repeat.is_some(), "step": step.shown}))
            .collect();
        json!({"seed": self.seed, "steps": steps})
    }
}

impl App {
    /// Does what the scenario wants by now.
    pub fn run_scenario(&self, state: &mut State, now: Now) {
        while let Some(request) = state.scenario.due(now.time) {
            tracing::info!(?request, "scenario");
            if let Err(error) = self.inject(state, &request, now) {
                tracing::warn!(%error, ?request, "a step of the scenario failed");
            }
        }
    }
}

fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
