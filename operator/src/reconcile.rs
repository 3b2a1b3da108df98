//! One reconcile: fetch (I/O) → validate (pure) → build (pure) → apply (I/O) → report (I/O).
//!
//! Deletion goes the same way until the position is taken care of: the children must stand until then.

use std::time::Duration;

use arbbot_crds::ArbBot;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::context::Context;
use crate::fencing;

pub mod apply;
pub mod build;
pub mod contact;
pub mod delete;
pub mod effective;
pub mod error;
pub mod fetch;
#[cfg(test)]
mod fixtures;
pub mod pods;
pub mod report;
pub mod validate;
pub mod verdict;

pub use error::ReconcileError;

use build::{Applied, Resources};
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

async fn prepare(fetched: &Fetched, ctx: &Context) -> Result<Resources<Applied>, ReconcileError> {
    let bot = validate::validate(&fetched.bot, &ctx.bot_image)?;
    let prepared = build::build(&bot, &fetched.children);
    Ok(apply::apply(&bot, prepared, fetched.children.clone(), ctx).await?)
}

/// Up to a tenth later, so that bots of one rollout do not stay in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
