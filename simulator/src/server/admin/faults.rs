//! `/_simulator/faults` and `/_simulator/scenario`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Reply, read};
use crate::exchange::Exchange;
use crate::server::App;
use crate::server::error::ApiError;
use crate::server::faults::request::FaultRequest;
use crate::server::scenario::Scenario;

/// Faults that are on, sessions that are closed, and how often each kind of fault took effect so far.
pub async fn active(State(app): State<Arc<App>>) -> Json<Value> {
    let (mut state, now) = app.lock();
    let faults = json!(state.faults.active(now.time));
    let struck: BTreeMap<_, _> = state.faults.struck().iter().chain(&state.exchange.behaviour_struck).collect();
    let closed_sessions = closed_sessions(&state.exchange, now.time);
    Json(json!({"faults": faults, "closed_sessions": closed_sessions, "struck": struck}))
}

/// Switches one fault on, or with `{"clear": true}` all off.
pub async fn set(State(app): State<Arc<App>>, bytes: Bytes) -> Reply {
    let mut object: Map<String, Value> = read(&bytes)?;
    let clear = object.remove("clear").is_some_and(|clear| clear == Value::Bool(true));
    {
        let (mut state, now) = app.lock();
        if clear && object.is_empty() {
            app.clear_faults(&mut state, now);
        } else if clear || object.is_empty() {
            return Err(ApiError::InvalidArgument("give either a kind or \"clear\": true".into()));
        } else {
            let request = FaultRequest::from_object(object).map_err(ApiError::InvalidArgument)?;
            app.inject(&mut state, &request, now).map_err(ApiError::InvalidArgument)?;
        }
    }
    Ok(active(State(app)).await)
}

/// What the scenario will still do.
pub async fn scenario(State(app): State<Arc<App>>) -> Json<Value> {
    let (state, _) = app.lock();
    Json(state.scenario.to_json())
}

/// Starts a scenario, YAML or JSON, in place of the running one; its times count from now. An empty one ends it.
pub async fn set_scenario(State(app): State<Arc<App>>, bytes: Bytes) -> Reply {
    let text = std::str::from_utf8(&bytes).map_err(|error| ApiError::InvalidArgument(error.to_string()))?;
    let (mut state, now) = app.lock();
    let seed = state.exchange.settings.seed;
    state.scenario = Scenario::read(text, seed, now.time).map_err(ApiError::InvalidArgument)?;
    Ok(Json(state.scenario.to_json()))
}

fn closed_sessions(exchange: &Exchange, now: Timestamp) -> Value {
    let closed = exchange.markets.iter().filter(|m| m.is_closed(now));
    closed.map(|m| json!({"product_id": m.product.id, "opens": m.closed_until})).collect()
}
