//! What the bot has seen of its own ArbBot and of the ArbPolicies of its namespace. Newer always wins; older news,
//! from a late watch, changes nothing. Pure.

use std::collections::BTreeMap;

use arbbot_crds::arbbot::ArbBot;
use arbbot_crds::arbpolicy::ArbPolicy;
use kube::ResourceExt;

/// What has been seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    bot: Option<ArbBot>,
    policies: BTreeMap<String, ArbPolicy>,
    /// Whether a complete list of the policies has been seen.
    policies_listed: bool,
}

/// A resourceVersion as a number: Kubernetes ≥ 1.35 guarantees that they can be compared, and etcd's always could.
fn version(meta: &kube::core::ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Observed {
    /// The own ArbBot, from the watch or from a read. Returns whether it is newer than what was known. A bot of
    /// another uid is ignored: it is not the one that this process trades for.
    pub fn bot_seen(&mut self, bot: ArbBot) -> bool {
        let known = self.bot.as_ref();
        if known.is_some_and(|known| known.metadata.uid != bot.metadata.uid) {
            return false;
        }
        let newer = known.is_none_or(|known| version(&known.metadata) < version(&bot.metadata));
        if newer {
            self.bot = Some(bot);
        }
        newer
    }

    /// A policy appeared or changed. Returns whether it is newer than what was known.
    pub fn policy_seen(&mut self, policy: ArbPolicy) -> bool {
        let uid = policy.uid().unwrap_or_default();
        let newer = self.policies.get(&uid).is_none_or(|known| version(&known.metadata) < version(&policy.metadata));
        if newer {
            self.policies.insert(uid, policy);
        }
        newer
    }

    /// A policy is gone. Returns whether it was known.
    pub fn policy_gone(&mut self, policy: &ArbPolicy) -> bool {
        self.policies.remove(&policy.uid().unwrap_or_default()).is_some()
    }

    /// The watch has shown every policy once. What is gone is removed by [`Self::policies_listed`] or by the watch itself:
    /// a list that is older than what is known must not loosen anything.
    pub fn policies_synced(&mut self) -> bool {
        !std::mem::replace(&mut self.policies_listed, true)
    }

    /// A complete list of the policies. `list_version` is the list's own resourceVersion: a policy that is known with
    /// a later one was created after the list was read, and stays. Returns whether anything changed.
    pub fn policies_listed(&mut self, policies: Vec<ArbPolicy>, list_version: Option<&str>) -> bool {
        let listed_at = list_version.and_then(|version| version.parse().ok()).unwrap_or(u64::MAX);
        let before = self.policies.len();
        let uids: Vec<_> = policies.iter().map(|policy| policy.uid().unwrap_or_default()).collect();
        self.policies.retain(|uid, known| uids.contains(uid) || version(&known.metadata) > listed_at);
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
        let bot = self.bot.as_ref().filter(|_| self.policies_listed)?;
        Some((bot, self.policies.values().collect()))
    }

    /// The own ArbBot.
    #[must_use]
    pub fn bot(&self) -> Option<&ArbBot> {
        self.bot.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bot(version: u64, uid: &str) -> ArbBot {
        serde_json::from_value(json!({
            "metadata": {"name": "carry", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {
                "execution": "Live", "venue": {"coinbase": {"portfolio": "p"}}, "credentials": {"secretRef": {"name": "k"}},
                "strategy": {"fundingCarry": {"spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "1"}},
            }
        }))
        .unwrap()
    }

    fn policy(name: &str, version: u64) -> ArbPolicy {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()}, "spec": {}
        }))
        .unwrap()
    }

    #[test]
    fn late_news_changes_nothing() {
        let mut observed = Observed::default();
        assert!(observed.bot_seen(bot(20, "a")));
        assert!(!observed.bot_seen(bot(19, "a")));
        assert!(!observed.bot_seen(bot(30, "b")), "another bot of the same name");
        assert_eq!(observed.bot().unwrap().metadata.resource_version.as_deref(), Some("20"));
    }

    #[test]
    fn a_list_removes_what_is_gone_but_not_what_came_after_it() {
        let mut observed = Observed::default();
        observed.policies_listed(vec![policy("old", 5)], Some("10"));
        observed.policy_seen(policy("new", 12));
        assert!(observed.policies_listed(vec![], Some("11")));
        observed.bot_seen(bot(1, "a"));
        let (_, policies) = observed.complete().unwrap();
        assert_eq!(policies.iter().map(|p| p.name_any()).collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn nothing_is_complete_before_the_policies_were_listed() {
        let mut observed = Observed::default();
        observed.bot_seen(bot(1, "a"));
        assert!(observed.complete().is_none());
        observed.policies_listed(vec![], Some("1"));
        assert!(observed.complete().is_some());
    }
}
