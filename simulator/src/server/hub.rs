//! Who listens to what. Publishing never waits: a client that reads too slowly is disconnected.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// Frames a connection may be behind before it is closed.
pub const QUEUE: usize = 2048;

/// What can be listened to. `usize` is a market's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Level2(usize),
    Ticker(usize),
    MarketTrades(usize),
    User(Uuid),
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
    /// Told when the queue is full.
    pub too_slow: Arc<Notify>,
}

#[derive(Debug, Default)]
pub struct Hub(HashMap<Topic, Vec<Subscriber>>);

impl Hub {
    pub fn subscribe(&mut self, topic: Topic, subscriber: Subscriber) {
        let subscribers = self.0.entry(topic).or_default();
        subscribers.retain(|s| s.connection != subscriber.connection);
        subscribers.push(subscriber);
    }

    pub fn unsubscribe(&mut self, topic: Topic, connection: u64) {
        if let Some(subscribers) = self.0.get_mut(&topic) {
            subscribers.retain(|s| s.connection != connection);
        }
    }

    pub fn is_heard(&self, topic: Topic) -> bool {
        self.0.get(&topic).is_some_and(|s| !s.is_empty())
    }

    pub fn publish(&mut self, topic: Topic, frame: &Frame) {
        let Some(subscribers) = self.0.get_mut(&topic) else { return };
        subscribers.retain(|s| match s.frames.try_send(frame.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                s.too_slow.notify_one();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }
}
