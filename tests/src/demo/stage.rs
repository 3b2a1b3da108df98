//! What the owner tells the story: where everything is.

use std::path::PathBuf;

use anyhow::Result;
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::exchange::{self, Account, Admin};
use crate::harness::config;
use crate::kubectl::Kubectl;

/// Where everything is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stage {
    pub kubeconfig: PathBuf,
    pub kubectl: PathBuf,
    /// The exchange as bots reach it: `host[:port]`.
    pub exchange: String,
    /// The exchange as this machine reaches it.
    pub admin: String,
    /// The exchange's data directory.
    pub data: PathBuf,
}

impl Stage {
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubectl, &self.kubeconfig)
    }

    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(config(&self.kubeconfig).await?)?)
    }

    pub fn admin(&self) -> Result<Admin> {
        Admin::new(&self.admin, &self.data)
    }

    pub fn accounts(&self) -> Result<Vec<Account>> {
        exchange::accounts(&self.data)
    }
}
