//! Gives the bot's ServiceAccount the bot's Role.

use arbbot_crds::names::child_name;
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};

use super::{ValidatedBot, metadata};

pub fn build(bot: &ValidatedBot) -> RoleBinding {
    let name = child_name(bot.name());
    RoleBinding {
        metadata: metadata(bot),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(bot.namespace().to_owned()),
        }]),
    }
}
