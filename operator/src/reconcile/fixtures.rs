//! Minimal objects for tests.

use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::fetch::Fetched;
use super::validate::{ValidatedBot, validate};

const BOT: &str = r"
apiVersion: arbbot.io/v1alpha1
kind: ArbBot
metadata:
  name: carry
  namespace: desk
  uid: 0b9d6bcd-uid
  generation: 3
  creationTimestamp: 2026-01-01T00:00:00Z
spec:
  execution: Live
  venue: {coinbase: {portfolio: 11111111-2222-3333-4444-555555555555}}
  strategy: {fundingCarry: {spotProduct: BTC-USD, futureProduct: BIP-20DEC30-CDE, targetNotional: '1000'}}
  credentials: {secretRef: {name: key}}
";

/// A bot with further lines of spec, indented by two spaces.
pub fn bot(extra_spec: &str) -> ArbBot {
    serde_yaml::from_str(&format!("{BOT}{extra_spec}")).unwrap()
}

/// A bot with this status, as YAML.
pub fn bot_with_status(status: &str) -> ArbBot {
    ArbBot { status: Some(serde_yaml::from_str(status).unwrap()), ..bot("") }
}

/// The bot as the later steps take it.
pub fn validated(bot: &ArbBot) -> ValidatedBot {
    validate(bot, "arb-bot:test").unwrap()
}

/// A Lease held by this pod.
pub fn lease(holder: &str, renewed: Timestamp, seconds: i32) -> Lease {
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": MicroTime(renewed)});
    serde_json::from_value(json!({"metadata": {"name": "arbbot-carry", "uid": "lease-uid"}, "spec": spec})).unwrap()
}

/// The policy `desk` of generation 5 with this spec, as YAML.
pub fn policy(spec: &str) -> ArbPolicy {
    let metadata = "{name: desk, namespace: desk, uid: 99999999-p, generation: 5}";
    let mut policy: ArbPolicy = serde_yaml::from_str(&format!(
        "{{apiVersion: arbbot.io/v1alpha1, kind: ArbPolicy, metadata: {metadata}, spec: {{}}}}"
    ))
    .unwrap();
    policy.spec = serde_yaml::from_str(spec).unwrap();
    policy
}

/// The bot alone: no children, no pods, no Lease, no policies.
pub fn fetched(bot: ArbBot) -> Fetched {
    Fetched {
        bot,
        children: Default::default(),
        lease: None,
        lease_unchanged: std::time::Duration::from_secs(3600),
        policies: Vec::new(),
        policies_of_namespace: Vec::new(),
        pods: Vec::new(),
        pod_events: Vec::new(),
    }
}

/// Its Deployment as it is with this many replicas, all of them available.
pub fn deployment(bot: &ArbBot, replicas: i32) -> k8s_openapi::api::apps::v1::Deployment {
    let built = super::build::build(&validated(bot), replicas, &Default::default()).deployment;
    let status = json!({"replicas": replicas, "availableReplicas": replicas, "updatedReplicas": replicas});
    k8s_openapi::api::apps::v1::Deployment { status: serde_json::from_value(status).unwrap(), ..built }
}
