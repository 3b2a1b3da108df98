//! Reading an `ArbBot` or `ArbPolicy` that our types cannot hold as a whole: stored under an older or newer schema, or
//! with something unreadable in one field. Pure.
//!
//! A kill is never unread, and nothing that cannot be read loosens anything. Where the typed decode fails, the parts that
//! restrict (mode, kill switch, limits) are read one by one from the JSON and tighten what was in force before; one that
//! cannot be read counts as the most restrictive value that could be meant. Everything else stays as it was before.

mod status;

#[cfg(test)]
mod tests;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::arbbot::{ArbBot, ArbBotSpec, KillAction, KillSwitch, Mode};
use crate::arbpolicy::{ArbPolicy, ArbPolicySpec, PolicyKillSwitch};
use crate::limits::LimitCeilings;
pub use status::ReadableStatus;
use status::bot_status;

/// What a line without anything behind or below it is told.
const NULL: &str = "it is null: write what belongs there, or leave the name out where it has a default";
/// Longest text that is quoted of what cannot be read.
const WHY: usize = 200;
/// Longest reason of a kill that is taken over; the schema's own bound.
const REASON: usize = 256;

/// An object as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<T> {
    /// What is in force.
    pub object: T,
    /// What of the spec cannot be read. Empty: everything was.
    pub unreadable: Vec<Unreadable>,
}

/// A field that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its path, for example `spec.killSwitch.deadline`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read: {}", self.field, self.why)
    }
}

/// Why nothing can be done with an ArbBot that was never read before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; without it nothing can be done for this ArbBot: mend the field, or upgrade the bot to the release of its schema"
)]
pub struct DecodeError(pub Unreadable);

/// The parts of a spec without which a bot knows neither where nor what it trades: they have no default to fall back on.
const INDISPENSABLE: [&str; 4] = ["execution", "venue", "strategy", "credentials"];

/// Reads an ArbBot. `data` is the object without its metadata; `before` is the spec in force until now.
///
/// # Errors
/// It was never read before, and a part without which nothing can be done cannot be read now.
pub fn arb_bot(
    metadata: ObjectMeta,
    data: &Value,
    before: Option<&ArbBotSpec>,
) -> Result<Decoded<ArbBot>, DecodeError> {
    let raw = data.get("spec").unwrap_or(&Value::Null);
    let (spec, unreadable) = match whole_spec(raw) {
        Ok(spec) => (spec, Vec::new()),
        Err(first) => bot_spec(raw, before, first)?,
    };
    let status = data.get("status").filter(|status| !status.is_null()).map(bot_status);
    Ok(Decoded { object: ArbBot { metadata, spec, status }, unreadable })
}

/// Reads an ArbBot whose spec somebody refuses for a reason of their own (`refused`): as one that cannot be read as a whole.
#[must_use]
pub fn refused_arb_bot(
    metadata: ObjectMeta,
    data: &Value,
    before: &ArbBotSpec,
    refused: Unreadable,
) -> Decoded<ArbBot> {
    let raw = data.get("spec").unwrap_or(&Value::Null);
    let status = data.get("status").filter(|status| !status.is_null()).map(bot_status);
    // With a spec to fall back on it never fails.
    let kept = || (before.clone(), vec![refused.clone()]);
    let (spec, mut unreadable) = bot_spec(raw, Some(before), refused.clone()).unwrap_or_else(|_| kept());
    // The reason to refuse it comes first; what follows from the parts that it lacks is no news.
    unreadable.retain(|unreadable| *unreadable != refused);
    unreadable.insert(0, refused);
    Decoded { object: ArbBot { metadata, spec, status }, unreadable }
}

/// Reads an ArbPolicy. `data` is the object without its metadata; `before` is the spec in force until now. What cannot be
/// read counts as ReduceOnly, for every bot of the namespace where the selector is not known.
#[must_use]
pub fn arb_policy(metadata: ObjectMeta, data: &Value, before: Option<&ArbPolicySpec>) -> Decoded<ArbPolicy> {
    let raw = data.get("spec").unwrap_or(&Value::Null);
    let (spec, unreadable) = match whole::<ArbPolicySpec>(raw) {
        Ok(spec) => (spec, Vec::new()),
        Err(first) => policy_spec(raw, before, first),
    };
    // Only the operator writes it, and counts it anew.
    let status = data.get("status").and_then(|status| Deserialize::deserialize(status).ok());
    Decoded { object: ArbPolicy { metadata, spec, status }, unreadable }
}

