//! Whose fields a child's are (pure). Server-side apply removes no field that somebody else has added by hand; it does so
//! once the field is the operator's own.

use arbbot_crds::names::MANAGER_OPERATOR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::Resource;
use serde_json::{Map, Value, json};

/// Whether somebody else owns a field that is the operator's business.
#[must_use]
pub fn is_foreign<K: Resource<DynamicType = ()>>(entries: &[ManagedFieldsEntry]) -> bool {
    let kind = K::kind(&());
    entries.iter().filter(|entry| is_others(entry)).any(|entry| !business(&kind, entry).0.is_empty())
}

/// The entries with every field that is the operator's business as its own: then the next apply removes what is not
/// wanted. None: nothing is to be changed.
#[must_use]
pub fn take_over<K: Resource<DynamicType = ()>>(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let kind = K::kind(&());
    // Their lists are atomic, so an apply replaces them as a whole; and a write that leaves the rules of somebody else in
    // a Role would need the rights that they grant.
    if matches!(kind.as_ref(), "Role" | "RoleBinding") {
        return None;
    }
    let mut taken = Map::new();
    let mut rest: Vec<ManagedFieldsEntry> = Vec::new();
    for entry in entries {
        if !is_others(entry) {
            rest.push(entry.clone());
            continue;
        }
        let (business, others) = business(&kind, entry);
        unite(&mut taken, business);
        if !others.is_empty() {
            rest.push(ManagedFieldsEntry { fields_v1: Some(FieldsV1(Value::Object(others))), ..entry.clone() });
        }
    }
    if taken.is_empty() {
        return None;
    }
    let is_ours = |entry: &&mut ManagedFieldsEntry| is_operators(entry) && entry.operation.as_deref() == Some("Apply");
    match rest.iter_mut().find(is_ours) {
        Some(ours) => {
            let mut fields = fields(ours);
            unite(&mut fields, taken);
            ours.fields_v1 = Some(FieldsV1(Value::Object(fields)));
        }
        None => rest.push(ManagedFieldsEntry {
            api_version: Some(K::api_version(&()).into_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(Value::Object(taken))),
            manager: Some(MANAGER_OPERATOR.to_owned()),
            operation: Some("Apply".to_owned()),
            ..ManagedFieldsEntry::default()
        }),
    }
    Some(rest)
}

fn is_operators(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(MANAGER_OPERATOR)
}

/// A subresource is the business of controllers; a value of ours that was changed through `scale` is seen as such.
fn is_others(entry: &ManagedFieldsEntry) -> bool {
    !is_operators(entry) && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

fn fields(entry: &ManagedFieldsEntry) -> Map<String, Value> {
    match &entry.fields_v1 {
        Some(FieldsV1(Value::Object(fields))) => fields.clone(),
        _ => Map::new(),
    }
}

/// Splits the fields of an entry: the operator's business, and what others may well own.
fn business(kind: &str, entry: &ManagedFieldsEntry) -> (Map<String, Value>, Map<String, Value>) {
    // `kubectl rollout restart` writes the annotation; the token controller and people the fields of a ServiceAccount;
    // the volume controllers, and a person who resizes it, the claim.
    let of_others: &[&[&str]] = match kind {
        "PersistentVolumeClaim" => return (Map::new(), fields(entry)),
        "Deployment" => {
            &[&["f:spec", "f:template", "f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt"]]
        }
        "ServiceAccount" => &[&["f:secrets"], &["f:imagePullSecrets"]],
        _ => &[],
    };
    let mut business = fields(entry);
    let mut others = Map::new();
    for path in [&["f:metadata"][..], &["f:status"]].iter().chain(of_others) {
        if let Some(moved) = cut(&mut business, path) {
            unite(&mut others, moved);
        }
    }
    (business, others)
}

/// Cuts one path out of a tree of fields, and returns it as a tree.
fn cut(tree: &mut Map<String, Value>, path: &[&str]) -> Option<Map<String, Value>> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        return tree.remove(*first).map(|fields| Map::from_iter([((*first).to_owned(), fields)]));
    }
    let below = tree.get_mut(*first)?.as_object_mut()?;
    let moved = cut(below, rest)?;
    // The "." says that the map itself was made by the manager.
    if below.keys().all(|key| key == ".") {
        tree.remove(*first);
    }
    Some(Map::from_iter([((*first).to_owned(), Value::Object(moved))]))
}

/// Adds the fields of one tree to another.
fn unite(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => unite(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// The patch that gives a child's fields to the operator; refused if the child has changed meanwhile.
#[must_use]
pub fn patch(resource_version: Option<&str>, entries: &[ManagedFieldsEntry]) -> Value {
    json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version},
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ServiceAccount};
    use k8s_openapi::api::rbac::v1::Role;

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({"manager": manager, "operation": operation, "subresource": subresource, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields})).unwrap()
    }

    fn ours() -> ManagedFieldsEntry {
        entry(MANAGER_OPERATOR, "Apply", "", json!({"f:spec": {"f:replicas": {}}}))
    }

    #[test]
    fn what_controllers_write_is_not_foreign() {
        let revision = json!({"f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}}, "f:status": {"f:replicas": {}}});
        let restart = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}}});
        let entries = [
            ours(),
            entry("kube-controller-manager", "Update", "status", revision.clone()),
            entry("kube-controller-manager", "Update", "", revision),
            entry("kubectl-rollout", "Update", "", restart),
        ];
        assert!(!is_foreign::<Deployment>(&entries));
        assert_eq!(take_over::<Deployment>(&entries), None);
        let bound = [entry("kube-controller-manager", "Update", "", json!({"f:spec": {"f:volumeName": {}}}))];
        assert!(!is_foreign::<PersistentVolumeClaim>(&bound));
        let pull = [entry("kubectl-patch", "Update", "", json!({"f:imagePullSecrets": {}}))];
        assert!(!is_foreign::<ServiceAccount>(&pull));
    }

    #[test]
    fn a_field_added_by_hand_becomes_the_operators_and_only_that() {
        let by_hand = json!({
            "f:metadata": {"f:labels": {"f:team": {}}},
            "f:spec": {"f:template": {
                "f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}},
                "f:spec": {"f:hostNetwork": {}},
            }},
        });
        let entries = [ours(), entry("kubectl-edit", "Update", "", by_hand)];
        assert!(is_foreign::<Deployment>(&entries));
        let taken = take_over::<Deployment>(&entries).unwrap();
        assert_eq!(
            json!(taken[0].fields_v1),
            json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:hostNetwork": {}}}}})
        );
        assert_eq!(
            json!(taken[1].fields_v1),
            json!({
                "f:metadata": {"f:labels": {"f:team": {}}},
                "f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}},
            })
        );
        assert!(!is_foreign::<Deployment>(&taken), "nothing is foreign after it");
    }

    #[test]
    fn foreign_rules_of_a_role_are_left_to_the_apply() {
        let rules = [entry("kubectl-patch", "Update", "", json!({"f:rules": {}}))];
        assert!(is_foreign::<Role>(&rules), "it is applied again");
        assert_eq!(take_over::<Role>(&rules), None, "the operator may not write a Role that grants more than it has");
    }

    #[test]
    fn a_child_that_the_operator_has_never_applied_becomes_its_own() {
        let entries = [entry("kubectl-create", "Update", "", json!({"f:spec": {"f:replicas": {}}}))];
        let taken = take_over::<Deployment>(&entries).unwrap();
        assert_eq!(taken.len(), 1);
        assert!(is_operators(&taken[0]) && taken[0].operation.as_deref() == Some("Apply"));
    }
}
