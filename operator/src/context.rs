//! What every reconcile shares.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arbbot_crds::conditions::Reason;
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::claim::Claims;
use crate::events::Reports;
use crate::fencing::Terminated;
use crate::metrics::Metrics;

/// What every reconcile shares.
pub struct Context {
    pub client: Client,
    /// Image of bots that name none.
    pub bot_image: String,
    /// Every ArbBot watched.
    pub bots: Store<ArbBot>,
    /// Every ArbPolicy of the namespaces watched.
    pub policies: Store<ArbPolicy>,
    /// The bots' pods, without their spec.
    pub pods: Store<Pod>,
    /// Whether every cache has its first list.
    pub synced: watch::Receiver<bool>,
    pub claims: Claims,
    pub backoff: Backoff,
    /// Pods that were seen terminated.
    pub terminated: Arc<Terminated>,
    pub reports: Reports,
    pub metrics: Metrics,
    /// Hash of each child as the last apply returned it, by uid.
    pub applied: Memo<String, u64>,
    /// Which generation of each bot was last seen, and when first, by uid of the bot.
    pub generations: Memo<String, (Option<i64>, Instant)>,
    /// Ids of the incidents that each bot showed last, by uid of the bot.
    pub incidents: Memo<String, Vec<String>>,
    /// Troubles of each bot that people were told of, by uid of the bot.
    pub troubles: Memo<String, Vec<(String, Reason)>>,
}

impl Context {
    /// How long the bot's present generation has been known here.
    pub fn generation_age(&self, bot: &ArbBot) -> Duration {
        let uid = bot.uid().unwrap_or_default();
        let first_seen = match self.generations.get(&uid) {
            Some((generation, at)) if generation == bot.metadata.generation => at,
            _ => {
                let now = Instant::now();
                self.generations.insert(uid, (bot.metadata.generation, now));
                now
            }
        };
        first_seen.elapsed()
    }

    /// Forgets a bot that is gone.
    pub fn forget(&self, bot_uid: &str) {
        self.claims.release(bot_uid);
        self.incidents.remove(bot_uid);
        self.troubles.remove(bot_uid);
        self.generations.remove(bot_uid);
    }
}

/// A small map shared by reconciles.
pub struct Memo<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    /// The value of this key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Sets the value of this key and returns the one before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value)
    }

    /// Forgets this key.
    pub fn remove<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
