//! Command line of the operator.

use std::net::SocketAddr;

/// Controller of ArbBots. The log filter is the environment variable RUST_LOG (default "info,kube=warn").
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "arbbot-operator", version)]
pub struct Args {
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
    /// Image of bots that name none in spec.image.
    #[arg(long, env = "ARBBOT_BOT_IMAGE", default_value = concat!("arb-bot:", env!("CARGO_PKG_VERSION")))]
    pub bot_image: String,
    /// Watch this namespace only. Default: all.
    #[arg(long)]
    pub namespace: Option<String>,
}
