//! `spec.credentials`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::Display;

use crate::duration::DurationString;

/// The API key of the account, and another of the same portfolio to change to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Secret in the bot's namespace with the keys `name` and `privateKey` of the key file that Coinbase lets you
    /// download. Required when `execution` is Live. Its content is hot, the reference is cold.
    // Absent, but never null: a rule asks whether it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub secret_ref: Option<SecretRef>,
    /// Secret with a second key of the same portfolio, in the same form. Its content is hot, the reference is cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_secret_ref: Option<SecretRef>,
    /// Incident field. Which of the two keys is used; the other is verified before the change. Hot. Default Primary.
    #[serde(default)]
    pub active: ActiveKey,
    /// What happens when the exchange refuses the key in use. Hot. Default Never.
    #[serde(default)]
    pub failover: KeyFailover,
    /// Age of the key in use from which the condition CredentialsValid reminds of changing it. Hot. Default 720h.
    #[serde(default = "max_key_age")]
    pub max_age: DurationString,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            secret_ref: None,
            backup_secret_ref: None,
            active: ActiveKey::default(),
            failover: KeyFailover::default(),
            max_age: max_key_age(),
        }
    }
}

fn max_key_age() -> DurationString {
    DurationString(std::time::Duration::from_secs(720 * 3600))
}

/// Which of the two API keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum ActiveKey {
    /// The key of `secretRef`.
    #[default]
    Primary,
    /// The key of `backupSecretRef`.
    Backup,
}

/// What happens when the exchange refuses the API key in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Display)]
pub enum KeyFailover {
    /// A person decides.
    #[default]
    Never,
    /// After five refusals within at least 10 s the other key is used, if the exchange accepts it for the same portfolio
    /// and it may not transfer. The refused key is used again once its Secret changes.
    OnRefused,
}

/// A Secret in the bot's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
