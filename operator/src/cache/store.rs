//! Objects of one kind by namespace and name, compact, with one index.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::api::ObjectMeta;

use super::packed::Sample;
use super::slab::{Place, Slab};

/// `namespace/name` of an object. Sorted, a namespace's objects stand together.
pub type Key = Arc<str>;

/// The key of an object.
#[must_use]
pub fn key(namespace: &str, name: &str) -> Key {
    format!("{namespace}/{name}").into()
}

/// The key of an object with this metadata.
#[must_use]
pub fn key_of(metadata: &ObjectMeta) -> Key {
    key(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// Namespace and name of a key.
#[must_use]
pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

/// What is kept of an object beside its JSON: what is asked for often.
pub trait Facts: Clone {
    /// Objects with the same group are found together.
    fn group(&self) -> Option<&str>;
}

#[derive(Debug)]
struct Entry<F> {
    facts: F,
    /// Where the packed JSON is, and how long it is unpacked. None: forgotten, the facts say enough.
    json: Option<(Place, u32)>,
    /// Hash of metadata.resourceVersion.
    version: u64,
    /// The list that has last shown the object.
    round: u32,
}

/// An object as it is kept.
pub struct Kept<F> {
    pub facts: F,
    pub json: Vec<u8>,
    /// Of this version of the object, for [`Store::forget_json`].
    pub version: u64,
}

struct Inner<F> {
    entries: BTreeMap<Key, Entry<F>>,
    groups: HashMap<Box<str>, Vec<Key>>,
    sample: Option<Arc<Sample>>,
    packed: Slab,
}

/// Objects of one kind.
pub struct Store<F>(RwLock<Inner<F>>);

impl<F> Default for Store<F> {
    fn default() -> Self {
        Self(RwLock::new(Inner {
            entries: BTreeMap::new(),
            groups: HashMap::new(),
            sample: None,
            packed: Slab::default(),
        }))
    }
}

impl<F: Facts> Store<F> {
    fn read(&self) -> RwLockReadGuard<'_, Inner<F>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<F>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the object is here in exactly this version; then it counts as shown by the list `round`.
    pub fn is_current(&self, key: &str, metadata: &ObjectMeta, round: u32) -> bool {
        let version = version_of(metadata);
        let mut inner = self.write();
        match inner.entries.get_mut(key) {
            Some(entry) if entry.version == version && metadata.resource_version.is_some() => {
                entry.round = round;
                true
            }
            _ => false,
        }
    }

    /// Keeps an object and returns the facts of the one before.
    pub fn put(&self, key: Key, metadata: &ObjectMeta, round: u32, facts: F, json: &[u8]) -> Option<F> {
        let mut inner = self.write();
        let sample = inner.sample.get_or_insert_with(|| Arc::new(Sample::new(json))).clone();
        drop(inner); // compressing takes longer than all else here
        let packed = sample.pack(json);
        let size = u32::try_from(json.len()).unwrap_or(u32::MAX);
        let mut inner = self.write();
        let group = facts.group().map(Box::<str>::from);
        let place = inner.packed.insert(&packed);
        let entry = Entry { facts, json: Some((place, size)), version: version_of(metadata), round };
        let before = inner.entries.insert(key.clone(), entry).map(|entry| inner.give_back(entry));
        let group_before = before.as_ref().and_then(Facts::group);
        if group_before != group.as_deref() {
            inner.leave(group_before, &key);
            if let Some(group) = group {
                inner.groups.entry(group).or_default().push(key);
            }
        }
        before
    }

    /// Forgets an object.
    pub fn remove(&self, key: &str) -> Option<F> {
        self.write().remove(key)
    }

    /// Forgets the objects of the scope that the list `round` has not shown.
    pub fn sweep(&self, namespace: Option<&str>, round: u32) -> Vec<(Key, F)> {
        let mut inner = self.write();
        let gone: Vec<Key> =
            inner.range(namespace).filter(|(_, entry)| entry.round != round).map(|(key, _)| key.clone()).collect();
        let gone = gone.into_iter().filter_map(|key| inner.remove(&key).map(|facts| (key, facts))).collect();
        // A list comes in order, which leaves every node half empty; made of the whole they are full.
        inner.entries = std::mem::take(&mut inner.entries).into_iter().collect();
        gone
    }

    /// Forgets the JSON of an object whose facts now say enough, unless it is in another version meanwhile.
    pub fn forget_json(&self, key: &str, version: u64, change: impl FnOnce(&mut F)) {
        let mut inner = self.write();
        let Some(entry) = inner.entries.get_mut(key).filter(|entry| entry.version == version) else { return };
        change(&mut entry.facts);
        let json = entry.json.take();
        inner.forget(json);
    }

    /// Facts of an object.
    pub fn facts(&self, key: &str) -> Option<F> {
        self.read().entries.get(key).map(|entry| entry.facts.clone())
    }

    /// Changes the facts of an object, not its group.
    pub fn update(&self, key: &str, change: impl FnOnce(&mut F)) {
        if let Some(entry) = self.write().entries.get_mut(key) {
            change(&mut entry.facts);
        }
    }

    /// An object, unless its JSON is forgotten.
    pub fn get(&self, key: &str) -> Option<Kept<F>> {
        let inner = self.read();
        let entry = inner.entries.get(key)?;
        let (facts, version) = (entry.facts.clone(), entry.version);
        let (place, size) = entry.json?;
        let json = inner.sample.as_ref()?.unpack(inner.packed.get(place), size)?;
        Some(Kept { facts, json, version })
    }

    /// Keys of a namespace's objects, or all.
    pub fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        self.read().range(namespace).map(|(key, _)| key.clone()).collect()
    }

    /// Keys of a group's objects.
    pub fn of_group(&self, group: &str) -> Vec<Key> {
        self.read().groups.get(group).cloned().unwrap_or_default()
    }

    /// How many objects of the scope there are.
    pub fn count(&self, namespace: Option<&str>) -> usize {
        self.read().range(namespace).count()
    }
}

impl<F: Facts> Inner<F> {
    fn range(&self, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Entry<F>)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        // '0' is the character after '/'.
        let bounds = namespace.map(|name| (format!("{name}/"), format!("{name}0")));
        let range: (std::ops::Bound<&str>, std::ops::Bound<&str>) = match &bounds {
            Some((from, to)) => (Included(from.as_str()), Excluded(to.as_str())),
            None => (Unbounded, Unbounded),
        };
        self.entries.range::<str, _>(range)
    }

    fn remove(&mut self, key: &str) -> Option<F> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.leave(entry.facts.group(), &key);
        Some(self.give_back(entry))
    }

    /// Forgets the JSON of an entry that is not there any more.
    fn give_back(&mut self, entry: Entry<F>) -> F {
        self.forget(entry.json);
        entry.facts
    }

    fn forget(&mut self, json: Option<(Place, u32)>) {
        if let Some((place, _)) = json {
            self.packed.remove(place);
        }
        if self.packed.is_wasteful() {
            let mut packed = Slab::default();
            for (place, _) in self.entries.values_mut().filter_map(|entry| entry.json.as_mut()) {
                *place = packed.insert(self.packed.get(*place));
            }
            self.packed = packed;
        }
    }

    fn leave(&mut self, group: Option<&str>, key: &str) {
        let Some(group) = group else { return };
        if let Some(keys) = self.groups.get_mut(group) {
            keys.retain(|member| **member != *key);
            if keys.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

fn version_of(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&metadata.uid, &metadata.resource_version).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Account(&'static str);

    impl Facts for Account {
        fn group(&self) -> Option<&str> {
            (!self.0.is_empty()).then_some(self.0)
        }
    }

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() }
    }

    #[test]
    fn an_object_is_returned_as_it_was_put() {
        let store = Store::default();
        for name in ["one", "two"] {
            store.put(key("desk", name), &meta("1"), 1, Account(""), name.as_bytes());
        }
        let kept = store.get("desk/two").unwrap();
        assert_eq!((kept.facts, kept.json), (Account(""), b"two".to_vec()));
        assert!(store.get("desk/three").is_none());
    }

    #[test]
    fn only_the_version_that_was_looked_at_is_forgotten() {
        let store = Store::default();
        let at = key("desk", "a");
        store.put(at.clone(), &meta("1"), 1, Account(""), b"one");
        let first = store.get(&at).unwrap().version;
        store.put(at.clone(), &meta("2"), 1, Account(""), b"two");
        store.forget_json(&at, first, |facts| *facts = Account("looked at"));
        let kept = store.get(&at).unwrap();
        assert_eq!((kept.facts, kept.json), (Account(""), b"two".to_vec()));
        store.forget_json(&at, kept.version, |facts| *facts = Account("looked at"));
        assert!(store.get(&at).is_none());
        assert_eq!(store.facts(&at), Some(Account("looked at")));
    }

    #[test]
    fn a_namespace_is_not_mixed_up_with_one_of_a_longer_name() {
        let store = Store::default();
        for at in ["desk/a", "desk-b/a", "desk0/a", "des/a", "desk/z"] {
            let (namespace, name) = split(at);
            store.put(key(namespace, name), &meta("1"), 1, Account(""), b"");
        }
        assert_eq!(store.keys(Some("desk")).iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["desk/a", "desk/z"]);
        assert_eq!(store.count(None), 5);
    }

    #[test]
    fn the_index_follows_an_object_that_changes_its_group_or_goes() {
        let store = Store::default();
        let at = key("desk", "a");
        store.put(at.clone(), &meta("1"), 1, Account("p"), b"");
        assert_eq!(store.of_group("p"), std::slice::from_ref(&at));
        assert_eq!(store.put(at.clone(), &meta("2"), 1, Account("q"), b""), Some(Account("p")));
        assert_eq!((store.of_group("p").len(), store.of_group("q").len()), (0, 1));
        store.remove(&at);
        assert!(store.of_group("q").is_empty() && store.read().groups.is_empty());
    }

    #[test]
    fn what_a_new_list_does_not_show_is_gone_in_its_namespace_only() {
        let store = Store::default();
        for (at, round) in [("a/kept", 1), ("a/gone", 1), ("b/other", 1)] {
            let (namespace, name) = split(at);
            store.put(key(namespace, name), &meta("1"), round, Account(""), b"");
        }
        assert!(store.is_current("a/kept", &meta("1"), 2), "the second list shows it unchanged");
        assert!(!store.is_current("a/gone", &meta("2"), 2), "another version must be put");
        let gone = store.sweep(Some("a"), 2);
        assert_eq!(gone.iter().map(|(key, _)| key.as_ref()).collect::<Vec<&str>>(), ["a/gone"]);
        assert_eq!(store.count(None), 2);
    }
}
