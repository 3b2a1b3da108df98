//! Why a reconcile did not reach its end.

use std::time::Duration;

use arbbot_crds::conditions::Reason;

use super::apply::ApplyError;
use super::fetch::FetchError;
use super::validate::Invalid;
use super::verdict::Verdict;
use crate::api::ApiError;
use crate::claim::ClaimError;

/// Why a reconcile did not reach its end: one variant per step.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Nothing may be traded before it is decided.
    #[error("the claim on account and product cannot be decided: {0}")]
    Claim(ClaimError),
    #[error(transparent)]
    Report(ApiError),
    #[error(transparent)]
    Delete(ApiError),
    /// A defect of the operator: this bot's reconcile ended, no other did.
    #[error("the reconcile panicked: {0}; please report this with the log")]
    Panicked(String),
}

impl ReconcileError {
    fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Fetch(FetchError::Api(error))
            | Self::Apply(ApplyError::Api(error))
            | Self::Report(error)
            | Self::Claim(ClaimError::Api(error))
            | Self::Delete(error) => Some(error),
            _ => None,
        }
    }

    /// It was decided from the caches that something is to be done.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.api().is_some_and(ApiError::is_stale)
    }

    /// Leadership has ended: another replica goes on.
    #[must_use]
    pub fn is_not_leader(&self) -> bool {
        self.api().is_some_and(ApiError::is_not_leader)
    }

    /// The installed CustomResourceDefinition does not know what the operator writes.
    #[must_use]
    pub fn is_crd_outdated(&self) -> bool {
        self.api().is_some_and(ApiError::is_crd_outdated)
    }

    /// How long the API server wants to be left alone, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.api().and_then(ApiError::retry_after)
    }

    /// Label of the metric, from a closed list.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        if let Some(error) = self.api().filter(|error| {
            error.is_not_leader() || error.is_forbidden() || error.is_crd_outdated() || error.is_conflict()
        }) {
            return error.reason();
        }
        match self {
            Self::Fetch(FetchError::Undecodable(_)) => "Undecodable",
            Self::Fetch(_) => "FetchFailed",
            Self::Invalid(_) => "InvalidSpec",
            Self::Apply(ApplyError::NotOurs { .. }) => "ChildNotOurs",
            Self::Apply(ApplyError::Api(_)) => "ApplyFailed",
            Self::Claim(_) => "ClaimUndecided",
            Self::Report(_) => "ReportFailed",
            Self::Delete(_) => "DeleteFailed",
            Self::Panicked(_) => "Panicked",
        }
    }

    /// Whether it may pass by itself: then it is retried with backoff. The others wait for a person's change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Invalid(_) | Self::Apply(ApplyError::NotOurs { .. }))
    }

    /// What the bot's conditions say of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let message = self.to_string();
        match self {
            Self::Invalid(_) => Verdict::stalled(Reason::InvalidSpec, message),
            Self::Apply(ApplyError::NotOurs { .. }) => Verdict::stalled(Reason::ChildNotOurs, message),
            // The API server names the field; only a change of the spec remedies it.
            _ if self.api().is_some_and(ApiError::is_denied) => Verdict::stalled(
                Reason::Forbidden,
                format!(
                    "{message}; grant it in the operator's Role (chart value watchNamespaces, or manifests/rbac.yaml), or change the policy that denies it"
                ),
            ),
            Self::Claim(_) => Verdict::reconciling(Reason::ClaimPending, message),
            Self::Apply(ApplyError::Api(error)) if error.is_invalid() => Verdict::stalled(Reason::InvalidSpec, message),
            _ => Verdict::reconciling(Reason::ApplyFailed, message),
        }
    }
}
