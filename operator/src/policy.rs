//! One reconcile of an ArbPolicy: what its bots say is counted into its status. The bots obey it without the operator.

use std::time::Duration;

use crate::cache::policies::CachedPolicy;
use crate::context::Context;
use crate::reconcile::ReconcileError;

pub mod events;
pub mod member;
pub mod status;

/// Counts the bots of a policy into its status, and says when to look again.
///
/// # Errors
/// The status could not be written.
pub async fn reconcile(_policy: &CachedPolicy, _ctx: &Context) -> Result<Duration, ReconcileError> {
    Ok(Duration::from_secs(300))
}
