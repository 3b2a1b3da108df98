//! An API server in memory: list with pages, watch, create, update, patch and delete with resourceVersions, and faults.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arbbot_crds::ArbBot;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, Uri};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::Client;
use serde_json::{Value, json};

pub const BOTS: &str = "/apis/arbbot.io/v1alpha1/namespaces/desk/arbbots";
pub const LEADER: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/arbbot-operator-leader";

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status code.
    Code(u16),
    /// What is written is not in the schema.
    OldSchema,
    /// No answer at all.
    Hang,
    /// Answered as always, but only after this time.
    Late(Duration),
}

type Rule = Box<dyn Fn(&Method, &str) -> Option<Fault> + Send>;

#[derive(Default)]
pub struct State {
    /// By path.
    pub objects: BTreeMap<String, Value>,
    /// Method and path of every request.
    pub requests: Vec<(Method, String)>,
    version: u64,
    /// Version, path, event.
    log: Vec<(u64, String, Value)>,
    watches: Vec<(Selection, UnboundedSender<Bytes>)>,
    fault: Option<Rule>,
    /// Changes are not shown to watches.
    pub silent: bool,
}

/// The server; clones share the state.
#[derive(Clone, Default)]
pub struct ApiServer(Arc<Mutex<State>>);

/// What a list or watch selects.
#[derive(Clone)]
struct Selection {
    collection: String,
    label: Option<String>,
    name: Option<String>,
}

impl Selection {
    fn of(path: &str, query: &BTreeMap<String, String>) -> Self {
        let name = query.get("fieldSelector").and_then(|s| s.strip_prefix("metadata.name=")).map(str::to_owned);
        Self { collection: path.to_owned(), label: query.get("labelSelector").cloned(), name }
    }

    fn takes(&self, path: &str, object: &Value) -> bool {
        let (collection, name) = path.rsplit_once('/').unwrap();
        let everywhere = match collection.split_once("/namespaces/") {
            Some((group, rest)) => format!("{group}/{}", rest.split_once('/').unwrap().1),
            None => collection.to_owned(),
        };
        let labelled = |label: &str| match label.split_once('=') {
            Some((key, value)) => object["metadata"]["labels"][key] == value,
            None => !object["metadata"]["labels"][label].is_null(),
        };
        (self.collection == collection || self.collection == everywhere)
            && self.label.as_deref().is_none_or(labelled)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

impl ApiServer {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A server with the bot `desk/carry`.
    pub fn with_bot() -> Self {
        let server = Self::default();
        server.put(&format!("{BOTS}/carry"), bot("carry", "11111111-2222-3333-4444-555555555555"));
        server
    }

    /// Stores an object as somebody else does.
    pub fn put(&self, path: &str, object: Value) {
        self.state().store(path, object);
    }

    /// Changes an object as somebody else does.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let mut object = state.objects[path].clone();
        change(&mut object);
        state.store(path, object);
    }

    /// Deletes an object as somebody else does.
    pub fn remove(&self, path: &str) {
        self.state().remove(path);
    }

    /// From now on requests fail by this rule.
    pub fn fail(&self, rule: impl Fn(&Method, &str) -> Option<Fault> + Send + 'static) {
        self.state().fault = Some(Box::new(rule));
    }

    /// No request fails any more.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Ends every watch as expired: what was missed must be listed.
    pub fn expire_watches(&self) {
        let mut state = self.state();
        state.log.clear();
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}});
        for (_, watch) in std::mem::take(&mut state.watches) {
            let _ = watch.unbounded_send(format!("{gone}\n").into());
        }
    }

    pub fn bot(&self, name: &str) -> ArbBot {
        serde_json::from_value(self.state().objects[&format!("{BOTS}/{name}")].clone()).unwrap()
    }

    /// Paths of the writes since the last call, without the leader's Lease and Events.
    pub fn take_writes(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state().requests);
        let writes = requests.into_iter().filter(|(method, path)| method != Method::GET && path != LEADER);
        writes.map(|(_, path)| path).filter(|path| !path.ends_with("/events")).collect()
    }

    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let fault = {
                    let mut state = server.state();
                    let path = parts.uri.path().to_owned();
                    let fault = state.fault.as_ref().and_then(|rule| rule(&parts.method, &path));
                    state.requests.push((parts.method.clone(), path));
                    fault
                };
                let (code, body) = match fault {
                    Some(Fault::Hang) => std::future::pending().await,
                    Some(Fault::Late(by)) => {
                        tokio::time::sleep(by).await;
                        server.state().answer(&parts.method, &parts.uri, kind, &body)
                    }
                    // As an API server answers whose definition lacks the field.
                    Some(Fault::OldSchema) => {
                        (500, failure(500, ".status.incidents: field not declared in schema").to_string().into())
                    }
                    Some(Fault::Code(code)) => (code, failure(code, "injected").to_string().into()),
                    None => server.state().answer(&parts.method, &parts.uri, kind, &body),
                };
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "system")
    }
}

