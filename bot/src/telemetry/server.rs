//! The HTTP server of the bot: `/livez`, `/readyz`, `/metrics`, `/status`. It shows; it changes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::clock::Clock;

/// An engine that has not beaten for this long hangs, and the kubelet restarts the container.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// How long binding is tried: the pod's address may not be up yet.
const BIND_FOR: Duration = Duration::from_secs(10);
const BIND_AGAIN: Duration = Duration::from_millis(200);
/// How long answers under way may take once the server is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The engine's sign of life. Clones share it.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    clock: Clock,
    /// CLOCK_BOOTTIME of the last beat, in milliseconds.
    at: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heart that beats now.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let heartbeat = Self { clock, at: Arc::default() };
        heartbeat.beat();
        heartbeat
    }

    /// Says that the engine lives.
    pub fn beat(&self) {
        self.at.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the last beat was less than 30 s ago.
    #[must_use]
    pub fn alive(&self) -> bool {
        let age = self.now().saturating_sub(self.at.load(Ordering::Relaxed));
        Duration::from_millis(age) < HANGS_AFTER
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.boottime().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the server shows.
#[derive(Clone)]
pub struct ServerState {
    pub metrics: Metrics,
    pub heartbeat: Heartbeat,
    pub ready: watch::Receiver<bool>,
    /// What `/status` answers. Called for every request: it must not block.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}: {cause}; choose a free port of an address of this machine with --listen")]
    Bind { address: SocketAddr, cause: io::Error },
    #[error("the HTTP server failed: {0}")]
    Serve(io::Error),
}

impl ServerError {
    /// Machine-readable name for logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "ListenFailed",
            Self::Serve(_) => "ServeFailed",
        }
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// The address cannot be bound within 10 s.
pub async fn serve(listen: SocketAddr, state: ServerState, shutdown: CancellationToken) -> Result<(), ServerError> {
    let Some(listener) = shutdown.run_until_cancelled(bind(listen)).await else { return Ok(()) };
    serve_on(listener?, state, shutdown).await
}

/// Binds the address, trying for 10 s.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    bind_within(address, BIND_FOR).await
}

async fn bind_within(address: SocketAddr, limit: Duration) -> Result<TcpListener, ServerError> {
    let deadline = Instant::now() + limit;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(cause) if Instant::now() >= deadline => return Err(ServerError::Bind { address, cause }),
            Err(error) => {
                tracing::debug!(%address, %error, "the address cannot be bound yet");
                sleep(BIND_AGAIN).await;
            }
        }
    }
}

/// Serves on a bound address until it is told to stop.
///
/// # Errors
/// The listener failed.
pub async fn serve_on(
    listener: TcpListener,
    state: ServerState,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving /livez /readyz /metrics /status");
    }
    let stop = shutdown.clone();
    let server = axum::serve(listener, routes(state)).with_graceful_shutdown(async move { stop.cancelled().await });
    let too_late = async {
        shutdown.cancelled().await;
        sleep(STOP_WITHIN).await;
    };
    tokio::select! {
        served = server => served.map_err(ServerError::Serve),
        () = too_late => Ok(()),
    }
}

fn routes(state: ServerState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(state)
}

async fn livez(State(state): State<ServerState>) -> (StatusCode, &'static str) {
    if state.heartbeat.alive() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the engine has not moved for 30 s")
    }
}

async fn readyz(State(state): State<ServerState>) -> (StatusCode, &'static str) {
    if *state.ready.borrow() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: see /status and the conditions of the ArbBot")
    }
}

async fn metrics(State(state): State<ServerState>) -> Response {
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(state): State<ServerState>) -> Json<serde_json::Value> {
    Json((state.status)())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// Status line and body of a GET.
    async fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[tokio::test]
    async fn the_server_shows_what_is_and_stops_when_told() {
        let clock = Clock::manual();
        let (ready, watched) = watch::channel(false);
        let state = ServerState {
            metrics: Metrics::new().unwrap(),
            heartbeat: Heartbeat::new(clock.clone()),
            ready: watched,
            status: Arc::new(|| serde_json::json!({ "orders": 2 })),
        };
        let heartbeat = state.heartbeat.clone();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_on(listener, state, stop.clone()));

        assert_eq!(fetch(address, "/livez").await.0, 200);
        clock.advance(HANGS_AFTER);
        assert_eq!(fetch(address, "/livez").await.0, 503);
        heartbeat.beat();
        assert_eq!(fetch(address, "/livez").await.0, 200);

        assert_eq!(fetch(address, "/readyz").await.0, 503);
        ready.send(true).unwrap();
        assert_eq!(fetch(address, "/readyz").await.0, 200);

        assert!(fetch(address, "/metrics").await.1.contains("arbbot_open_orders 0"));
        assert!(fetch(address, "/status").await.1.contains(r#""orders":2"#));
        assert_eq!(fetch(address, "/flatten").await.0, 404);

        let idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        tokio::time::timeout(STOP_WITHIN * 2, server).await.expect("it stops").unwrap().unwrap();
        drop(idle);
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_bound_is_tried_again_and_then_named() {
        // TEST-NET-1: an address of no machine.
        let error = bind_within("192.0.2.1:1".parse().unwrap(), BIND_AGAIN * 2).await.unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:1"), "{error}");

        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let waiting = tokio::spawn(bind(address));
        tokio::task::yield_now().await;
        drop(taken);
        assert_eq!(waiting.await.unwrap().unwrap().local_addr().unwrap(), address);
    }
}
