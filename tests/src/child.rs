//! Child processes that cannot outlive their owner, not even when it is killed with SIGKILL.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

type Started = io::Result<(u32, watch::Receiver<Option<ExitStatus>>)>;

/// Starts child processes; when it is dropped, all of them are killed.
///
/// The kernel ends a child when the *thread* that forked it ends (`setpriv --pdeathsig`). A thread of an async runtime
/// may end at any time, so one thread of our own does the forking.
pub struct Parent {
    forks: mpsc::Sender<(Command, oneshot::Sender<Started>)>,
}

/// What to start.
#[derive(Debug, Default)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    /// The whole environment, except PATH, which is the owner's.
    pub environment: BTreeMap<String, String>,
    /// Receives standard error, and standard output unless that goes elsewhere; appended.
    pub log: PathBuf,
    /// Where standard output goes instead of the log.
    pub output: Option<PathBuf>,
}

/// A running child process.
#[derive(Clone, Debug)]
pub struct Child {
    pid: Pid,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Parent {
    /// # Errors
    /// No thread can be started.
    pub fn new() -> Result<Self> {
        let (forks, requests) = mpsc::channel::<(Command, oneshot::Sender<Started>)>();
        std::thread::Builder::new().name("parent".into()).spawn(move || {
            for (command, reply) in requests {
                // Nobody waits for the reply only if the owner is being dropped; then the kernel ends the child.
                let _ = reply.send(fork(command));
            }
        })?;
        Ok(Self { forks })
    }

    /// # Errors
    /// The program or its log cannot be opened.
    pub async fn start(&self, program: &Program) -> Result<Child> {
        let shown = program.path.display();
        let log = append(&program.log)?;
        let output = match &program.output {
            Some(path) => append(path)?,
            None => log.try_clone()?,
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program.path).args(&program.arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(&program.environment);
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let (reply, answer) = oneshot::channel();
        self.forks.send((command, reply)).map_err(|_| anyhow!("the thread that starts programs has ended"))?;
        let (pid, ended) = answer.await?.with_context(|| format!("start {shown} (with setpriv of util-linux)"))?;
        let pid = Pid::from_raw(i32::try_from(pid)?).ok_or_else(|| anyhow!("{shown} has no process id"))?;
        Ok(Child { pid, ended })
    }
}

fn append(path: &Path) -> Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path).with_context(|| format!("open {}", path.display()))
}

fn fork(mut command: Command) -> Started {
    let mut child = command.spawn()?;
    let pid = child.id();
    let (ended, status) = watch::channel(None);
    std::thread::Builder::new().name("wait".into()).stack_size(64 * 1024).spawn(move || {
        // wait() fails only for a process that is not ours to wait for; it is gone then.
        let _ = ended.send(Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0))));
    })?;
    Ok((pid, status))
}

impl Child {
    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        if self.ended.borrow().is_none() {
            // It may end at this moment; then there is nobody to signal.
            let _ = kill_process(self.pid, signal);
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Waits for the end.
    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.unwrap_or_else(|| ExitStatus::from_raw(0))
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub async fn stop(&self, grace: std::time::Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.ended()).await {
            return status;
        }
        self.signal(Signal::KILL);
        self.ended().await
    }
}
