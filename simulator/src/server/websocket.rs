//! Coinbase's WebSockets: `/ws` (market data) and `/ws/user`. Both serve every channel.
//!
//! One channel per subscribe message, the first within five seconds; the private channels need a token in the
//! message. Frames carry a sequence number per connection. A connection on which nothing was sent for a minute or a
//! little more is closed; the channel heartbeats prevents that.

pub mod limits;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use uuid::Uuid;

use super::App;
use super::error::ApiError;
use super::faults::kind::FaultKind;
use super::faults::{Fate, Faults};
use super::hub::{Cut, Frame, QUEUE, Subscriber, Topic};
use request::{Refusal, Request, RequestKind, snapshot};

/// The first subscription must arrive within this time.
const FIRST_SUBSCRIBE: Duration = Duration::from_secs(5);
/// A frame that cannot be sent for this long ends the connection.
const SEND: Duration = Duration::from_secs(10);
/// Shortest silence after which a connection is closed; Coinbase's is between 60 and 90 seconds.
const SILENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: Duration = Duration::from_secs(1);
const MAX_MESSAGE: usize = 64 * 1024;

pub fn router() -> Router<Arc<App>> {
    Router::new().route("/ws", get(upgrade)).route("/ws/user", get(upgrade))
}

async fn upgrade(
    State(app): State<Arc<App>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let address = super::caller::address(peer);
    let allowed = {
        let (mut state, now) = app.lock();
        state.web_socket_limits.connect(address, now.monotonic_ns)
    };
    if !allowed {
        return ApiError::RateLimited.into_response();
    }
    let refused = {
        let (mut state, now) = app.lock();
        state.faults.refuse_web_sockets(now.time)
    };
    if refused {
        return ApiError::Unavailable.into_response();
    }
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.on_upgrade(move |socket| async move { Connection::new(app, address, socket).run().await })
}

struct Connection {
    app: Arc<App>,
    address: IpAddr,
    socket: WebSocket,
    subscriber: Subscriber,
    frames: mpsc::Receiver<Frame>,
    sequence_num: u64,
    heartbeats: u64,
    /// Ticks a second after `heartbeats` was subscribed to.
    heartbeat: Option<Interval>,
    /// Products (or portfolios) by channel, as the `subscriptions` acknowledgement shows them.
    subscriptions: BTreeMap<String, BTreeSet<String>>,
    topics: Vec<Topic>,
    portfolio: Option<Uuid>,
    /// A frame that a fault sends after the next one.
    late: Option<String>,
    /// When it is closed unless something is sent before.
    silent_at: Instant,
}

impl Connection {
    fn new(app: Arc<App>, address: IpAddr, socket: WebSocket) -> Self {
        let (sender, frames) = mpsc::channel(QUEUE);
        let cut = Arc::new(Cut::default());
        let connection = app.lock().0.hub.connect(cut.clone());
        Self {
            app,
            address,
            socket,
            subscriber: Subscriber { connection, frames: sender, cut },
            frames,
            sequence_num: 0,
            heartbeats: 0,
            heartbeat: None,
            subscriptions: BTreeMap::new(),
            topics: Vec::new(),
            portfolio: None,
            late: None,
            silent_at: Instant::now() + SILENCE,
        }
    }

    async fn run(mut self) {
        if let Err(reason) = self.serve().await {
            tracing::debug!(reason, "WebSocket closed");
        }
        self.app.lock().0.hub.disconnect(self.subscriber.connection, &self.topics);
    }

