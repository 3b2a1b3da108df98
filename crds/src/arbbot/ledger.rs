//! `spec.ledger`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a bot keeps its durable record. Its kind is immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// SQLite on a PersistentVolumeClaim, which outlives the bot.
    pub sqlite: Sqlite,
}

/// SQLite on a PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sqlite {
    /// Size of the claim. Immutable. Default 1Gi.
    #[serde(default = "ledger_size")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,5}(Mi|Gi|Ti)$"), length(max = 12))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("ledger.sqlite.size is immutable: resize the PersistentVolumeClaim itself"))]
    pub size: String,
    /// StorageClass of the claim. Default: the cluster's. Read only when the claim is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

fn ledger_size() -> String {
    "1Gi".to_owned()
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { size: ledger_size(), storage_class_name: None }
    }
}
