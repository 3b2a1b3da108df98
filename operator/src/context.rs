//! What every reconcile shares.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::Reason;
use arbbot_crds::status::ArbBotStatus;
use kube::{Client, ResourceExt};

use crate::api::ApiError;
use crate::backoff::Backoff;
use crate::cache::Caches;
use crate::claim::Claims;
use crate::client::{self, Refused};
use crate::events::Reports;
use crate::fencing::Terminated;
use crate::metrics::Metrics;
use crate::policy;

/// What one reconcile works with: the shared state, and a client that may write or not.
#[derive(Clone)]
pub struct Context {
    /// While the reconcile decides from the caches it only reads: see [`Context::deciding`].
    pub client: Client,
    is_deciding: bool,
    shared: Arc<Shared>,
}

/// What every reconcile shares.
pub struct Shared {
    writer: Client,
    reader: Client,
    /// Image of bots that name none.
    pub bot_image: String,
    pub caches: Arc<Caches>,
    pub claims: Claims,
    pub backoff: Backoff,
    /// Pods that were seen terminated.
    pub terminated: Arc<Terminated>,
    pub reports: Reports,
    pub metrics: Metrics,
    /// Hash of each child as the last apply returned it, by uid.
    pub applied: Memo<String, NonZeroU64>,
    /// Which generation of each bot was last seen, and when first, by uid of the bot.
    pub generations: Memo<String, (Option<i64>, Instant)>,
    /// Ids of the incidents that each bot showed last, by uid of the bot.
    pub incidents: Memo<String, Vec<String>>,
    /// Troubles of each bot that people were told of, by uid of the bot.
    pub troubles: Memo<String, Vec<(String, Reason)>>,
    /// Status of each bot before a write whose answer was lost, by uid of the bot: people were told of that one.
    pub unanswered: Memo<String, ArbBotStatus>,
    /// Since when a bot that has spoken has no Lease, by uid of the bot.
    pub without_lease: Memo<String, Instant>,
    /// What was last seen of each policy, by its uid.
    pub policies: Memo<String, policy::Known>,
    /// When each policy's bots were last counted, by its uid.
    pub counted: Memo<String, policy::Counted>,
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Context {
    /// A context that writes with `client`.
    #[must_use]
    pub fn new(
        client: Client,
        bot_image: String,
        caches: Arc<Caches>,
        terminated: Arc<Terminated>,
        metrics: Metrics,
    ) -> Self {
        let shared = Shared {
            writer: client.clone(),
            reader: client::read_only(client.clone()),
            bot_image,
            caches,
            claims: Claims::default(),
            backoff: Backoff::default(),
            terminated,
            reports: Reports::new(client.clone(), metrics.clone()),
            metrics,
            applied: Memo::default(),
            generations: Memo::default(),
            incidents: Memo::default(),
            troubles: Memo::default(),
            unanswered: Memo::default(),
            without_lease: Memo::default(),
            policies: Memo::default(),
            counted: Memo::default(),
        };
        Self { client, is_deciding: false, shared: Arc::new(shared) }
    }

    /// For a decision from the caches: the first write fails as stale, and the reconcile begins again with
    /// [`Context::acting`] and what the API server itself says.
    #[must_use]
    pub fn deciding(&self) -> Self {
        Self { client: self.reader.clone(), is_deciding: true, shared: self.shared.clone() }
    }

    /// For a reconcile that has read what it changes.
    #[must_use]
    pub fn acting(&self) -> Self {
        Self { client: self.writer.clone(), is_deciding: false, shared: self.shared.clone() }
    }
}

impl Context {
    /// Whether the reconcile decides from the caches.
    #[must_use]
    pub fn is_deciding(&self) -> bool {
        self.is_deciding
    }

    /// Fails as stale while the reconcile decides from the caches: `action` needs what the API server itself says.
    ///
    /// # Errors
    /// It is so.
    pub fn must_act(&self, action: &str) -> Result<(), ApiError> {
        if self.is_deciding {
            return Err(ApiError::Refused { action: action.to_owned(), refused: Refused::Stale });
        }
        Ok(())
    }
}

impl Shared {
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

    /// Since when the bot has no Lease.
    pub fn without_lease_since(&self, bot: &ArbBot) -> Instant {
        let uid = bot.uid().unwrap_or_default();
        self.without_lease.get(&uid).unwrap_or_else(|| {
            let now = Instant::now();
            // Of a bot that has never spoken it means nothing, and is not kept.
            if bot.status.as_ref().is_some_and(|status| status.bot.is_some()) {
                self.without_lease.insert(uid, now);
            }
            now
        })
    }

    /// Forgets a bot that is gone.
    pub fn forget(&self, bot_uid: &str) {
        self.claims.release(bot_uid);
        self.incidents.remove(bot_uid);
        self.troubles.remove(bot_uid);
        self.generations.remove(bot_uid);
        self.unanswered.remove(bot_uid);
        self.without_lease.remove(bot_uid);
    }

    /// Forgets a policy that is gone.
    pub fn forget_policy(&self, uid: &str) {
        self.policies.remove(uid);
        self.counted.remove(uid);
    }

    /// Forgets what another leader may have changed meanwhile.
    pub fn begin_to_lead(&self) {
        self.claims.clear();
        self.applied.clear();
        self.backoff.clear();
        self.incidents.clear();
        self.troubles.clear();
        self.unanswered.clear();
        self.without_lease.clear();
        self.policies.clear();
        self.counted.clear();
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

    /// Whether there is a value of this key.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
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

    /// Forgets every key.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
