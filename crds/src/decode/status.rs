//! Reading a status: a part of it that cannot be read is left out, an open incident never is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::arbbot::{ArbBot, KillAction};
use crate::arbpolicy::{ArbPolicy, ArbPolicyStatus};
use crate::status::{ArbBotStatus, BotStatus, IncidentPhase, IncidentStatus, KillSwitchStatus};

/// A kind whose status machines wrote, perhaps of another release: nobody can mend it, so it must not keep the rest from
/// being read.
pub trait ReadableStatus {
    /// The status without what cannot be read.
    fn readable_status(raw: &Value) -> Value;
}

impl ReadableStatus for ArbBot {
    fn readable_status(raw: &Value) -> Value {
        json!(bot_status(raw))
    }
}

impl ReadableStatus for ArbPolicy {
    fn readable_status(raw: &Value) -> Value {
        Value::Object(readable::<ArbPolicyStatus>(raw))
    }
}

/// The status as far as it can be read: machines wrote it, so what cannot be read is left out without a word. An open
/// incident is never left out.
pub(super) fn bot_status(raw: &Value) -> ArbBotStatus {
    if let Ok(status) = ArbBotStatus::deserialize(raw) {
        return status;
    }
    let mut fields = readable::<ArbBotStatus>(raw);
    if let Some(bot) = raw.get("bot").filter(|_| !fields.contains_key("bot")) {
        fields.insert("bot".to_owned(), Value::Object(readable::<BotStatus>(bot)));
    }
    let mut status: ArbBotStatus = Deserialize::deserialize(Value::Object(fields)).unwrap_or_default();
    if status.kill_switch.is_none() {
        let incidents = raw.pointer("/killSwitch/incidents").and_then(Value::as_array).into_iter().flatten();
        let incidents: Vec<_> = incidents.filter_map(incident).collect();
        status.kill_switch = (!incidents.is_empty()).then_some(KillSwitchStatus { incidents });
    }
    status
}

/// An open incident: whatever has an id is one.
fn incident(raw: &Value) -> Option<IncidentStatus> {
    if let Ok(incident) = IncidentStatus::deserialize(raw) {
        return Some(incident);
    }
    let text = |name: &str| raw.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let field = |name: &str| raw.get(name).unwrap_or(&Value::Null);
    Some(IncidentStatus {
        id: text("id")?,
        source: text("source").unwrap_or_else(|| "unknown".to_owned()),
        phase: IncidentPhase::CancellingOrders,
        action: Deserialize::deserialize(field("action")).unwrap_or(KillAction::Flatten),
        reason: text("reason").unwrap_or_default(),
        engaged_at: Deserialize::deserialize(field("engagedAt")).unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        orders_cancelled_at: None,
        flat_at: None,
    })
}

/// The fields of an object that `T` can hold one by one.
fn readable<T: DeserializeOwned>(raw: &Value) -> Map<String, Value> {
    let fields = raw.as_object().into_iter().flatten();
    let holds = |name: &String, value: &Value| T::deserialize(&json!({name.as_str(): value})).is_ok();
    fields.filter(|(name, value)| holds(name, value)).map(|(name, value)| (name.clone(), value.clone())).collect()
}
