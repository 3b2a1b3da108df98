//! What the tests of control share: a bot, what its engine shows, and an API server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use arbbot_crds::ArbBot;
use arbbot_crds::control::Control;
use arbbot_crds::status::LeaseStatus;
use axum::body::Bytes;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::execution::engine::{Engine, Identity, Now, View};

/// An answer: HTTP code and body.
pub type Answer = (u16, Value);

/// The bot `carry`.
pub fn bot() -> ArbBot {
    let spec = json!({
        "execution": "Live", "venue": {"coinbase": {"portfolio": "p"}}, "credentials": {"secretRef": {"name": "k"}},
        "strategy": {"fundingCarry": {"spotProduct": "S", "futureProduct": "F", "targetNotional": "1"}},
    });
    let metadata = json!({"name": "carry", "namespace": "desk", "uid": "0b9d6bcd-uid"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// What the engine of a bot shows that has just begun.
pub fn view(clock: &Clock, control: &Control) -> View {
    let identity = Identity { uid8: "0b9d6bcd".into(), spot_product: "S".into(), future_product: "F".into() };
    let engine = Engine::new(identity, crate::control::task::params(&bot()), Default::default(), None);
    engine.view(control, Now { boot: clock.boottime(), wall: clock.now() })
}

/// A client of an API server that answers like this.
pub fn client<A, F>(answer: A) -> Client
where
    A: Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let sent = body.collect().await.unwrap().to_bytes();
            let (code, body) = answer(Request::from_parts(head, sent)).await;
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "desk")
}

pub fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    (code, json!(Status::failure(message, reason).with_code(code)))
}

/// An API server that knows the bot, no policy, and one Lease.
#[derive(Clone, Default)]
pub struct ApiServer(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lease: Option<Lease>,
    version: u64,
    holds_next_write: bool,
    /// A write of the Lease that has been sent and not yet done, and who waits for its answer.
    under_way: Option<(Lease, oneshot::Sender<Answer>)>,
}

impl ApiServer {
    pub fn client(&self) -> Client {
        let server = self.clone();
        client(move |request| server.clone().answer(request))
    }

    async fn answer(self, request: Request<Bytes>) -> Answer {
        let path = request.uri().path();
        if path.contains("/arbbots/") {
            return (200, json!(bot()));
        }
        if path.ends_with("/arbpolicies") {
            return (200, json!({"metadata": {"resourceVersion": "1"}, "items": []}));
        }
        let Ok(lease) = serde_json::from_slice(request.body()) else { return self.read() };
        let answered = {
            let mut kept = self.0.lock().unwrap();
            if !std::mem::take(&mut kept.holds_next_write) {
                return kept.write(lease);
            }
            let (answer, answered) = oneshot::channel();
            kept.under_way = Some((lease, answer));
            answered
        };
        answered.await.unwrap()
    }

    /// What is under way arrives right after a read at the latest.
    fn read(&self) -> Answer {
        let answer = match &self.0.lock().unwrap().lease {
            Some(lease) => (200, json!(lease)),
            None => refusal(404, "NotFound", "none"),
        };
        self.do_what_is_under_way();
        answer
    }

    /// The next write of the Lease stays under way.
    pub fn hold_next_write(&self) {
        self.0.lock().unwrap().holds_next_write = true;
    }

    pub fn is_under_way(&self) -> bool {
        self.0.lock().unwrap().under_way.is_some()
    }

    pub fn do_what_is_under_way(&self) {
        let mut kept = self.0.lock().unwrap();
        if let Some((lease, answer)) = kept.under_way.take() {
            // Who has given up waiting misses the answer.
            let _ = answer.send(kept.write(lease));
        }
    }

    pub fn delete_lease(&self) {
        self.0.lock().unwrap().lease = None;
    }

    pub fn annotate_lease(&self, key: &str, value: &str) {
        let mut kept = self.0.lock().unwrap();
        let annotations = &mut kept.lease.as_mut().unwrap().metadata.annotations;
        annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
    }

    /// Who holds the Lease, and its epoch.
    pub fn held(&self) -> Option<LeaseStatus> {
        let spec = self.0.lock().unwrap().lease.clone()?.spec?;
        Some(LeaseStatus { holder: spec.holder_identity?, epoch: spec.lease_transitions?.into() })
    }
}

impl Kept {
    fn write(&mut self, mut lease: Lease) -> Answer {
        let version = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.as_ref());
        if version != lease.metadata.resource_version.as_ref() {
            return refusal(409, "Conflict", "the object has been modified");
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        (200, json!(lease))
    }
}
