//! The bot's Deployment: one pod, replaced only after the old one has ended, under the restricted Pod Security Standard.

use std::collections::BTreeMap;

use arbbot_crds::arbbot::{Credentials, Execution};
use arbbot_crds::names::{
    BACKUP_CREDENTIALS_DIR, BOT_PORT, CA_DIR, CREDENTIALS_DIR, LEDGER_DIR, LEDGER_SECRET_DIR, child_name,
    ledger_claim_name,
};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use super::{ValidatedBot, labels, metadata, selector, strings};

/// Name of the bot's container.
pub const CONTAINER: &str = "bot";
/// The user "nonroot" of distroless images; as fsGroup it owns the mounted key and the disk of the ledger.
const USER: i64 = 65532;
/// Room for the kill journal, which takes 1 MiB; the kubelet ends a pod that uses more.
const JOURNAL_SIZE: &str = "16Mi";
/// The bot cancels its orders and releases its Lease in this time.
const GRACE_SECONDS: i64 = 120;

pub fn build(bot: &ValidatedBot, replicas: i32) -> Deployment {
    let spec = DeploymentSpec {
        replicas: Some(replicas),
        revision_history_limit: Some(2),
        selector: LabelSelector { match_labels: Some(selector(bot)), match_expressions: None },
        // Never two pods that want the Lease.
        strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
        template: template(bot),
        ..DeploymentSpec::default()
    };
    Deployment { metadata: metadata(bot), spec: Some(spec), status: None }
}

fn template(bot: &ValidatedBot) -> PodTemplateSpec {
    let own = &bot.spec().pod_template;
    let mut labels_of_pod = own.labels.clone();
    labels_of_pod.extend(labels(bot));
    let mut annotations = own.annotations.clone();
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels_of_pod),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(child_name(bot.name())),
            automount_service_account_token: Some(true),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(bot)],
            volumes: Some(volumes(bot)),
            node_selector: some_map(&own.node_selector),
            tolerations: some_list(&own.tolerations),
            affinity: own.affinity.clone(),
            topology_spread_constraints: some_list(&own.topology_spread_constraints),
            priority_class_name: own.priority_class_name.clone(),
            image_pull_secrets: some_list(&own.image_pull_secrets),
            ..PodSpec::default()
        }),
    }
}

fn container(bot: &ValidatedBot) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(bot.image().to_owned()),
        args: Some(args(bot)),
        env: Some(env(bot)),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: i32::from(BOT_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // A bot in a kill is slow, not dead: a minute of silence before it is restarted.
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        resources: Some(bot.spec().resources.clone().unwrap_or_else(default_resources)),
        // The last lines of the log explain a crash in the bot's conditions.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(strings(["ALL"])), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(bot)),
        ..Container::default()
    }
}

fn args(bot: &ValidatedBot) -> Vec<String> {
    let listen = format!("$(POD_IP):{BOT_PORT}");
    let mut args = strings(["run", "--name", bot.name(), "--listen", &listen]);
    args.extend(strings(["--credentials-dir", CREDENTIALS_DIR, "--ledger-dir", LEDGER_DIR]));
    if keys(bot).backup_secret_ref.is_some() {
        args.extend(strings(["--backup-credentials-dir", BACKUP_CREDENTIALS_DIR]));
    }
    if bot.spec().ledger.postgres.is_some() {
        args.extend(strings(["--ledger-secret-dir", LEDGER_SECRET_DIR]));
    }
    if bot.spec().venue.coinbase.ca_bundle.is_some() {
        args.extend(strings(["--ca-file", &format!("{CA_DIR}/ca.crt")]));
    }
    args
}

/// The operator's variables first, so that a user's variable of the same name can be left out.
fn env(bot: &ValidatedBot) -> Vec<EnvVar> {
    let mut env = [
        ("POD_UID", "metadata.uid"),
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
        ("NODE_NAME", "spec.nodeName"),
    ]
    .map(|(name, path)| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) }),
            ..EnvVarSource::default()
        }),
    })
    .to_vec();
    for own in &bot.spec().pod_template.env {
        if env.iter().all(|var| var.name != own.name) {
            env.push(own.clone());
        }
    }
    env
}

/// The keys that reach the pod. On paper none does, whatever the spec names: what is not there cannot sign an order.
fn keys(bot: &ValidatedBot) -> Credentials {
    match bot.spec().execution {
        Execution::Live => bot.spec().credentials.clone(),
        Execution::Paper => Credentials::default(),
    }
}

