//! The programs of a cluster as child processes that cannot outlive their owner.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

/// How much of a failed program's log an error shows.
const LOG_TAIL_BYTES: u64 = 4096;
const LOG_TAIL_LINES: usize = 15;

type Reply = mpsc::SyncSender<io::Result<Child>>;

/// The child processes of one cluster. Each is told by the kernel to die with its parent, so they end even
/// when the owner is killed with SIGKILL; dropping this ends them too.
///
/// The kernel's "parent" is the *thread* that forked. A worker thread of an async runtime may end at any
/// time, so one thread of our own does all the forking and lives as long as this value.
pub struct Processes {
    forks: Option<mpsc::Sender<(Command, Reply)>>,
    thread: Option<JoinHandle<()>>,
    logs: PathBuf,
    running: Vec<Process>,
}

/// One program that was started.
pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Processes {
    /// `logs` is the directory that receives one `<name>.log` per program.
    pub fn new(logs: &Path) -> Result<Self> {
        let (forks, requests) = mpsc::channel::<(Command, Reply)>();
        let thread = std::thread::Builder::new().name("cluster-parent".into()).spawn(move || {
            for (mut command, reply) in requests {
                // Nobody waits for the reply only if the owner is being dropped; then the kernel ends the child.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { forks: Some(forks), thread: Some(thread), logs: logs.to_owned(), running: Vec::new() })
    }

    /// Starts `command` (program and arguments) under `name`, with its output in the log of that name.
    pub fn start(&mut self, name: &str, directory: &Path, command: &[OsString]) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut bound = bound_to_parent(command);
        bound.current_dir(directory).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = self.fork(bound).with_context(|| format!("start {name}"))?;
        self.running.push(Process { name: name.to_owned(), log, child });
        Ok(())
    }

    /// Starts a helper whose standard output the caller reads; it counts as a program of the cluster.
    pub fn start_with_output(&mut self, name: &str, command: &[OsString]) -> Result<std::process::ChildStdout> {
        let log = self.logs.join(format!("{name}.log"));
        let mut bound = bound_to_parent(command);
        bound.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = self.fork(bound).with_context(|| format!("start {name}"))?;
        let output = child.stdout.take().ok_or_else(|| anyhow!("{name} has no standard output"));
        self.running.push(Process { name: name.to_owned(), log, child });
        output
    }

    fn fork(&self, command: Command) -> Result<Child> {
        let (reply, answer) = mpsc::sync_channel(1);
        let forks = self.forks.as_ref().ok_or_else(|| anyhow!("the cluster is being stopped"))?;
        forks.send((command, reply)).map_err(|_| anyhow!("the thread that starts programs has ended"))?;
        Ok(answer.recv().context("the thread that starts programs has ended")??)
    }

    pub fn running(&self) -> &[Process] {
        &self.running
    }

    /// The log of a program that was started.
    pub fn log(&self, name: &str) -> Option<&Path> {
        self.running.iter().find(|process| process.name == name).map(|process| process.log.as_path())
    }

    /// An error that names the first program that has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        for process in &mut self.running {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended ({}).\n{}", process.name, describe(status), log_tail(&process.log));
            }
        }
        Ok(())
    }

    /// Kills everything and waits for it.
    pub fn stop(&mut self) {
        for process in self.running.iter_mut().rev() {
            // It may have ended by itself.
            let _ = process.child.kill();
        }
        for mut process in self.running.drain(..) {
            let _ = process.child.wait();
        }
        self.forks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `setpriv` asks the kernel to kill the program when its parent dies; doing it between fork and exec
/// ourselves would need unsafe code.
fn bound_to_parent(command: &[OsString]) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).args(command).env_clear().env("PATH", search_path());
    bound
}

/// The owner's PATH plus the directories of system programs, which PATH lacks for most users.
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

/// Runs a short command to its end and returns its standard output; on failure the error has its output.
pub fn run(command: &[OsString]) -> Result<String> {
    let shown = || command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let (program, arguments) = command.split_first().ok_or_else(|| anyhow!("an empty command"))?;
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", shown()))?;
    if !output.status.success() {
        bail!("{} failed ({}): {}", shown(), describe(output.status), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The words of a command, from anything that is like a string or a path.
#[macro_export]
macro_rules! command {
    ($($word:expr),* $(,)?) => { [$(::std::ffi::OsString::from($word)),*] };
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// The last lines of a log and where it is.
pub fn log_tail(log: &Path) -> String {
    let tail = read_tail(log).unwrap_or_else(|error| format!("(not readable: {error})"));
    let lines: Vec<&str> = tail.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
    format!("The end of {}:\n  {last}", log.display())
}

fn read_tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
