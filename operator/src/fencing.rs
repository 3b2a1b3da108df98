//! Which pods are proven to have ended: only then may another pod take over the Lease at once (SAFETY §4).
//!
//! Proof is what the kubelet wrote: every container terminated, in a pod that starts none again. That the pod object is
//! gone proves nothing: it may have been force-deleted while its containers run on.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arbbot_crds::names::{ANNOTATION_TERMINATED, MANAGER_OPERATOR};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::api::{ApiError, call_unless_gone};
use crate::context::Context;
use crate::reconcile::contact::holder;
use crate::reconcile::fetch::Fetched;

/// Whether the pod shows that its containers have ended for good.
#[must_use]
pub fn is_terminated(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let phase_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    // The kubelet restarts an ended container unless the pod is over or being deleted. The phase alone is no proof: the
    // control plane sets it, too, when it has lost the node.
    let no_restart = phase_ended || pod.metadata.deletion_timestamp.is_some();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let all_ended = containers.iter().all(|c| c.state.as_ref().is_some_and(|state| state.terminated.is_some()));
    no_restart && !containers.is_empty() && all_ended
}

/// uids of the pods that were seen terminated, the latest [`REMEMBERED`] of them. A pod stays in it after its object is
/// gone: that is when it is needed.
#[derive(Default)]
pub struct Terminated(Mutex<Uids>);

#[derive(Default)]
struct Uids {
    all: HashSet<Arc<str>>,
    oldest_first: VecDeque<Arc<str>>,
}

/// Pods whose end is remembered: twice as many as there are bots on the largest desk that we measure. Of one that is
/// forgotten too early a successor waits for the Lease to expire.
const REMEMBERED: usize = 20_000;

impl Terminated {
    /// Notes what a pod shows, also when it is shown for the last time.
    pub fn observe(&self, pod: &Pod) {
        if is_terminated(pod)
            && let Some(uid) = pod.uid()
        {
            let uid: Arc<str> = uid.into();
            let mut uids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if uids.all.insert(uid.clone()) {
                uids.oldest_first.push_back(uid);
            }
            if uids.oldest_first.len() > REMEMBERED
                && let Some(oldest) = uids.oldest_first.pop_front()
            {
                uids.all.remove(&oldest);
            }
        }
    }

    /// Whether the pod with this uid was seen terminated.
    #[must_use]
    pub fn contains(&self, pod_uid: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all.contains(pod_uid)
    }
}

/// Writes on the bot's Lease that its holder has ended, once that is proven.
///
/// # Errors
/// The call failed.
pub async fn publish(fetched: &Fetched, ctx: &Context) -> Result<(), ApiError> {
    let Some(lease) = &fetched.lease else { return Ok(()) };
    let Some(uid) = holder(lease).filter(|uid| ctx.terminated.contains(uid)) else { return Ok(()) };
    if lease.annotations().get(ANNOTATION_TERMINATED).is_some_and(|written| written == uid) {
        return Ok(());
    }
    let (name, namespace) = (lease.name_any(), lease.namespace().unwrap_or_default());
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), &namespace);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION_TERMINATED: uid}}}));
    let params = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
    let write = api.patch_metadata(&name, &params, &patch);
    call_unless_gone(format!("annotate Lease {namespace}/{name}"), write).await?;
    ctx.metrics.wrote("Lease", "applied");
    tracing::info!(namespace, name, pod_uid = uid, "the holder of the Lease is proven terminated");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(phase: &str, deleted: bool, states: &[&str]) -> Pod {
        let containers: Vec<Value> = states
            .iter()
            .map(|state| {
                let state =
                    if *state == "terminated" { json!({"terminated": {"exitCode": 0}}) } else { json!({*state: {}}) };
                json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
            })
            .collect();
        let mut pod = json!({"metadata": {"uid": "u"}, "status": {"phase": phase, "containerStatuses": containers}});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_containers_that_ended_for_good_are_proof() {
        assert!(is_terminated(&pod("Failed", false, &["terminated"])));
        assert!(is_terminated(&pod("Running", true, &["terminated", "terminated"])));
        assert!(!is_terminated(&pod("Running", false, &["terminated"])), "the kubelet starts it again");
        assert!(!is_terminated(&pod("Running", true, &["running"])), "it is still ending");
        assert!(!is_terminated(&pod("Failed", true, &["running"])), "the control plane gave up a lost node");
        assert!(!is_terminated(&pod("Failed", false, &[])), "nobody has seen a container end");
    }

    #[test]
    fn a_force_deleted_pod_proves_nothing_and_a_seen_end_outlives_the_pod() {
        let seen = Terminated::default();
        seen.observe(&pod("Running", true, &["running"]));
        assert!(!seen.contains("u"));
        seen.observe(&pod("Succeeded", true, &["terminated"]));
        assert!(seen.contains("u"));
        let mut later = pod("Succeeded", true, &["terminated"]);
        for number in 0..REMEMBERED {
            later.metadata.uid = Some(number.to_string());
            seen.observe(&later);
            seen.observe(&later);
        }
        assert!(!seen.contains("u") && seen.contains("0"), "no more than so many are kept");
    }
}