fn volumes(bot: &ValidatedBot) -> Vec<Volume> {
    let mut volumes = Vec::new();
    if let Some(primary) = &keys(bot).secret_ref {
        let secret = SecretVolumeSource {
            secret_name: Some(primary.name.clone()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        };
        volumes.push(Volume { name: "credentials".to_owned(), secret: Some(secret), ..Volume::default() });
    }
    volumes.extend(ledger_volumes(bot));
    if let Some(backup) = &keys(bot).backup_secret_ref {
        let secret = SecretVolumeSource {
            secret_name: Some(backup.name.clone()),
            default_mode: Some(0o440),
            // A backup that is not there must not keep the bot from starting.
            optional: Some(true),
            ..SecretVolumeSource::default()
        };
        volumes.push(Volume { name: "backup-credentials".to_owned(), secret: Some(secret), ..Volume::default() });
    }
    if let Some(ca) = &bot.spec().venue.coinbase.ca_bundle {
        let reference = &ca.config_map_key_ref;
        let config_map = ConfigMapVolumeSource {
            name: reference.name.clone(),
            items: Some(vec![KeyToPath { key: reference.key.clone(), path: "ca.crt".to_owned(), mode: None }]),
            default_mode: Some(0o440),
            optional: None,
        };
        volumes.push(Volume { name: "ca".to_owned(), config_map: Some(config_map), ..Volume::default() });
    }
    volumes
}

/// The disk of the ledger; or the Secret of one in PostgreSQL and a place for the kill journal.
fn ledger_volumes(bot: &ValidatedBot) -> Vec<Volume> {
    let ledger = Volume { name: "ledger".to_owned(), ..Volume::default() };
    let Some(postgres) = &bot.spec().ledger.postgres else {
        let claim = PersistentVolumeClaimVolumeSource { claim_name: ledger_claim_name(bot.name()), read_only: None };
        return vec![Volume { persistent_volume_claim: Some(claim), ..ledger }];
    };
    let journal = EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(JOURNAL_SIZE.to_owned())) };
    let secret = SecretVolumeSource {
        secret_name: Some(postgres.secret_ref.name.clone()),
        default_mode: Some(0o440),
        ..SecretVolumeSource::default()
    };
    vec![
        Volume { empty_dir: Some(journal), ..ledger },
        Volume { name: "ledger-secret".to_owned(), secret: Some(secret), ..Volume::default() },
    ]
}

