//! The status of a pod as a kubelet would write it. Pure.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// What a pod's container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: String },
    Terminated(Terminated),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminated {
    pub exit_code: i32,
    pub signal: i32,
    pub started_at: String,
    pub finished_at: String,
}

/// A pod's one container.
#[derive(Clone, Debug)]
pub struct ContainerView {
    pub state: State,
    pub last: Option<Terminated>,
    pub restarts: i64,
    pub ready: bool,
    /// Whether the pod has ended for good.
    pub over: bool,
}

impl State {
    fn json(&self) -> Value {
        match self {
            Self::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            Self::Running { since } => json!({"running": {"startedAt": since}}),
            Self::Terminated(end) => json!({"terminated": end.json()}),
        }
    }
}

impl Terminated {
    fn json(&self) -> Value {
        json!({
            "exitCode": self.exit_code, "signal": self.signal,
            "reason": if self.exit_code == 0 { "Completed" } else { "Error" },
            "startedAt": self.started_at, "finishedAt": self.finished_at,
        })
    }
}

impl ContainerView {
    fn phase(&self) -> &'static str {
        match (&self.state, self.over) {
            (State::Terminated(end), true) if end.exit_code == 0 => "Succeeded",
            (_, true) => "Failed",
            (State::Waiting { .. }, false) if self.last.is_none() => "Pending",
            _ => "Running",
        }
    }

    /// The whole status of `pod`; `old` is what was written before, `now` is the time of any change.
    pub fn pod_status(&self, pod: &Pod, old: &Value, pod_ip: &str, host_ip: &str, now: &str) -> Value {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let name = container.map(|container| container.name.clone()).unwrap_or_default();
        let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
        let transition = |kind: &str, status: &str| {
            let conditions = old["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let same = conditions.iter().find(|c| c["type"] == kind && c["status"] == status);
            same.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone())
        };
        let condition = |kind: &str, holds: bool, reason: Option<&str>| {
            let status = if holds { "True" } else { "False" };
            let mut condition = json!({
                "type": kind, "status": status, "lastTransitionTime": transition(kind, status),
            });
            if let (false, Some(reason)) = (holds, reason) {
                condition["reason"] = json!(reason);
            }
            condition
        };
        let not_ready = if self.over { "PodFailed" } else { "ContainersNotReady" };
        json!({
            "phase": self.phase(),
            "conditions": [
                condition("PodScheduled", true, None),
                condition("Initialized", true, None),
                condition("ContainersReady", self.ready, Some(not_ready)),
                condition("Ready", self.ready, Some(not_ready)),
            ],
            "hostIP": host_ip, "hostIPs": [{"ip": host_ip}],
            "podIP": pod_ip, "podIPs": [{"ip": pod_ip}],
            "startTime": old.get("startTime").cloned().unwrap_or_else(|| json!(now)),
            "qosClass": pod.status.as_ref().and_then(|status| status.qos_class.clone()),
            "containerStatuses": [{
                "name": name, "image": image, "imageID": image,
                "ready": self.ready, "started": matches!(self.state, State::Running { .. }),
                "restartCount": self.restarts,
                "state": self.state.json(),
                "lastState": self.last.as_ref().map_or_else(|| json!({}), |end| json!({"terminated": end.json()})),
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_when_the_condition_changes() {
        let pod = Pod::default();
        let running = State::Running { since: "t0".into() };
        let mut view = ContainerView { state: running, last: None, restarts: 0, ready: false, over: false };
        let first = view.pod_status(&pod, &json!({}), "127.2.0.3", "127.2.0.1", "t1");
        view.ready = true;
        let second = view.pod_status(&pod, &first, "127.2.0.3", "127.2.0.1", "t2");
        assert_eq!(first["phase"], "Running");
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "t1");
        assert_eq!(second["conditions"][3]["lastTransitionTime"], "t2");
        assert_eq!(second["startTime"], "t1");
    }

    #[test]
    fn a_container_that_ended_for_good_ends_its_pod() {
        let end = |exit_code| {
            let end = Terminated { exit_code, signal: 0, started_at: "a".into(), finished_at: "b".into() };
            ContainerView { state: State::Terminated(end), last: None, restarts: 0, ready: false, over: true }
        };
        assert_eq!((end(0).phase(), end(137).phase()), ("Succeeded", "Failed"));
    }
}
