//! What every reconcile shares.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::runtime::reflector::Store;

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
    pub claims: Claims,
    pub backoff: Backoff,
    /// Pods that were seen terminated.
    pub terminated: Arc<Terminated>,
    pub reports: Reports,
    pub metrics: Metrics,
    /// Hash of each child as the last apply returned it, by uid.
    pub applied: Memo<String, u64>,
    /// Ids of the incidents that each bot showed last, by uid of the bot.
    pub incidents: Memo<String, Vec<String>>,
}

impl Context {
    /// Forgets a bot that is gone.
    pub fn forget(&self, bot_uid: &str) {
        self.claims.release(bot_uid);
        self.incidents.remove(bot_uid);
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
