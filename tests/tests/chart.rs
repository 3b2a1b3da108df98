//! What the chart renders, without a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use arbbot_tests::helm::{CHART, Helm};
use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const NAMESPACE: &str = "arbbot-system";

fn read(path: impl AsRef<Path>) -> Result<String> {
    fs::read_to_string(&path).with_context(|| format!("read {}", path.as_ref().display()))
}

/// What `make lint` checks: the defaults, and each file of values in `ci/`.
fn variants() -> Result<Vec<Option<PathBuf>>> {
    let mut variants = vec![None];
    for file in fs::read_dir(Path::new(CHART).join("ci"))? {
        variants.push(Some(file?.path()));
    }
    Ok(variants)
}

async fn template(values: Option<&Path>, more: &[&str]) -> Result<Vec<Value>> {
    let mut arguments = vec!["template", "arbbot-operator", CHART, "--namespace", NAMESPACE];
    let values = values.map(|file| file.display().to_string());
    arguments.extend(values.iter().flat_map(|file| ["--values", file.as_str()]));
    arguments.extend(more);
    let text = Helm::offline()?.run(&arguments).await?;
    let documents = text.split("\n---\n").filter(|document| document.contains("kind:"));
    documents.map(|document| serde_yaml::from_str(document).with_context(|| document.to_owned())).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let found = of_kind(objects, kind);
    ensure!(found.len() == 1, "{} objects of kind {kind}", found.len());
    Ok(found[0])
}

fn pod(objects: &[Value]) -> Result<&Value> {
    Ok(&one(objects, "Deployment")?["spec"]["template"])
}

