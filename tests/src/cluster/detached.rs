//! Clusters that outlive the command that starts them: a process of the program `cluster` owns them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::home::log_directory;
use super::process::log_tail;
use super::record::{self, Record, remove_files};
use super::{Kind, Options};

const UP_DEADLINE: Duration = Duration::from_secs(300);
const DOWN_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Starts `<program> own …` (the program `cluster`) in a session of its own and returns when its cluster can
/// be used. Blocks; the cluster runs until [`down`].
pub fn up(program: &Path, options: &Options) -> Result<Record> {
    if record::owner(&options.directory)?.is_some() {
        bail!(
            "a cluster is already running in {0}: end it with `cluster down --dir {0}`, or use it",
            options.directory.display()
        );
    }
    fs::create_dir_all(&options.directory).with_context(|| format!("create {}", options.directory.display()))?;
    let log = options.directory.join("cluster.log");
    let mut owner = start_owner(program, options, &log)?;
    let started = Instant::now();
    loop {
        // Only this owner's record: the file may still be there from a cluster that died.
        match Record::of_running(&options.directory)? {
            Some(record) if record.owner_pid == owner.id() => return Ok(record),
            _ => {}
        }
        if let Some(status) = owner.try_wait()? {
            bail!("the cluster did not start ({status}).\n{}", log_tail(&log));
        }
        if started.elapsed() > UP_DEADLINE {
            owner.kill()?;
            owner.wait()?;
            bail!("the cluster was not ready within {} s.\n{}", UP_DEADLINE.as_secs(), log_tail(&log));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn start_owner(program: &Path, options: &Options, log: &Path) -> Result<Child> {
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches the cluster.
    let mut command = Command::new("setsid");
    command.arg(program).arg("own").arg("--dir").arg(&options.directory);
    if options.kind == Kind::ControlPlaneOnly {
        command.arg("--control-plane-only");
    }
    if !options.fsync {
        command.arg("--no-fsync");
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().with_context(|| format!("start {}", program.display()))
}

/// Ends the cluster that runs, or is being started, in `directory` and removes its files. `Ok(false)` if none was running.
pub fn down(directory: &Path) -> Result<bool> {
    let Some(owner) = record::owner(directory)? else {
        remove_files(directory)?;
        return Ok(false);
    };
    let process = i32::try_from(owner).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| anyhow!("{owner} is no process id"))?;
    for signal in [Signal::TERM, Signal::KILL] {
        kill_process(process, signal).with_context(|| format!("end process {owner} of the cluster"))?;
        let started = Instant::now();
        while started.elapsed() < DOWN_DEADLINE {
            if record::owner(directory)?.is_none() {
                remove_files(directory)?;
                return Ok(true);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    bail!("process {owner} does not end; look at {}", log_directory(directory).display())
}