fn bot_spec(
    raw: &Value,
    before: Option<&ArbBotSpec>,
    first: Unreadable,
) -> Result<(ArbBotSpec, Vec<Unreadable>), DecodeError> {
    let mut unreadable = Vec::new();
    let mended = mended(raw, before, first, &mut unreadable);
    let mut spec = match (before, mended) {
        // Also what can be read of it does not count, but where it restricts.
        (Some(before), _) => before.clone(),
        (None, mended) => mended?,
    };
    let mode = mode(raw, Mode::Halted, &mut unreadable);
    let (ceilings, all_limits) = limits(raw, &mut unreadable);
    let without_limits = if all_limits { Mode::Active } else { Mode::ReduceOnly };
    // What was in force before is not known: what replaces an unreadable part by its default could be looser.
    let without_before = if before.is_some() { Mode::Active } else { Mode::ReduceOnly };
    spec.mode = [mode, without_limits, without_before].into_iter().fold(spec.mode, stricter);
    spec.risk.limits = spec.risk.limits.under(&ceilings);
    let kill = Kill::read(raw, &mut unreadable);
    let engaged = kill.engaged.unwrap_or(true);
    let old = &spec.kill_switch;
    spec.kill_switch = KillSwitch {
        engaged: engaged || old.engaged,
        action: joined(old.engaged.then_some(old.action), engaged.then_some(kill.action)).unwrap_or(old.action),
        reason: if engaged { kill.reason } else { old.reason.clone() },
        // What cannot be read as a whole releases nothing.
        release: String::new(),
        ..old.clone()
    };
    Ok((spec, each_once(unreadable)))
}

/// The spec with the parts that cannot be read as they were before; of a bot that was never read, without them. Notes
/// each of them.
fn mended(
    raw: &Value,
    before: Option<&ArbBotSpec>,
    first: Unreadable,
    unreadable: &mut Vec<Unreadable>,
) -> Result<ArbBotSpec, DecodeError> {
    let before = before.and_then(|before| serde_json::to_value(before).ok()).unwrap_or_default();
    let mut fields = raw.as_object().cloned().unwrap_or_default();
    let mut error = first;
    // Every part is looked at once: what replaces it can be read.
    for _ in 0..=fields.len() + INDISPENSABLE.len() {
        let part = error.field.split('.').nth(1).unwrap_or_default().to_owned();
        unreadable.push(error.clone());
        match before.get(&part) {
            Some(good) => drop(fields.insert(part, good.clone())),
            None if INDISPENSABLE.contains(&part.as_str()) || fields.remove(&part).is_none() => break,
            None => {}
        }
        match whole_spec(&Value::Object(fields.clone())) {
            Ok(spec) => return Ok(spec),
            Err(next) => error = next,
        }
    }
    Err(DecodeError(error))
}

fn policy_spec(raw: &Value, before: Option<&ArbPolicySpec>, first: Unreadable) -> (ArbPolicySpec, Vec<Unreadable>) {
    let mut unreadable = vec![first];
    let mut spec = before.cloned().unwrap_or_default();
    let selector = match raw.get("selector") {
        None | Some(Value::Null) => Some(None),
        Some(selector) => take(typed::<LabelSelector>("spec.selector", selector), &mut unreadable).map(Some),
    };
    // Whom it selects is known where the selector can be read and is the one in force until now.
    spec.selector = selector.filter(|now| before.is_none_or(|before| before.selector == *now)).flatten();
    let mode = mode(raw, Mode::ReduceOnly, &mut unreadable);
    let (ceilings, all_limits) = limits(raw, &mut unreadable);
    let kill = Kill::read(raw, &mut unreadable);
    let all_known = raw.is_object() && all_limits && kill.engaged.is_some();
    let without_all = if all_known { Mode::Active } else { Mode::ReduceOnly };
    spec.mode = [mode, without_all].into_iter().fold(spec.mode, stricter);
    spec.risk.limits = lower(&spec.risk.limits, &ceilings);
    let engaged = kill.engaged.unwrap_or(false);
    let old = &spec.kill_switch;
    spec.kill_switch = PolicyKillSwitch {
        engaged: engaged || old.engaged,
        action: joined(old.engaged.then_some(old.action), engaged.then_some(kill.action)).unwrap_or(old.action),
        reason: if engaged { kill.reason } else { old.reason.clone() },
        release: String::new(),
    };
    (spec, each_once(unreadable))
}

/// What can be read of a kill switch.
struct Kill {
    /// None: it cannot be read.
    engaged: Option<bool>,
    action: KillAction,
    reason: String,
}

impl Kill {
    fn read(spec: &Value, unreadable: &mut Vec<Unreadable>) -> Self {
        let not_engaged = Self { engaged: Some(false), ..Self::unknown() };
        match spec.get("killSwitch") {
            None | Some(Value::Null) => not_engaged,
            Some(Value::Object(fields)) => {
                let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
                let path = |name: &str| format!("spec.killSwitch.{name}");
                let engaged = match field("engaged") {
                    None => Some(false),
                    Some(value) => take(typed(&path("engaged"), value), unreadable),
                };
                let action = field("action").map(|value| take(typed(&path("action"), value), unreadable));
                let reason =
                    field("reason").and_then(Value::as_str).map(|reason| reason.chars().take(REASON).collect());
                Self {
                    engaged,
                    action: action.flatten().unwrap_or(KillAction::Flatten),
                    reason: reason.unwrap_or_else(|| Self::unknown().reason),
                }
            }
            Some(other) => {
                unreadable.push(Unreadable::of("spec.killSwitch", format!("{} is not an object", kind(other))));
                Self::unknown()
            }
        }
    }

    fn unknown() -> Self {
        Self { engaged: None, action: KillAction::Flatten, reason: KillSwitch::default().reason }
    }
}