/// Whole directories: the kubelet never refreshes a file that is mounted by subPath.
fn mounts(bot: &ValidatedBot) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = Vec::new();
    if keys(bot).secret_ref.is_some() {
        mounts.push(mount("credentials", CREDENTIALS_DIR, true));
    }
    mounts.push(mount("ledger", LEDGER_DIR, false));
    if bot.spec().ledger.postgres.is_some() {
        mounts.push(mount("ledger-secret", LEDGER_SECRET_DIR, true));
    }
    if keys(bot).backup_secret_ref.is_some() {
        mounts.push(mount("backup-credentials", BACKUP_CREDENTIALS_DIR, true));
    }
    if bot.spec().venue.coinbase.ca_bundle.is_some() {
        mounts.push(mount("ca", CA_DIR, true));
    }
    mounts
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// No CPU limit: a throttled bot kills late.
fn default_resources() -> ResourceRequirements {
    let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
    ResourceRequirements {
        requests: Some([quantity("cpu", "50m"), quantity("memory", "64Mi")].into()),
        limits: Some([quantity("memory", "256Mi")].into()),
        claims: None,
    }
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{bot, validated};
    use super::*;
    use serde_json::{Value, json};

    fn built(extra_spec: &str) -> Value {
        json!(build(&validated(&bot(extra_spec)), 1))
    }

    #[test]
    fn the_pod_meets_the_restricted_pod_security_standard() {
        let pod = &built("")["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
    }

    #[test]
    fn one_pod_is_replaced_only_after_it_ended_with_time_to_cancel() {
        let deployment = built("");
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(deployment["spec"]["strategy"], json!({"type": "Recreate"}));
        assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 120);
    }

    #[test]
    fn a_pod_template_adds_but_never_replaces_what_the_operator_needs() {
        let deployment = built(
            "  podTemplate:\n    labels: {team: desk, app.kubernetes.io/name: other}\n    priorityClassName: high\n    env: [{name: RUST_LOG, value: debug}, {name: POD_UID, value: forged}]\n",
        );
        let template = &deployment["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["team"], "desk");
        assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/name"], "arb-bot");
        assert_eq!(template["spec"]["priorityClassName"], "high");
        let env = template["spec"]["containers"][0]["env"].as_array().unwrap();
        let of = |name: &str| env.iter().filter(|var| var["name"] == name).collect::<Vec<_>>();
        assert_eq!(of("RUST_LOG")[0]["value"], "debug");
        assert_eq!(of("POD_UID").len(), 1);
        assert_eq!(of("POD_UID")[0]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.uid");
    }

    #[test]
    fn the_key_is_a_directory_that_changes_arrive_in() {
        let pod = &built("")["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["secret"], json!({"secretName": "key", "defaultMode": 0o440}));
        let mount = &pod["containers"][0]["volumeMounts"][0];
        assert_eq!(*mount, json!({"name": "credentials", "mountPath": "/etc/arbbot/credentials", "readOnly": true}));
    }

    #[test]
    fn no_key_reaches_a_pod_that_trades_on_paper() {
        let mut bot = bot("");
        bot.spec.execution = Execution::Paper;
        bot.spec.credentials.backup_secret_ref = serde_json::from_value(json!({"name": "key-b"})).unwrap();
        let deployment = json!(build(&validated(&bot), 1));
        let pod = &deployment["spec"]["template"]["spec"];
        let names = |list: &Value| list.as_array().unwrap().iter().map(|v| v["name"].clone()).collect::<Vec<_>>();
        assert_eq!(names(&pod["volumes"]), ["ledger"]);
        assert_eq!(names(&pod["containers"][0]["volumeMounts"]), ["ledger"]);
        assert!(!pod.to_string().contains("--backup-credentials-dir"));
    }

    #[test]
    fn a_backup_key_is_mounted_beside_the_first_and_may_be_missing() {
        assert!(!built("").to_string().contains("backup"));
        let mut bot = bot("");
        bot.spec.credentials.backup_secret_ref = serde_json::from_value(json!({"name": "key-b"})).unwrap();
        let pod = &json!(build(&validated(&bot), 1))["spec"]["template"]["spec"];
        let expected = json!({"secretName": "key-b", "defaultMode": 0o440, "optional": true});
        assert_eq!(pod["volumes"][2]["secret"], expected);
        let args = pod["containers"][0]["args"].as_array().unwrap();
        assert!(args.windows(2).any(|pair| pair == ["--backup-credentials-dir", "/etc/arbbot/credentials-backup"]));
    }

    #[test]
    fn a_ledger_in_postgres_has_its_secret_and_no_claim() {
        assert!(!built("").to_string().contains("--ledger-secret-dir"));
        let pod = &built("  ledger: {postgres: {secretRef: {name: db}}}\n")["spec"]["template"]["spec"];
        assert!(!pod.to_string().contains("persistentVolumeClaim"), "{pod}");
        assert_eq!(pod["volumes"][1], json!({"name": "ledger", "emptyDir": {"sizeLimit": "16Mi"}}));
        let secret = json!({"name": "ledger-secret", "secret": {"secretName": "db", "defaultMode": 0o440}});
        assert_eq!(pod["volumes"][2], secret);
        let container = &pod["containers"][0];
        let mount = json!({"name": "ledger-secret", "mountPath": "/etc/arbbot/ledger", "readOnly": true});
        assert_eq!(container["volumeMounts"][2], mount);
        let args = container["args"].as_array().unwrap();
        assert!(args.windows(2).any(|pair| pair == ["--ledger-secret-dir", "/etc/arbbot/ledger"]));
    }

    #[test]
    fn a_ca_bundle_is_mounted_and_named_to_the_bot() {
        let plain = built("");
        assert!(!plain.to_string().contains("--ca-file"));
        let mut bot = bot("");
        bot.spec.venue.coinbase.ca_bundle =
            serde_json::from_value(json!({"configMapKeyRef": {"name": "exchange-ca", "key": "root.pem"}})).unwrap();
        let pod = &json!(build(&validated(&bot), 1))["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][2]["configMap"]["items"], json!([{"key": "root.pem", "path": "ca.crt"}]));
        let args = pod["containers"][0]["args"].as_array().unwrap();
        assert!(args.windows(2).any(|pair| pair == ["--ca-file", "/etc/arbbot/ca/ca.crt"]));
    }
}
