//! `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The admin server, bound but not yet serving.
pub struct Admin {
    listener: TcpListener,
    synced: watch::Receiver<bool>,
    metrics: Metrics,
}

impl Admin {
    /// Binds the address, so that a port in use is an error at start. `/readyz` shows `synced`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, metrics: Metrics, synced: watch::Receiver<bool>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        tracing::info!(listen = %listener.local_addr()?, "admin server listens");
        Ok(Self { listener, synced, metrics })
    }

    /// Serves until an error.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self) -> std::io::Result<()> {
        let app = axum::Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .with_state(self.synced)
            .merge(axum::Router::new().route("/metrics", get(metrics)).with_state(self.metrics));
        axum::serve(self.listener, app).await
    }
}

async fn readyz(State(synced): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *synced.borrow() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not every watch has synced yet; are the CRDs installed? See the log")
    }
}

async fn metrics(State(metrics): State<Metrics>) -> Result<String, (StatusCode, String)> {
    metrics.render().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
