//! The verdict that Helm, Flux, Argo's health checks and `kubectl wait` builders reach on a custom resource, by the
//! published rules of kstatus (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>).

use serde_json::Value;

/// kstatus' words for where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does not yet match its spec.
    InProgress,
    /// It will not match its spec without help.
    Failed,
    /// It matches its spec.
    Current,
    /// It is being deleted.
    Terminating,
}

/// The verdict on an object of a kind that kstatus has no rules of its own for.
pub fn verdict(object: &Value) -> Verdict {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Verdict::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Verdict::InProgress;
    }
    // The first of these that applies decides.
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return Verdict::InProgress,
            (Some("Stalled"), Some("True")) => return Verdict::Failed,
            _ => {}
        }
    }
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.clone().find(|condition| condition["type"] == "Ready");
    match ready.map(|ready| ready["status"] == "True") {
        // Without a word against it an object is taken for good: a new one must say something against it.
        None | Some(true) => Verdict::Current,
        Some(false) => Verdict::InProgress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(observed: Option<u64>, conditions: &[(&str, &str)]) -> Verdict {
        let conditions: Vec<_> = conditions.iter().map(|(kind, is)| json!({"type": kind, "status": is})).collect();
        let status = json!({"observedGeneration": observed, "conditions": conditions});
        verdict(&json!({"metadata": {"generation": 2}, "status": status}))
    }

    #[test]
    fn ready_counts_only_for_the_present_generation() {
        assert_eq!(of(Some(2), &[("Ready", "True")]), Verdict::Current);
        assert_eq!(of(Some(1), &[("Ready", "True")]), Verdict::InProgress);
        assert_eq!(of(Some(2), &[("Ready", "False")]), Verdict::InProgress);
        assert_eq!(of(Some(2), &[("Ready", "Unknown")]), Verdict::InProgress);
    }

    #[test]
    fn reconciling_and_stalled_are_abnormal_true() {
        assert_eq!(of(Some(2), &[("Ready", "True"), ("Reconciling", "True")]), Verdict::InProgress);
        assert_eq!(of(Some(2), &[("Ready", "False"), ("Stalled", "True")]), Verdict::Failed);
        assert_eq!(of(Some(2), &[("Ready", "True"), ("Stalled", "False")]), Verdict::Current);
    }

    #[test]
    fn silence_is_taken_for_consent_and_deletion_wins() {
        assert_eq!(of(None, &[]), Verdict::Current);
        let deleted =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"observedGeneration": 0}});
        assert_eq!(verdict(&deleted), Verdict::Terminating);
    }
}
