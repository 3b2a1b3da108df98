//! Every ArbBot: what a reconcile looks at decides whether there is something to do at all.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use arbbot_crds::ArbBot;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use serde_json::Value;

use super::raw::Raw;
use super::store::{Facts, Key, Store, key_of};
use super::watch::{Scope, Sink};
use super::{Change, Listener};

/// What is kept of a bot beside its JSON.
#[derive(Clone, Debug)]
pub struct BotFacts {
    pub uid: Box<str>,
    /// Its portfolio: bots on one portfolio compete for claims.
    portfolio: Box<str>,
    /// Hash of what a reconcile looks at.
    transitions: u64,
    /// Hash of what a person changes: spec and labels.
    wish: u64,
}

impl Facts for BotFacts {
    fn group(&self) -> Option<&str> {
        (!self.portfolio.is_empty()).then_some(&self.portfolio)
    }
}

/// An object that this operator cannot decode: stored under another schema.
#[derive(Clone, Debug)]
pub struct Undecodable {
    pub metadata: ObjectMeta,
    pub status: Value,
    /// Names the field.
    pub message: String,
}

impl Undecodable {
    /// Of an object, and what its decoding said.
    #[must_use]
    pub fn new<K>(object: &Raw<K>, error: &serde_json::Error) -> Self {
        let status = object.rest.get("status").cloned().unwrap_or_default();
        Self { metadata: object.metadata.clone(), status, message: error.to_string() }
    }

    /// metadata.name.
    #[must_use]
    pub fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }
}

/// An object, decoded.
pub type Decoded<K> = Result<K, Box<Undecodable>>;

/// Decodes what a store kept.
fn decode(json: &[u8]) -> Decoded<ArbBot> {
    if let Ok(bot) = serde_json::from_slice(json) {
        return Ok(bot);
    }
    match serde_json::from_slice::<Raw<ArbBot>>(json) {
        Ok(raw) => raw.decode().map_err(|error| Box::new(Undecodable::new(&raw, &error))),
        Err(error) => Err(Box::new(Undecodable {
            metadata: ObjectMeta::default(),
            status: Value::Null,
            message: error.to_string(),
        })),
    }
}

/// Every ArbBot watched.
pub struct Bots {
    store: Store<BotFacts>,
    listener: Listener<ArbBot>,
}

impl Bots {
    pub(super) fn new(listener: Listener<ArbBot>) -> Self {
        Self { store: Store::default(), listener }
    }

    /// A bot.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Decoded<ArbBot>> {
        Some(decode(&self.store.get(key)?.json))
    }

    /// Keys of the bots of a namespace, or of all.
    #[must_use]
    pub fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        self.store.keys(namespace)
    }

    /// The bots of a namespace, decoded.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Decoded<ArbBot>> {
        self.keys(Some(namespace)).iter().filter_map(|key| self.get(key)).collect()
    }

    /// Keys of the bots that trade on this portfolio.
    #[must_use]
    pub fn on_portfolio(&self, portfolio: &str) -> Vec<Key> {
        self.store.of_group(portfolio)
    }

    /// How many bots are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.store.count(None)
    }

    /// Keeps a bot, as a watch shows it.
    pub fn put(&self, mut object: Raw<ArbBot>, round: u32) {
        let key = key_of(&object.metadata);
        if self.store.is_current(&key, &object.metadata, round) {
            return;
        }
        let new = object.decode();
        if let Err(error) = &new {
            tracing::warn!(bot = %key, %error, "the ArbBot cannot be read: it was stored under another schema");
        }
        let facts = facts_of(&object, new.as_ref().ok());
        let mut before = self.store.facts(&key);
        if before.as_ref().is_some_and(|before| before.uid != facts.uid) {
            // Another bot of the same name: the earlier one went while the watch did not look.
            self.forget(&key, before.take());
        }
        let wish_changed = before.as_ref().is_some_and(|before| before.wish != facts.wish);
        let old = wish_changed.then(|| self.get(&key)).flatten().and_then(Result::ok);
        let looked_at = before.is_none_or(|before| before.transitions != facts.transitions);
        object.strip();
        self.store.put(key.clone(), &object.metadata, round, facts, &object.to_json());
        if let (Some(old), Ok(new)) = (&old, &new) {
            (self.listener)(&key, Change::Wish(old, Some(new)));
        }
        if looked_at {
            (self.listener)(&key, Change::Transition);
        }
    }

    fn forget(&self, key: &Key, facts: Option<BotFacts>) {
        if let Some(facts) = facts {
            let rivals = self.on_portfolio(&facts.portfolio);
            (self.listener)(key, Change::Gone { uid: &facts.uid, rivals });
        }
    }
}

impl Sink for Bots {
    type Kind = ArbBot;

    fn selection(&self) -> watcher::Config {
        watcher::Config::default()
    }

    fn applied(&self, object: Raw<ArbBot>, round: u32) {
        self.put(object, round);
    }

