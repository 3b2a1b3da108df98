//! Coinbase's WebSockets: `/ws` (market data) and `/ws/user`. Both serve every channel.
//!
//! One channel per subscribe message, the first within five seconds; `user` needs a token in the message. Frames
//! carry a sequence number per connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval, sleep_until, timeout};
use uuid::Uuid;

use super::App;
use super::hub::{Frame, QUEUE, Subscriber, Topic};
use super::shapes;

/// The first subscription must arrive within this time.
const FIRST_SUBSCRIBE: Duration = Duration::from_secs(5);
/// A frame that cannot be sent for this long ends the connection.
const SEND: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = 64 * 1024;

pub fn router() -> Router<Arc<App>> {
    Router::new().route("/ws", get(upgrade)).route("/ws/user", get(upgrade))
}

async fn upgrade(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(MAX_MESSAGE).on_upgrade(|socket| async move { Connection::new(app, socket).run().await })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(rename = "type")]
    kind: RequestKind,
    channel: String,
    #[serde(default)]
    product_ids: Vec<String>,
    #[serde(default)]
    jwt: Option<String>,
    /// Sent by some clients; the token has its own times.
    #[serde(default, rename = "timestamp")]
    _timestamp: Option<Value>,
}

#[derive(Deserialize, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RequestKind {
    Subscribe,
    Unsubscribe,
}

/// Why a message is answered with an error frame; the connection stays.
enum Refusal {
    Authentication,
    Message(String),
}

struct Connection {
    app: Arc<App>,
    socket: WebSocket,
    subscriber: Subscriber,
    frames: mpsc::Receiver<Frame>,
    sequence_num: u64,
    heartbeats: u64,
    /// Products (or portfolios) by channel, as the `subscriptions` acknowledgement shows them.
    subscriptions: BTreeMap<String, BTreeSet<String>>,
    topics: Vec<Topic>,
}

impl Connection {
    fn new(app: Arc<App>, socket: WebSocket) -> Self {
        let (sender, frames) = mpsc::channel(QUEUE);
        let connection = {
            let (mut state, _) = app.lock();
            state.connections += 1;
            state.connections
        };
        let subscriber = Subscriber { connection, frames: sender, too_slow: Arc::new(Notify::new()) };
        Self {
            app,
            socket,
            subscriber,
            frames,
            sequence_num: 0,
            heartbeats: 0,
            subscriptions: BTreeMap::new(),
            topics: Vec::new(),
        }
    }

    async fn run(mut self) {
        if let Err(reason) = self.serve().await {
            tracing::debug!(reason, "WebSocket closed");
        }
        let (mut state, _) = self.app.lock();
        for topic in &self.topics {
            state.hub.unsubscribe(*topic, self.subscriber.connection);
        }
    }

