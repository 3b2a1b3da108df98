//! What RBAC grants to the accounts of pods, and what of it a request uses.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::audit::{self, Request};

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub group: String,
    /// With its subresource; or the path of a URL that is no resource.
    pub resource: String,
    pub verb: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")
    }
}

/// A permission that an account has.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The account, as a user.
    pub user: String,
    /// The Role or ClusterRole.
    pub role: String,
    /// Where it holds; everywhere, if nowhere in particular.
    namespace: Option<String>,
    /// The objects; all, if none is named.
    names: Vec<String>,
    pub permission: Permission,
}

impl Grant {
    /// Whether the request needs this grant.
    pub fn is_used_by(&self, request: &Request) -> bool {
        request.user == self.user
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == request.object.namespace)
            && (self.names.is_empty() || self.names.contains(&request.object.name))
            && needed(request).contains(&self.permission)
    }
}

/// The permissions that a request needs.
pub fn needed(request: &Request) -> BTreeSet<Permission> {
    let permission = |verb: &str| Permission {
        group: request.object.group.clone(),
        resource: request.object.resource.clone(),
        verb: verb.to_owned(),
    };
    let mut needed = BTreeSet::from([permission(&request.verb)]);
    // Server-side apply of an object that is not there asks for both.
    if request.verb == "patch" && request.code == 201 {
        needed.insert(permission("create"));
    }
    needed
}

/// Everything that is granted to ServiceAccounts by name.
///
/// # Errors
/// The API server does not answer.
pub async fn grants(client: &Client) -> Result<Vec<Grant>> {
    let all = ListParams::default();
    let cluster_roles = Api::<ClusterRole>::all(client.clone()).list(&all).await?.items;
    let roles = Api::<Role>::all(client.clone()).list(&all).await?.items;
    let rules = |reference: &RoleRef, namespace: Option<&str>| -> Vec<PolicyRule> {
        let found = match namespace {
            Some(namespace) if reference.kind == "Role" => roles
                .iter()
                .find(|role| role.name_any() == reference.name && role.namespace().as_deref() == Some(namespace))
                .and_then(|role| role.rules.clone()),
            _ => {
                cluster_roles.iter().find(|role| role.name_any() == reference.name).and_then(|role| role.rules.clone())
            }
        };
        found.unwrap_or_default()
    };
    let mut grants = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await? {
        let rules = rules(&binding.role_ref, None);
        grants.extend(expand(&binding.role_ref, binding.subjects.as_deref(), None, &rules));
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await? {
        let namespace = binding.namespace();
        let rules = rules(&binding.role_ref, namespace.as_deref());
        grants.extend(expand(&binding.role_ref, binding.subjects.as_deref(), namespace.as_deref(), &rules));
    }
    Ok(grants)
}

fn expand(role: &RoleRef, subjects: Option<&[Subject]>, namespace: Option<&str>, rules: &[PolicyRule]) -> Vec<Grant> {
    let accounts = subjects.into_iter().flatten().filter(|subject| subject.kind == "ServiceAccount");
    let mut grants = Vec::new();
    for account in accounts {
        let user = audit::user(account.namespace.as_deref().unwrap_or_default(), &account.name);
        for rule in rules {
            grants.extend(permissions(rule).into_iter().map(|permission| Grant {
                user: user.clone(),
                role: format!("{} {}", role.kind, role.name),
                namespace: namespace.map(str::to_owned),
                names: rule.resource_names.clone().unwrap_or_default(),
                permission,
            }));
        }
    }
    grants
}

fn permissions(rule: &PolicyRule) -> Vec<Permission> {
    let mut objects: Vec<(String, String)> = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        objects.extend(rule.resources.iter().flatten().map(|resource| (group.clone(), resource.clone())));
    }
    objects.extend(rule.non_resource_urls.iter().flatten().map(|url| (String::new(), url.clone())));
    let all = objects.into_iter().flat_map(|(group, resource)| {
        rule.verbs.iter().map(move |verb| Permission {
            group: group.clone(),
            resource: resource.clone(),
            verb: verb.clone(),
        })
    });
    all.collect()
}
