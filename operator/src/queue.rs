//! What is to be reconciled, and when: each object at most once at a time, at its earliest wish.
//!
//! kube's own queue belongs to a reflector that holds every object; ours holds keys, so that it can be emptied and filled
//! when leadership ends and begins.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::store::Key;

/// Keys that wait, and keys at work.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    due: HashMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
    /// At work; when to begin again, if that was asked for meanwhile.
    running: HashMap<Key, Option<Instant>>,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Waiting, and due by now.
    pub due: usize,
    /// Waiting for a later time.
    pub later: usize,
    /// At work.
    pub running: usize,
}

impl State {
    fn schedule(&mut self, key: Key, at: Instant) {
        if let Some(before) = self.due.get(&key).copied() {
            // The earliest wish counts: an object that changes all the time is still looked at.
            if before <= at {
                return;
            }
            self.order.remove(&(before, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a reconcile after this time at the latest. One that is at work is followed by another.
    pub fn add(&self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        let mut state = self.state();
        match state.running.get_mut(&key) {
            Some(again) => *again = Some(again.map_or(at, |before| before.min(at))),
            None => state.schedule(key, at),
        }
        drop(state);
        self.earlier.notify_one();
    }

    /// Waits for the next key that is due. The caller says [`Queue::done`] when it is.
    pub async fn next(&self) -> Key {
        loop {
            let earlier = self.earlier.notified();
            let wait = {
                let mut state = self.state();
                let now = Instant::now();
                match state.order.first().map(|(at, _)| *at) {
                    Some(at) if at <= now => {
                        if let Some((_, key)) = state.order.pop_first() {
                            state.due.remove(&key);
                            state.running.insert(key.clone(), None);
                            return key;
                        }
                        None
                    }
                    other => other,
                }
            };
            match wait {
                Some(at) => drop(tokio::time::timeout_at(at, earlier).await),
                None => earlier.await,
            }
        }
    }

    /// The work on this key has ended; it begins again after this time, or when it was asked for meanwhile.
    pub fn done(&self, key: Key, again_after: Option<Duration>) {
        let mut state = self.state();
        let asked = state.running.remove(&key).flatten();
        let wished = again_after.map(|after| Instant::now() + after);
        if let Some(at) = asked.into_iter().chain(wished).min() {
            state.schedule(key, at);
        }
        drop(state);
        self.earlier.notify_one();
    }

    /// Forgets a key that nobody has to look at any more.
    pub fn forget(&self, key: &Key) {
        let mut state = self.state();
        if let Some(at) = state.due.remove(key) {
            state.order.remove(&(at, key.clone()));
        }
    }

    /// Forgets everything: leadership has ended.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// How full it is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let state = self.state();
        let now = Instant::now();
        let due = state.order.iter().take_while(|(at, _)| *at <= now).count();
        Depth { due, later: state.order.len() - due, running: state.running.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        name.into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_wish_counts_and_one_key_is_there_once() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add(key("a"), Duration::from_secs(300));
        queue.add(key("a"), Duration::from_millis(200));
        queue.add(key("a"), Duration::from_secs(1));
        assert_eq!((&*queue.next().await, start.elapsed()), ("a", Duration::from_millis(200)));
        assert_eq!(queue.depth(), Depth { due: 0, later: 0, running: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_changes_all_the_time_is_still_looked_at() {
        let queue = Queue::default();
        let start = Instant::now();
        let changes = async {
            loop {
                queue.add(key("hot"), Duration::from_millis(200));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = changes => {}, found = queue.next() => assert_eq!(&*found, "hot") }
        assert!(start.elapsed() <= Duration::from_millis(250), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_at_work_is_not_given_out_again_until_it_is_done() {
        let queue = Queue::default();
        queue.add(key("a"), Duration::ZERO);
        let working = queue.next().await;
        queue.add(key("a"), Duration::ZERO);
        let second = tokio::time::timeout(Duration::from_secs(3600), queue.next()).await;
        assert!(second.is_err(), "two reconciles of one object");
        queue.done(working, Some(Duration::from_secs(9000)));
        assert_eq!(&*queue.next().await, "a", "it was asked for while it was at work");
    }

    #[tokio::test(start_paused = true)]
    async fn after_leadership_has_ended_nothing_is_left_and_a_late_end_adds_nothing_by_itself() {
        let queue = Queue::default();
        queue.add(key("a"), Duration::ZERO);
        queue.add(key("b"), Duration::ZERO);
        let working = queue.next().await;
        queue.clear();
        queue.done(working, None);
        assert_eq!(queue.depth(), Depth { due: 0, later: 0, running: 0 });
    }

    #[tokio::test]
    async fn a_hundred_times_more_keys_than_workers_all_get_through() {
        let queue = std::sync::Arc::new(Queue::default());
        let producer = queue.clone();
        let adding = tokio::spawn(async move {
            for round in 0..3 {
                for number in 0..10_000 {
                    producer.add(key(&number.to_string()), Duration::ZERO);
                }
                if round < 2 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut seen = std::collections::HashSet::new();
        let all = async {
            while seen.len() < 10_000 {
                let next = queue.next().await;
                seen.insert(next.clone());
                queue.done(next, Some(Duration::from_secs(300)));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("the queue stands still");
        adding.await.unwrap();
    }
}
