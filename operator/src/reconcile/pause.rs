//! The annotation arbbot.io/paused: the bot's children are left as they are. Safety is not: a kill still starts a bot at
//! zero or without a Deployment, and a drain still ends in zero (I/O).

use arbbot_crds::ArbBot;
use arbbot_crds::names::MANAGER_OPERATOR;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::apply::is_ours;
use super::fetch::Fetched;
use super::replicas::{is_killed, replicas};
use crate::api::{ApiError, call};
use crate::context::Context;

/// Changes nothing but the number of pods, and that only for safety. Returns the Deployment as it is then.
///
/// # Errors
/// The call failed.
pub async fn keep_safe(fetched: &Fetched, ctx: &Context) -> Result<Option<Deployment>, ApiError> {
    let Some(live) = &fetched.children.deployment else { return Ok(None) };
    match for_safety(fetched) {
        Some(replicas) if is_ours(live, &fetched.bot.uid().unwrap_or_default()) => {
            scale(&fetched.bot, live, replicas, ctx).await.map(Some)
        }
        _ => Ok(Some(live.clone())),
    }
}

/// Whether a kill demands a pod and there is no Deployment that could have one: then the children are made in spite of
/// the pause, because nothing else would close the position.
#[must_use]
pub fn lacks_its_workload(fetched: &Fetched) -> bool {
    fetched.children.deployment.is_none() && is_killed(&fetched.bot, &fetched.policies())
}

/// The number of pods that safety demands, where it is another than the present one.
fn for_safety(fetched: &Fetched) -> Option<i32> {
    let (live, policies) = (fetched.live_replicas()?, fetched.policies());
    let wanted = replicas(&fetched.bot, &policies, Some(live), fetched.is_ending());
    let starts = live == 0 && wanted > 0 && is_killed(&fetched.bot, &policies);
    let ends = live > 0 && wanted == 0;
    (starts || ends).then_some(wanted)
}

async fn scale(bot: &ArbBot, live: &Deployment, replicas: i32, ctx: &Context) -> Result<Deployment, ApiError> {
    let (name, namespace) = (live.name_any(), bot.namespace().unwrap_or_default());
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = Patch::Merge(json!({"metadata": {"uid": live.uid()}, "spec": {"replicas": replicas}}));
    let params = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
    let scaled = call(format!("scale Deployment {namespace}/{name}"), api.patch(&name, &params, &patch)).await?;
    ctx.metrics.wrote("Deployment", "applied");
    tracing::info!(namespace, name, replicas, "scaled for safety; the rest of reconciliation is paused");
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot_with_status, deployment, fetched, policy};
    use super::*;
    use arbbot_crds::arbbot::Mode;
    use std::sync::Arc;

    const DRAINED: &str = "{bot: {appliedGeneration: 3, drain: {startedAt: '2026-01-01T00:00:00Z', phase: Finished}}, conditions: [{type: Flat, status: 'True', reason: NoPosition, message: m, observedGeneration: 3, lastTransitionTime: '2026-01-01T00:00:00Z'}]}";

    fn paused(mode: Mode, live: i32, policy_spec: &str) -> Fetched {
        let mut bot = bot_with_status(DRAINED);
        bot.spec.mode = mode;
        let mut fetched = fetched(bot);
        fetched.children.deployment = Some(deployment(&fetched.bot, live));
        fetched.policies = vec![Arc::new(policy(policy_spec))];
        fetched
    }

    #[test]
    fn a_pause_holds_neither_a_kill_nor_the_end_of_a_drain() {
        assert_eq!(for_safety(&paused(Mode::Stopped, 0, "killSwitch: {engaged: true}")), Some(1));
        let mut drained = paused(Mode::Stopped, 1, "{}");
        drained.policies.clear();
        assert_eq!(for_safety(&drained), Some(0));
    }

    #[test]
    fn a_kill_makes_the_workload_that_is_gone_in_spite_of_a_pause() {
        let mut gone = paused(Mode::Active, 1, "killSwitch: {engaged: true}");
        assert!(!lacks_its_workload(&gone));
        gone.children.deployment = None;
        assert!(lacks_its_workload(&gone));
        gone.policies.clear();
        assert!(!lacks_its_workload(&gone), "without a kill the pause holds");
    }

    #[test]
    fn a_pause_leaves_what_is_not_about_safety() {
        assert_eq!(for_safety(&paused(Mode::Active, 0, "{}")), None, "somebody scaled it down by hand");
        assert_eq!(for_safety(&paused(Mode::Active, 3, "{}")), None);
        assert_eq!(for_safety(&paused(Mode::Stopped, 0, "{}")), None);
    }
}