#[tokio::test]
async fn helm_lint_finds_nothing() -> Result<()> {
    let helm = Helm::offline()?;
    for values in variants()? {
        let values = values.map(|file| file.display().to_string());
        let mut arguments = vec!["lint", "--strict", "--quiet", CHART];
        arguments.extend(values.iter().flat_map(|file| ["--values", file.as_str()]));
        helm.run(&arguments).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_manifests_are_what_the_chart_renders() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let output = Command::new(Path::new(ROOT).join("manifests/generate")).arg(directory.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = read(Path::new(ROOT).join("manifests/kustomization.yaml"))?;
    let mut expected = BTreeSet::from(["generate".into(), "kustomization.yaml".into(), "namespace.yaml".into()]);
    for file in fs::read_dir(directory.path())? {
        let name = file?.file_name().into_string().unwrap_or_default();
        let committed = read(Path::new(ROOT).join("manifests").join(&name)).unwrap_or_default();
        let same = committed == read(directory.path().join(&name))?;
        ensure!(same, "manifests/{name} is out of date: run `make manifests`");
        ensure!(listed.contains(&format!("\n  - {name}\n")), "manifests/kustomization.yaml does not list {name}");
        expected.insert(name);
    }
    let there = fs::read_dir(Path::new(ROOT).join("manifests"))?;
    let there: BTreeSet<_> = there.flatten().map(|file| file.file_name().into_string().unwrap_or_default()).collect();
    ensure!(there == expected, "no template renders {:?}", there.difference(&expected));
    Ok(())
}

/// Whether both say the same; 1.0 is 1.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

#[tokio::test]
async fn the_definitions_are_the_generated_ones() -> Result<()> {
    let objects = template(None, &[]).await?;
    let rendered = of_kind(&objects, "CustomResourceDefinition");
    ensure!(rendered.len() == 2);
    for crd in rendered {
        let name = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let generated = read(format!("{ROOT}/crds/{name}.yaml"))?;
        let copy = read(format!("{CHART}/files/crds/{name}.yaml"))?;
        ensure!(copy == generated, "{name}.yaml in the chart is out of date: run `make manifests`");
        let generated: Value = serde_yaml::from_str(&generated)?;
        ensure!(same(&crd["spec"], &generated["spec"]), "Helm changes the definition of {name}");
        ensure!(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", "{}", crd["metadata"]);
    }
    let without = template(None, &["--set", "crds.enabled=false"]).await?;
    ensure!(of_kind(&without, "CustomResourceDefinition").is_empty());
    let unkept = template(None, &["--set", "crds.keep=false"]).await?;
    ensure!(unkept.iter().all(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"].is_null()));
    Ok(())
}

#[tokio::test]
async fn a_bad_value_is_refused_with_a_message_that_names_it() -> Result<()> {
    let helm = Helm::offline()?;
    let cases = [
        ("replicaCounts=2", "replicaCounts"),
        ("replicaCount=two", "/replicaCount"),
        ("replicaCount=-1", "/replicaCount"),
        ("image.tags=v1", "/image': additional properties 'tags'"),
        ("image.digest=abc", "/image/digest"),
        ("image.repository=arbbot-operator:v1", "/image/repository"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("bot.tag=v1", "/bot': additional properties 'tag'"),
        ("watchNamespace=desk", "watchNamespace"),
        ("watchNamespaces=desk", "/watchNamespaces"),
        ("watchNamespaces={Desk}", "/watchNamespaces/0"),
        ("watchNamespaces={a,a}", "/watchNamespaces"),
        ("logLevel=loud", "/logLevel"),
        ("crds.install=true", "/crds': additional properties 'install'"),
        ("crds.keep=yes", "/crds/keep"),
        ("securityContext.readOnlyRootFilesytem=true", "readOnlyRootFilesytem"),
        ("podSecurityContext.seccompProfile.typ=x", "/podSecurityContext/seccompProfile"),
        ("resources.limit.memory=1Gi", "/resources"),
        ("affinity.nodeAffinty.x=y", "/affinity"),
        ("tolerations[0].keys=a", "/tolerations/0"),
        ("topologySpreadConstraints[0].maxSkews=1", "/topologySpreadConstraints/0"),
        ("podDisruptionBudget.maxUnavailable=0", "/podDisruptionBudget/maxUnavailable"),
        ("metrics.serviceMonitor.enable=true", "/metrics/serviceMonitor"),
        ("leaderElection.leaseDuration=15", "/leaderElection/leaseDuration"),
        ("replicaCount=2,leaderElection.enabled=false", "leaderElection.enabled"),
        ("metrics.serviceMonitor.enabled=true,metrics.service.enabled=false", "metrics.service.enabled"),
    ];
    for (set, names) in cases {
        let refused = helm.output(&["template", CHART, "--set", set]).await?;
        ensure!(!refused.success, "{set} is accepted");
        ensure!(refused.stderr.contains(names), "the refusal of {set} does not say {names}: {}", refused.stderr);
    }
    Ok(())
}

/// Paths of the values below `value`: a map with other keys than the chart's is a value, too.
fn paths(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    let whole = ["resources", "podSecurityContext", "securityContext"];
    match value {
        Value::Object(fields) if !fields.is_empty() && !whole.contains(&prefix) => {
            for (name, value) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                paths(&path, value, found);
            }
        }
        _ => drop(found.insert(prefix.to_owned())),
    }
}

/// Paths that a schema without references names.
fn schema_paths(prefix: &str, schema: &Value, found: &mut BTreeSet<String>) {
    match &schema["properties"] {
        Value::Object(fields) => {
            for (name, schema) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                schema_paths(&path, schema, found);
            }
        }
        _ => drop(found.insert(prefix.to_owned())),
    }
}

/// Every object of the schema says what it may contain.
fn is_closed(path: &str, schema: &Value) -> Result<()> {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                ensure!(schema["additionalProperties"] == json!(false), "{path} accepts any name");
            }
            fields.iter().try_for_each(|(name, schema)| is_closed(&format!("{path}/{name}"), schema))
        }
        Value::Array(items) => items.iter().try_for_each(|schema| is_closed(path, schema)),
        _ => Ok(()),
    }
}

#[test]
fn every_value_has_a_default_a_schema_and_a_line_in_the_readme() -> Result<()> {
    let values: Value = serde_yaml::from_str(&read(format!("{CHART}/values.yaml"))?)?;
    let schema: Value = serde_json::from_str(&read(format!("{CHART}/values.schema.json"))?)?;
    is_closed("", &schema)?;
    let (mut defaults, mut specified) = (BTreeSet::new(), BTreeSet::new());
    paths("", &values, &mut defaults);
    schema_paths("", &schema, &mut specified);
    specified.remove("global");
    ensure!(defaults == specified, "{:?}", defaults.symmetric_difference(&specified));
    let readme = read(format!("{CHART}/README.md"))?;
    for path in defaults {
        ensure!(readme.contains(&format!("`{path}`")), "README.md does not name {path}");
    }
    Ok(())
}

#[tokio::test]
async fn no_role_reaches_a_secret_or_everything() -> Result<()> {
    for values in variants()? {
        for object in template(values.as_deref(), &[]).await? {
            for rule in object["rules"].as_array().into_iter().flatten() {
                let text = rule.to_string();
                ensure!(!text.contains("secrets") && !text.contains('*'), "{}: {text}", object["kind"]);
            }
        }
    }
    Ok(())
}

#[test]
fn every_rule_says_why_it_is_there() -> Result<()> {
    for file in ["_rules.tpl", "rbac.yaml"] {
        let text = read(format!("{CHART}/templates/{file}"))?;
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[1].starts_with("- apiGroups:")) {
            ensure!(pair[0].starts_with('#'), "{file}: no reason before {}", pair[1]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn with_watched_namespaces_nothing_is_cluster_wide() -> Result<()> {
    let values = Path::new(CHART).join("ci/role-only-values.yaml");
    let objects = template(Some(&values), &[]).await?;
    for object in &objects {
        ensure!(object["metadata"]["namespace"].is_string(), "{} is cluster-wide", object["kind"]);
    }
    for kind in ["Role", "RoleBinding"] {
        let of_kind = of_kind(&objects, kind);
        let namespaces: BTreeSet<_> =
            of_kind.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
        ensure!(namespaces == BTreeSet::from([NAMESPACE, "desk-a", "desk-b"]), "{kind}: {namespaces:?}");
    }
    let arguments = pod(&objects)?["spec"]["containers"][0]["args"].to_string();
    ensure!(arguments.contains("--watch-namespace=desk-a") && arguments.contains("--watch-namespace=desk-b"));
    // The same rights, whichever way they are given.
    let everywhere = template(None, &[]).await?;
    let role = of_kind(&objects, "Role").into_iter().find(|role| role["metadata"]["namespace"] == "desk-a");
    ensure!(role.map(|role| &role["rules"]) == Some(&one(&everywhere, "ClusterRole")?["rules"]));
    Ok(())
}

#[tokio::test]
async fn the_selector_never_changes_and_always_matches() -> Result<()> {
    let expected =
        json!({"app.kubernetes.io/name": "arbbot-operator", "app.kubernetes.io/instance": "arbbot-operator"});
    let quarrelsome = r"podLabels.app\.kubernetes\.io/name=mine";
    for more in [&[][..], &["--set", quarrelsome], &["--set", "image.tag=v2,fullnameOverride=arb"]] {
        let objects = template(None, &[more, &["--set", "replicaCount=2"]].concat()).await?;
        let selector = &one(&objects, "Deployment")?["spec"]["selector"]["matchLabels"];
        ensure!(*selector == expected, "{selector}");
        ensure!(one(&objects, "Service")?["spec"]["selector"] == expected);
        ensure!(one(&objects, "PodDisruptionBudget")?["spec"]["selector"]["matchLabels"] == expected);
        let labels = &pod(&objects)?["metadata"]["labels"];
        for (name, value) in expected.as_object().into_iter().flatten() {
            ensure!(labels[name] == *value, "the pods are not selected: {labels}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_pod_fits_the_restricted_standard_and_this_version() -> Result<()> {
    let objects = template(None, &[]).await?;
    let pod = &pod(&objects)?["spec"];
    let container = &pod["containers"][0];
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "{pod}");
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{pod}");
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    ensure!(container["securityContext"] == security, "{container}");
    let version = env!("CARGO_PKG_VERSION");
    ensure!(container["image"] == format!("arbbot-operator:{version}"), "{container}");
    ensure!(container["args"].to_string().contains(&format!("--bot-image=arb-bot:{version}")), "{container}");
    let chart: Value = serde_yaml::from_str(&read(format!("{CHART}/Chart.yaml"))?)?;
    ensure!(chart["version"] == version && chart["appVersion"] == version, "{chart}");
    Ok(())
}

#[tokio::test]
async fn the_times_of_the_election_are_the_operators_unless_they_are_given() -> Result<()> {
    let arguments = |objects: &[Value]| pod(objects).map(|pod| pod["spec"]["containers"][0]["args"].to_string());
    ensure!(!arguments(&template(None, &[]).await?)?.contains("--leader-elect"));
    let given = "leaderElection.leaseDuration=30s,leaderElection.renewDeadline=20s,leaderElection.retryPeriod=5s";
    let given = arguments(&template(None, &["--set", given]).await?)?;
    for flag in
        ["--leader-elect-lease-duration=30s", "--leader-elect-renew-deadline=20s", "--leader-elect-retry-period=5s"]
    {
        ensure!(given.contains(flag), "{given}");
    }
    Ok(())
}

#[tokio::test]
async fn without_an_election_one_operator_ends_before_the_next_one_starts() -> Result<()> {
    let objects = template(None, &["--set", "leaderElection.enabled=false,replicaCount=1"]).await?;
    let spec = &one(&objects, "Deployment")?["spec"];
    ensure!(spec["strategy"]["type"] == "Recreate", "{}", spec["strategy"]);
    ensure!(pod(&objects)?["spec"]["containers"][0]["args"].to_string().contains("--leader-elect=false"));
    ensure!(of_kind(&objects, "Role").is_empty(), "the Lease of the leader is not needed");
    Ok(())
}

#[tokio::test]
async fn a_disruption_budget_never_blocks_a_single_replica() -> Result<()> {
    let single = template(None, &["--set", "replicaCount=1"]).await?;
    ensure!(of_kind(&single, "PodDisruptionBudget").is_empty());
    let three = template(None, &["--set", "replicaCount=3"]).await?;
    ensure!(one(&three, "PodDisruptionBudget")?["spec"]["maxUnavailable"] == 1);
    Ok(())
}

#[tokio::test]
async fn the_status_policy_knows_every_field_of_status() -> Result<()> {
    let objects = template(None, &[]).await?;
    let policy = one(&objects, "ValidatingAdmissionPolicy")?.to_string();
    let crds = of_kind(&objects, "CustomResourceDefinition");
    let bots = crds.iter().find(|crd| crd["metadata"]["name"] == "arbbots.arbbot.io").context("no ArbBot")?;
    let status = &bots["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    for field in status.as_object().context("no status")?.keys() {
        let of_bot = ["bot", "killSwitch", "credentials"].contains(&field.as_str());
        let guarded = policy.contains(&format!("object.?status.?{field}"));
        ensure!(of_bot != guarded, "status.{field} must be either the bot's or kept from it by the policy");
    }
    Ok(())
}

#[tokio::test]
async fn the_notes_say_the_next_command_for_these_values() -> Result<()> {
    let helm = Helm::offline()?;
    let notes = |more: &'static [&str]| {
        let helm = helm.clone();
        let arguments = ["install", "arbbot-operator", CHART, "--namespace", NAMESPACE, "--dry-run=client"];
        async move {
            let output = helm.run(&[&arguments, more].concat()).await?;
            match output.split_once("NOTES:") {
                Some((_, notes)) => Ok(notes.to_owned()),
                None => bail!("no notes: {output}"),
            }
        }
    };
    let everywhere = notes(&[]).await?;
    for command in
        ["create namespace desk-a", "-n desk-a patch", r#"{"killSwitch":{"engaged":true,"action":"Flatten"}}"#]
    {
        ensure!(everywhere.contains(command), "no {command} in {everywhere}");
    }
    ensure!(!everywhere.contains("WARNING"), "{everywhere}");
    let narrow = notes(&["--set", "watchNamespaces={b},crds.keep=false"]).await?;
    ensure!(narrow.contains("-n b patch") && !narrow.contains("create namespace"), "{narrow}");
    ensure!(narrow.contains("WARNING: with crds.keep=false"), "{narrow}");
    Ok(())
}