/// A bot as an API server has it.
pub fn bot(name: &str, portfolio: &str) -> Value {
    json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": name, "namespace": "desk", "uid": format!("uid-of-{name}"), "generation": 1},
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {"portfolio": portfolio}},
            "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1000"}},
            "credentials": {"secretRef": {"name": "key"}},
            // The API server returns it as 500m.
            "resources": {"limits": {"cpu": "0.5"}},
        },
        "status": {"bot": {"appliedGeneration": 1}},
    })
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message})
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let before = self.objects.get(path);
        object["metadata"]["resourceVersion"] =
            before.map(|before| before["metadata"]["resourceVersion"].clone()).unwrap_or_default();
        if before == Some(&object) {
            return object; // nothing has changed
        }
        let type_ = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let (old, new) = (before.map(|before| &before["metadata"]["generation"]), &object["metadata"]["generation"]);
        if old == Some(new) && new.is_i64() && before.is_some_and(|before| before["spec"] != object["spec"]) {
            object["metadata"]["generation"] = json!(new.as_i64().unwrap() + 1);
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        self.tell(type_, path, &object);
        object
    }

    fn remove(&mut self, path: &str) -> Option<Value> {
        let object = self.objects.remove(path)?;
        self.version += 1;
        self.tell("DELETED", path, &object);
        Some(object)
    }

    fn tell(&mut self, type_: &str, path: &str, object: &Value) {
        let event = json!({"type": type_, "object": object});
        if !self.silent {
            let line = Bytes::from(format!("{event}\n"));
            self.watches.retain(|(selection, watch)| {
                !selection.takes(path, object) || watch.unbounded_send(line.clone()).is_ok()
            });
        }
        self.log.push((self.version, path.to_owned(), event));
    }

    fn answer(&mut self, method: &Method, uri: &Uri, kind: &str, body: &[u8]) -> (u16, Body) {
        let path = uri.path();
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
            .collect();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        // A path of an object has a name after the plural.
        let depth = path.split('/').count() - if path.starts_with("/api/") { 3 } else { 4 };
        let is_collection = depth == 1 || (path.contains("/namespaces/") && depth == 3);
        let (code, value) = match *method {
            Method::GET if query.contains_key("watch") => return (200, self.watch(path, &query)),
            Method::GET if is_collection => (200, self.list(path, &query)),
            Method::GET => self.objects.get(path).map_or((404, failure(404, path)), |object| (200, object.clone())),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or("event").to_owned();
                let path = format!("{path}/{name}");
                match self.objects.contains_key(&path) && !path.contains("/events/") {
                    true => (409, failure(409, "exists")),
                    false => (201, self.store(&path, body)),
                }
            }
            Method::PUT => match self.is_current(path, &body) {
                true => (200, self.store(path, body)),
                false => (409, failure(409, "changed")),
            },
            Method::DELETE => self.remove(path).map_or((404, failure(404, path)), |object| (200, object)),
            _ => self.patch(path, kind, &body),
        };
        (code, value.to_string().into())
    }

    fn is_current(&self, path: &str, body: &Value) -> bool {
        let version = &body["metadata"]["resourceVersion"];
        version.is_null()
            || self.objects.get(path).is_some_and(|object| object["metadata"]["resourceVersion"] == *version)
    }

    fn list(&self, path: &str, query: &BTreeMap<String, String>) -> Value {
        let selection = Selection::of(path, query);
        let all: Vec<_> = self.objects.iter().filter(|(path, object)| selection.takes(path, object)).collect();
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let items: Vec<_> = all.iter().skip(from).take(limit).map(|(_, object)| (*object).clone()).collect();
        let next = from + items.len();
        let token = if next < all.len() { json!(next.to_string()) } else { Value::Null };
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string(), "continue": token}, "items": items})
    }

    fn watch(&mut self, path: &str, query: &BTreeMap<String, String>) -> Body {
        let selection = Selection::of(path, query);
        let since: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (sender, receiver) = unbounded();
        for (_, path, event) in self.log.iter().filter(|(version, ..)| *version > since) {
            if selection.takes(path, &event["object"]) {
                sender.unbounded_send(format!("{event}\n").into()).unwrap();
            }
        }
        self.watches.push((selection, sender));
        Body::from_stream(receiver.map(Ok::<_, Infallible>))
    }

    fn patch(&mut self, path: &str, kind: &str, patch: &Value) -> (u16, Value) {
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let before = self.objects.get(path).cloned();
        if before.is_none() && (is_status || !kind.contains("apply")) {
            return (404, failure(404, path));
        }
        let mut object = before.unwrap_or_else(|| json!({"metadata": {"uid": path}}));
        if let Some(operations) = patch.as_array() {
            for operation in operations {
                let at = operation["path"].as_str().unwrap();
                match operation["op"].as_str() {
                    Some("test") if object.pointer(at) != Some(&operation["value"]) => return (409, failure(409, at)),
                    Some("test") => {}
                    _ => *object.pointer_mut(at).unwrap() = operation["value"].clone(),
                }
            }
        } else {
            if !self.is_current(path, patch) {
                return (409, failure(409, "changed"));
            }
            let patch = if is_status { json!({"status": patch["status"]}) } else { patch.clone() };
            merge(&mut object, &patch);
        }
        if path.contains("/deployments/") {
            merge(&mut object, &json!({"status": {"updatedReplicas": 1, "availableReplicas": 1}}));
            let limits = &mut object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
            limits["cpu"] = json!("500m");
        }
        (200, self.store(path, object))
    }
}

/// Server-side apply as far as it matters here: objects are merged, conditions by their type, other lists replaced.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if key != "resourceVersion" {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(items), Value::Array(patch)) if patch.iter().any(|item| !item["type"].is_null()) => {
            for item in patch {
                match items.iter_mut().find(|present| present["type"] == item["type"]) {
                    Some(present) => merge(present, item),
                    None => items.push(item.clone()),
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}
