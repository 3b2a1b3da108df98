//! The process that holds everything the demo runs on.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::guest::Guest;
use super::stage::Stage;
use crate::harness::{Desk, NodeDesk, Setup};
use crate::kubectl::Kubectl;
use crate::programs::Programs;
use crate::progress::Progress;

const LOG: &str = "demo.log";
const LOCK: &str = "demo.lock";
/// In a cluster that was not started here bots are deleted first, which takes its time.
const END_DEADLINE: Duration = Duration::from_secs(180);
/// The owner's last line on standard output starts with this.
const READY: &str = "ready ";
const ACCOUNTS: usize = 4;

/// Starts the owner and shows its steps until everything is ready.
pub fn start(directory: &Path, fast: bool, progress: &mut Progress) -> Result<Stage> {
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let log = directory.join(LOG);
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    let mut command = Command::new("setsid");
    command.arg(std::env::current_exe().context("find this program")?).arg("own");
    if fast {
        command.arg("--fast");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
    let mut owner = command.spawn().context("start the demo's owner with setsid")?;
    let output = owner.stdout.take().ok_or_else(|| anyhow!("the owner has no standard output"))?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.strip_prefix(READY) {
            Some(stage) => return serde_json::from_str(stage).context("read where everything is"),
            None => progress.step(&line),
        }
    }
    let status = owner.wait()?;
    bail!("the demo's owner ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default().trim())
}

/// What the owner does: everything up, then wait for SIGTERM.
///
/// # Errors
/// Something does not start, or the cluster breaks.
pub async fn own(fast: bool) -> Result<()> {
    // Before anything is started, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let directory = super::directory();
    let _lock = lock(&directory)?;
    let guest = Guest::arrive().await?;
    let mut environment = tokio::select! {
        started = raise(&directory, fast) => started?,
        _ = terminate.recv() => return Ok(()),
    };
    let mut check = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = check.tick() => environment.check().context("the cluster is broken and was ended")?,
        }
    }
    match guest {
        Some(guest) => guest.leave().await.context("some of the demo stays in the cluster"),
        None => Ok(()),
    }
}

enum Environment {
    Fast(Desk),
    Node(NodeDesk),
}

impl Environment {
    fn check(&mut self) -> Result<()> {
        match self {
            Self::Fast(desk) => desk.check(),
            Self::Node(desk) => desk.check(),
        }
    }
}

async fn raise(directory: &Path, fast: bool) -> Result<Environment> {
    let setup = Setup { programs: &Programs::built()?, directory, accounts: ACCOUNTS, fsync: true, audit: false };
    let (environment, stage) = if fast {
        let desk = Desk::start(setup, say).await?;
        let exchange = desk.exchange.authority().to_owned();
        let data = desk.exchange.directory().to_owned();
        let stage = stage(directory, &desk.kubectl, exchange.clone(), exchange, data)?;
        (Environment::Fast(desk), stage)
    } else {
        let desk = NodeDesk::start(setup, say).await?;
        let (admin, data) = (desk.admin.clone(), desk.data.clone());
        let stage = stage(directory, &desk.kubectl, desk.exchange().to_owned(), admin, data)?;
        (Environment::Node(desk), stage)
    };
    say(&format!("{READY}{}", serde_json::to_string(&stage)?))?;
    Ok(environment)
}

fn stage(directory: &Path, kubectl: &Kubectl, exchange: String, admin: String, data: PathBuf) -> Result<Stage> {
    let kubeconfig = kubeconfig(directory, &kubectl.kubeconfig)?;
    Ok(Stage { kubeconfig, kubectl: kubectl.program.clone(), exchange, admin, data })
}

/// A line for who started this process; an error means that nobody is there any more.
fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("nobody waits for this demo any more")
}

/// The kubeconfig at its promised place, also of a cluster that was not started here.
fn kubeconfig(directory: &Path, of_cluster: &Path) -> Result<PathBuf> {
    let promised = directory.join("kubeconfig");
    if promised != of_cluster {
        fs::copy(of_cluster, &promised).with_context(|| format!("copy {}", of_cluster.display()))?;
    }
    Ok(promised)
}

/// Holds the directory for as long as the file is open, and says who does.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
    file.try_lock().map_err(|error| anyhow!("another demo is running: {error}"))?;
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process that holds the directory.
fn holder(directory: &Path) -> Result<Option<Pid>> {
    let mut file = match File::open(directory.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(pid.parse().ok().and_then(Pid::from_raw))
        }
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Ends the owner; false if there is none.
pub fn stop(directory: &Path) -> Result<bool> {
    let Some(pid) = holder(directory)? else { return Ok(false) };
    for signal in [Signal::TERM, Signal::KILL] {
        // It may end at this moment.
        let _ = kill_process(pid, signal);
        let started = Instant::now();
        while started.elapsed() < END_DEADLINE {
            if holder(directory)?.is_none() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    bail!("process {} does not end", pid.as_raw_nonzero())
}

/// Ends the owner, if there is one, and removes the files.
pub fn end(directory: &Path) -> Result<bool> {
    let was_running = stop(directory)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(was_running),
    }
}
