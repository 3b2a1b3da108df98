//! What the bot has seen of its own ArbBot and of the ArbPolicies of its namespace. Newer always wins; older news,
//! from a late watch, changes nothing. Pure.

use std::collections::BTreeMap;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use arbbot_crds::decode::{self, DecodeError, Decoded, Unreadable};
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource, ResourceExt};

/// Reads and watches a kind as the API server stores it: an object that our types cannot hold must not end a watch, and
/// what can be read of it counts ([`arbbot_crds::decode`]).
#[must_use]
pub fn untyped<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

/// Reads the own ArbBot for the first time.
///
/// # Errors
/// A part without which nothing can be done cannot be read.
pub fn first_seen(bot: DynamicObject) -> Result<Decoded<ArbBot>, DecodeError> {
    decode::arb_bot(bot.metadata, &bot.data, None)
}

/// What has been seen.
#[derive(Clone, Debug)]
pub struct Observed {
    bot: Decoded<ArbBot>,
    policies: BTreeMap<String, Decoded<ArbPolicy>>,
    /// Whether a complete list of the policies has been seen.
    policies_listed: bool,
}

/// A resourceVersion as a number: Kubernetes ≥ 1.35 guarantees that they can be compared, and etcd's always could.
fn version(meta: &kube::core::ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Observed {
    /// What is known at the start: the own ArbBot.
    #[must_use]
    pub fn new(bot: Decoded<ArbBot>) -> Self {
        Self { bot, policies: BTreeMap::new(), policies_listed: false }
    }

    /// The own ArbBot, from the watch or from a read. Returns whether it is newer than what was known. A bot of
    /// another uid is ignored: it is not the one that this process trades for. `refused`: why it does not count as it is.
    pub fn bot_seen(&mut self, bot: DynamicObject, refused: Option<Unreadable>) -> bool {
        let known = &self.bot.object;
        if known.metadata.uid != bot.metadata.uid || version(&known.metadata) >= version(&bot.metadata) {
            return false;
        }
        if let Some(refused) = refused {
            self.bot = decode::refused_arb_bot(bot.metadata, &bot.data, &known.spec, refused);
            return true;
        }
        // It fails only for a bot that was never read before.
        let Ok(decoded) = decode::arb_bot(bot.metadata, &bot.data, Some(&known.spec)) else { return false };
        self.bot = decoded;
        true
    }

    /// A policy appeared or changed. Returns whether it is newer than what was known.
    pub fn policy_seen(&mut self, policy: DynamicObject) -> bool {
        let uid = policy.uid().unwrap_or_default();
        let known = self.policies.get(&uid).map(|known| &known.object);
        let newer = known.is_none_or(|known| version(&known.metadata) < version(&policy.metadata));
        if newer {
            let decoded = decode::arb_policy(policy.metadata, &policy.data, known.map(|known| &known.spec));
            self.policies.insert(uid, decoded);
        }
        newer
    }

    /// A policy is gone. Returns whether it was known.
    pub fn policy_gone(&mut self, policy: &DynamicObject) -> bool {
        self.policies.remove(&policy.uid().unwrap_or_default()).is_some()
    }

    /// The watch has shown every policy once. What is gone is removed by [`Self::policies_listed`] or by the watch itself:
    /// a list that is older than what is known must not loosen anything.
    pub fn policies_synced(&mut self) -> bool {
        !std::mem::replace(&mut self.policies_listed, true)
    }

    /// A complete list of the policies. `list_version` is the list's own resourceVersion: a policy that is known with
    /// a later one was created after the list was read, and stays. Returns whether anything changed.
    pub fn policies_listed(&mut self, policies: Vec<DynamicObject>, list_version: Option<&str>) -> bool {
        let listed_at = list_version.and_then(|version| version.parse().ok()).unwrap_or(u64::MAX);
        let before = self.policies.len();
        let uids: Vec<_> = policies.iter().map(|policy| policy.uid().unwrap_or_default()).collect();
        self.policies.retain(|uid, known| uids.contains(uid) || version(&known.object.metadata) > listed_at);
        let mut changed = self.policies.len() != before || !self.policies_listed;
        self.policies_listed = true;
        for policy in policies {
            changed |= self.policy_seen(policy);
        }
        changed
    }

    /// The own ArbBot and every policy of the namespace, once both kinds were seen completely.
    #[must_use]
    pub fn complete(&self) -> Option<(&ArbBot, Vec<&ArbPolicy>)> {
        let policies = self.policies.values().map(|policy| &policy.object).collect();
        self.policies_listed.then_some((&self.bot.object, policies))
    }

    /// What of the own ArbBot and of these policies cannot be read.
    #[must_use]
    pub fn unreadable(&self, matching: &[&ArbPolicy]) -> Vec<String> {
        let of_bot = self.bot.unreadable.iter().map(ToString::to_string);
        let of_policies = self.policies.values().flat_map(|policy| {
            let name = policy.object.name_any();
            let counts = matching.iter().any(|matching| matching.metadata.uid == policy.object.metadata.uid);
            let unreadable = policy.unreadable.iter().filter(move |_| counts);
            unreadable.map(move |unreadable| format!("ArbPolicy {name}: {unreadable}"))
        });
        of_bot.chain(of_policies).collect()
    }
}

#[cfg(test)]
mod tests {
    use arbbot_crds::arbbot::Mode;
    use serde_json::{Value, json};

    use super::*;

    fn bot_with(version: u64, uid: &str, changes: &Value) -> DynamicObject {
        let mut spec = json!({
            "execution": "Live", "venue": {"coinbase": {"portfolio": "p"}}, "credentials": {"secretRef": {"name": "k"}},
            "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1"}},
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        let metadata =
            json!({"name": "carry", "uid": uid, "resourceVersion": version.to_string(), "generation": version});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn bot(version: u64, uid: &str) -> DynamicObject {
        bot_with(version, uid, &json!({}))
    }

    fn policy_with(name: &str, version: u64, spec: &Value) -> DynamicObject {
        let metadata = json!({"name": name, "uid": name, "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn policy(name: &str, version: u64) -> DynamicObject {
        policy_with(name, version, &json!({}))
    }

    fn observed() -> Observed {
        Observed::new(first_seen(bot(20, "a")).unwrap())
    }

    #[test]
    fn late_news_changes_nothing() {
        let mut observed = observed();
        assert!(!observed.bot_seen(bot(19, "a"), None));
        assert!(!observed.bot_seen(bot(30, "b"), None), "another bot of the same name");
        assert_eq!(observed.bot.object.metadata.resource_version.as_deref(), Some("20"));
    }

    #[test]
    fn a_list_removes_what_is_gone_but_not_what_came_after_it() {
        let mut observed = observed();
        observed.policies_listed(vec![policy("old", 5)], Some("10"));
        observed.policy_seen(policy("new", 12));
        assert!(observed.policies_listed(vec![], Some("11")));
        let (_, policies) = observed.complete().unwrap();
        assert_eq!(policies.iter().map(|p| p.name_any()).collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn nothing_is_complete_before_the_policies_were_listed() {
        let mut observed = observed();
        assert!(observed.complete().is_none());
        observed.policies_listed(vec![], Some("1"));
        assert!(observed.complete().is_some());
    }

    #[test]
    fn an_unreadable_bot_keeps_its_last_good_spec_and_a_mended_one_counts_as_it_is() {
        let mut observed = observed();
        observed.policies_listed(vec![], Some("1"));
        assert!(observed.bot_seen(bot_with(21, "a", &json!({"mode": "Halted", "venue": 5})), None));
        let (seen, _) = observed.complete().unwrap();
        assert_eq!((seen.spec.mode, seen.spec.account()), (Mode::Halted, "p"));
        assert_eq!(observed.unreadable(&[]).len(), 1);
        assert!(observed.bot_seen(bot(22, "a"), None));
        assert_eq!((observed.complete().unwrap().0.spec.mode, observed.unreadable(&[]).len()), (Mode::Active, 0));
    }

    #[test]
    fn one_unreadable_policy_is_named_and_stops_no_other() {
        let mut observed = observed();
        let broken = policy_with("broken", 2, &json!({"mode": "Frozen"}));
        observed.policies_listed(vec![broken, policy_with("brake", 3, &json!({"mode": "Halted"}))], Some("5"));
        let (_, policies) = observed.complete().unwrap();
        assert_eq!(policies.iter().map(|p| p.spec.mode).collect::<Vec<_>>(), [Mode::Halted, Mode::ReduceOnly]);
        let unreadable = observed.unreadable(&policies);
        assert!(unreadable[0].starts_with("ArbPolicy broken: spec.mode"), "{unreadable:?}");
    }
}
