//! `/livez`, `/readyz`, `/metrics`, `/debug/state.json` and `PUT /log-level`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
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
        axum::serve(self.listener, router(self.state).into_make_service_with_connect_info::<SocketAddr>()).await
    }
}

/// Everybody may scrape and probe; what shows names and changes the log is for those who may `kubectl port-forward`.
fn router(state: State) -> Router {
    let local = Router::new()
        .route("/debug/state.json", get(debug_state))
        .route("/log-level", get(log_level).put(set_log_level))
        .layer(from_fn(only_local));
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(local)
        .with_state(state)
}

async fn only_local(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if peer.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    let how = "only from the pod itself: kubectl port-forward -n <namespace> deployment/arbbot-operator 8081\n";
    (StatusCode::FORBIDDEN, how).into_response()
}

/// Ready once every cache has synced, leader or not: a follower takes over with warm caches. What is forbidden is named,
/// and waited for only where there is nothing else.
async fn readyz(Extract(state): Extract<State>) -> (StatusCode, String) {
    let code = if state.caches.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let views = state.caches.views();
    let troubled: Vec<_> = views.iter().filter(|watch| !watch.synced || watch.last_error.is_some()).collect();
    if troubled.is_empty() {
        return (code, "ok".to_owned());
    }
    let lines = troubled.iter().map(|watch| {
        let namespace = watch.namespace.as_deref().unwrap_or("every namespace");
        let what = if watch.synced { "is not followed" } else { "has not synced" };
        let why = watch.last_error.as_deref().unwrap_or("its first list is under way");
        format!("{} in {namespace} {what}: {why}\n", watch.kind)
    });
    (code, lines.collect())
}

async fn metrics(Extract(state): Extract<State>) -> Result<String, (StatusCode, String)> {
    let queues = [("ArbBot", state.controller.bots.depth()), ("ArbPolicy", state.controller.policies.depth())];
    let (_, failing) = state.context.backoff.worst(0);
    let metrics = &state.context.metrics;
    let forbidden = state.caches.views().iter().filter(|watch| watch.forbidden).count();
    metrics.observe(state.leadership.is_leader(), &state.caches.counts(), &queues, failing, forbidden);
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
            "worst": worst.iter().map(|((kind, key), failures)| json!({"kind": kind, "object": &**key, "failures": failures})).collect::<Vec<_>>(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Reactions;
    use crate::metrics::Metrics;
    use crate::telemetry;
    use axum::body::{Body, to_bytes};
    use std::convert::Infallible;
    use tower::Service as _;

    fn app() -> Router {
        let leadership = Arc::new(Leadership::none());
        let (controller, _tellings) = Controller::new(leadership.clone());
        let reactions: Arc<dyn Reactions> = controller.clone();
        let terminated = Arc::default();
        let caches = Caches::new(&["desk".to_owned()], Arc::clone(&terminated), reactions);
        let nobody = tower::service_fn(|_: axum::http::Request<kube::client::Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let client = kube::Client::new(nobody, "default");
        let metrics = Metrics::new().unwrap();
        let context = Arc::new(Context::new(client, "image".to_owned(), caches.clone(), terminated, metrics));
        router(State { caches, controller, context, leadership, log_level: telemetry::start() })
    }

    async fn ask(method: &str, path: &str, peer: &str, body: &str) -> (u16, String) {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = Request::builder().method(method).uri(path).extension(ConnectInfo(peer));
        let response = app().call(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
    }

    const LOCAL: &str = "127.0.0.1:9";

    #[tokio::test]
    async fn only_the_pod_itself_sees_the_state_and_changes_the_log() {
        for (method, path) in [("GET", "/debug/state.json"), ("PUT", "/log-level"), ("GET", "/log-level")] {
            let (code, why) = ask(method, path, "10.1.2.3:9", "debug").await;
            assert_eq!(code, 403, "{method} {path}");
            assert!(why.contains("kubectl port-forward"), "{why}");
        }
        let (code, state) = ask("GET", "/debug/state.json", "[::ffff:127.0.0.1]:9", "").await;
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!((code, &state["leader"]["isLeader"]), (200, &json!(false)));
        assert_eq!(state["watches"].as_array().unwrap().len(), 11);
        assert_eq!(ask("GET", "/metrics", "10.1.2.3:9", "").await.0, 200);
        assert_eq!(ask("GET", "/livez", "10.1.2.3:9", "").await.0, 200);
    }

    #[tokio::test]
    async fn the_log_level_changes_and_nonsense_does_not() {
        let (code, now) = ask("PUT", "/log-level", LOCAL, "debug,kube=warn").await;
        assert!(code == 200 && now.contains("debug"), "{code} {now}");
        assert_eq!(ask("PUT", "/log-level", LOCAL, "info,,=what=").await.0, 400);
        assert_eq!(ask("PUT", "/log-level", LOCAL, &"x".repeat(10_000)).await.0, 400);
    }

    #[tokio::test]
    async fn not_ready_names_every_watch_that_has_not_synced() {
        let (code, why) = ask("GET", "/readyz", LOCAL, "").await;
        assert_eq!(code, 503);
        assert!(why.contains("ArbBot in desk has not synced") && why.contains("Lease in desk"), "{why}");
    }
}