/// The stronger of two actions, where there are any.
fn joined(one: Option<KillAction>, other: Option<KillAction>) -> Option<KillAction> {
    one.max(other)
}

/// `spec.mode`, or `worst` where it cannot be read.
fn mode(spec: &Value, worst: Mode, unreadable: &mut Vec<Unreadable>) -> Mode {
    match spec.get("mode") {
        None | Some(Value::Null) if spec.is_object() => Mode::Active,
        None => worst,
        Some(mode) => take(typed("spec.mode", mode), unreadable).unwrap_or(worst),
    }
}

/// The mode that allows least. Halted forbids more than Stopped: a drain waits under it.
fn stricter(one: Mode, other: Mode) -> Mode {
    if one == Mode::Halted || other == Mode::Halted { Mode::Halted } else { one.max(other) }
}

/// Every limit that can be read, and whether that is all of them.
fn limits(spec: &Value, unreadable: &mut Vec<Unreadable>) -> (LimitCeilings, bool) {
    let mut ceilings = LimitCeilings::default();
    let before = unreadable.len();
    for (path, parent) in [("spec.risk", spec.get("risk")), ("spec.risk.limits", spec.pointer("/risk/limits"))] {
        if let Some(other) = parent.filter(|parent| !parent.is_object() && !parent.is_null()) {
            unreadable.push(Unreadable::of(path, format!("{} is not an object", kind(other))));
        }
    }
    for (name, value) in spec.pointer("/risk/limits").and_then(Value::as_object).into_iter().flatten() {
        match LimitCeilings::deserialize(&json!({name: value})) {
            Ok(one) => ceilings = lower(&ceilings, &one),
            Err(error) => unreadable.push(Unreadable::of(&format!("spec.risk.limits.{name}"), error.to_string())),
        }
    }
    (ceilings, unreadable.len() == before)
}

/// The smaller of each ceiling.
fn lower(one: &LimitCeilings, other: &LimitCeilings) -> LimitCeilings {
    fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
    // Destructured without `..`: a new limit does not compile until it is joined here.
    let LimitCeilings {
        max_position_notional,
        max_order_notional,
        max_leverage,
        max_delta_notional,
        max_leg_imbalance_notional,
        max_open_orders,
        max_orders_per_minute,
        max_slippage_bps,
    } = *one;
    LimitCeilings {
        max_position_notional: least(max_position_notional, other.max_position_notional),
        max_order_notional: least(max_order_notional, other.max_order_notional),
        max_leverage: least(max_leverage, other.max_leverage),
        max_delta_notional: least(max_delta_notional, other.max_delta_notional),
        max_leg_imbalance_notional: least(max_leg_imbalance_notional, other.max_leg_imbalance_notional),
        max_open_orders: least(max_open_orders, other.max_open_orders),
        max_orders_per_minute: least(max_orders_per_minute, other.max_orders_per_minute),
        max_slippage_bps: least(max_slippage_bps, other.max_slippage_bps),
    }
}

impl Unreadable {
    fn of(field: &str, why: impl Into<String>) -> Self {
        Self { field: field.to_owned(), why: why.into().chars().take(WHY).collect() }
    }
}

/// A whole spec.
/// A spec that can be read and lacks nothing.
fn whole_spec(raw: &Value) -> Result<ArbBotSpec, Unreadable> {
    let spec: ArbBotSpec = whole(raw)?;
    match spec.lacks_for_live() {
        None => Ok(spec),
        Some(field) => Err(Unreadable::of(&format!("spec.{field}"), "it is missing, and execution Live needs it")),
    }
}

fn whole<T: DeserializeOwned>(raw: &Value) -> Result<T, Unreadable> {
    // serde reads a list as a struct, by position: an empty one would be a kill switch that is not engaged.
    for path in ["", "/killSwitch", "/risk", "/risk/limits", "/credentials", "/venue/coinbase", "/paper"] {
        if raw.pointer(path).is_some_and(Value::is_array) {
            return Err(Unreadable::of(&format!("spec{}", path.replace('/', ".")), "a list is not an object"));
        }
    }
    typed("spec", raw)
}

fn typed<T: DeserializeOwned>(path: &str, raw: &Value) -> Result<T, Unreadable> {
    serde_path_to_error::deserialize(raw).map_err(|error| {
        let field = match error.path().to_string().as_str() {
            "." => path.to_owned(),
            below => format!("{path}.{below}"),
        };
        let why = error.inner().to_string();
        Unreadable::of(&field, if why.starts_with("invalid type: null") { NULL.to_owned() } else { why })
    })
}

/// The value, or a note that it cannot be read.
fn take<T>(result: Result<T, Unreadable>, unreadable: &mut Vec<Unreadable>) -> Option<T> {
    result.map_err(|error| unreadable.push(error)).ok()
}

/// Each field once, by the first word on it.
fn each_once(unreadable: Vec<Unreadable>) -> Vec<Unreadable> {
    let mut once: Vec<Unreadable> = Vec::new();
    for one in unreadable {
        if once.iter().all(|known| known.field != one.field) {
            once.push(one);
        }
    }
    once
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
