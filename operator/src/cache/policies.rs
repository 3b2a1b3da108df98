//! Every ArbPolicy, decoded: there are few, and every bot of the namespace looks at them.

use std::sync::Arc;

use arbbot_crds::{ArbPolicy, decode};
use kube::runtime::watcher;

use super::bots::{Decoded, Undecodable};
use super::raw::Raw;
use super::store::{Facts, Key, Store, key_of};
use super::watch::{Scope, Sink};
use super::{Change, Listener};

/// A policy as it is known.
pub type CachedPolicy = Decoded<Arc<ArbPolicy>>;

#[derive(Clone, Debug)]
struct PolicyFacts {
    known: CachedPolicy,
    /// What counts of it: of one that cannot be read as a whole, what restricts.
    in_force: Arc<ArbPolicy>,
}

impl Facts for PolicyFacts {
    fn group(&self) -> Option<&str> {
        None
    }
}

/// Every ArbPolicy watched.
pub struct Policies {
    store: Store<PolicyFacts>,
    listener: Listener<ArbPolicy>,
}

impl Policies {
    pub(super) fn new(listener: Listener<ArbPolicy>) -> Self {
        Self { store: Store::default(), listener }
    }

    /// A policy.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<CachedPolicy> {
        self.store.facts(key).map(|facts| facts.known)
    }

    /// Keys of the policies of a namespace, or of all.
    #[must_use]
    pub fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        self.store.keys(namespace)
    }

    /// The policies of a namespace as they are in force, as the bots read them too: a kill is never unread.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<ArbPolicy>> {
        self.keys(Some(namespace)).iter().filter_map(|key| Some(self.store.facts(key)?.in_force)).collect()
    }

    /// Keeps a policy, as a watch shows it.
    pub fn put(&self, mut object: Raw<ArbPolicy>, round: u32) {
        let key = key_of(&object.metadata);
        if self.store.is_current(&key, &object.metadata, round) {
            return;
        }
        let facts = self.store.facts(&key);
        let was_readable = facts.as_ref().is_none_or(|facts| facts.known.is_ok());
        let before = facts.map(|facts| facts.in_force);
        let new = object.decode();
        let in_force = match &new {
            Ok(new) => new.clone(),
            Err(_) => {
                let known = before.as_ref().filter(|before| before.metadata.uid == object.metadata.uid);
                decode::arb_policy(object.metadata.clone(), &object.rest, known.map(|known| &known.spec)).object
            }
        };
        object.strip();
        let metadata = object.metadata.clone();
        let in_force = Arc::new(ArbPolicy { metadata: metadata.clone(), ..in_force });
        let known = match &new {
            Ok(_) => Ok(in_force.clone()),
            Err(error) => {
                tracing::warn!(policy = %key, %error, "the ArbPolicy cannot be read: it was stored under another schema");
                Err(Box::new(Undecodable::new(&object, error)))
            }
        };
        self.store.put(key.clone(), &metadata, round, PolicyFacts { known, in_force: in_force.clone() }, b"");
        if let (Some(old), Ok(new)) = (&before, &new)
            && (old.metadata.generation, &old.metadata.labels) != (new.metadata.generation, &new.metadata.labels)
        {
            (self.listener)(&key, Change::Wish(old, Some(new)));
        }
        let control = |policy: &ArbPolicy| {
            let metadata = &policy.metadata;
            (metadata.uid.clone(), metadata.generation, metadata.deletion_timestamp.is_some())
        };
        // Its own status, which counts its bots, is nothing to them.
        let is_as_before = before.as_ref().is_some_and(|before| control(before) == control(&in_force))
            && (was_readable, &before.as_ref().map(|before| &before.spec)) == (new.is_ok(), &Some(&in_force.spec));
        (self.listener)(&key, if is_as_before { Change::Transition } else { Change::Control });
    }

    fn forget(&self, key: &Key, facts: Option<PolicyFacts>) {
        let Some(PolicyFacts { known: policy, .. }) = facts else { return };
        if let Ok(old) = &policy {
            (self.listener)(key, Change::Wish(old, None));
        }
        let uid = match &policy {
            Ok(policy) => policy.metadata.uid.as_deref(),
            Err(undecodable) => undecodable.metadata.uid.as_deref(),
        };
        (self.listener)(key, Change::Gone { uid: uid.unwrap_or_default(), rivals: Vec::new() });
    }
}

impl Sink for Policies {
    type Kind = ArbPolicy;

    fn selection(&self) -> watcher::Config {
        watcher::Config::default()
    }

    fn applied(&self, object: Raw<ArbPolicy>, round: u32) {
        self.put(object, round);
    }

    fn deleted(&self, object: Raw<ArbPolicy>) {
        let key = key_of(&object.metadata);
        self.forget(&key, self.store.remove(&key));
    }

    fn listed(&self, scope: &Scope, round: u32) {
        for (key, facts) in self.store.sweep(scope.namespace(), round) {
            self.forget(&key, Some(facts));
        }
    }

    fn count(&self, scope: &Scope) -> usize {
        self.store.count(scope.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures;
    use serde_json::json;
    use std::sync::Mutex;

    #[test]
    fn bots_hear_of_what_they_obey_and_not_of_the_counts_in_a_status() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        let policies = Policies::new(Box::new(move |_, change| {
            let text = match change {
                Change::Control => "control",
                Change::Transition => "transition",
                Change::Wish(..) => "wish",
                Change::Gone { .. } => "gone",
            };
            log.lock().unwrap().push(text);
        }));
        let take = || std::mem::take(&mut *heard.lock().unwrap());
        let mut policy = json!(fixtures::policy("mode: Active"));
        let mut version = 0;
        let mut put = |change: &mut dyn FnMut(&mut serde_json::Value)| {
            version += 1;
            policy["metadata"]["resourceVersion"] = json!(version.to_string());
            change(&mut policy);
            policies.put(Raw::new(policy.clone()).unwrap(), 1);
        };
        put(&mut |_| {});
        assert_eq!(take(), ["control"], "it is new");
        put(&mut |policy| policy["status"] = json!({"bots": {"matched": 3}}));
        assert_eq!(take(), ["transition"]);
        put(&mut |policy| {
            policy["spec"]["mode"] = json!("Halted");
            policy["metadata"]["generation"] = json!(9);
        });
        assert_eq!(take(), ["wish", "control"]);
        put(&mut |policy| policy["spec"]["mode"] = json!("Sideways"));
        assert_eq!(take(), ["control"], "it cannot be read any more");
        put(&mut |policy| policy["status"] = json!({"bots": {"matched": 4}}));
        assert_eq!(take(), ["transition"]);
    }
}
