//! The bots' pods without their spec.

use std::sync::Arc;

use arbbot_crds::names::LABEL_BOT_UID;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;

use super::children::{BotTrigger, bot_of};
use super::raw::Raw;
use super::store::{Facts, Key, Store, key_of};
use super::watch::{Scope, Sink};
use crate::fencing::Terminated;

#[derive(Clone, Debug)]
struct PodFacts {
    bot: Option<Key>,
    bot_uid: Box<str>,
}

impl Facts for PodFacts {
    fn group(&self) -> Option<&str> {
        Some(&self.bot_uid)
    }
}

/// Every pod of a bot.
pub struct Pods {
    store: Store<PodFacts>,
    trigger: BotTrigger,
    terminated: Arc<Terminated>,
}

impl Pods {
    pub(super) fn new(trigger: BotTrigger, terminated: Arc<Terminated>) -> Self {
        Self { store: Store::default(), trigger, terminated }
    }

    /// The pods of a bot.
    #[must_use]
    pub fn of_bot(&self, uid: &str) -> Vec<Arc<Pod>> {
        let keys = self.store.of_group(uid);
        keys.iter().filter_map(|key| Some(Arc::new(serde_json::from_slice(&self.store.get(key)?.json).ok()?))).collect()
    }

    /// Keeps a pod, as a watch shows it.
    pub fn put(&self, mut object: Raw<Pod>, round: u32) {
        let key = key_of(&object.metadata);
        if self.store.is_current(&key, &object.metadata, round) {
            return;
        }
        if let Some(fields) = object.rest.as_object_mut() {
            fields.remove("spec");
        }
        object.strip();
        if let Some(pod) = object.decode_built_in() {
            self.terminated.observe(&pod);
        }
        let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_BOT_UID));
        let facts = PodFacts { bot: bot_of(&object), bot_uid: label.map(String::as_str).unwrap_or_default().into() };
        let bot = facts.bot.clone();
        self.store.put(key, &object.metadata, round, facts, &object.to_json());
        if let Some(bot) = bot {
            (self.trigger)(&bot);
        }
    }
}

impl Sink for Pods {
    type Kind = Pod;

    fn selection(&self) -> watcher::Config {
        watcher::Config::default().labels(LABEL_BOT_UID)
    }

    fn applied(&self, object: Raw<Pod>, round: u32) {
        self.put(object, round);
    }

    fn deleted(&self, object: Raw<Pod>) {
        // What it shows for the last time may be the proof that it has ended.
        if let Some(pod) = object.decode_built_in() {
            self.terminated.observe(&pod);
        }
        self.store.remove(&key_of(&object.metadata));
        if let Some(bot) = bot_of(&object) {
            (self.trigger)(&bot);
        }
    }

    fn listed(&self, scope: &Scope, round: u32) {
        for (_, facts) in self.store.sweep(scope.namespace(), round) {
            if let Some(bot) = &facts.bot {
                (self.trigger)(bot);
            }
        }
    }

    fn count(&self, scope: &Scope) -> usize {
        self.store.count(scope.namespace())
    }
}
