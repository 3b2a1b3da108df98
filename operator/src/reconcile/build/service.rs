//! A headless Service: the bot's metrics and status under a stable name.

use arbbot_crds::names::BOT_PORT;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ValidatedBot, metadata, selector};

pub fn build(bot: &ValidatedBot) -> Service {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: i32::from(BOT_PORT),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String("http".to_owned())),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        ports: Some(vec![port]),
        // A bot that is not ready is the one to look at.
        publish_not_ready_addresses: Some(true),
        selector: Some(selector(bot)),
        ..ServiceSpec::default()
    };
    Service { metadata: metadata(bot), spec: Some(spec), status: None }
}
