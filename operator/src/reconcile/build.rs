//! Step 3 (pure): the children of a bot as they should be, one file per kind.

use std::collections::BTreeMap;

use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID, MANAGER_OPERATOR, child_name};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;

use super::fetch::Children;
use super::validate::ValidatedBot;

mod deployment;
mod ledger_claim;
mod network_policy;
mod role;
mod role_binding;
mod service;
mod service_account;

pub use deployment::CONTAINER;

/// The children of a bot.
#[derive(Clone, Debug)]
pub struct Resources {
    pub service_account: ServiceAccount,
    pub role: Role,
    pub role_binding: RoleBinding,
    pub service: Service,
    /// None: the ledger is in PostgreSQL.
    pub ledger_claim: Option<PersistentVolumeClaim>,
    pub network_policy: NetworkPolicy,
    pub deployment: Deployment,
}

/// Builds every child. `live` is looked at only where a child's spec cannot be changed any more.
#[must_use]
pub fn build(bot: &ValidatedBot, replicas: i32, live: &Children) -> Resources {
    Resources {
        service_account: service_account::build(bot),
        role: role::build(bot),
        role_binding: role_binding::build(bot),
        service: service::build(bot),
        ledger_claim: ledger_claim::build(bot, live.ledger_claim.as_ref()),
        network_policy: network_policy::build(bot),
        deployment: deployment::build(bot, replicas),
    }
}

/// Metadata of a child. No ownerReference: foreground deletion would remove the child while the finalizer still needs
/// it to close the position.
fn metadata(bot: &ValidatedBot) -> ObjectMeta {
    ObjectMeta {
        name: Some(child_name(bot.name())),
        namespace: Some(bot.namespace().to_owned()),
        labels: Some(labels(bot)),
        ..ObjectMeta::default()
    }
}

/// Labels of every child and of the pod.
fn labels(bot: &ValidatedBot) -> BTreeMap<String, String> {
    [
        (LABEL_BOT_UID, bot.uid()),
        (LABEL_BOT, bot.name()),
        ("app.kubernetes.io/name", "arb-bot"),
        ("app.kubernetes.io/instance", bot.name()),
        ("app.kubernetes.io/managed-by", MANAGER_OPERATOR),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// What selects the bot's pods. It can never change: a Deployment's selector is immutable.
fn selector(bot: &ValidatedBot) -> BTreeMap<String, String> {
    [(LABEL_BOT_UID.to_owned(), bot.uid().to_owned())].into()
}

fn strings<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot, validated};
    use super::*;
    use serde_json::{Value, json};

    fn all(bot: &ValidatedBot) -> Vec<Value> {
        let Resources { service_account, role, role_binding, service, ledger_claim, network_policy, deployment } =
            build(bot, 1, &Children::default());
        vec![
            json!(service_account),
            json!(role),
            json!(role_binding),
            json!(service),
            json!(ledger_claim),
            json!(network_policy),
            json!(deployment),
        ]
    }

    #[test]
    fn every_child_is_labelled_with_the_bot_and_has_no_owner_reference() {
        for child in all(&validated(&bot(""))) {
            let metadata = &child["metadata"];
            assert_eq!(metadata["labels"]["arbbot.io/bot-uid"], "0b9d6bcd-uid", "{child}");
            assert_eq!(metadata["labels"]["arbbot.io/bot"], "carry");
            assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "arbbot-operator");
            assert_eq!(metadata["namespace"], "desk");
            assert!(metadata["ownerReferences"].is_null());
        }
    }

    #[test]
    fn the_role_reaches_only_the_bots_own_objects() {
        let resources = build(&validated(&bot("")), 1, &Children::default());
        for rule in resources.role.rules.unwrap() {
            let resources = rule.resources.clone().unwrap();
            let names = rule.resource_names.clone().unwrap_or_default();
            match resources[0].as_str() {
                "arbbots" => assert_eq!((names, rule.verbs), (strings(["carry"]), strings(["get", "list", "watch"]))),
                "arbbots/status" => assert_eq!((names, rule.verbs), (strings(["carry"]), strings(["patch"]))),
                "arbpolicies" => assert_eq!(rule.verbs, strings(["list", "watch"])),
                "leases" if rule.verbs == ["create"] => {}
                "leases" => assert_eq!(names, strings(["arbbot-carry"])),
                other => panic!("the bot may reach {other}"),
            }
        }
    }
}
