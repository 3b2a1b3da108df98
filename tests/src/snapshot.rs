//! What a namespace holds, without what differs from run to run: to compare two runs of the same story.

use std::collections::BTreeMap;

use anyhow::Result;
use arbbot_crds::names::{GROUP, LABEL_BOT_UID, MANAGER_OPERATOR};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Kinds of a bot's children: group, version, kind.
const CHILDREN: [(&str, &str, &str); 7] = [
    ("", "v1", "ServiceAccount"),
    ("", "v1", "Service"),
    ("", "v1", "PersistentVolumeClaim"),
    ("apps", "v1", "Deployment"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
];
/// Label with the name of the bot.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// Conditions that the operator writes, and those of the bot that say whether it obeys.
const CONDITIONS: [&str; 5] = ["Ready", "Reconciling", "Stalled", "ControlApplied", "Halted"];
/// What the API server, its controllers and storage add to a child.
const ADDED: [&str; 5] = ["clusterIP", "clusterIPs", "volumeName", "ipFamilies", "ipFamilyPolicy"];

/// Every ArbBot, ArbPolicy and child of a namespace by `Kind/name`.
pub type Snapshot = BTreeMap<String, Value>;

/// # Errors
/// The API server does not answer.
pub async fn take(client: &Client, namespace: &str) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    let mut known = vec![(namespace.to_owned(), "<namespace>".to_owned())];
    for kind in ["ArbBot", "ArbPolicy"] {
        for object in list(client, namespace, (GROUP, "v1alpha1", kind), &ListParams::default()).await? {
            let name = object.name_any();
            known.push((object.uid().unwrap_or_default(), format!("<uid of {name}>")));
            if let Some(portfolio) = object.data["spec"]["venue"]["coinbase"]["portfolio"].as_str() {
                known.push((portfolio.to_owned(), format!("<portfolio of {name}>")));
            }
            snapshot.insert(format!("{kind}/{name}"), of_ours(&object));
        }
    }
    let of_bots = ListParams::default().labels(LABEL_BOT_UID);
    for child in CHILDREN {
        for object in list(client, namespace, child, &of_bots).await? {
            // Its bot may be gone.
            if let (Some(uid), Some(bot)) = (object.labels().get(LABEL_BOT_UID), object.labels().get(INSTANCE)) {
                known.push((uid.clone(), format!("<uid of {bot}>")));
            }
            snapshot.insert(format!("{}/{}", child.2, object.name_any()), of_child(&object));
        }
    }
    for value in snapshot.values_mut() {
        rename(value, &known);
    }
    Ok(snapshot)
}

/// Where two snapshots differ, for people; empty if they do not.
pub fn differences(expected: &Snapshot, found: &Snapshot) -> Vec<String> {
    let mut differences = Vec::new();
    for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
        compare(
            key,
            expected.get(key).unwrap_or(&Value::Null),
            found.get(key).unwrap_or(&Value::Null),
            &mut differences,
        );
    }
    differences
}

fn compare(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(&format!("{path}.{key}"), &expected[key], &found[key], differences);
            }
        }
        _ if expected != found => differences.push(format!("{path}: expected {expected}, found {found}")),
        _ => {}
    }
}

async fn list(
    client: &Client,
    namespace: &str,
    (group, version, kind): (&str, &str, &str),
    parameters: &ListParams,
) -> Result<Vec<DynamicObject>> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let resource = match kind {
        "NetworkPolicy" => ApiResource { plural: "networkpolicies".to_owned(), ..resource },
        "ArbPolicy" => ApiResource { plural: "arbpolicies".to_owned(), ..resource },
        _ => resource,
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    Ok(api.list(parameters).await?.items)
}

/// An ArbBot or ArbPolicy: all of spec, and what the operator says of it.
fn of_ours(object: &DynamicObject) -> Value {
    let status = &object.data["status"];
    let conditions: BTreeMap<&str, Value> = CONDITIONS
        .into_iter()
        .filter_map(|type_| {
            let condition = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)?;
            Some((type_, json!([condition["status"], condition["reason"]])))
        })
        .collect();
    json!({
        "labels": object.labels(), "finalizers": object.finalizers(), "spec": object.data["spec"],
        "isDeleted": object.metadata.deletion_timestamp.is_some(),
        "isObserved": status["observedGeneration"].as_i64() == object.metadata.generation,
        "conditions": conditions, "effective": status["effective"], "claim": status["claim"], "bots": status["bots"],
    })
}

fn of_child(object: &DynamicObject) -> Value {
    let mut content = object.data.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("status");
    }
    if let Some(spec) = content["spec"].as_object_mut() {
        spec.retain(|name, _| !ADDED.contains(&name.as_str()));
    }
    // A hash of what else is compared here, of uids and of portfolios.
    let ours = object.annotations().keys().filter(|name| name.contains(GROUP)).collect::<Vec<_>>();
    let managers: std::collections::BTreeSet<_> =
        object.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    json!({
        "labels": object.labels(), "annotations": ours, "isDeleted": object.metadata.deletion_timestamp.is_some(),
        "isApplied": managers.contains(MANAGER_OPERATOR), "content": content,
    })
}

/// Replaces what is known to differ from run to run wherever it stands in a text.
fn rename(value: &mut Value, known: &[(String, String)]) {
    match value {
        Value::String(text) => {
            for (from, to) in known {
                *text = text.replace(from.as_str(), to);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, known)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, known)),
        _ => {}
    }
}
