//! The children of one kind, as they are: compared with what they should be without a call of the API server. Once one was
//! found to be as wanted, only that is kept of it until it changes.

use std::marker::PhantomData;
use std::num::NonZeroU64;

use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID};
use kube::runtime::watcher;

use super::raw::Raw;
use super::store::{Facts, Key, Store, key, key_of, split};
use super::watch::{Scope, Sink};
use crate::reconcile::apply::Child;
use crate::reconcile::ownership;

/// A child is found by its name only.
#[derive(Clone, Copy, Debug, Default)]
struct ChildFacts {
    /// Hash of the wish that the child was compared with.
    as_wanted: Option<NonZeroU64>,
}

impl Facts for ChildFacts {
    fn group(&self) -> Option<&str> {
        None
    }
}

/// What is known of a child.
#[derive(Clone, Debug)]
pub enum Known<K> {
    /// As a watch or the API server has last shown it.
    Object(K, Version),
    /// It is as the wish with this hash wants it.
    AsWanted(NonZeroU64),
}

/// A version of a child in its cache. None: it was read from the API server.
#[derive(Clone, Copy, Debug)]
pub struct Version(Option<u64>);

impl<K> Known<K> {
    /// A child as the API server has it.
    pub fn read(child: K) -> Self {
        Self::Object(child, Version(None))
    }

    /// The child, unless it was forgotten.
    pub fn object(&self) -> Option<&K> {
        match self {
            Self::Object(child, _) => Some(child),
            Self::AsWanted(_) => None,
        }
    }
}

/// Called with the key of the bot whose child or pod has changed.
pub type BotTrigger = Box<dyn Fn(&Key) + Send + Sync>;

/// Every child of one kind.
pub struct Children<K> {
    store: Store<ChildFacts>,
    trigger: BotTrigger,
    kind: PhantomData<fn() -> K>,
}

impl<K: Child> Children<K> {
    pub(super) fn new(trigger: BotTrigger) -> Self {
        Self { store: Store::default(), trigger, kind: PhantomData }
    }

    /// A child as a watch has shown it. None, too, if it cannot be read or was forgotten.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<K> {
        serde_json::from_slice(&self.store.get(key)?.json).ok()
    }

    /// What is known of a child. None, too, if it cannot be read; then the API server is asked.
    #[must_use]
    pub fn known(&self, key: &str) -> Option<Known<K>> {
        if let Some(hash) = self.store.facts(key)?.as_wanted {
            return Some(Known::AsWanted(hash));
        }
        let kept = self.store.get(key)?;
        Some(Known::Object(serde_json::from_slice(&kept.json).ok()?, Version(Some(kept.version))))
    }

    /// Forgets all of a child but that it is, in this version, as the wish with this hash wants it.
    pub fn is_as_wanted(&self, key: &str, version: Version, hash: NonZeroU64) {
        if let Version(Some(version)) = version {
            self.store.forget_json(key, version, |facts| facts.as_wanted = Some(hash));
        }
    }

    /// Keeps a child, as a watch shows it.
    pub fn put(&self, mut object: Raw<K>, round: u32) {
        let key = key_of(&object.metadata);
        if self.store.is_current(&key, &object.metadata, round) {
            return;
        }
        let bots = bots_of(&object);
        // Who owns what is kept only where it matters: where somebody else owns what is the operator's business.
        let fields = object.metadata.managed_fields.take().filter(|fields| ownership::is_foreign::<K>(fields));
        object.strip();
        object.metadata.managed_fields = fields;
        // Not looked at, and different in each.
        object.metadata.creation_timestamp = None;
        let metadata = object.metadata.clone();
        object.metadata.resource_version = None;
        self.store.put(key, &metadata, round, ChildFacts::default(), &object.to_json());
        bots.iter().for_each(|bot| (self.trigger)(bot));
    }
}

/// The bot that a child or pod names in its label.
pub(super) fn bot_of<K>(object: &Raw<K>) -> Option<Key> {
    let bot = object.metadata.labels.as_ref()?.get(LABEL_BOT)?;
    Some(key(object.metadata.namespace.as_deref()?, bot))
}

/// The bots that a child concerns: the one in its label, and the one in its name if a person has edited the label.
fn bots_of<K: Child>(object: &Raw<K>) -> Vec<Key> {
    let by_name = bot_by_name(&key_of(&object.metadata), is_ledger::<K>());
    let by_label = bot_of(object).filter(|bot| by_name.as_ref() != Some(bot));
    by_name.into_iter().chain(by_label).collect()
}

fn is_ledger<K: Child>() -> bool {
    K::kind(&()) == "PersistentVolumeClaim"
}

/// The bot of a child that is known by its name only: see `names::child_name` and `names::ledger_claim_name`.
fn bot_by_name(child: &str, is_ledger: bool) -> Option<Key> {
    let (namespace, name) = split(child);
    let bot = name.strip_prefix("arbbot-")?;
    Some(key(namespace, if is_ledger { bot.strip_suffix("-ledger")? } else { bot }))
}

impl<K: Child + Send + 'static> Sink for Children<K> {
    type Kind = K;

    fn selection(&self) -> watcher::Config {
        watcher::Config::default().labels(LABEL_BOT_UID)
    }

    fn applied(&self, object: Raw<K>, round: u32) {
        self.put(object, round);
    }

    fn deleted(&self, object: Raw<K>) {
        self.store.remove(&key_of(&object.metadata));
        bots_of(&object).iter().for_each(|bot| (self.trigger)(bot));
    }

    fn listed(&self, scope: &Scope, round: u32) {
        for (child, _) in self.store.sweep(scope.namespace(), round) {
            if let Some(bot) = bot_by_name(&child, is_ledger::<K>()) {
                (self.trigger)(&bot);
            }
        }
    }

    fn count(&self, scope: &Scope) -> usize {
        self.store.count(scope.namespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbbot_crds::names::{child_name, ledger_claim_name};
    use k8s_openapi::api::core::v1::ServiceAccount;
    use serde_json::json;

    #[test]
    fn a_child_that_is_as_wanted_is_forgotten_but_for_that_until_it_changes() {
        let children = Children::<ServiceAccount>::new(Box::new(|_| ()));
        let shown = |version: &str| {
            let metadata = json!({"namespace": "desk", "name": "arbbot-carry", "uid": "u", "resourceVersion": version});
            children.put(Raw::new(json!({"metadata": metadata})).unwrap(), 1);
        };
        let at = key("desk", "arbbot-carry");
        shown("1");
        let Some(Known::Object(_, first)) = children.known(&at) else { panic!("it was just shown") };
        let hash = NonZeroU64::MIN;
        children.is_as_wanted(&at, first, hash);
        assert!(matches!(children.known(&at), Some(Known::AsWanted(known)) if known == hash));
        shown("1");
        assert!(matches!(children.known(&at), Some(Known::AsWanted(_))), "nothing has changed");
        shown("2");
        children.is_as_wanted(&at, first, hash); // what was compared is another version
        assert!(matches!(children.known(&at), Some(Known::Object(..))));
    }

    #[test]
    fn the_bot_of_a_lost_child_is_found_by_the_childs_name() {
        for bot in ["carry", "x-ledger"] {
            let expected = key("desk", bot);
            assert_eq!(bot_by_name(&key("desk", &child_name(bot)), false), Some(expected.clone()));
            assert_eq!(bot_by_name(&key("desk", &ledger_claim_name(bot)), true), Some(expected));
        }
        assert_eq!(bot_by_name("desk/somebody-elses", false), None);
    }
}
