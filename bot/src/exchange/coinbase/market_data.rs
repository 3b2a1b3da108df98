//! Public market data for a recording: best prices from level2, funding rates and rules of the products from REST.
//!
//! Everything is told as it came and as what it means. What it means depends on nothing but what came, so that a
//! transcript says the same again.

mod meaning;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

pub use self::meaning::{Facts, Interpreter, Meaning};
use super::http::{Http, HttpError, MAX_REPLY, Reply, Request};
use super::jwt::{Signer, TOKEN_LIFE, VenueClock};
use super::key::ApiKey;
use super::session::SessionError;
use super::tls::{self, causes};
use super::transport::{Transport, authority};
use super::websocket::{CONNECT, Channels, HEARTBEAT_SILENCE, STABLE, pause, subscribe};
use super::wire;
use crate::clock::Clock;
use crate::exchange::{ExchangeError, Link, Product};
use crate::randomness::Randomness;

/// How often products are read again: funding rates change every hour, sessions when they will.
const READ_PRODUCTS_EVERY: Duration = Duration::from_secs(15);
/// Deadline of a request.
const DEADLINE: Duration = Duration::from_secs(5);
/// What may wait for its reader; who is slower makes the exchange wait.
const QUEUE: usize = 1024;

/// Where market data comes from.
#[derive(Clone, Debug)]
pub struct Source {
    pub rest_url: String,
    pub web_socket_url: String,
    /// PEM certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Market data is public; with a key requests and subscriptions are signed all the same.
    pub key: Option<ApiKey>,
    pub products: Vec<String>,
}

/// Something that came, or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Raw {
    /// A WebSocket is open and subscribed.
    Connected,
    /// A frame of it, as it was received.
    Frame { text: String },
    /// It can no longer be relied on; nothing good was heard after `since`.
    Lost { since: Timestamp, cause: String },
    /// A product as REST shows it.
    Reply { product: String, text: String },
    /// REST did not show a product.
    Unanswered { product: String, cause: String },
}

/// What came, when by the exchange's clock, and what it means.
#[derive(Clone, Debug)]
pub struct Told {
    pub at: Timestamp,
    pub raw: Raw,
    pub meanings: Vec<Meaning>,
}

/// Reads a reply of `GET /products/{id}`; `now` is in the venue's time.
///
/// # Errors
/// It is no product, or none that can be traded.
pub fn read_product(text: &str, now: Timestamp) -> Result<Product, ExchangeError> {
    let unreadable = |error: serde_json::Error| ExchangeError::Unreadable {
        call: "GET /products".to_owned(),
        cause: error.to_string(),
    };
    super::rest::read_product(serde_json::from_str(text).map_err(unreadable)?, now)
}

/// A client for public market data.
#[derive(Debug)]
pub struct MarketData {
    source: Source,
    transport: Transport,
    randomness: Randomness,
    http: Http,
    root: Url,
    tls: Arc<rustls::ClientConfig>,
    signer: Option<Signer>,
    /// Measured once: times of a recording never step.
    venue: VenueClock,
}

impl MarketData {
    /// Measures the exchange's time.
    ///
    /// # Errors
    /// A URL or the authority cannot be used, or the exchange does not answer.
    pub async fn open(
        mut source: Source,
        transport: Transport,
        clock: Clock,
        randomness: Randomness,
    ) -> Result<Self, SessionError> {
        let tls = tls::client_config(source.ca_file.as_deref())?;
        let unreachable = |cause: String| ExchangeError::Unreachable { url: source.rest_url.clone(), cause };
        let root = format!("{}/api/v3/brokerage", source.rest_url.trim_end_matches('/'));
        let root = Url::parse(&root).map_err(|error| unreachable(error.to_string()))?;
        if root.scheme() != "https" || root.host_str().is_none() {
            return Err(unreachable("it is not an https:// URL".to_owned()).into());
        }
        let http = Http::new(&transport, tls.clone()).map_err(unreachable)?;
        let signer = source.key.take().map(|key| Signer::new(key, randomness.clone()));
        let venue = VenueClock::new(clock);
        let data = Self { source, transport, randomness, http, root, tls: Arc::new(tls), signer, venue };
        data.measure_time().await?;
        Ok(data)
    }

