//! One reconcile: fetch (I/O) → validate (pure) → build (pure) → apply (I/O) → report (I/O).
//!
//! Deletion goes the same way until the position is taken care of: the children must stand until then.

use std::time::Duration;

use arbbot_crds::ArbBot;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

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
pub mod pause;
pub mod pods;
pub mod remedy;
pub mod replicas;
pub mod report;
pub mod validate;
pub mod verdict;

pub use error::ReconcileError;

use apply::ApplyError;
use build::Resources;
use delete::Deletion;
use fetch::Fetched;

/// Brings one bot's children and status to what its spec says.
///
/// # Errors
/// What kept the reconcile from its end; it is in the bot's conditions where these could be written.
pub async fn reconcile(bot: &ArbBot, ctx: &Context) -> Result<Action, ReconcileError> {
    let now = Timestamp::now();
    let Some(fetched) = fetch::fetch(bot, ctx, now).await? else { return Ok(Action::await_change()) };
    fencing::publish(&fetched, ctx).await.map_err(ReconcileError::Report)?;
    let deletion = delete::step(&fetched, now, ctx).await.map_err(ReconcileError::Delete)?;
    let waits = match deletion {
        Deletion::NotDeleted => {
            delete::hold(&fetched.bot, ctx).await.map_err(ReconcileError::Delete)?;
            None
        }
        Deletion::Waits(verdict) => Some(verdict),
        Deletion::TearingDown(next) => return Ok(Action::requeue(next)),
        Deletion::Done => return Ok(Action::await_change()),
    };
    let claim = ctx.claims.decide(&fetched.bot, ctx.bots.state().iter().map(AsRef::as_ref));
    let outcome = prepare(&fetched, ctx).await;
    let next = report::report(&fetched, &claim, waits, &outcome, now, ctx).await.map_err(ReconcileError::Report)?;
    match outcome.err().filter(ReconcileError::is_transient) {
        Some(error) => Err(error),
        None => Ok(Action::requeue(jittered(next))),
    }
}

/// Brings the children to what they should be and returns the Deployment, unless reconciliation is paused and there is
/// none.
async fn prepare(fetched: &Fetched, ctx: &Context) -> Result<Option<Deployment>, ReconcileError> {
    let bot = validate::validate(&fetched.bot, &ctx.bot_image)?;
    if verdict::is_paused(&fetched.bot) {
        return Ok(pause::keep_safe(fetched, ctx).await.map_err(ApplyError::Api)?);
    }
    let replicas = replicas::replicas(&fetched.bot, &fetched.policies(), fetched.live_replicas());
    let prepared = build::build(&bot, replicas, &fetched.children);
    let Resources { deployment, .. } = apply::apply(&bot, prepared, fetched.children.clone(), ctx).await?;
    Ok(Some(deployment))
}

/// Up to a tenth later, so that bots of one rollout do not stay in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
