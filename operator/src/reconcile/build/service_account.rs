//! The bot's identity at the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{ValidatedBot, metadata};

/// The token is mounted by the pod that asks for it, not by everything that runs under the account.
pub fn build(bot: &ValidatedBot) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(bot),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
