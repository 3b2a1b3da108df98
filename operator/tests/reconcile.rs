//! The whole reconcile against an API server in memory: what it writes, that it then writes nothing, and that a failed
//! call is repeated until the end state is the same.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbbot_crds::conditions::{ConditionType, is_true};
use arbbot_crds::{ArbBot, ArbPolicy};
use arbbot_operator::cache::raw::Raw;
use arbbot_operator::cache::store::Key;
use arbbot_operator::cache::watch::{Scope, Sink};
use arbbot_operator::cache::{Caches, Reactions};
use arbbot_operator::context::Context;
use arbbot_operator::metrics::Metrics;
use arbbot_operator::reconcile::{ReconcileError, reconcile};
use axum::http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const BOT_PATH: &str = "/apis/arbbot.io/v1alpha1/namespaces/desk/arbbots/carry";

/// Objects by path, and the writes that were made.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    /// After this many writes, answer one with 500.
    fail_after: Option<usize>,
}

impl Server {
    fn with_bot() -> Arc<Mutex<Self>> {
        let bot = json!({
            "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
            "metadata": {"name": "carry", "namespace": "desk", "uid": "0b9d6bcd-uid", "generation": 1, "resourceVersion": "1"},
            "spec": {
                "execution": "Live",
                "venue": {"coinbase": {"portfolio": "11111111-2222-3333-4444-555555555555"}},
                "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1000"}},
                "credentials": {"secretRef": {"name": "key"}},
                // Not what a real API server would return for a Deployment: it would write 500m.
                "resources": {"limits": {"cpu": "0.5"}},
            },
            "status": {"bot": {"appliedGeneration": 1}},
        });
        let objects = [(BOT_PATH.to_owned(), bot)].into();
        Arc::new(Mutex::new(Self { objects, ..Self::default() }))
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        if path.ends_with("/pods") {
            return (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}));
        }
        if path.ends_with("/events") {
            return (201, serde_json::from_slice(body).unwrap());
        }
        if method == Method::GET {
            let missing = || (404, json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": path}));
            return self.objects.get(path).map_or_else(missing, |object| (200, object.clone()));
        }
        assert_eq!(method, Method::PATCH, "{path}");
        let fails = self.fail_after == Some(0);
        self.fail_after = self.fail_after.and_then(|writes| writes.checked_sub(1));
        if fails {
            return (500, json!({"kind": "Status", "code": 500, "reason": "InternalError", "message": "injected"}));
        }
        self.writes.push(path.to_owned());
        let mut patch: Value = serde_json::from_slice(body).unwrap();
        let object = match path.strip_suffix("/status") {
            Some(of) => {
                patch = json!({"status": patch["status"]});
                self.objects.get_mut(of).unwrap()
            }
            None => self.objects.entry(path.to_owned()).or_insert_with(|| json!({"metadata": {"uid": path}})),
        };
        merge(object, &patch);
        if path.contains("/deployments/") {
            merge(object, &json!({"status": {"updatedReplicas": 1, "availableReplicas": 1}}));
            let limits = &mut object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
            limits["cpu"] = json!("500m");
        }
        (200, object.clone())
    }

    fn bot(&self) -> ArbBot {
        serde_json::from_value(self.objects[BOT_PATH].clone()).unwrap()
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn client(server: Arc<Mutex<Server>>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, value) = server.lock().unwrap().answer(&parts.method, parts.uri.path(), &body);
            let body = Body::from(serde_json::to_vec(&value).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// Nobody hears of changes: the tests say when a reconcile runs.
struct Deaf;

impl Reactions for Deaf {
    fn bot(&self, _: &Key) {}
    fn policy(&self, _: &Key) {}
    fn bot_gone(&self, _: &Key, _: &str) {}
    fn bot_wish(&self, _: &ArbBot, _: &ArbBot) {}
    fn policy_wish(&self, _: &ArbPolicy, _: Option<&ArbPolicy>) {}
    fn scope_synced(&self, _: &Caches, _: &Scope) {}
}

/// A context whose caches are as the server is now.
fn context(server: &Arc<Mutex<Server>>) -> Context {
    let caches = Caches::new(&[], Arc::default(), Arc::new(Deaf));
    caches.assume_synced();
    let context = Context::new(
        client(server.clone()),
        "arb-bot:test".to_owned(),
        caches,
        Arc::default(),
        Metrics::new().unwrap(),
    );
    sync(server, &context);
    context
}

/// What the watches would do.
fn sync(server: &Arc<Mutex<Server>>, context: &Context) {
    static ROUND: AtomicU32 = AtomicU32::new(1);
    let round = ROUND.fetch_add(1, Ordering::SeqCst);
    fn put<S: Sink>(sink: &S, objects: &BTreeMap<String, Value>, plural: &str, round: u32) {
        for (path, object) in objects.iter().filter(|(path, _)| path.contains(&format!("/{plural}/"))) {
            assert!(!path.is_empty());
            sink.applied(Raw::new(object.clone()).unwrap(), round);
        }
        sink.listed(&Scope(None), round);
    }
    let (caches, objects) = (&context.caches, server.lock().unwrap().objects.clone());
    put(caches.bots.as_ref(), &objects, "arbbots", round);
    put(caches.service_accounts.as_ref(), &objects, "serviceaccounts", round);
    put(caches.roles.as_ref(), &objects, "roles", round);
    put(caches.role_bindings.as_ref(), &objects, "rolebindings", round);
    put(caches.services.as_ref(), &objects, "services", round);
    put(caches.ledger_claims.as_ref(), &objects, "persistentvolumeclaims", round);
    put(caches.network_policies.as_ref(), &objects, "networkpolicies", round);
    put(caches.deployments.as_ref(), &objects, "deployments", round);
}

/// Brings the caches up to date and reconciles the bot.
async fn look(server: &Arc<Mutex<Server>>, context: &Context) -> Result<Option<Duration>, ReconcileError> {
    sync(server, context);
    reconcile(&"desk/carry".into(), context).await
}

#[tokio::test]
async fn the_first_reconcile_makes_the_bot_ready_and_the_second_writes_nothing() {
    let server = Server::with_bot();
    let context = context(&server);
    look(&server, &context).await.unwrap();
    let writes = std::mem::take(&mut server.lock().unwrap().writes);
    assert_eq!(writes[0], BOT_PATH, "the finalizer comes before any child");
    assert!(writes.iter().any(|path| path.ends_with("/persistentvolumeclaims/arbbot-carry-ledger")));
    assert_eq!(writes.len(), 9, "finalizer, seven children, status: {writes:?}");
    assert!(writes[7].contains("/deployments/"), "the workload is the last child: {writes:?}");

    let bot = server.lock().unwrap().bot();
    let status = bot.status.clone().unwrap();
    assert!(is_true(&status.conditions, ConditionType::Ready), "{:?}", status.conditions);
    assert_eq!((status.observed_generation, status.claim.unwrap().granted), (Some(1), true));

    look(&server, &context).await.unwrap();
    assert_eq!(server.lock().unwrap().writes, Vec::<String>::new());
}

#[tokio::test]
async fn an_edited_child_is_restored_and_a_lost_one_made_again() {
    let server = Server::with_bot();
    let context = context(&server);
    look(&server, &context).await.unwrap();
    let deployment = "/apis/apps/v1/namespaces/desk/deployments/arbbot-carry";
    let service = "/api/v1/namespaces/desk/services/arbbot-carry";
    {
        let mut server = server.lock().unwrap();
        server.writes.clear();
        server.objects.get_mut(deployment).unwrap()["spec"]["replicas"] = json!(0);
        server.objects.remove(service);
    }
    look(&server, &context).await.unwrap();
    let server = server.lock().unwrap();
    assert_eq!(server.writes, [service, deployment]);
    assert_eq!(server.objects[deployment]["spec"]["replicas"], 1);
}

#[tokio::test]
async fn failed_writes_end_in_the_same_state_as_none() {
    let undisturbed = Server::with_bot();
    look(&undisturbed, &context(&undisturbed)).await.unwrap();

    let server = Server::with_bot();
    let context = context(&server);
    let mut failures = 0;
    loop {
        // One write gets through, the next fails: every write of a reconcile is hit once.
        server.lock().unwrap().fail_after = Some(1);
        match look(&server, &context).await {
            Ok(_) => break,
            Err(error) => assert!(error.to_string().contains("injected"), "{error}"),
        }
        failures += 1;
        assert!(failures < 20, "it makes no progress");
    }
    assert!(failures >= 4, "only {failures} writes failed");
    let kinds = |server: &Arc<Mutex<Server>>| server.lock().unwrap().objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(kinds(&server), kinds(&undisturbed));
    assert!(is_true(&server.lock().unwrap().bot().status.unwrap().conditions, ConditionType::Ready));
}

#[tokio::test]
async fn an_object_of_somebody_else_stops_the_bot_before_anything_is_written() {
    let server = Server::with_bot();
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/desk/roles/arbbot-carry";
    let theirs = json!({"metadata": {"name": "arbbot-carry", "namespace": "desk", "uid": "theirs"}});
    server.lock().unwrap().objects.insert(path.to_owned(), theirs.clone());
    look(&server, &context(&server)).await.unwrap();
    let server = server.lock().unwrap();
    assert_eq!(server.objects[path], theirs);
    assert_eq!(server.writes, [BOT_PATH.to_owned(), format!("{BOT_PATH}/status")], "no child was made");
    let conditions = server.bot().status.unwrap().conditions;
    assert!(is_true(&conditions, ConditionType::Stalled));
    let stalled = conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "ChildNotOurs");
}
