//! `/livez`, `/readyz`, `/metrics`, `/debug/state.json` and `PUT /log-level`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cache::Caches;
use crate::context::Context;
use crate::controller::Controller;
use crate::leadership::Leadership;
use crate::telemetry::LogLevel;

/// Most failing objects that `/debug/state.json` names.
const FAILING: usize = 100;

/// What the admin server shows.
#[derive(Clone)]
pub struct State {
    pub caches: Arc<Caches>,
    pub controller: Arc<Controller>,
    pub context: Arc<Context>,
    pub leadership: Arc<Leadership>,
    pub log_level: LogLevel,
}

/// The admin server, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    state: State,
}

impl Admin {
    /// Binds the address, so that a port in use is an error at start.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, state: State) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        tracing::info!(listen = %listener.local_addr()?, "admin server listens");
        Ok(Self { listener, state })
    }

    /// Serves until an error.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self) -> std::io::Result<()> {
        let app = axum::Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/debug/state.json", get(debug_state))
            .route("/log-level", get(log_level).put(set_log_level))
            .with_state(self.state);
        axum::serve(self.listener, app).await
    }
}

/// Ready once every cache has synced, leader or not: a follower takes over with warm caches.
async fn readyz(Extract(state): Extract<State>) -> (StatusCode, String) {
    let missing: Vec<_> = state.caches.views().into_iter().filter(|watch| !watch.synced).collect();
    if missing.is_empty() {
        return (StatusCode::OK, "ok".to_owned());
    }
    let lines = missing.iter().map(|watch| {
        let namespace = watch.namespace.as_deref().unwrap_or("every namespace");
        let why = watch.last_error.as_deref().unwrap_or("its first list is under way");
        format!("{} in {namespace} has not synced: {why}\n", watch.kind)
    });
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn metrics(Extract(state): Extract<State>) -> Result<String, (StatusCode, String)> {
    let queues = [("ArbBot", state.controller.bots.depth()), ("ArbPolicy", state.controller.policies.depth())];
    let (_, failing) = state.context.backoff.worst(0);
    let metrics = &state.context.metrics;
    metrics.observe(state.leadership.is_leader(), &state.caches.counts(), &queues, failing);
    metrics.render().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn debug_state(Extract(state): Extract<State>) -> Json<Value> {
    let (worst, failing) = state.context.backoff.worst(FAILING);
    let objects: serde_json::Map<_, _> =
        state.caches.counts().into_iter().map(|(kind, count)| (kind.to_owned(), json!(count))).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "leader": {
            "isLeader": state.leadership.is_leader(),
            "remainingSeconds": state.leadership.remaining().map(|left| left.as_secs()),
        },
        "watches": state.caches.views(),
        "objects": objects,
        "queues": {"arbbots": state.controller.bots.depth(), "arbpolicies": state.controller.policies.depth()},
        "failing": {
            "count": failing,
            "worst": worst.iter().map(|(key, failures)| json!({"object": key.as_ref(), "failures": failures})).collect::<Vec<_>>(),
        },
        "logLevel": state.log_level.get(),
    }))
}

async fn log_level(Extract(state): Extract<State>) -> String {
    state.log_level.get()
}

async fn set_log_level(Extract(state): Extract<State>, filter: String) -> Result<String, (StatusCode, String)> {
    state.log_level.set(filter.trim()).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
    Ok(state.log_level.get())
}