    async fn serve(&mut self) -> Result<(), &'static str> {
        let deadline = Instant::now() + FIRST_SUBSCRIBE;
        let cut = self.subscriber.cut.clone();
        loop {
            tokio::select! {
                biased; // a random choice would be the only thing in the exchange that no seed decides
                reason = cut.wait() => return Err(reason),
                () = beat(&mut self.heartbeat) => self.beat().await?,
                () = sleep_until(deadline), if self.sequence_num == 0 => {
                    return Err("no subscription within five seconds");
                }
                () = sleep_until(self.silent_at) => return Err("nothing was sent for too long"),
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.receive(text.as_str()).await?,
                    Some(Ok(Message::Close(_))) => {
                        // Reading on is what sends the answering close frame.
                        let _ = timeout(SEND, self.socket.recv()).await;
                        return Err("closed by the client");
                    }
                    Some(Err(_)) | None => return Err("closed by the client"),
                    Some(Ok(Message::Binary(_))) => return Err("binary message"),
                    Some(Ok(_)) => {}
                },
                Some(frame) = self.frames.recv() => self.send(frame.channel, &frame.events).await?,
            }
        }
    }

    async fn receive(&mut self, text: &str) -> Result<(), &'static str> {
        let parsed = serde_json::from_str::<Request>(text);
        let counted = !parsed.as_ref().is_ok_and(Request::has_token);
        let allowed = !counted || {
            let (mut state, now) = self.app.lock();
            state.web_socket_limits.message(self.address, now.monotonic_ns)
        };
        let result = match parsed {
            _ if !allowed => Err(Refusal::Message("rate limit exceeded".into())),
            Ok(request) => self.handle(request).await?,
            Err(error) => Err(Refusal::Message(format!("invalid message: {error}"))),
        };
        let message = match result {
            Ok(()) => return Ok(()),
            Err(Refusal::Authentication) => "authentication failure".to_owned(),
            Err(Refusal::Message(message)) => message,
        };
        self.send_text(json!({"type": "error", "message": message}).to_string()).await
    }

    /// Subscribes or unsubscribes: snapshot and subscription under one lock, so that no update is lost between.
    async fn handle(&mut self, request: Request) -> Result<Result<(), Refusal>, &'static str> {
        let portfolio = match request.authenticate(&self.app) {
            Ok(portfolio) => portfolio,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut first = Vec::new();
        let names = {
            let app = self.app.clone();
            let (mut state, now) = app.lock();
            let resolved = match request.resolve(&state.exchange, portfolio) {
                Ok(resolved) => resolved,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Some(peer) = state.hub.peers.get_mut(&self.subscriber.connection) {
                peer.portfolio = portfolio.or(peer.portfolio);
                self.portfolio = peer.portfolio;
            }
            for topic in resolved.topics {
                self.topics.retain(|t| *t != topic);
                if request.kind == RequestKind::Unsubscribe {
                    state.hub.unsubscribe(topic, self.subscriber.connection);
                    continue;
                }
                state.hub.subscribe(topic, self.subscriber.clone());
                self.topics.push(topic);
                first.extend(snapshot(&state, topic, now.time));
            }
            resolved.names
        };
        self.remember(&request, names);
        for frame in first {
            self.send(frame.channel, &frame.events).await?;
        }
        let acknowledgement = json!([{"subscriptions": self.subscriptions}]).to_string();
        self.send("subscriptions", &acknowledgement).await?;
        Ok(Ok(()))
    }

    fn remember(&mut self, request: &Request, names: BTreeSet<String>) {
        let named = self.subscriptions.entry(request.channel.clone()).or_default();
        match request.kind {
            RequestKind::Subscribe => named.extend(names),
            RequestKind::Unsubscribe => named.retain(|n| !names.contains(n)),
        }
        if named.is_empty() {
            self.subscriptions.remove(&request.channel);
        }
        match (self.subscriptions.contains_key("heartbeats"), &self.heartbeat) {
            (false, _) => self.heartbeat = None,
            (true, Some(_)) => {}
            (true, None) => {
                let mut timer = interval(HEARTBEAT);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.heartbeat = Some(timer);
            }
        }
    }

    async fn beat(&mut self) -> Result<(), &'static str> {
        self.heartbeats += 1;
        let time = self.app.clock.shown();
        let counter = match self.struck(|faults, now| faults.is_on(&FaultKind::NumericHeartbeats {}, None, now)) {
            Some(true) => json!(self.heartbeats),
            _ => json!(self.heartbeats.to_string()),
        };
        let events = json!([{"current_time": time, "heartbeat_counter": counter}]).to_string();
        self.send("heartbeats", &events).await
    }

    /// Puts events (a JSON array) into an envelope with the next sequence number.
    async fn send(&mut self, channel: &str, events: &str) -> Result<(), &'static str> {
        let timestamp = self.app.clock.shown();
        let text = format!(
            r#"{{"channel":"{channel}","client_id":"","timestamp":"{timestamp}","sequence_num":{},"events":{events}}}"#,
            self.sequence_num
        );
        self.sequence_num += 1;
        let portfolio = self.portfolio;
        let fate = self.struck(|faults, now| faults.fate(portfolio, channel, now)).unwrap_or(Fate::Deliver);
        match fate {
            Fate::Lost => {
                self.stay_open();
                return Ok(());
            }
            Fate::Late if self.late.is_none() => {
                self.late = Some(text);
                return Ok(());
            }
            Fate::Twice => self.send_text(text.clone()).await?,
            Fate::Late | Fate::Deliver => {}
        }
        self.send_text(text).await?;
        match self.late.take() {
            Some(late) => self.send_text(late).await,
            None => Ok(()),
        }
    }

    /// Asks the faults, if there are any.
    fn struck<T>(&self, ask: impl FnOnce(&mut Faults, Timestamp) -> T) -> Option<T> {
        self.app.web_socket_faults.load(Ordering::Relaxed).then(|| {
            let (mut state, now) = self.app.lock();
            ask(&mut state.faults, now.time)
        })
    }

    fn stay_open(&mut self) {
        // Between 60 and 90 seconds, and the same for the same connection of a seed.
        let silence = SILENCE + Duration::from_secs(self.subscriber.connection % 31);
        self.silent_at = Instant::now() + silence;
    }

    async fn send_text(&mut self, text: String) -> Result<(), &'static str> {
        self.stay_open();
        match timeout(SEND, self.socket.send(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the connection broke"),
            Err(_) => Err("a frame could not be sent in time"),
        }
    }
}

/// The next heartbeat; never without a timer.
async fn beat(timer: &mut Option<Interval>) {
    match timer {
        Some(timer) => drop(timer.tick().await),
        None => std::future::pending().await,
    }
}
