//! The API server's audit log: who asked it for what, and what it answered.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Where Kubernetes says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Where it says whether the request was allowed.
const DECISION: &str = "authorization.k8s.io/decision";

/// One request of a pod's account.
#[derive(Clone, Debug)]
pub struct Request {
    /// For example `system:serviceaccount:arbbot-system:arbbot-operator`.
    pub user: String,
    /// The pod that the token was bound to.
    pub pod: Option<String>,
    /// As RBAC says it: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    pub object: Object,
    /// HTTP status of the answer; of a watch, of its beginning.
    pub code: u16,
    /// Whether RBAC refused it. An answer of 403 alone may also come from admission.
    pub forbidden: bool,
    pub received: Timestamp,
    /// Of a watch that goes on, when it began.
    pub answered: Timestamp,
    /// The object that was answered, where the policy keeps it.
    pub answer: Option<Value>,
}

/// What a request was about; every part that does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub group: String,
    /// With a subresource as RBAC writes it: `arbbots/status`. Of a request for no resource, its path.
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Request {
    /// Whether it was meant to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// The resourceVersion of the answered object: the order in which etcd took all writes.
    pub fn version(&self) -> Option<u64> {
        self.answer.as_ref()?["metadata"]["resourceVersion"].as_str()?.parse().ok()
    }

    /// Whether it is of the account of a namespace.
    pub fn is_of(&self, namespace: &str, account: &str) -> bool {
        self.user == user(namespace, account)
    }
}

/// The name of a ServiceAccount as a user.
pub fn user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Object { group, resource, namespace, name } = &self.object;
        let by = self.pod.as_deref().unwrap_or(&self.user);
        let Self { received, verb, code, .. } = self;
        write!(f, "{received} {by}: {verb} {resource}.{group} {namespace}/{name} -> {code}")
    }
}

/// Every request in an audit log, in the order of their receipt.
///
/// # Errors
/// It cannot be read, or is not an audit log.
pub fn read(log: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    // The last line may just be being written.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut requests: HashMap<String, Request> = HashMap::new();
    for line in lines {
        let event: Event = serde_json::from_str(line).with_context(|| format!("{} says {line}", log.display()))?;
        // A watch appears when it begins and when it ends: the later line says all.
        requests.insert(event.audit_id.clone(), event.try_into()?);
    }
    let mut requests: Vec<_> = requests.into_values().collect();
    requests.sort_by_key(|request| request.received);
    Ok(requests)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: Answer,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
    response_object: Option<Value>,
}

#[derive(Deserialize)]
struct User {
    /// Absent of a request that ended before anybody was recognised.
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: HashMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

impl TryFrom<Event> for Request {
    type Error = anyhow::Error;

    fn try_from(event: Event) -> Result<Self> {
        let time = |text: &str| text.parse::<Timestamp>().map_err(|error| anyhow!("the time {text}: {error}"));
        let object = match event.object_ref {
            Some(ObjectRef { api_group: group, resource, subresource, namespace, name }) => {
                let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
                Object { group, resource, namespace, name }
            }
            None => {
                let path = event.request_uri.split('?').next().unwrap_or_default().to_owned();
                Object { resource: path, ..Object::default() }
            }
        };
        Ok(Self {
            user: event.user.username,
            pod: event.user.extra.get(POD_NAME).and_then(|names| names.first()).cloned(),
            verb: event.verb,
            object,
            code: event.response_status.code,
            forbidden: event.annotations.get(DECISION).is_some_and(|decision| decision == "forbid"),
            received: time(&event.request_received_timestamp)?,
            answered: time(&event.stage_timestamp)?,
            answer: event.response_object,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str, stage: &str, at: &str) -> String {
        let event = json!({
            "kind": "Event", "auditID": id, "stage": stage, "verb": "watch",
            "requestURI": "/apis/arbbot.io/v1alpha1/arbbots?watch=true",
            "user": {"username": "system:serviceaccount:a:b", "extra": {POD_NAME: ["p"]}},
            "objectRef": {"resource": "arbbots", "subresource": "status", "apiGroup": "arbbot.io"},
            "responseStatus": {"metadata": {}, "code": 200},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z", "stageTimestamp": at,
            "annotations": {DECISION: "allow"},
        });
        format!("{event}\n")
    }

    #[test]
    fn a_watch_is_one_request_and_a_line_that_is_being_written_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let began = line("1", "ResponseStarted", "2026-01-01T00:00:00.5Z");
        let ended = line("1", "ResponseComplete", "2026-01-01T00:00:09Z");
        std::fs::write(file.path(), format!("{began}{ended}{}", &began[..40])).unwrap();
        let [request]: [Request; 1] = read(file.path()).unwrap().try_into().unwrap();
        assert_eq!(request.object.resource, "arbbots/status");
        assert_eq!((request.pod.as_deref(), request.code, request.forbidden), (Some("p"), 200, false));
        assert!(request.is_of("a", "b") && !request.is_write());
        assert_eq!(request.answered.to_string(), "2026-01-01T00:00:09Z");
    }
}
