//! What can go wrong between a client and the API server, and what it looks like.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::call::Call;

/// What the proxy does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Watches stay open and tell nothing any more; every other request passes.
    SilentWatches,
    /// Requests are not answered; watches that are open go on.
    Hang,
    /// Nothing arrives, either way, until the fault is over; then what was under way arrives, as with any connection.
    Unreachable,
    /// Writes are refused with 409: the object has changed meanwhile.
    Conflict,
    /// Lists and watches are refused with 410, and open watches end with the event ERROR 410.
    Gone,
    /// Requests are refused with 429 and `Retry-After: 1`.
    TooManyRequests,
    /// Requests are answered with 500; half of them are carried out all the same.
    InternalError,
    /// Requests are carried out, but the connection breaks in the middle of the answer. Open watches break, too.
    Cut,
    /// Answers come late and in pieces.
    Slow,
}

impl Fault {
    /// Whether it happens to a request, before or instead of its answer.
    pub(super) fn concerns_request(self, call: &Call) -> bool {
        match self {
            Self::None | Self::SilentWatches => false,
            Self::Conflict => call.can_conflict(),
            Self::Gone => call.can_be_too_old(),
            Self::Cut => !call.is_watch(),
            Self::Hang | Self::Unreachable | Self::TooManyRequests | Self::InternalError | Self::Slow => true,
        }
    }

    /// Whether it happens to an event of an open watch.
    pub(super) fn concerns_events(self) -> bool {
        matches!(self, Self::SilentWatches | Self::Unreachable | Self::Gone | Self::Cut | Self::Slow)
    }

    /// The answer instead of the API server's.
    pub(super) fn refusal(self) -> Option<Response> {
        let (code, reason) = match self {
            Self::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Self::Gone => (StatusCode::GONE, "Expired"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            _ => return None,
        };
        let mut response = (code, axum::Json(status(code, reason))).into_response();
        if self == Self::TooManyRequests {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        Some(response)
    }
}

/// The last event of a watch whose resourceVersion is too old.
pub(super) fn gone_event() -> String {
    format!("{}\n", json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")}))
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected by the fault proxy", "reason": reason, "code": code.as_u16(),
    })
}
