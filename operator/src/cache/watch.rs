//! One watch of one kind in one scope: it lists, follows, starts again after every error, and says how it is.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, Semaphore};

use super::raw::Raw;
use crate::metrics::Metrics;

/// Objects per page of a list. A page is in memory as a whole, in every watch at once.
const PAGE: u32 = 100;
/// Seconds that one watch request lasts; the next goes on where it ended. A connection may die without a word, and a watch
/// that is silent for longer than this is taken for dead: so long at most is a cache out of date.
const WATCH: u32 = 15;
/// Longest silence on a connection to the API server: an open watch ends before.
pub const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 5);

/// The namespaces that one watch sees: one, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(pub Option<Arc<str>>);

impl Scope {
    /// An API of this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    /// The namespace; None: all.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether objects of this namespace are in the scope.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.namespace().is_none_or(|own| own == namespace)
    }
}

/// Where the objects of one kind go. `round` counts the lists of a scope.
pub trait Sink: Send + Sync + 'static {
    /// The kind.
    type Kind: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static;

    /// Which objects are watched.
    fn selection(&self) -> watcher::Config;
    /// An object is there or has changed.
    fn applied(&self, object: Raw<Self::Kind>, round: u32);
    /// An object is gone.
    fn deleted(&self, object: Raw<Self::Kind>);
    /// A list is complete: what it has not shown is gone.
    fn listed(&self, scope: &Scope, round: u32);
    /// How many objects of the scope are known.
    fn count(&self, scope: &Scope) -> usize;
}

/// How a watch is.
#[derive(Debug)]
pub struct Health {
    pub kind: String,
    pub scope: Scope,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    trouble: Option<Trouble>,
    last_event: Option<Instant>,
}

/// Why the last attempt failed. A watch says nothing when it works again and nothing happens, so a trouble that is not
/// renewed is over.
#[derive(Debug)]
struct Trouble {
    error: String,
    forbidden: bool,
    at: Instant,
}

/// Longer than the longest pause between two attempts and the silence that ends one.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);

impl State {
    fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|trouble| trouble.at.elapsed() < TROUBLE_LASTS)
    }
}

/// What people see of a watch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchView {
    pub kind: String,
    /// Absent: every namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub synced: bool,
    /// The operator is not allowed to list it: the namespace is left alone.
    pub forbidden: bool,
    /// The error of the last attempt, until the watch delivers again or has not failed for a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Seconds since the last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_age_seconds: Option<u64>,
}

impl Health {
    /// Of a watch that has not begun.
    #[must_use]
    pub fn new(kind: String, scope: Scope) -> Self {
        Self { kind, scope, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the first list is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.state().synced
    }

    /// Whether the first list is complete, or the operator is not allowed to make it: then nothing is known of the scope
    /// and waiting changes nothing.
    #[must_use]
    pub fn is_synced_or_forbidden(&self) -> bool {
        let state = self.state();
        state.synced || state.trouble().is_some_and(|trouble| trouble.forbidden)
    }

    /// Notes that the first list is complete. Returns whether that is new.
    pub fn set_synced(&self) -> bool {
        let mut state = self.state();
        state.trouble = None;
        !std::mem::replace(&mut state.synced, true)
    }

    /// Notes that the watch delivers.
    fn seen(&self) {
        let mut state = self.state();
        state.last_event = Some(Instant::now());
        state.trouble = None;
    }

    /// Notes an error. Returns whether it is another one than before.
    pub fn set_error(&self, error: String, forbidden: bool) -> bool {
        let mut state = self.state();
        let is_new = state.trouble().is_none_or(|before| before.error != error);
        state.trouble = Some(Trouble { error, forbidden, at: Instant::now() });
        is_new
    }

    /// What people see.
    #[must_use]
    pub fn view(&self) -> WatchView {
        let state = self.state();
        WatchView {
            kind: self.kind.clone(),
            namespace: self.scope.namespace().map(str::to_owned),
            synced: state.synced,
            forbidden: state.trouble().is_some_and(|trouble| trouble.forbidden),
            last_error: state.trouble().map(|trouble| trouble.error.clone()),
            last_event_age_seconds: state.last_event.map(|at| at.elapsed().as_secs()),
        }
    }
}

/// What the watches share.
#[derive(Clone)]
pub struct Turns {
    /// First lists at once.
    pub lists: Arc<Semaphore>,
    /// Wakes the watches that wait for their next attempt: somebody needs them now.
    pub at_once: Arc<Notify>,
}

/// Waits between the attempts of one watch: doubled, jittered. A missing CustomResourceDefinition is noticed within
/// seconds after it came.
#[derive(Default)]
struct WatchBackoff {
    failures: u32,
    last: Option<Instant>,
    /// Whether the present attempt has delivered a change: then the next error is the first one again. A list is none: it
    /// costs too much to be repeated at once.
    has_delivered: bool,
}

impl WatchBackoff {
    /// Waits for the next attempt, or until somebody needs it.
    async fn pause(&mut self, at_once: &Notify) {
        tokio::select! {
            () = tokio::time::sleep(self.wait()) => {}
            () = at_once.notified() => {}
        }
    }