    async fn serve(&mut self) -> Result<(), &'static str> {
        let deadline = Instant::now() + FIRST_SUBSCRIBE;
        let mut heartbeat = interval(Duration::from_secs(1));
        let too_slow = self.subscriber.too_slow.clone();
        loop {
            tokio::select! {
                biased; // a random choice would be the only thing in the exchange that no seed decides
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
                _ = heartbeat.tick(), if self.subscriptions.contains_key("heartbeats") => self.heartbeat().await?,
                () = sleep_until(deadline), if self.subscriptions.is_empty() && self.sequence_num == 0 => {
                    return Err("no subscription within five seconds");
                }
                () = too_slow.notified() => return Err("the client reads too slowly"),
            }
        }
    }

    async fn receive(&mut self, text: &str) -> Result<(), &'static str> {
        let result = match serde_json::from_str::<Request>(text) {
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
        let portfolio = match self.authenticate(&request) {
            Ok(portfolio) => portfolio,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (topics, names) = match self.resolve(&request, portfolio) {
            Ok(resolved) => resolved,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut first = Vec::new();
        {
            let (mut state, now) = self.app.lock();
            for topic in topics {
                if request.kind == RequestKind::Unsubscribe {
                    state.hub.unsubscribe(topic, self.subscriber.connection);
                    self.topics.retain(|t| *t != topic);
                    continue;
                }
                state.hub.subscribe(topic, self.subscriber.clone());
                self.topics.push(topic);
                first.push(snapshot(&state.exchange, topic, now.time));
            }
        }
        let named = self.subscriptions.entry(request.channel.clone()).or_default();
        match request.kind {
            RequestKind::Subscribe => named.extend(names),
            RequestKind::Unsubscribe => {
                named.retain(|n| !names.contains(n));
                if named.is_empty() {
                    self.subscriptions.remove(&request.channel);
                }
            }
        }
        for frame in first {
            self.send(frame.channel, &frame.events).await?;
        }
        let acknowledgement = json!([{"subscriptions": self.subscriptions}]).to_string();
        self.send("subscriptions", &acknowledgement).await?;
        Ok(Ok(()))
    }

    /// The portfolio of the message's token; a token is optional except on `user`, but never wrong.
    fn authenticate(&self, request: &Request) -> Result<Option<Uuid>, Refusal> {
        let Some(token) = request.jwt.as_deref().filter(|t| !t.is_empty()) else {
            return if request.channel == "user" { Err(Refusal::Authentication) } else { Ok(None) };
        };
        let key = self.app.keys.verify(token, None, self.app.clock.token_time()).map_err(|error| {
            tracing::info!(%error, channel = request.channel, "WebSocket authentication failure");
            Refusal::Authentication
        })?;
        let (mut state, now) = self.app.lock();
        if !key.can_view || state.faults.revoked(key.portfolio, &key.name, now.time) {
            return Err(Refusal::Authentication);
        }
        Ok(Some(key.portfolio))
    }

    /// Topics of a request, and the names under which the acknowledgement lists them.
    fn resolve(&self, request: &Request, portfolio: Option<Uuid>) -> Result<(Vec<Topic>, BTreeSet<String>), Refusal> {
        let topic = match request.channel.as_str() {
            "heartbeats" => return Ok((Vec::new(), BTreeSet::from(["heartbeats".to_owned()]))),
            "user" => {
                let portfolio = portfolio.ok_or(Refusal::Authentication)?;
                return Ok((vec![Topic::User(portfolio)], BTreeSet::from([portfolio.to_string()])));
            }
            "level2" => Topic::Level2,
            "ticker" => Topic::Ticker,
            "market_trades" => Topic::MarketTrades,
            // Coinbase answers an unknown channel so.
            _ => return Err(Refusal::Authentication),
        };
        if request.product_ids.is_empty() {
            return Err(Refusal::Message(format!("{} needs product_ids", request.channel)));
        }
        let (state, _) = self.app.lock();
        let topics = request.product_ids.iter().map(|id| {
            let shown: String = id.chars().take(64).collect();
            let index = state.exchange.market_index(id);
            index.map(topic).ok_or_else(|| Refusal::Message(format!("unknown product {shown}")))
        });
        Ok((topics.collect::<Result<_, _>>()?, request.product_ids.iter().cloned().collect()))
    }

    async fn heartbeat(&mut self) -> Result<(), &'static str> {
        self.heartbeats += 1;
        let time = self.app.clock.shown();
        let events = json!([{"current_time": time, "heartbeat_counter": self.heartbeats.to_string()}]).to_string();
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
        self.send_text(text).await
    }

    async fn send_text(&mut self, text: String) -> Result<(), &'static str> {
        match timeout(SEND, self.socket.send(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the connection broke"),
            Err(_) => Err("a frame could not be sent in time"),
        }
    }
}

/// What a new subscriber gets first.
fn snapshot(exchange: &crate::exchange::Exchange, topic: Topic, now: Timestamp) -> Frame {
    let (channel, events) = match topic {
        Topic::Level2(market) => ("l2_data", shapes::market_data::level2_snapshot(exchange, market, now)),
        Topic::Ticker(market) => ("ticker", shapes::market_data::ticker(exchange, "snapshot", &[market])),
        Topic::MarketTrades(_) => ("market_trades", shapes::market_data::trades(exchange, "snapshot", &[])),
        Topic::User(portfolio) => ("user", shapes::user::snapshot(exchange, portfolio)),
    };
    Frame { channel, events: events.into() }
}
