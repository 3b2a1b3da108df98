//! `spec.ledger`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credentials::SecretRef;

/// Where a bot keeps its durable record. Its kind is immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// SQLite on a PersistentVolumeClaim, which outlives the bot. The default.
    // Absent, but never null: a rule asks whether it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Sqlite")]
    pub sqlite: Option<Sqlite>,
    /// A schema of its own in a PostgreSQL database, which outlives the bot. Not for `execution: Paper`: a paper account
    /// needs a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Postgres")]
    pub postgres: Option<Postgres>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { sqlite: Some(Sqlite::default()), postgres: None }
    }
}

/// A schema of its own in a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Postgres {
    /// Secret in the bot's namespace with the key `url` (postgres://USER:PASSWORD@HOST:5432/DATABASE, with sslmode
    /// verify-full unless it says otherwise) and, where the server's authority is not a public one, `ca.crt`. Immutable;
    /// its content may change: it is read with every connection.
    #[x_kube(validation = Rule::new("self == oldSelf").message("ledger.postgres.secretRef is immutable: change the content of the Secret"))]
    pub secret_ref: SecretRef,
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
