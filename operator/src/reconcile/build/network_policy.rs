//! Who may reach the bot: anybody, but only its http port (metrics, status and probes).
//!
//! It says nothing about egress, on purpose. The bot must reach the API server and the exchange at addresses that no
//! rule could name for long, and a rule that is wrong for a minute would cut the control of a running position.

use arbbot_crds::names::BOT_PORT;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ValidatedBot, metadata, selector, strings};

pub fn build(bot: &ValidatedBot) -> NetworkPolicy {
    let http = NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(BOT_PORT))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector { match_labels: Some(selector(bot)), match_expressions: None }),
        policy_types: Some(strings(["Ingress"])),
        ingress: Some(vec![NetworkPolicyIngressRule { from: None, ports: Some(vec![http]) }]),
        egress: None,
    };
    NetworkPolicy { metadata: metadata(bot), spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{bot, validated};
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_http_port_is_open_and_nothing_cuts_the_way_out() {
        let spec = json!(build(&validated(&bot("")))).get("spec").cloned().unwrap();
        assert_eq!(spec["policyTypes"], json!(["Ingress"]), "a type Egress without a rule would cut control");
        assert_eq!(spec["ingress"], json!([{"ports": [{"port": 8080, "protocol": "TCP"}]}]));
        assert_eq!(spec["podSelector"]["matchLabels"], json!({"arbbot.io/bot-uid": "0b9d6bcd-uid"}));
        assert!(spec.get("egress").is_none());
    }
}
