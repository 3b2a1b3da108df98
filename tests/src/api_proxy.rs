//! A proxy in front of the API server that can go wrong in ways a network and an API server do, and counts what it is
//! asked.

mod body;
mod call;
mod fault;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;

pub use self::call::Call;
pub use self::fault::Fault;
use crate::process_node::ApiServer;

/// No request of ours is larger.
const MAX_BODY: usize = 4 << 20;
/// Longest delay of a slow answer.
const LATENCY: Duration = Duration::from_millis(300);

/// A running proxy; it ends when it is dropped.
pub struct ApiProxy {
    upstream: Arc<Upstream>,
    server: ApiServer,
    handle: Handle<SocketAddr>,
}

struct Upstream {
    url: String,
    client: reqwest::Client,
    setting: watch::Sender<Setting>,
    dice: Mutex<StdRng>,
    tally: Mutex<Tally>,
}

/// What goes wrong, how often, and for whom.
#[derive(Clone, Debug)]
struct Setting {
    fault: Fault,
    percent: u32,
    /// Everybody, if none.
    pod: Option<String>,
}

/// Who asks: the pod of the token, if it is of one.
type Client = Option<String>;

/// What the proxy was asked.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub requests: BTreeMap<Call, u64>,
    /// Requests and events of watches that a fault struck.
    pub struck: u64,
}

impl Tally {
    /// Requests of all kinds.
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

impl ApiProxy {
    /// # Errors
    /// No port is free, or the API server's certificate authority cannot be read.
    pub async fn start(upstream: &ApiServer) -> Result<Self> {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (pem, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let tls = RustlsConfig::from_pem(pem.clone().into_bytes(), key.into_bytes()).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("https://{}", listener.local_addr()?);
        let upstream = Arc::new(Upstream {
            url: upstream.url.clone(),
            client: client(&upstream.authority)?,
            setting: watch::channel(Setting { fault: Fault::None, percent: 100, pod: None }).0,
            dice: Mutex::new(StdRng::seed_from_u64(0)),
            tally: Mutex::default(),
        });
        let router = Router::new().fallback(forward).with_state(upstream.clone());
        let handle = Handle::new();
        let serving = axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone());
        tokio::spawn(serving.serve(router.into_make_service()));
        Ok(Self { upstream, server: ApiServer { url, authority: pem }, handle })
    }

    /// How the proxy is reached.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Lets every request go wrong.
    pub fn set(&self, fault: Fault) {
        self.upstream.setting.send_replace(Setting { fault, percent: 100, pod: None });
    }

    /// Lets every request of one pod go wrong.
    pub fn set_for(&self, pod: &str, fault: Fault) {
        self.upstream.setting.send_replace(Setting { fault, percent: 100, pod: Some(pod.to_owned()) });
    }

    /// Lets some requests, and some events of watches, go wrong: so many of a hundred, chosen by the seed.
    pub fn set_some(&self, fault: Fault, percent: u32, seed: u64) {
        *lock(&self.upstream.dice) = StdRng::seed_from_u64(seed);
        self.upstream.setting.send_replace(Setting { fault, percent, pod: None });
    }

    /// How often a call was made since the tally was last taken, for example `get arbbots`.
    pub fn asked(&self, call: &str) -> u64 {
        let tally = lock(&self.upstream.tally);
        tally.requests.iter().filter(|(asked, _)| asked.to_string() == call).map(|(_, count)| count).sum()
    }

    /// What was asked since the last call.
    pub fn take_tally(&self) -> Tally {
        std::mem::take(&mut lock(&self.upstream.tally))
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl Upstream {
    /// What always happens to this client now, if anything does.
    fn always(&self, client: &Client) -> Fault {
        let setting = self.setting.borrow();
        let concerned = setting.percent == 100 && (setting.pod.is_none() || setting.pod == *client);
        if concerned { setting.fault } else { Fault::None }
    }

    /// Waits until the client is not cut off any more, as the packets of a connection do.
    async fn reachable(&self, client: &Client) {
        let mut changes = self.setting.subscribe();
        while self.always(client) == Fault::Unreachable && changes.changed().await.is_ok() {}
    }

    /// What happens to this request.
    fn strikes(&self, call: &Call, client: &Client) -> Fault {
        self.roll(client, |fault| fault.concerns_request(call))
    }

    /// What happens to this event of a watch.
    fn strikes_event(&self, client: &Client) -> Fault {
        self.roll(client, Fault::concerns_events)
    }

    fn roll(&self, client: &Client, concerned: impl Fn(Fault) -> bool) -> Fault {
        let Setting { fault, percent, pod } = self.setting.borrow().clone();
        if !concerned(fault) || (pod.is_some() && pod != *client) || self.random(100) >= percent {
            return Fault::None;
        }
        lock(&self.tally).struck += 1;
        fault
    }

    /// A number below `limit`.
    fn random(&self, limit: u32) -> u32 {
        lock(&self.dice).random_range(0..limit)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client that trusts only this authority.
pub fn client(authority: &str) -> Result<reqwest::Client> {
    let certificates = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).context("read a CA")?;
    // HTTP/1.1: one connection of HTTP/2 holds only so many watches.
    let builder = reqwest::Client::builder().no_proxy().http1_only().tls_certs_only(certificates);
    builder.build().map_err(|error| anyhow!(error))
}

async fn forward(State(upstream): State<Arc<Upstream>>, request: Request) -> Response {
    let call = Call::of(request.method(), request.uri());
    let client = pod_of(request.headers());
    *lock(&upstream.tally).requests.entry(call.clone()).or_default() += 1;
    let fault = upstream.strikes(&call, &client);
    match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Unreachable => upstream.reachable(&client).await,
        Fault::Slow => tokio::time::sleep(LATENCY * upstream.random(100) / 100).await,
        _ => {}
    }
    if let Some(refusal) = fault.refusal() {
        if fault == Fault::InternalError && upstream.random(2) == 1 {
            // What the client hears is the same, whether the API server took it or not.
            let _ = pass(&upstream, request, Fault::None, None).await;
        }
        return refusal;
    }
    let watches = call.is_watch().then_some(client);
    match pass(&upstream, request, fault, watches).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

/// Asks the API server. A watch by `watches` is answered as it goes on.
async fn pass(upstream: &Arc<Upstream>, request: Request, fault: Fault, watches: Option<Client>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = to_bytes(body, MAX_BODY).await?;
    let url = format!("{}{path}", upstream.url);
    let request = upstream.client.request(parts.method, url).headers(end_to_end(parts.headers)).body(body);
    let reply = request.send().await?;
    let (status, headers) = (reply.status(), end_to_end(reply.headers().clone()));
    let body = match (watches, fault) {
        (Some(client), _) => body::watch(reply.bytes_stream(), upstream.clone(), client),
        (None, Fault::Cut) => body::cut(&reply.bytes().await?),
        (None, Fault::Slow) => body::trickle(reply.bytes().await?),
        _ => Body::from_stream(reply.bytes_stream()),
    };
    Ok((status, headers, body).into_response())
}

/// The pod that a bound token names. Nobody is let in by it, so its signature does not matter.
fn pod_of(headers: &HeaderMap) -> Client {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["kubernetes.io"]["pod"]["name"].as_str().map(str::to_owned)
}

/// Headers that concern more than one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
