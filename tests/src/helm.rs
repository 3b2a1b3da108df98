//! Helm, the real one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::cluster;
use crate::kubectl::{Kubectl, Output, output};

/// The chart of the operator.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/arbbot-operator");

/// Helm, with a cluster or without.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Helm {
    /// # Errors
    /// It is not built.
    pub fn for_cluster(kubectl: &Kubectl) -> Result<Self> {
        Ok(Self { program: cluster::helm()?, kubeconfig: kubectl.kubeconfig.clone() })
    }

    /// For what needs no cluster; it could not reach one.
    ///
    /// # Errors
    /// It is not built.
    pub fn offline() -> Result<Self> {
        Ok(Self { program: cluster::helm()?, kubeconfig: Path::new("/nonexistent").to_owned() })
    }

    /// Runs Helm, whether it succeeds or not.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        // Nothing of the user's: no plugins, no repositories, and nothing is left in their home.
        let home = std::env::temp_dir().join("arbbot-helm");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &home);
        }
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        output(command, "").await
    }

    /// Runs Helm and returns its standard output.
    ///
    /// # Errors
    /// It fails; the message is its own.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        if !output.success {
            bail!("helm {} failed: {}", arguments.join(" "), output.stderr.trim());
        }
        Ok(output.stdout)
    }
}