    fn wait(&mut self) -> Duration {
        let has_delivered = std::mem::take(&mut self.has_delivered);
        if has_delivered || self.last.is_some_and(|last| last.elapsed() > Duration::from_secs(60)) {
            self.failures = 0;
        }
        self.last = Some(Instant::now());
        let whole = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        whole.min(Duration::from_secs(8)).mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }
}

/// Follows one kind in one scope for ever. `synced` is called once, after the first list.
pub fn follow<S: Sink>(
    client: &Client,
    sink: Arc<S>,
    health: Arc<Health>,
    metrics: Metrics,
    turns: Turns,
    synced: impl Fn() + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let api = health.scope.api::<Raw<S::Kind>>(client);
    let selection = sink.selection().page_size(PAGE).timeout(WATCH);
    async move {
        // A page of a list is in memory as a whole, many times as large as what is kept of it: not one per kind at once.
        let mut turn = turns.lists.acquire_owned().await.ok();
        let mut backoff = WatchBackoff::default();
        let mut events = pin!(watcher(api, selection));
        let mut round = 0;
        while let Some(event) = events.next().await {
            match event {
                // Nothing has been answered yet.
                Ok(Event::Init) => round += 1,
                Ok(event) => {
                    health.seen();
                    match event {
                        Event::Init => {}
                        Event::InitApply(object) => sink.applied(object, round),
                        Event::Apply(object) => {
                            backoff.has_delivered = true;
                            sink.applied(object, round);
                        }
                        Event::Delete(object) => {
                            backoff.has_delivered = true;
                            sink.deleted(object);
                        }
                        Event::InitDone => {
                            sink.listed(&health.scope, round);
                            drop(turn.take());
                            if health.set_synced() {
                                synced();
                            }
                        }
                    }
                }
                Err(error) => {
                    drop(turn.take()); // the others go on
                    failed(&health, &error, &metrics);
                    // A watcher that is asked for more tries again.
                    backoff.pause(&turns.at_once).await;
                }
            }
        }
    }
}

fn failed(health: &Health, error: &watcher::Error, metrics: &Metrics) {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code,
        _ => 0,
    };
    metrics.watch_failed(&health.kind, code);
    let namespace = health.scope.namespace().unwrap_or("every namespace");
    let kind = &health.kind;
    let hint = match (code, kind.as_str()) {
        (404, "ArbBot" | "ArbPolicy") => " (the CRDs are not installed: kubectl apply --server-side -f crds/)",
        (403, _) => " (the operator's Role does not allow it)",
        _ => "",
    };
    let text = format!("the watch of {kind} in {namespace} failed: {error}{hint}");
    // 410: what was missed is listed again; it is how a watch goes on after a pause.
    if code == 410 {
        tracing::debug!(kind, namespace, "{text}");
    } else if health.set_error(text.clone(), code == 403) {
        tracing::warn!(kind, namespace, "{text}; it is tried again with backoff");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_delivers_before_it_breaks_is_resumed_at_once_and_one_that_does_not_waits_longer_each_time() {
        let mut backoff = WatchBackoff::default();
        let longest = |backoff: &mut WatchBackoff| (0..6).map(|_| backoff.wait()).max().unwrap();
        assert!(longest(&mut backoff) >= Duration::from_secs(4));
        for _ in 0..20 {
            backoff.has_delivered = true;
            assert!(backoff.wait() <= Duration::from_millis(500));
        }
        assert!(longest(&mut backoff) >= Duration::from_secs(4));
    }
    #[tokio::test(start_paused = true)]
    async fn a_watch_that_waits_tries_again_at_once_when_somebody_needs_it() {
        let (mut backoff, at_once) = (WatchBackoff::default(), Notify::new());
        let _grown = (0..6).map(|_| backoff.wait()).last();
        let began = tokio::time::Instant::now();
        let leads = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            at_once.notify_waiters();
        };
        tokio::join!(backoff.pause(&at_once), leads);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        backoff.pause(&at_once).await;
        assert!(began.elapsed() >= Duration::from_secs(5), "only that once");
    }

    #[test]
    fn a_watch_that_delivers_has_no_trouble_and_the_same_trouble_is_told_once() {
        let health = Health::new("Pod".to_owned(), Scope(None));
        assert!(health.set_error("403".to_owned(), true));
        assert!(!health.set_error("403".to_owned(), true));
        assert!(health.is_synced_or_forbidden() && health.view().forbidden);
        health.seen();
        assert!(!health.view().forbidden && health.view().last_error.is_none());
        assert!(health.set_error("403".to_owned(), true), "it is back");
    }
}