    /// The exchange's time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.venue.now()
    }

    /// Every product once, so that one that does not exist is found before anything is recorded.
    ///
    /// # Errors
    /// There is no such product, or the exchange does not answer.
    pub async fn products(&self) -> Result<Vec<Told>, ExchangeError> {
        let mut told = Vec::new();
        for product in &self.source.products {
            let text = self.product(product).await?;
            let facts = Facts::read(product, &text)
                .map_err(|cause| ExchangeError::Unreadable { call: format!("GET {product}"), cause })?;
            let raw = Raw::Reply { product: product.clone(), text };
            told.push(Told { at: self.now(), raw, meanings: vec![Meaning::Facts(facts)] });
        }
        Ok(told)
    }

    /// Tells of everything until the task set is dropped or nobody listens any more.
    pub fn listen(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> mpsc::Receiver<Told> {
        let (tell, told) = mpsc::channel(QUEUE);
        let (socket, rest) = (Arc::clone(self), Arc::clone(self));
        let tell_products = tell.clone();
        tasks.spawn(async move { socket.keep_connected(&tell).await });
        tasks.spawn(async move { rest.read_products(&tell_products).await });
        told
    }

    async fn keep_connected(&self, tell: &mpsc::Sender<Told>) {
        let mut interpreter = Interpreter::new(&self.source.products);
        let (mut failures, mut last_cause) = (0, None);
        let mut heard_at = self.now();
        loop {
            let started = Instant::now();
            let before = heard_at;
            let Err(cause) = self.connection(&mut interpreter, &mut heard_at, tell).await else { return };
            if heard_at != before || last_cause.as_ref() != Some(&cause) {
                tracing::warn!(%cause, "market data is interrupted; connecting again");
                let raw = Raw::Lost { since: heard_at, cause: cause.clone() };
                if !self.tell(&mut interpreter, raw, tell).await.unwrap_or(true) {
                    return;
                }
            }
            last_cause = Some(cause);
            failures = if started.elapsed() > STABLE { 0 } else { failures + 1 };
            sleep(self.randomness.jittered(pause(failures))).await;
        }
    }

    /// Ok when nobody listens any more.
    async fn connection(
        &self,
        interpreter: &mut Interpreter,
        heard_at: &mut Timestamp,
        tell: &mpsc::Sender<Told>,
    ) -> Result<(), String> {
        let url = &self.source.web_socket_url;
        let mut socket = timeout(CONNECT, self.transport.web_socket(url, &self.tls))
            .await
            .map_err(|_| format!("no connection to {url} within {} s", CONNECT.as_secs()))?
            .map_err(|cause| format!("no connection to {url}: {cause}"))?;
        // The trades are for the transcript: a backtest fills resting orders by them.
        for channel in Channels::names(Link::MarketWebSocket).iter().chain(&["market_trades"]) {
            let of_products = matches!(*channel, "level2" | "market_trades");
            let products: &[String] = if of_products { &self.source.products } else { &[] };
            subscribe(&mut socket, channel, products, self.token(None).map_err(|error| error.to_string())?).await?;
        }
        if !self.tell(interpreter, Raw::Connected, tell).await? {
            return Ok(());
        }
        let mut alive_at = Instant::now();
        loop {
            let message = timeout_at(alive_at + HEARTBEAT_SILENCE, socket.next())
                .await
                .map_err(|_| format!("nothing arrived for {} s", HEARTBEAT_SILENCE.as_secs()))?
                .ok_or("the exchange closed the connection")?
                .map_err(|error| causes(&error))?;
            let text = match message {
                Message::Text(text) => text.to_string(),
                Message::Close(frame) => {
                    let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Err(format!("the exchange closed the connection: {why}"));
                }
                _ => continue,
            };
            let at = self.now();
            if !self.tell(interpreter, Raw::Frame { text }, tell).await? {
                return Ok(());
            }
            (alive_at, *heard_at) = (Instant::now(), at);
        }
    }

    /// Tells what came with what it means; false when nobody listens any more. What cannot be relied on is told, too.
    async fn tell(&self, interpreter: &mut Interpreter, raw: Raw, tell: &mpsc::Sender<Told>) -> Result<bool, String> {
        let at = self.now();
        let (meanings, problem) = match interpreter.meanings(&raw) {
            Ok(meanings) => (meanings, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let listens = tell.send(Told { at, raw, meanings }).await.is_ok();
        problem.map_or(Ok(listens), Err)
    }

    async fn read_products(&self, tell: &mpsc::Sender<Told>) {
        let mut interpreter = Interpreter::new(&self.source.products);
        let mut timer = interval(READ_PRODUCTS_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // They were read just now.
        timer.tick().await;
        loop {
            timer.tick().await;
            for product in &self.source.products {
                let product = product.clone();
                let raw = match self.product(&product).await {
                    Ok(text) => Raw::Reply { product, text },
                    Err(error) => Raw::Unanswered { product, cause: error.to_string() },
                };
                if let Raw::Unanswered { product, cause } = &raw {
                    tracing::warn!(product, cause, "the product cannot be read; its funding rate may be late");
                }
                match self.tell(&mut interpreter, raw, tell).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(cause) => tracing::warn!(cause, "a product that cannot be understood"),
                }
            }
        }
    }

    async fn product(&self, id: &str) -> Result<String, ExchangeError> {
        let path: &[&str] = if self.signer.is_some() { &["products", id] } else { &["market", "products", id] };
        self.get(path, true).await
    }

    async fn measure_time(&self) -> Result<(), ExchangeError> {
        let asked = self.venue.boottime();
        let text = self.get(&["time"], false).await?;
        let unreadable = |cause: String| ExchangeError::Unreadable { call: "GET /time".to_owned(), cause };
        let time: wire::Time = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let shown = time.timestamp().map_err(unreadable)?;
        self.venue.measured(shown, asked, self.venue.boottime());
        Ok(())
    }

    async fn get(&self, path: &[&str], signed: bool) -> Result<String, ExchangeError> {
        let call = format!("GET /{}", path.join("/"));
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        let uri = format!("GET {}{}", authority(&url), url.path());
        let token = if signed { self.token(Some(uri))? } else { None };
        let request = Request { method: Method::GET, url, token, body: None };
        let reply = timeout(DEADLINE, self.http.send(request)).await.unwrap_or(Err(HttpError::Timeout));
        let Reply { status, body } = reply.map_err(|error| {
            let url = self.source.rest_url.clone();
            match error {
                HttpError::Untrusted(cause) => ExchangeError::Untrusted { url, cause },
                HttpError::Unreachable(cause) => ExchangeError::Unreachable { url, cause },
                HttpError::Timeout => ExchangeError::Timeout { call: call.clone(), seconds: DEADLINE.as_secs() },
                HttpError::TooLarge => {
                    let cause = format!("the reply is larger than {MAX_REPLY} bytes");
                    ExchangeError::Unreadable { call: call.clone(), cause }
                }
            }
        })?;
        if !status.is_success() {
            let message = format!("{status}: {}", wire::ErrorBody::read(&body));
            return Err(ExchangeError::BadRequest { call, message });
        }
        String::from_utf8(body).map_err(|error| ExchangeError::Unreadable { call, cause: error.to_string() })
    }

    fn token(&self, uri: Option<String>) -> Result<Option<String>, ExchangeError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let now = self.venue.boottime();
        let token = signer.token(uri, self.venue.at(now), self.venue.at(now.saturating_add(TOKEN_LIFE)));
        let refused = |message: String| ExchangeError::BadRequest { call: "signing".to_owned(), message };
        token.map(Some).map_err(|error| refused(error.to_string()))
    }
}
