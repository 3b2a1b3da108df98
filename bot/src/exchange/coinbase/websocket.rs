//! The WebSockets: best prices of the products, and the changes of the account's orders.
//!
//! A connection that shows a gap, an error or silence is given up and made anew; until then its books are unknown.

mod channels;
mod outlet;

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

pub use self::channels::Channels;
pub use self::outlet::Outlet;
use super::jwt::{Signer, TOKEN_LIFE, VenueClock};
use super::tls::causes;
use super::transport::{Socket, Transport};
use crate::exchange::{Link, MarketEvent};
use crate::randomness::Randomness;

/// Deadline of a connection and of each message that is sent.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Silence of the channel heartbeats, which speaks every second, after which a connection is given up.
pub const HEARTBEAT_SILENCE: Duration = Duration::from_secs(5);
/// First and longest pause before a new connection; each is jittered down to half of it.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A connection that lived this long starts the pauses anew.
pub const STABLE: Duration = Duration::from_secs(10);

/// One WebSocket, from its subscription to its events.
pub struct Feed {
    /// MarketWebSocket or UserWebSocket.
    pub link: Link,
    pub url: String,
    pub products: [String; 2],
    pub transport: Transport,
    pub randomness: Randomness,
    pub tls: Arc<rustls::ClientConfig>,
    /// None: only public channels, without a token.
    pub signer: Option<Arc<Signer>>,
    pub venue: Arc<VenueClock>,
    pub outlet: Arc<Outlet>,
    /// Told of every price level and trade before the outlet hears of what follows from them.
    pub tape: Option<Tape>,
}

/// Hears the whole book and every trade.
pub type Tape = Arc<dyn Fn(MarketEvent) + Send + Sync>;

/// Why a connection ended.
enum End {
    /// Nobody listens to the events any more.
    Unheard,
    Broken(String),
}

impl Feed {
    /// Keeps the connection up until nobody listens to its events any more.
    pub async fn run(self) {
        let mut failures = 0;
        let mut last_cause = None;
        loop {
            let started = Instant::now();
            let mut channels = Channels::new(self.link, &self.products);
            if self.tape.is_some() {
                channels = channels.with_tape();
            }
            let cause = match self.connection(&mut channels).await {
                End::Unheard => return,
                End::Broken(cause) => cause,
            };
            if channels.is_up() || last_cause.as_ref() != Some(&cause) {
                tracing::warn!(link = %self.link, url = %self.url, %cause, "connection lost; connecting again");
                self.record(MarketEvent::Lost);
                for event in channels.down(&cause) {
                    if !self.outlet.tell(event).await {
                        return;
                    }
                }
            }
            last_cause = Some(cause);
            failures = if started.elapsed() > STABLE { 0 } else { failures + 1 };
            self.outlet.failed(self.link, failures);
            sleep(self.randomness.jittered(pause(failures))).await;
        }
    }

    async fn connection(&self, channels: &mut Channels) -> End {
        match self.connect().await {
            Ok(mut socket) => match self.listen(&mut socket, channels).await {
                Ok(()) => End::Unheard,
                Err(cause) => End::Broken(cause),
            },
            Err(cause) => End::Broken(cause),
        }
    }

    fn record(&self, event: MarketEvent) {
        if let Some(tape) = &self.tape {
            tape(event);
        }
    }

    async fn connect(&self) -> Result<Socket, String> {
        let mut socket = timeout(CONNECT, self.transport.web_socket(&self.url, &self.tls))
            .await
            .map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))?
            .map_err(|cause| format!("no connection: {cause}"))?;
        let trades: &[&str] = if self.tape.is_some() { &["market_trades"] } else { &[] };
        for channel in Channels::names(self.link).iter().chain(trades) {
            // The user channel without products tells of all of them; heartbeats belong to no product.
            let of_products = matches!(*channel, "level2" | "market_trades");
            let products: &[String] = if of_products { &self.products } else { &[] };
            let sign = |signer: &Arc<Signer>| {
                let now = self.venue.boottime();
                let expires = self.venue.at(now.saturating_add(TOKEN_LIFE));
                signer.token(None, self.venue.at(now), expires).map_err(|error| error.to_string())
            };
            let token = self.signer.as_ref().map(sign).transpose()?;
            subscribe(&mut socket, channel, products, token).await?;
        }
        Ok(socket)
    }

    /// Ok when nobody listens to the events any more.
    async fn listen(&self, socket: &mut Socket, channels: &mut Channels) -> Result<(), String> {
        let began = Instant::now();
        let mut alive_at = began;
        loop {
            let message = timeout_at(alive_at + HEARTBEAT_SILENCE, socket.next())
                .await
                .map_err(|_| format!("no heartbeat for {} s", HEARTBEAT_SILENCE.as_secs()))?
                .ok_or("the exchange closed the connection")?
                .map_err(|error| causes(&error))?;
            let text = match message {
                Message::Text(text) => text,
                Message::Close(frame) => {
                    let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Err(format!("the exchange closed the connection: {why}"));
                }
                _ => continue,
            };
            let heard = channels.hear(&text)?;
            if heard.heartbeat {
                alive_at = Instant::now();
                if began.elapsed() > STABLE {
                    self.outlet.failed(self.link, 0);
                }
            }
            for event in heard.market {
                self.record(event);
            }
            for event in heard.events {
                if !self.outlet.tell(event).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Subscribes to a channel.
pub async fn subscribe(
    socket: &mut Socket,
    channel: &str,
    products: &[String],
    token: Option<String>,
) -> Result<(), String> {
    let mut message = json!({"type": "subscribe", "product_ids": products, "channel": channel});
    if let Some(token) = token {
        message["jwt"] = token.into();
    }
    timeout(CONNECT, socket.send(Message::text(message.to_string())))
        .await
        .map_err(|_| format!("the subscription to {channel} was not taken"))?
        .map_err(|error| format!("the subscription to {channel} failed: {}", causes(&error)))
}

/// Doubles from failure to failure up to the longest.
pub fn pause(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    first.saturating_mul(1 << failures.min(8)).min(longest)
}
