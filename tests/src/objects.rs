//! The Kubernetes objects of tests and demos.

use serde_json::{Value, json};

use crate::exchange::{Account, FUTURE, KeyFile, SPOT};

/// ConfigMap with the exchange's certificate authority in every namespace of a test.
pub const CA: &str = "exchange-ca";

/// A namespace that enforces the restricted Pod Security Standard.
pub fn namespace(name: &str) -> Value {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A Secret from a key file.
pub fn secret(name: &str, key: &KeyFile) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"name": key.name, "privateKey": key.private_key},
    })
}

/// The ConfigMap with a certificate authority.
pub fn authority(pem: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CA}, "data": {"ca.crt": pem}})
}

/// An ArbBot that trades an account of the simulator at `authority` (`host:port`), with the key in `secret`.
/// Its times are short, so that nobody waits long.
pub fn bot(name: &str, account: &Account, authority: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot",
        "metadata": {"name": name, "labels": {"desk": "a"}},
        "spec": {
            "execution": "Live",
            "venue": {"coinbase": {
                "portfolio": account.portfolio,
                "endpoints": [{
                    "name": "simulator",
                    "restUrl": format!("https://{authority}"),
                    "marketWebSocketUrl": format!("wss://{authority}/ws"),
                    "userWebSocketUrl": format!("wss://{authority}/ws/user"),
                }],
                "caBundle": {"configMapKeyRef": {"name": CA, "key": "ca.crt"}},
                "requestsPerSecond": 30,
            }},
            "strategy": {"fundingCarry": {
                "spotProduct": SPOT, "futureProduct": FUTURE, "targetNotional": "10000",
                // A test does not watch the funding of a day first.
                "entry": {"minSamples": 1},
                "orders": {"legTimeout": "2s"},
            }},
            "credentials": {"secretRef": {"name": secret}},
            "controlTimeouts": {"lease": "6s", "stale": "12s", "lost": "20s"},
        },
    })
}

/// A policy for every bot with the label `desk: a`.
pub fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbPolicy",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"desk": "a"}}},
    })
}

/// Overwrites the fields of `object` that `patch` names (a JSON merge patch).
pub fn merge(object: &mut Value, patch: &Value) {
    let (Value::Object(fields), true) = (patch, object.is_object()) else {
        *object = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            if let Some(object) = object.as_object_mut() {
                object.remove(name);
            }
        } else {
            merge(&mut object[name.as_str()], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_sets_replaces_and_removes() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut object, &json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
    }
}
