//! Calls of the API server: each has a deadline, and each error says what was attempted.

use std::future::Future;
use std::time::Duration;

use kube::api::PatchParams;

use arbbot_crds::names::MANAGER_OPERATOR;

/// Longest wait for one answer of the API server.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why a call of the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server answered with an error, or could not be reached.
    #[error("failed to {action}: {}", describe(.source))]
    Failed { action: String, source: Box<kube::Error> },
    /// The API server did not answer in time.
    #[error("failed to {action}: no answer from the API server within {} s", DEADLINE.as_secs())]
    Deadline { action: String },
}

fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        other => other.to_string(),
    }
}

impl ApiError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Deadline { .. } => None,
        }
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// The object is not valid: it stays so until a person changes it.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 422))
    }
}

/// Awaits one call of the API server, at most [`DEADLINE`].
///
/// # Errors
/// The call failed or took too long. `action` completes "failed to …".
pub async fn call<T>(
    action: impl Into<String>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ApiError::Failed { action: action.into(), source: Box::new(error) }),
        Err(_) => Err(ApiError::Deadline { action: action.into() }),
    }
}

/// Like [`call`], where "not found" means that nothing is left to do. "Changed meanwhile" does not: a delete that was
/// refused so must be repeated, or what it was to delete stays for ever.
///
/// # Errors
/// As [`call`].
pub async fn call_unless_gone<T>(
    action: impl Into<String>,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Option<T>, ApiError> {
    match call(action, future).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Server-side apply as the operator: unknown fields are errors, conflicts are won.
#[must_use]
pub fn apply_params() -> PatchParams {
    PatchParams::apply(MANAGER_OPERATOR).force().validation_strict()
}
