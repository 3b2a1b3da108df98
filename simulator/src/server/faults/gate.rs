//! What faults do to a REST request before and after it is handled.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::kind::FaultKind;
use super::{Fault, Faults};
use crate::server::error::ApiError;

/// A withheld reply ends then, if the client is still there.
const WITHHELD: Duration = Duration::from_secs(60);
const PREFIX: &str = "/api/v3/brokerage";

/// What is to happen to one request. Decided under the lock, done without it.
#[derive(Debug)]
pub struct Gate {
    latency: Duration,
    verdict: Option<FaultKind>,
}

impl Faults {
    /// `portfolio` is absent for a request without a key.
    pub fn gate(&mut self, portfolio: Option<Uuid>, method: &str, path: &str, now: Timestamp) -> Gate {
        if self.on.is_empty() {
            return Gate { latency: Duration::ZERO, verdict: None };
        }
        let endpoint = format!("{method} {}", path.strip_prefix(PREFIX).unwrap_or(path));
        let latency = Duration::from_millis(self.latency_ms(portfolio, &endpoint, now));
        let fits = |f: &Fault| {
            let of_requests = match f.kind {
                FaultKind::RestUnavailable {}
                | FaultKind::RestError { .. }
                | FaultKind::DropRequests {}
                | FaultKind::Maintenance {} => true,
                FaultKind::DropReplies {} => f.endpoint.is_some(),
                _ => false,
            };
            of_requests && f.concerns(portfolio) && f.is_of_endpoint(&endpoint)
        };
        Gate { latency, verdict: self.strike(now, fits) }
    }
}

impl Gate {
    /// Whether a fault concerns the request.
    pub fn strikes(&self) -> bool {
        self.verdict.is_some() || !self.latency.is_zero()
    }

    /// Waits, and then answers as the faults want, or as the handler does.
    pub async fn pass(self, request: Request, next: Next) -> Response {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match self.verdict {
            None => next.run(request).await,
            Some(FaultKind::RestError { status }) => error(status),
            Some(FaultKind::DropRequests {}) => withheld().await,
            Some(FaultKind::DropReplies {}) => {
                next.run(request).await;
                withheld().await
            }
            Some(_) => ApiError::Unavailable.into_response(),
        }
    }
}

async fn withheld() -> Response {
    tokio::time::sleep(WITHHELD).await;
    ApiError::GatewayTimeout.into_response()
}

fn error(status: u16) -> Response {
    match status {
        401 => ApiError::Unauthorized.into_response(),
        403 => ApiError::MissingScopes.into_response(),
        429 => ApiError::RateLimited.into_response(),
        503 => ApiError::Unavailable.into_response(),
        other => {
            let status = StatusCode::from_u16(other).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let message = status.canonical_reason().unwrap_or("error");
            (status, Json(json!({"error": "INTERNAL", "error_details": message, "message": message}))).into_response()
        }
    }
}
