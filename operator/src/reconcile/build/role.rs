//! What the bot may do at the API server. The operator can grant only what its own ClusterRole holds.

use arbbot_crds::names::{GROUP, child_name};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role};

use super::{ValidatedBot, metadata, strings};

pub fn build(bot: &ValidatedBot) -> Role {
    let lease = child_name(bot.name());
    let rules = vec![
        // Its own ArbBot; list and watch work with a field selector on this name.
        rule(GROUP, "arbbots", Some(bot.name()), strings(["get", "list", "watch"])),
        rule(GROUP, "arbbots/status", Some(bot.name()), strings(["patch"])),
        // Which policies select the bot is decided by their content, so it reads all of the namespace.
        rule(GROUP, "arbpolicies", None, strings(["list", "watch"])),
        // "create" cannot be limited to a name.
        rule("coordination.k8s.io", "leases", None, strings(["create"])),
        rule("coordination.k8s.io", "leases", Some(&lease), strings(["get", "update"])),
    ];
    Role { metadata: metadata(bot), rules: Some(rules) }
}

fn rule(group: &str, resource: &str, name: Option<&str>, verbs: Vec<String>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(strings([group])),
        resources: Some(strings([resource])),
        resource_names: name.map(|name| strings([name])),
        verbs,
        non_resource_urls: None,
    }
}
