//! Why a bot's pod does not run, told from what Kubernetes shows (pure). Each diagnosis says what to do.

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::conditions::Reason;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::build::CONTAINER;
use super::verdict::Verdict;

/// After so many restarts a bot that is not ready is in a crash loop, also while its container runs.
const CRASH_LOOP: i32 = 3;
/// A container that is created for longer than this waits for something that is missing.
pub const SLOW_START: Duration = Duration::from_secs(15);

/// Waiting reasons of the kubelet that a person must remedy.
const CANNOT_START: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// The newest pod that is not being deleted.
fn newest(pods: &[Arc<Pod>]) -> Option<&Pod> {
    let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    alive.max_by_key(|pod| pod.creation_timestamp()).map(Arc::as_ref)
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == CONTAINER)
}

fn waiting_reason(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// The pod whose container has been in creation for longer than [`SLOW_START`]: its Events tell why.
pub fn slow_to_start(pods: &[Arc<Pod>], now: Timestamp) -> Option<&Pod> {
    let pod = newest(pods)?;
    let started = pod.status.as_ref()?.start_time.as_ref()?.0;
    let waits = waiting_reason(container(pod)?)? == "ContainerCreating";
    let slow = now.duration_since(started) > SignedDuration::try_from(SLOW_START).unwrap_or_default();
    (waits && slow).then_some(pod)
}

/// What keeps the pod from running. None: it runs and is ready.
#[must_use]
pub fn diagnose(deployment: &Deployment, pods: &[Arc<Pod>], pod_events: &[Event]) -> Option<Verdict> {
    let Some(pod) = newest(pods) else { return Some(without_pod(deployment, pods)) };
    let name = pod.name_any();
    if let Some(message) = unschedulable(pod) {
        return Some(Verdict::reconciling(
            Reason::PodNotReady,
            format!("pod {name} finds no node: {message}; free capacity, or change spec.resources or spec.podTemplate"),
        ));
    }
    let Some(status) = container(pod) else {
        return Some(Verdict::reconciling(Reason::Progressing, format!("pod {name} is being scheduled and started")));
    };
    if !status.ready && (status.restart_count >= CRASH_LOOP || waiting_reason(status) == Some("CrashLoopBackOff")) {
        return Some(crash_loop(&name, pod, status));
    }
    if let Some(reason) = waiting_reason(status) {
        return Some(waiting(&name, status, reason, pod_events));
    }
    if let Some(ended) = status.state.as_ref().and_then(|state| state.terminated.as_ref()) {
        let message = ended.message.as_deref().unwrap_or("no message").trim();
        let text = format!("the bot in pod {name} ended with code {}: {message}; it is started again", ended.exit_code);
        return Some(Verdict::reconciling(Reason::PodNotReady, text));
    }
    (!status.ready).then(|| {
        let text = format!("pod {name} runs but /readyz fails; see `kubectl logs -n {} {name}`", namespace(pod));
        Verdict::reconciling(Reason::PodNotReady, text)
    })
}

fn namespace(pod: &Pod) -> String {
    pod.namespace().unwrap_or_default()
}

fn without_pod(deployment: &Deployment, pods: &[Arc<Pod>]) -> Verdict {
    if let Some(pod) = pods.first() {
        let text = format!("pod {} is ending; the next starts after it", pod.name_any());
        return Verdict::reconciling(Reason::Progressing, text);
    }
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
    let refused = conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure" && c.status == "True");
    match refused {
        Some(refused) => Verdict::stalled(
            Reason::PodCannotStart,
            format!(
                "the pod is refused: {}; change the quota or the policy of the namespace, or spec.podTemplate",
                refused.message.as_deref().unwrap_or("no message")
            ),
        ),
        None => Verdict::reconciling(Reason::Progressing, "the Deployment creates the pod"),
    }
}

fn unschedulable(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    (scheduled.reason.as_deref() == Some("Unschedulable")).then(|| scheduled.message.as_deref().unwrap_or_default())
}

fn crash_loop(name: &str, pod: &Pod, status: &ContainerStatus) -> Verdict {
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.as_ref()?.message.clone();
    let last = ended(&status.state).or_else(|| ended(&status.last_state)).unwrap_or_else(|| "no message".to_owned());
    let text = format!(
        "the bot in pod {name} has crashed {} times, last with: {}; see `kubectl logs -n {} {name} --previous`",
        status.restart_count,
        last.trim(),
        namespace(pod)
    );
    Verdict::stalled(Reason::PodNotReady, text)
}

fn waiting(name: &str, status: &ContainerStatus, reason: &str, events: &[Event]) -> Verdict {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
    if CANNOT_START.contains(&reason) {
        let image = if reason.contains("Image") {
            format!("; check spec.image ({}) and spec.podTemplate.imagePullSecrets", status.image)
        } else {
            "; create or correct what it names".to_owned()
        };
        return Verdict::stalled(Reason::PodCannotStart, format!("pod {name}: {reason}: {message}{image}"));
    }
    match events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FailedMount"))
        .max_by_key(|event| last_seen(event))
    {
        Some(event) => failed_mount(name, event.message.as_deref().unwrap_or_default()),
        None => Verdict::reconciling(Reason::Progressing, format!("pod {name}: {reason}")),
    }
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    event.last_timestamp.as_ref().map(|time| time.0).max(series.map(|time| time.0))
}

fn failed_mount(pod: &str, message: &str) -> Verdict {
    // The kubelet's words: secret "x" not found; configmap "x" not found; references non-existent … key.
    let secret = message.contains("secret \"") && message.contains("not found");
    if secret {
        let text = format!(
            "pod {pod}: {message}; create the Secret of spec.credentials.secretRef with the keys name and privateKey"
        );
        return Verdict::stalled(Reason::SecretMissing, text);
    }
    if message.contains("not found") || message.contains("non-existent") {
        let text = format!("pod {pod}: {message}; create it, or correct the reference in spec");
        return Verdict::stalled(Reason::PodCannotStart, text);
    }
    Verdict::reconciling(Reason::PodNotReady, format!("pod {pod}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Vec<Arc<Pod>> {
        let metadata = json!({"name": "p", "namespace": "desk", "creationTimestamp": "2026-01-01T00:00:00Z"});
        vec![Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())]
    }

    fn container_in(state: Value) -> Vec<Arc<Pod>> {
        let mut container = json!({"name": "bot", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0});
        container.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        pod(json!({"startTime": "2026-01-01T00:00:00Z", "containerStatuses": [container]}))
    }

    fn verdict(pods: &[Arc<Pod>], events: &[Event]) -> (bool, Reason, String) {
        match diagnose(&Deployment::default(), pods, events) {
            Some(Verdict::Stalled(why)) => (true, why.reason, why.message),
            Some(Verdict::Reconciling(why)) => (false, why.reason, why.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_broken_image_names_the_field() {
        let pods =
            container_in(json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}));
        let (stalled, reason, message) = verdict(&pods, &[]);
        assert!(stalled && reason == Reason::PodCannotStart);
        assert!(message.contains("spec.image (i:1)") && message.contains("no such image"), "{message}");
    }

    #[test]
    fn a_crash_loop_shows_the_last_words_of_the_bot() {
        let pods = container_in(json!({
            "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "ledger belongs to another portfolio\n"}},
        }));
        let (stalled, reason, message) = verdict(&pods, &[]);
        assert!(stalled && reason == Reason::PodNotReady);
        assert!(message.contains("crashed 4 times, last with: ledger belongs to another portfolio;"), "{message}");
    }

    #[test]
    fn a_crash_loop_does_not_end_while_the_container_runs_for_a_moment() {
        let between = container_in(json!({
            "restartCount": 4, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": "no disk"}},
        }));
        let (stalled, reason, message) = verdict(&between, &[]);
        assert!(stalled && reason == Reason::PodNotReady && message.contains("no disk"), "{message}");
    }

    #[test]
    fn a_missing_secret_is_told_from_the_pods_events() {
        let pods = container_in(json!({"state": {"waiting": {"reason": "ContainerCreating"}}}));
        let event: Event = serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "reason": "FailedMount",
            "message": "MountVolume.SetUp failed for volume \"credentials\" : secret \"key\" not found",
        }))
        .unwrap();
        let (stalled, reason, message) = verdict(&pods, &[event]);
        assert!(stalled && reason == Reason::SecretMissing);
        assert!(message.contains("spec.credentials.secretRef"));
        let at = |second: i64| Timestamp::from_second(1_767_225_600 + second).unwrap();
        assert!(slow_to_start(&pods, at(10)).is_none());
        assert!(slow_to_start(&pods, at(16)).is_some());
    }

    #[test]
    fn an_unschedulable_pod_and_a_refused_one_say_why() {
        let pods = pod(json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}));
        let (stalled, _, message) = verdict(&pods, &[]);
        assert!(!stalled && message.contains("0/3 nodes"));
        let refused: Deployment = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity"}]}}))
        .unwrap();
        let Some(Verdict::Stalled(why)) = diagnose(&refused, &[], &[]) else { panic!("not stalled") };
        assert!(why.message.contains("violates PodSecurity"));
    }
}
