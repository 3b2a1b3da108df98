//! `spec.venue`: the exchange and the account there.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The exchange. Exactly one of its fields is set; its kind is immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Venue {
    /// Coinbase Advanced Trade: spot and US perpetual-style futures.
    #[x_kube(validation = Rule::new("has(self.portfolio) == has(oldSelf.portfolio)")
        .message("venue.coinbase.portfolio is immutable: create another ArbBot"))]
    pub coinbase: Coinbase,
}

/// Coinbase Advanced Trade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Coinbase {
    /// UUID of the portfolio that is traded. The API key must belong to it. Required when `execution` is Live; Paper
    /// does not look at it. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Absent, but never null: a rule asks whether it is there.
    #[schemars(
        with = "String",
        regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
        length(max = 36)
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("venue.coinbase.portfolio is immutable: create another ArbBot"))]
    pub portfolio: Option<String>,
    /// Where the exchange is reached, in order of preference: the next is used while those before it fail. Hot: an
    /// endpoint is used only after key_permissions shows the same portfolio there. Default: production.
    #[serde(default = "production")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub endpoints: Vec<Endpoint>,
    /// Certificate authority of the endpoints, where it is not a public one. Its content is hot, the reference is cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// This bot's share of the user's rate limit; a fifth of it is kept for cancels and closes. Hot. Default 10.
    #[serde(default = "requests_per_second")]
    #[schemars(range(min = 5, max = 30), extend("format" = "int32"))]
    pub requests_per_second: u32,
}

fn production() -> Vec<Endpoint> {
    vec![Endpoint {
        name: "production".to_owned(),
        rest_url: "https://api.coinbase.com".to_owned(),
        market_web_socket_url: "wss://advanced-trade-ws.coinbase.com".to_owned(),
        user_web_socket_url: "wss://advanced-trade-ws-user.coinbase.com".to_owned(),
    }]
}

const fn requests_per_second() -> u32 {
    10
}

/// One way to reach the exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name of this endpoint in status and logs.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Base URL of REST, without a path, for example https://api.coinbase.com.
    #[schemars(regex(pattern = r"^https://[^\s/?#@]+$"), length(max = 256))]
    pub rest_url: String,
    /// URL of the market data WebSocket, for example wss://advanced-trade-ws.coinbase.com.
    #[schemars(regex(pattern = r"^wss://[^\s?#@]+$"), length(max = 256))]
    pub market_web_socket_url: String,
    /// URL of the user WebSocket, for example wss://advanced-trade-ws-user.coinbase.com.
    #[schemars(regex(pattern = r"^wss://[^\s?#@]+$"), length(max = 256))]
    pub user_web_socket_url: String,
}

/// Source of a certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// ConfigMap in the bot's namespace that holds the PEM certificates.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// A key of a ConfigMap in the bot's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
