//! Calls of the API server: each has a deadline, and each error says what was attempted.

use std::future::Future;
use std::time::Duration;

use kube::api::PatchParams;

use arbbot_crds::names::MANAGER_OPERATOR;

use crate::client::{Refused, refused};

/// Longest wait for one answer of the API server.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why a call of the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server answered with an error, or could not be reached.
    #[error("failed to {action}: {}", describe(.source))]
    Failed { action: String, source: Box<kube::Error> },
    /// The API server did not answer in time.
    #[error("failed to {action}: no answer from the API server within {} s", .after.as_secs_f32())]
    Deadline { action: String, after: Duration },
    /// The request did not leave this process.
    #[error("did not {action}: {refused}")]
    Refused { action: String, refused: Refused },
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
            Self::Deadline { .. } | Self::Refused { .. } => None,
        }
    }

    fn code(&self) -> u16 {
        self.status().map_or(0, |status| status.code)
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Somebody else has changed the object meanwhile.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// How long the API server wants to be left alone, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The object is not valid: it stays so until a person changes it.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.code(), 400 | 422) && !self.is_crd_outdated()
    }

    /// The operator may not do it. The API server's message names verb, resource and namespace.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == 403
    }

    /// RBAC does not grant it, or an admission policy denies it: only a person helps. A quota or a namespace that ends
    /// answers 403, too, in other words.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.is_forbidden()
            && self
                .status()
                .is_some_and(|status| [" cannot ", "denied request"].iter().any(|words| status.message.contains(words)))
    }

    /// The installed schema does not know a field that the operator writes: its CustomResourceDefinition is older. Strict
    /// validation and server-side apply say it in different words and with different codes.
    #[must_use]
    pub fn is_crd_outdated(&self) -> bool {
        let unknown = |text: &str| text.contains("field not declared in schema") || text.contains("unknown field");
        self.status().is_some_and(|status| unknown(&status.message))
    }

    /// What is stored does not have the schema's types, so that server-side apply cannot merge anything into it.
    #[must_use]
    pub fn is_untypable(&self) -> bool {
        self.status().is_some_and(|status| status.message.contains("failed to create typed live object"))
    }

    /// The decision was made from a cache and has to be made again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Refused { refused: Refused::Stale, .. })
    }

    /// This replica does not lead.
    #[must_use]
    pub fn is_not_leader(&self) -> bool {
        matches!(self, Self::Refused { refused: Refused::NotLeader, .. })
    }

    /// Label of a metric, from a closed list.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "Deadline",
            Self::Refused { refused: Refused::Stale, .. } => "Stale",
            Self::Refused { refused: Refused::NotLeader, .. } => "NotLeader",
            Self::Failed { .. } if self.is_crd_outdated() => "CrdOutdated",
            Self::Failed { .. } => match self.code() {
                400 | 422 => "Invalid",
                401 | 403 => "Forbidden",
                404 => "NotFound",
                409 => "Conflict",
                429 => "TooManyRequests",
                500.. => "ServerError",
                _ => "Unreachable",
            },
        }
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
    call_within(DEADLINE, action, call).await
}

/// Like [`call`], with another deadline.
///
/// # Errors
/// As [`call`].
pub async fn call_within<T>(
    deadline: Duration,
    action: impl Into<String>,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match refused(&error) {
            Some(refused) => ApiError::Refused { action: action.into(), refused },
            None => ApiError::Failed { action: action.into(), source: Box::new(error) },
        }),
        Err(_) => Err(ApiError::Deadline { action: action.into(), after: deadline }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn failed(code: u16, message: &str) -> ApiError {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        ApiError::Failed { action: "write".to_owned(), source: Box::new(kube::Error::Api(Box::new(status))) }
    }

    #[test]
    fn an_older_definition_is_told_from_an_invalid_object() {
        // The words of Kubernetes 1.33 to 1.36: server-side apply, and strict validation.
        let apply = failed(
            500,
            "failed to create typed patch object (desk/carry; arbbot.io/v1alpha1, Kind=ArbBot): .status.incidents: field not declared in schema",
        );
        let strict = failed(400, "strict decoding error: unknown field \"status.incidents\"");
        for error in [apply, strict] {
            assert!(error.is_crd_outdated() && !error.is_invalid(), "{error}");
            assert_eq!(error.reason(), "CrdOutdated");
        }
        let invalid = failed(422, "spec.mode: Unsupported value");
        assert!(invalid.is_invalid() && !invalid.is_crd_outdated());
        let denied = failed(403, "deployments.apps is forbidden: User \"u\" cannot patch resource \"deployments\"");
        assert!(denied.is_forbidden() && denied.is_denied());
        let policy =
            "deployments.apps \"b\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'q' denied request: no";
        assert!(failed(403, policy).is_denied());
        let ending = failed(403, "unable to create new content in namespace desk because it is being terminated");
        assert!(ending.is_forbidden() && !ending.is_denied(), "it passes by itself");
    }

    #[test]
    fn an_object_of_other_types_is_told_from_an_older_definition() {
        // The words of Kubernetes 1.36.
        let typed = "failed to create typed live object (desk/carry; arbbot.io/v1alpha1, Kind=ArbBot): .spec.strategy.fundingCarry.targetNotional: expected string, got &value.valueUnstructured{Value:10000}";
        let error = failed(500, typed);
        assert!(error.is_untypable() && !error.is_crd_outdated());
        assert!(!failed(500, "etcdserver: request timed out").is_untypable());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_at_its_deadline_and_names_what_it_was() {
        let error =
            call("read ArbBot desk/carry", std::future::pending::<Result<(), kube::Error>>()).await.unwrap_err();
        assert!(error.to_string().contains("read ArbBot desk/carry") && error.to_string().contains("within 10 s"));
        assert_eq!(error.reason(), "Deadline");
    }
}