    fn deleted(&self, object: Raw<ArbBot>) {
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

fn facts_of(object: &Raw<ArbBot>, bot: Option<&ArbBot>) -> BotFacts {
    let metadata = &object.metadata;
    // Also of a bot that cannot be decoded: it may trade.
    let portfolio = object.rest.pointer("/spec/venue/coinbase/portfolio").and_then(|portfolio| portfolio.as_str());
    BotFacts {
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        portfolio: portfolio.unwrap_or_default().into(),
        transitions: match bot {
            Some(bot) => transitions(bot),
            // Nothing of its status can be told apart from its spec.
            None => hash(&(metadata.generation, &metadata.resource_version)),
        },
        wish: hash(&(metadata.generation, &metadata.labels, &metadata.uid)),
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Hash of what a reconcile looks at. An acknowledgement changes no generation, so the bot's transitions count, too; its
/// numbers do not.
fn transitions(bot: &ArbBot) -> u64 {
    let mut hasher = DefaultHasher::new();
    let metadata = bot.meta();
    let own_annotations: BTreeMap<_, _> =
        metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with("arbbot.io/")).collect();
    (&metadata.uid, metadata.generation, &metadata.finalizers, metadata.deletion_timestamp.is_some()).hash(&mut hasher);
    (&metadata.labels, own_annotations).hash(&mut hasher);
    if let Some(status) = &bot.status {
        for condition in &status.conditions {
            (&condition.type_, &condition.status, &condition.reason, condition.observed_generation).hash(&mut hasher);
        }
        let said = status.bot.as_ref();
        said.map(|bot| (bot.applied_generation, bot.effective_mode, &bot.pod_uid, bot.owned_since.is_some()))
            .hash(&mut hasher);
        for policy in said.iter().flat_map(|bot| &bot.applied_policies) {
            serde_json::to_string(policy).unwrap_or_default().hash(&mut hasher);
        }
        said.and_then(|bot| bot.drain.as_ref())
            .map(|drain| (drain.phase, drain.deadline.as_ref().map(|at| at.0)))
            .hash(&mut hasher);
        for incident in status.kill_switch.iter().flat_map(|kills| &kills.incidents) {
            let times = [&incident.orders_cancelled_at, &incident.flat_at].map(|at| at.as_ref().map(|at| at.0));
            (&incident.id, incident.phase, incident.action, times).hash(&mut hasher);
        }
        for guard in said.iter().flat_map(|bot| &bot.guards) {
            (&guard.name, guard.state, &guard.incident).hash(&mut hasher);
        }
        // The operator's own part, so that a change of it by somebody else is set right.
        (status.observed_generation, status.claim.as_ref().map(|claim| claim.granted)).hash(&mut hasher);
        serde_json::to_string(&(&status.effective, &status.incidents)).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures;
    use kube::ResourceExt;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    fn bot(status: &Value) -> ArbBot {
        ArbBot { status: serde_json::from_value(status.clone()).unwrap(), ..fixtures::bot("") }
    }

    fn raw(bot: &ArbBot) -> Raw<ArbBot> {
        Raw::new(json!(bot)).unwrap()
    }

    #[test]
    fn an_acknowledgement_is_looked_at_and_a_number_is_not() {
        let hash = |status: Value| transitions(&bot(&status));
        let said =
            |generation: i64, orders: u32| json!({"bot": {"appliedGeneration": generation, "openOrders": orders}});
        assert_ne!(hash(said(1, 0)), hash(said(2, 0)));
        assert_eq!(hash(said(1, 0)), hash(said(1, 5)));
    }

    #[test]
    fn the_finalizer_labels_the_pause_and_a_deletion_are_looked_at() {
        let plain = bot(&json!({}));
        let mut held = plain.clone();
        held.metadata.finalizers = Some(vec!["x".to_owned()]);
        let mut labelled = plain.clone();
        labelled.labels_mut().insert("desk".to_owned(), "a".to_owned());
        let mut paused = plain.clone();
        paused.annotations_mut().insert("arbbot.io/paused".to_owned(), "true".to_owned());
        let mut deleted = plain.clone();
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        for changed in [held, labelled, paused, deleted] {
            assert_ne!(transitions(&plain), transitions(&changed));
        }
    }

    #[test]
    fn one_bot_that_cannot_be_read_keeps_no_other_from_being_known() {
        let bots = Bots::new(Box::new(|_, _| {}));
        let mut odd = json!(bot(&json!({})));
        odd["metadata"]["name"] = json!("odd");
        odd["spec"]["mode"] = json!("Paused");
        bots.put(Raw::new(odd).unwrap(), 1);
        bots.put(raw(&bot(&json!({}))), 1);
        assert!(bots.get("desk/carry").unwrap().is_ok());
        let undecodable = bots.get("desk/odd").unwrap().unwrap_err();
        assert_eq!(undecodable.metadata.name.as_deref(), Some("odd"));
        assert!(undecodable.message.contains("Paused"), "{}", undecodable.message);
    }

    #[test]
    fn the_listener_hears_of_transitions_wishes_and_the_end_and_of_nothing_twice() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        let bots = Bots::new(Box::new(move |key: &Key, change| {
            let text = match change {
                Change::Transition | Change::Control => format!("{key} transition"),
                Change::Wish(old, new) => {
                    format!(
                        "{key} {} -> {}",
                        old.spec.mode,
                        new.map(|new| new.spec.mode.to_string()).unwrap_or_default()
                    )
                }
                Change::Gone { uid, .. } => format!("{key} {uid} gone"),
            };
            log.lock().unwrap().push(text);
        }));
        let take = || std::mem::take(&mut *heard.lock().unwrap());
        let mut object = bot(&json!({}));
        object.metadata.resource_version = Some("1".to_owned());
        bots.put(raw(&object), 1);
        bots.put(raw(&object), 2);
        assert_eq!(take(), ["desk/carry transition"]);
        object.metadata.resource_version = Some("2".to_owned());
        object.metadata.generation = Some(4);
        object.spec.mode = arbbot_crds::arbbot::Mode::Halted;
        bots.put(raw(&object), 2);
        assert_eq!(take(), ["desk/carry Active -> Halted", "desk/carry transition"]);
        bots.listed(&Scope(None), 3);
        assert_eq!(take(), ["desk/carry 0b9d6bcd-uid gone"]);
    }
}
