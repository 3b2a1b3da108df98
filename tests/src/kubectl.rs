//! kubectl, the real one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(120);

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
}

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command with this standard input, whether it succeeds or not.
pub(crate) async fn output(mut command: Command, input: &str) -> Result<Output> {
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{:?}", command.as_std());
    let mut child = command.spawn().with_context(|| format!("start {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An error means that the command does not read it; its own message says why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = timeout(DEADLINE, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{what} does not end"))??;
    Ok(Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Kubectl {
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned() }
    }

    /// Runs kubectl with these arguments and standard input, whether it succeeds or not.
    ///
    /// # Errors
    /// It cannot be started, or does not end within two minutes.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        output(command, input).await
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Errors
    /// It fails; the message is its own.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// Applies objects.
    ///
    /// # Errors
    /// The API server refuses one; the message is its own.
    pub async fn apply(&self, objects: &serde_json::Value) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], &objects.to_string()).await.map(|_| ())
    }

    async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.output(arguments, input).await?;
        if !output.success {
            bail!("kubectl {} failed: {}", arguments.join(" "), output.stderr.trim());
        }
        Ok(output.stdout)
    }
}
