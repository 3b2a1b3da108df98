//! Error replies in the shapes Coinbase uses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A reply that is not 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    Unauthorized,
    /// The key lacks a permission.
    MissingScopes,
    NotFound(String),
    /// A field is missing or has a value that no order could have.
    InvalidArgument(String),
    /// The body is not the message: syntax, a wrong type or an unknown field.
    InvalidBody(String),
    /// The endpoint is no longer served.
    Gone(String),
    RateLimited,
    Unavailable,
    /// The reply is withheld (a fault) for longer than any client waits.
    GatewayTimeout,
}

impl ApiError {
    /// A JSON error in the words of the protobuf parser that reads bodies at Coinbase.
    pub fn from_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let at = format!("(line {}:{})", error.line(), error.column());
        let quoted = |prefix: &str| {
            text.strip_prefix(prefix).and_then(|rest| rest.split('`').nth(1)).map(|name| format!("\"{name}\""))
        };
        let details = match quoted("unknown field").or_else(|| quoted("unknown variant")) {
            // An unknown order configuration is to protobuf an unknown field; an unknown side is a bad value.
            Some(name) if name == name.to_lowercase() || text.starts_with("unknown field") => {
                format!("proto: {at}: unknown field {name}")
            }
            Some(name) => format!("proto: {at}: invalid value for enum field: {name}"),
            None => {
                let message = text.split(" at line ").next().unwrap_or_default();
                format!("proto: {at}: {message}")
            }
        };
        Self::InvalidBody(details)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = |error: &str, message: &str| json!({"error": error, "error_details": message, "message": message});
        match self {
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, Json(body("unauthenticated", "Unauthorized"))).into_response()
            }
            Self::MissingScopes => {
                (StatusCode::FORBIDDEN, Json(body("PERMISSION_DENIED", "Missing required scopes"))).into_response()
            }
            Self::NotFound(message) => (StatusCode::NOT_FOUND, Json(body("NOT_FOUND", &message))).into_response(),
            Self::InvalidArgument(message) => {
                (StatusCode::BAD_REQUEST, Json(body("INVALID_ARGUMENT", &message))).into_response()
            }
            Self::Gone(message) => (StatusCode::GONE, Json(body("DEPRECATED", &message))).into_response(),
            Self::InvalidBody(message) => (StatusCode::BAD_REQUEST, Json(body("unknown", &message))).into_response(),
            Self::RateLimited => {
                let body = json!({"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]});
                (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response()
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, Json(body("UNAVAILABLE", "Service unavailable"))).into_response()
            }
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT.into_response(),
        }
    }
}
