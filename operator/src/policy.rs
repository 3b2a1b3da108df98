//! One reconcile of an ArbPolicy: what its bots say is counted into its status (I/O). The bots obey it without the
//! operator.

use std::time::{Duration, Instant};

use arbbot_crds::ArbPolicy;
use arbbot_crds::arbpolicy::ArbPolicyStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::Patch;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::api::{self, ApiError};
use crate::cache::policies::CachedPolicy;
use crate::cache::raw::Raw;
use crate::context::Context;
use crate::reconcile::{ReconcileError, undecodable};

pub mod events;
pub mod member;
pub mod status;

use events::Seen;
use member::Member;

/// Everything is looked at again after this long, watch or not.
const RESYNC: Duration = Duration::from_secs(300);
/// While a thousand bots change at once, their counts are written no more often than this; a condition that turns is
/// written at once.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// A desk of thousands takes a while to count, and any of its bots asks for it: so many times as long nothing is counted
/// after it.
const PAUSE_PER_COUNT: u32 = 4;

/// When a policy's bots were last counted, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    at: Instant,
    took: Duration,
}

/// What this process remembers of a policy.
#[derive(Clone, Debug)]
pub struct Known {
    seen: Seen,
    written: Option<Instant>,
}

/// Counts the policy's bots into its status and says when to look again.
///
/// # Errors
/// The status could not be written.
pub async fn reconcile(policy: &CachedPolicy, ctx: &Context) -> Result<Duration, ReconcileError> {
    let policy = match policy {
        Ok(policy) => policy,
        Err(undecodable) => {
            let again = undecodable::policy(undecodable, ctx).await.map_err(ReconcileError::Report)?;
            return Ok(again.unwrap_or(RESYNC));
        }
    };
    let uid = policy.uid().unwrap_or_default();
    if ctx.is_deciding()
        && let Some(Counted { at, took }) = ctx.counted.get(&uid)
        && let Some(wait) = (took * PAUSE_PER_COUNT).checked_sub(at.elapsed()).filter(|wait| !wait.is_zero())
    {
        return Ok(wait);
    }
    let known = ctx.policies.get(&uid);
    let began = Instant::now();
    let members = members(policy, ctx);
    ctx.counted.insert(uid.clone(), Counted { at: Instant::now(), took: began.elapsed() });
    let desired = status::status(policy, &members, &Time(Timestamp::now()));
    let mut written = known.as_ref().and_then(|known| known.written);
    if policy.status.as_ref() == Some(&desired) {
        ctx.metrics.wrote("ArbPolicyStatus", "noop");
    } else {
        let since = written.map_or(BETWEEN_WRITES, |written| written.elapsed());
        if since < BETWEEN_WRITES && !turns(policy, &desired) {
            return Ok(BETWEEN_WRITES - since);
        }
        write(policy, &desired, ctx).await.map_err(ReconcileError::Report)?;
        written = Some(Instant::now());
    }
    for report in events::reports(policy, known.as_ref().map(|known| &known.seen), &desired) {
        ctx.reports.publish_on(&policy.object_ref(&()), &report).await;
    }
    ctx.policies.insert(uid, Known { seen: Seen::of(policy), written });
    Ok(RESYNC)
}

/// The bots that the policy selects.
fn members(policy: &ArbPolicy, ctx: &Context) -> Vec<Member> {
    let keys = ctx.caches.bots.keys(policy.namespace().as_deref());
    let bots = keys.iter().filter_map(|key| ctx.caches.bots.get(key));
    // One after the other: a thousand bots are not decoded at once.
    bots.filter_map(|bot| match bot {
        Ok(bot) => member::is_selected(policy, &bot.metadata).then(|| Member::of(policy, &bot)),
        Err(bot) => member::is_selected(policy, &bot.metadata)
            .then(|| Member::unreadable(bot.metadata.name.as_deref().unwrap_or_default())),
    })
    .collect()
}

/// Whether a condition gets another status, or the policy itself has changed.
fn turns(policy: &ArbPolicy, desired: &ArbPolicyStatus) -> bool {
    let present = policy.status.clone().unwrap_or_default();
    let status = |status: &ArbPolicyStatus, type_| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
        condition.map(|condition| condition.status.clone())
    };
    present.observed_generation != desired.observed_generation
        || desired.conditions.iter().any(|c| status(&present, c.type_.clone()) != status(desired, c.type_.clone()))
}

async fn write(policy: &ArbPolicy, status: &ArbPolicyStatus, ctx: &Context) -> Result<(), ApiError> {
    let (name, namespace) = (policy.name_any(), policy.namespace().unwrap_or_default());
    let metadata = json!({"name": name, "namespace": namespace, "uid": policy.uid()});
    let (api_version, kind) = (ArbPolicy::api_version(&()), ArbPolicy::kind(&()));
    let body = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status});
    let api: Api<Raw<ArbPolicy>> = Api::namespaced(ctx.client.clone(), &namespace);
    let (params, patch) = (api::apply_params(), Patch::Apply(&body));
    let write = api.patch_status(&name, &params, &patch);
    api::call(format!("write the status of ArbPolicy {namespace}/{name}"), write).await?;
    ctx.metrics.wrote("ArbPolicyStatus", "applied");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::policy;

    #[test]
    fn counts_wait_for_their_turn_and_a_condition_that_turns_does_not() {
        let member = |name: &str, halted: bool| Member {
            name: name.to_owned(),
            acknowledged: true,
            at_zero: false,
            not_halted: (!halted).then(|| "OrdersWorking".to_owned()),
            not_flat: None,
        };
        let counted = |halted: usize| {
            let members: Vec<_> = (0..3).map(|n| member(&format!("b{n}"), n < halted)).collect();
            status::status(&policy("mode: Halted"), &members, &Time(Timestamp::UNIX_EPOCH))
        };
        let mut present = policy("mode: Halted");
        assert!(turns(&present, &counted(1)), "nothing is counted yet");
        present.status = Some(counted(1));
        assert!(!turns(&present, &counted(2)), "only a number and a message");
        assert!(turns(&present, &counted(3)), "the last bot is halted");
        present.metadata.generation = Some(6);
        let mut later = counted(1);
        later.observed_generation = Some(6);
        assert!(turns(&present, &later));
    }
}
