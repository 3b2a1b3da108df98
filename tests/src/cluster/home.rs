//! What all programs of one cluster share: its directory, certificates, address and processes.

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::certificates::Certificates;
use super::control_plane::Endpoint;
use super::process::{Processes, log_tail};
use super::tools::Tools;
use crate::command;

/// Generous, because a machine that compiles at the same time is slow; a program that ends is noticed at once.
const READY_DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Home {
    /// The directory that the caller chose; absolute. Ours are in it: `kubeconfig`, `cluster.json`,
    /// `cluster.lock`, `logs/`, `state/`.
    pub directory: PathBuf,
    pub tools: Tools,
    pub certificates: Certificates,
    pub endpoint: Endpoint,
    /// What runs a program where the cluster lives: nothing, or `nsenter …` for a cluster with a node.
    pub prefix: Vec<OsString>,
    pub processes: Processes,
}

impl Home {
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// A directory of `state/`, made if it is not there.
    pub fn state(&self, name: &str) -> Result<PathBuf> {
        let directory = state_directory(&self.directory).join(name);
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(directory)
    }

    /// A kubeconfig for one of the cluster's own programs.
    pub fn component_kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let file = self.certificates.file(&format!("{name}.kubeconfig"));
        self.certificates.kubeconfig(&file, "arbbot", &self.endpoint.url(), user, group)?;
        Ok(file)
    }

    /// Starts a pinned tool with `state/<directory>` as its working directory.
    pub fn start(&mut self, tool: &str, directory: &str, arguments: Vec<OsString>) -> Result<()> {
        let program = self.tools.path(tool)?.to_owned();
        self.start_program(tool, &program, directory, arguments)
    }

    /// Starts any program where the cluster lives.
    pub fn start_program(
        &mut self,
        name: &str,
        program: &Path,
        directory: &str,
        arguments: Vec<OsString>,
    ) -> Result<()> {
        let directory = self.state(directory)?;
        let mut command = self.prefix.clone();
        // Entering a mount namespace forgets the working directory.
        command.extend(command!["env", "--chdir", &directory, program]);
        command.extend(arguments);
        self.processes.start(name, &directory, &command)
    }

    /// Tries until `attempt` succeeds. The error says what the last attempt met, and shows the end of the log
    /// of the program that ended, or else of `program`.
    pub async fn wait_for<F>(&mut self, program: &str, what: &str, mut attempt: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let started = Instant::now();
        loop {
            self.processes.check().with_context(|| format!("waiting until {what}"))?;
            let outcome = tokio::time::timeout(ATTEMPT_TIMEOUT, attempt()).await;
            let error = match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()),
            };
            if started.elapsed() > READY_DEADLINE {
                bail!(
                    "after {} s it is not so that {what}: {error:#}\n{}",
                    READY_DEADLINE.as_secs(),
                    self.processes.log(program).map_or_else(String::new, log_tail)
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Everything in it belongs to the cluster and may be deleted when it has ended.
pub fn state_directory(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// One `<program>.log` each.
pub fn log_directory(directory: &Path) -> PathBuf {
    directory.join("logs")
}
