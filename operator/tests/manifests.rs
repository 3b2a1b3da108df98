//! What `manifests/` installs fits the code.

#![allow(clippy::panic)] // a helper of tests

use std::fs;

fn read(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

#[test]
fn the_installed_definitions_are_the_generated_ones() {
    let expected: String =
        ["arbbots", "arbpolicies"].map(|name| format!("---\n{}", read(&format!("crds/{name}.yaml")))).concat();
    assert!(read("manifests/crds.yaml") == expected, "manifests/crds.yaml is out of date: run `make manifests`");
}

#[test]
fn the_operator_may_not_touch_secrets() {
    let rules = read("manifests/rbac.yaml");
    let resources = rules.lines().filter(|line| line.trim_start().starts_with("resources:"));
    for line in resources {
        assert!(!line.contains("secrets") && !line.contains('*'), "{line}");
    }
}

#[test]
fn the_deployment_runs_the_version_of_this_crate() {
    let deployment = read("manifests/deployment.yaml");
    for image in ["arbbot-operator", "arb-bot"] {
        let image = format!("{image}:{}", env!("CARGO_PKG_VERSION"));
        assert!(deployment.contains(&image), "manifests/deployment.yaml does not name {image}");
    }
}
