//! A cluster that was not started here: the demo removes what it made there, and nothing else.

use anyhow::{Result, bail};

use crate::cluster;
use crate::harness::{MANIFESTS, NODE_NAMESPACES};
use crate::kubectl::Kubectl;

use super::story::DESK;

/// A visit to the cluster of `ARBBOT_KUBECONFIG`.
pub struct Guest {
    kubectl: Kubectl,
    /// Whether the operator was not installed there before.
    installs: bool,
}

impl Guest {
    /// `None` where the demo starts a cluster of its own.
    ///
    /// # Errors
    /// The cluster has namespaces of the demo's names already.
    pub async fn arrive() -> Result<Option<Self>> {
        let Some(kubeconfig) = cluster::external_kubeconfig() else { return Ok(None) };
        let kubectl = Kubectl::new(&cluster::kubectl()?, &kubeconfig);
        let ours = [&[DESK], NODE_NAMESPACES].concat();
        let found =
            kubectl.run(&[&["get", "namespace", "--ignore-not-found", "-o", "name"], &ours[..]].concat()).await?;
        if !found.trim().is_empty() {
            bail!(
                "the cluster of {} has {} already: remove that first, the demo would mix with it",
                cluster::EXTERNAL_KUBECONFIG,
                found.trim().replace('\n', " and ")
            );
        }
        let crd = kubectl.run(&["get", "crd", "arbbots.arbbot.io", "--ignore-not-found", "-o", "name"]).await?;
        Ok(Some(Self { kubectl, installs: crd.trim().is_empty() }))
    }

    /// Removes what the demo made. Everything must still run: the bots close their positions.
    pub async fn leave(&self) -> Result<()> {
        self.kubectl.run(&["delete", "arbbots.arbbot.io", "--all", "-n", DESK, "--timeout=60s"]).await?;
        let delete = ["delete", "namespace", "--ignore-not-found", "--timeout=60s"];
        self.kubectl.run(&[&delete[..], &[DESK], NODE_NAMESPACES].concat()).await?;
        if self.installs {
            self.kubectl.run(&["delete", "--ignore-not-found", "--timeout=60s", "-k", MANIFESTS]).await?;
        }
        Ok(())
    }
}
