//! Who listens to what. Publishing never waits: a client that reads too slowly is disconnected.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// Frames a connection may be behind before it is closed.
pub const QUEUE: usize = 2048;

/// What can be listened to. `usize` is a market's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Level2(usize),
    Ticker(usize),
    TickerBatch(usize),
    MarketTrades(usize),
    Candles(usize),
    Status(usize),
    /// Orders of a portfolio: of one market, or of all.
    User(Uuid, Option<usize>),
    FuturesBalanceSummary(Uuid),
}

/// A frame without its envelope: the connection adds sequence number and time.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Channel name as it arrives at the client (`l2_data` for level2).
    pub channel: &'static str,
    /// JSON array, shared by all receivers.
    pub events: Arc<str>,
}

/// A connection's end of its queue.
#[derive(Debug, Clone)]
pub struct Subscriber {
    pub connection: u64,
    pub frames: mpsc::Sender<Frame>,
    pub cut: Arc<Cut>,
}

/// Ends a connection from outside; the first reason counts.
#[derive(Debug, Default)]
pub struct Cut {
    notify: Notify,
    reason: OnceLock<&'static str>,
}

impl Cut {
    pub fn now(&self, reason: &'static str) {
        let _ = self.reason.set(reason);
        self.notify.notify_one();
    }

    /// Waits for the cut and says why.
    pub async fn wait(&self) -> &'static str {
        self.notify.notified().await;
        self.reason.get().copied().unwrap_or_default()
    }
}

/// An open connection, whatever it listens to.
#[derive(Debug)]
pub struct Peer {
    /// Known once it has subscribed with a token.
    pub portfolio: Option<Uuid>,
    pub cut: Arc<Cut>,
}

#[derive(Debug, Default)]
pub struct Hub {
    subscribers: HashMap<Topic, Vec<Subscriber>>,
    /// Open connections by number.
    pub peers: BTreeMap<u64, Peer>,
    last_connection: u64,
}

impl Hub {
    /// Registers a connection and gives it its number.
    pub fn connect(&mut self, cut: Arc<Cut>) -> u64 {
        self.last_connection += 1;
        self.peers.insert(self.last_connection, Peer { portfolio: None, cut });
        self.last_connection
    }

    pub fn disconnect(&mut self, connection: u64, topics: &[Topic]) {
        self.peers.remove(&connection);
        for topic in topics {
            self.unsubscribe(*topic, connection);
        }
    }

    pub fn subscribe(&mut self, topic: Topic, subscriber: Subscriber) {
        let subscribers = self.subscribers.entry(topic).or_default();
        subscribers.retain(|s| s.connection != subscriber.connection);
        subscribers.push(subscriber);
    }

    pub fn unsubscribe(&mut self, topic: Topic, connection: u64) {
        if let Some(subscribers) = self.subscribers.get_mut(&topic) {
            subscribers.retain(|s| s.connection != connection);
            if subscribers.is_empty() {
                self.subscribers.remove(&topic);
            }
        }
    }

    pub fn is_heard(&self, topic: Topic) -> bool {
        self.subscribers.contains_key(&topic)
    }

    /// Sends a frame to those who listen to the topic; the events are only written if somebody does.
    pub fn publish(&mut self, topic: Topic, channel: &'static str, events: impl FnOnce() -> String) {
        let Some(subscribers) = self.subscribers.get_mut(&topic) else { return };
        let frame = Frame { channel, events: events().into() };
        subscribers.retain(|s| match s.frames.try_send(frame.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                s.cut.now("the client reads too slowly");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        if subscribers.is_empty() {
            self.subscribers.remove(&topic);
        }
    }

    /// Portfolios whose futures balance somebody listens to, in a fixed order.
    pub fn balance_listeners(&self) -> Vec<Uuid> {
        let mut portfolios: Vec<Uuid> = self
            .subscribers
            .keys()
            .filter_map(|topic| match topic {
                Topic::FuturesBalanceSummary(portfolio) => Some(*portfolio),
                _ => None,
            })
            .collect();
        portfolios.sort_unstable();
        portfolios
    }
}
