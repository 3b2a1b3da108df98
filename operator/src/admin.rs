//! `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Set once every cache has synced; `/readyz` shows it.
pub type Ready = Arc<AtomicBool>;

/// The admin server, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    ready: Ready,
    metrics: Metrics,
}

impl Admin {
    /// Binds the address, so that a port in use is an error at start.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, metrics: Metrics) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        tracing::info!(listen = %listener.local_addr()?, "admin server listens");
        Ok(Self { listener, ready: Ready::default(), metrics })
    }

    /// The flag behind `/readyz`.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Serves until an error.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self) -> std::io::Result<()> {
        let app = axum::Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .with_state(self.ready)
            .merge(axum::Router::new().route("/metrics", get(metrics)).with_state(self.metrics));
        axum::serve(self.listener, app).await
    }
}

async fn readyz(State(ready): State<Ready>) -> (StatusCode, &'static str) {
    if ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not every watch has synced yet; are the CRDs installed? See the log")
    }
}

async fn metrics(State(metrics): State<Metrics>) -> Result<String, (StatusCode, String)> {
    metrics.render().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
