//! One reconcile: fetch (I/O) → validate (pure) → build (pure) → apply (I/O) → report (I/O).
//!
//! Deletion goes the same way until the position is taken care of: the children must stand until then.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;

use crate::cache::store::Key;
use crate::claim::{self, Claim};
use crate::context::Context;
use crate::fencing;

pub mod apply;
pub mod build;
pub mod contact;
pub mod delete;
pub mod drain;
pub mod effective;
pub mod error;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod incidents;
#[cfg(test)]
pub(crate) mod kstatus;
pub mod ownership;
pub mod pause;
pub mod pods;
mod quantity;
pub mod remedy;
pub mod replicas;
pub mod report;
pub mod undecodable;
pub mod validate;
pub mod verdict;

pub use error::ReconcileError;

use apply::ApplyError;
use delete::Deletion;
use fetch::{FetchError, Fetched};

/// Brings one bot's children and status to what its spec says, and says when to look again. None: when it changes.
///
/// Whether there is something to do is decided from the caches, without a call of the API server. If there is, it is
/// decided again from what the API server itself says: the caches may be behind our own last write.
///
/// # Errors
/// What kept the reconcile from its end; it is in the bot's conditions where these could be written.
pub async fn reconcile(key: &Key, ctx: &Context) -> Result<Option<Duration>, ReconcileError> {
    let now = Timestamp::now();
    let cached = match Box::pin(fetch::from_caches(key, &ctx.deciding(), now)).await {
        Ok(Some(cached)) => cached,
        Ok(None) => return Ok(None),
        Err(FetchError::Undecodable(bot)) => return Box::pin(undecodable::bot(&bot, now, ctx)).await,
        Err(error) => return Err(error.into()),
    };
    // A deletion asks the API server about every step anyway.
    if cached.bot.metadata.deletion_timestamp.is_none() {
        match Box::pin(steps(&cached, now, &ctx.deciding())).await {
            Err(error) if error.is_stale() => {}
            decided => return decided,
        }
    }
    let ctx = ctx.acting();
    let Some(fetched) = Box::pin(fetch::from_api_server(cached, &ctx, now)).await? else { return Ok(None) };
    Box::pin(steps(&fetched, now, &ctx)).await
}

async fn steps(fetched: &Fetched, now: Timestamp, ctx: &Context) -> Result<Option<Duration>, ReconcileError> {
    fencing::publish(fetched, ctx).await.map_err(ReconcileError::Report)?;
    let deletion = delete::step(fetched, now, ctx).await.map_err(ReconcileError::Delete)?;
    let waits = match deletion {
        Deletion::NotDeleted => {
            delete::hold(&fetched.bot, ctx).await.map_err(ReconcileError::Delete)?;
            None
        }
        Deletion::Waits(verdict) => Some(verdict),
        Deletion::TearingDown(None) => return Ok(Some(delete::POLL)),
        Deletion::TearingDown(Some(overdue)) => {
            let claim = Claim::present(&fetched.bot);
            let told = report::report(fetched, &claim, Some(overdue), &Ok(None), now, ctx).await;
            return told.map(Some).map_err(ReconcileError::Report);
        }
        Deletion::Done => return Ok(None),
    };
    let (claim, undecided) = match claim::decide(fetched, ctx).await.map_err(ReconcileError::Claim) {
        Ok(claim) => (claim, None),
        // The children do not depend on it.
        Err(error) => (Claim::present(&fetched.bot), Some(error)),
    };
    // Boxed like the steps above: debug builds keep every local of a future on the stack.
    let outcome = match (Box::pin(prepare(fetched, ctx)).await, undecided) {
        (Ok(_), Some(error)) => Err(error),
        (outcome, _) => outcome,
    };
    if let Err(error) = &outcome
        && (error.is_stale() || error.is_not_leader())
    {
        return outcome.map(|_| None);
    }
    let next = report::report(fetched, &claim, waits, &outcome, now, ctx).await.map_err(ReconcileError::Report)?;
    match outcome.err().filter(ReconcileError::is_transient) {
        Some(error) => Err(error),
        None => Ok(Some(jittered(next))),
    }
}

/// Brings the children to what they should be and returns the Deployment, unless reconciliation is paused and there is
/// none.
async fn prepare(fetched: &Fetched, ctx: &Context) -> Result<Option<Deployment>, ReconcileError> {
    let outcome = Box::pin(build_and_apply(fetched, ctx)).await;
    if let Err(error) = &outcome
        && !(error.is_stale() || error.is_not_leader())
    {
        // Nothing that is wrong with the spec or another child may keep a kill from a bot at zero.
        pause::keep_safe(fetched, ctx).await.map_err(ApplyError::Api)?;
    }
    outcome
}

async fn build_and_apply(fetched: &Fetched, ctx: &Context) -> Result<Option<Deployment>, ReconcileError> {
    let bot = validate::validate(&fetched.bot, &ctx.bot_image)?;
    if verdict::is_paused(&fetched.bot) && !pause::lacks_its_workload(fetched) {
        return Ok(pause::keep_safe(fetched, ctx).await.map_err(ApplyError::Api)?);
    }
    let replicas = replicas::replicas(&fetched.bot, &fetched.policies(), fetched.live_replicas(), fetched.is_ending());
    let prepared = build::build(&bot, replicas, &fetched.children);
    Ok(Some(apply::apply(&bot, prepared, fetched.children.clone(), ctx).await?))
}

/// Up to a tenth later, so that bots of one rollout do not stay in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
