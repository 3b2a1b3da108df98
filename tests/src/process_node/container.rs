//! From a container's spec to a program's arguments and environment. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

/// A directory of the host that stands for a path in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub path: String,
    pub directory: PathBuf,
}

/// What the downward API knows besides the pod itself.
#[derive(Clone, Debug)]
pub struct Facts {
    pub node: String,
    pub pod_ip: String,
    pub host_ip: String,
}

/// Why a container cannot be started: a kubelet's reason `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("environment variable {name}: a process node does not know the source {source_}")]
pub struct ConfigError {
    name: String,
    source_: String,
}

/// The environment of a container, every variable resolved.
///
/// # Errors
/// A variable has a source that is not a field of the pod.
pub fn environment(
    container: &Container,
    pod: &Pod,
    facts: &Facts,
    mounts: &[Mount],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut resolved = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => {
                field(source, pod, facts).map_err(|source_| ConfigError { name: variable.name.clone(), source_ })?
            }
            None => relocate(&expand(variable.value.as_deref().unwrap_or_default(), &resolved), mounts),
        };
        resolved.insert(variable.name.clone(), value);
    }
    Ok(resolved)
}

/// The arguments of a container's program: what follows the first word of `command`, then `args`.
pub fn arguments(
    container: &Container,
    environment: &BTreeMap<String, String>,
    facts: &Facts,
    mounts: &[Mount],
) -> Vec<String> {
    let command = container.command.iter().flatten().skip(1);
    let words = command.chain(container.args.iter().flatten());
    words.map(|word| own_address(relocate(&expand(word, environment), mounts), facts)).collect()
}

/// In a container 0.0.0.0 is only the pod's own addresses; here it would be everybody's.
fn own_address(word: String, facts: &Facts) -> String {
    if word.contains("0.0.0.0:") { word.replace("0.0.0.0:", &format!("{}:", facts.pod_ip)) } else { word }
}

/// The name of an image without registry, tag and digest: the program that it holds.
pub fn program_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default()
}

fn field(source: &EnvVarSource, pod: &Pod, facts: &Facts) -> Result<String, String> {
    let Some(field) = &source.field_ref else { return Err("it names (only fieldRef)".to_owned()) };
    let metadata = &pod.metadata;
    let keyed = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    Ok(match field.field_path.as_str() {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "spec.nodeName" => facts.node.clone(),
        "spec.serviceAccountName" => {
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        "status.hostIP" => facts.host_ip.clone(),
        path => {
            let key = |kind| path.strip_prefix(kind).and_then(|rest: &str| rest.strip_suffix("']"));
            if let Some(label) = key("metadata.labels['") {
                keyed(&metadata.labels, label)
            } else if let Some(annotation) = key("metadata.annotations['") {
                keyed(&metadata.annotations, annotation)
            } else {
                return Err(format!("fieldRef {path}"));
            }
        }
    })
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign; an unknown name stays as it is.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        let (before, after) = rest.split_at(start);
        expanded.push_str(before);
        if let Some(tail) = after.strip_prefix("$$") {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix("$(").and_then(|after| after.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after.strip_prefix('$').unwrap_or_default();
        }
    }
    expanded + rest
}

/// Replaces every path under a mount by its place on the host.
fn relocate(text: &str, mounts: &[Mount]) -> String {
    let mut mounts: Vec<_> = mounts.iter().collect();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len())); // the innermost mount wins
    let ends_path = |text: &str| text.is_empty() || text.starts_with(['/', ',', ':', ' ', '?']);
    let starts_path = |text: &str| text.is_empty() || text.ends_with(['=', ',', ':', ' ', '/']);
    for mount in mounts {
        let Some(at) = text.find(&mount.path) else { continue };
        let (before, rest) = text.split_at(at);
        let after = rest.strip_prefix(mount.path.as_str()).unwrap_or_default();
        if starts_path(before) && ends_path(after) {
            return format!("{before}{}{after}", mount.directory.display());
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { node: "n".into(), pod_ip: "127.2.0.3".into(), host_ip: "127.2.0.1".into() }
    }

    fn container(json: serde_json::Value) -> Container {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn variables_and_mounts_are_resolved_as_in_a_container() {
        let container = container(serde_json::json!({
            "name": "bot",
            "env": [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LISTEN", "value": "$(POD_IP):8080"},
            ],
            "args": ["run", "--listen", "$(LISTEN)", "--dir=/etc/x/keys", "/etc/xy", "$$(LISTEN)", "$(ABSENT)",
                "--all=0.0.0.0:81"],
        }));
        let mounts = [Mount { path: "/etc/x".into(), directory: "/tmp/v".into() }];
        let environment = environment(&container, &Pod::default(), &facts(), &mounts).unwrap();
        assert_eq!(
            arguments(&container, &environment, &facts(), &mounts),
            [
                "run",
                "--listen",
                "127.2.0.3:8080",
                "--dir=/tmp/v/keys",
                "/etc/xy",
                "$(LISTEN)",
                "$(ABSENT)",
                "--all=127.2.0.3:81"
            ]
        );
    }

    #[test]
    fn an_unknown_source_is_an_error_that_names_the_variable() {
        let container = container(serde_json::json!({
            "name": "bot", "env": [{"name": "KEY", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}],
        }));
        let error = environment(&container, &Pod::default(), &facts(), &[]).unwrap_err();
        assert!(error.to_string().contains("KEY") && error.to_string().contains("spec.x"), "{error}");
    }

    #[test]
    fn an_image_is_known_by_its_last_name() {
        for image in ["arb-bot", "arb-bot:1", "docker.io/local/arb-bot:1", "r:5000/x/arb-bot@sha256:00"] {
            assert_eq!(program_name(image), "arb-bot");
        }
    }
}
