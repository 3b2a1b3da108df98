//! The Linux namespaces that a cluster with a node lives in. When their first process dies, the kernel ends
//! every process, mount, interface and packet filter rule inside; only cgroups remain, and [`Janitor`]
//! removes those.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::process::{Processes, log_tail};
use crate::command;

/// The first process: makes the mounts that the node's programs write to by fixed paths private, says its
/// process id as the host sees it, and then only reaps orphans.
/// $1: the node's state directory, $2: the program that reaps.
const INIT: &str = r#"
set -e
read -r host_pid rest </proc/self/stat # still the host's /proc
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
for place in lib/kubelet lib/cni log/pods log/containers; do
  mkdir -p "/var/$place" "$1/$place"
  mount --bind "$1/$place" "/var/$place"
done
hostname node-1
echo "$host_pid"
exec "$2" >&2
"#;

/// $1: the name of the cgroups. Input ends when the owner does; the processes in the cgroups end a moment later.
const JANITOR: &str = r#"
cat >/dev/null
tries=0
cgroups() {
  name=$1
  shift
  find /sys/fs/cgroup/"$name" /sys/fs/cgroup/*/"$name" -depth -type d "$@" 2>/dev/null
}
while cgroups "$1" | grep -q .; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || exit 1
  cgroups "$1" -exec rmdir {} \;
  sleep 0.05
done
"#;

const END_DEADLINE: Duration = Duration::from_secs(20);
const CGROUPS: &str = "/sys/fs/cgroup";

pub struct Namespaces {
    first_process: Pid,
}

impl Namespaces {
    /// `state` receives what the node writes; `reaper` is a program that waits for its children until SIGTERM.
    pub fn start(processes: &mut Processes, state: &Path, reaper: &Path) -> Result<Self> {
        let unshare = command![
            "unshare",
            "--pid",
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            INIT,
            "init",
            state,
            reaper,
        ];
        let output = processes.start_with_output("namespaces", &unshare)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let first_process = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
            let log = processes.log("namespaces").map_or_else(String::new, log_tail);
            anyhow!("the namespaces of the node could not be made (in a container, this needs --privileged).\n{log}")
        })?;
        Ok(Self { first_process })
    }

    pub fn pid(&self) -> u32 {
        self.first_process.as_raw_nonzero().get().unsigned_abs()
    }
}

/// The words before a command that make it run in the namespaces of the process `pid`.
pub fn enter(pid: u32) -> Vec<OsString> {
    command!["nsenter", "--target", pid.to_string(), "--pid", "--mount", "--net", "--uts", "--ipc", "--"].into()
}

impl Drop for Namespaces {
    /// Ends the first process and waits: the kernel lets it go only when everything inside has ended.
    fn drop(&mut self) {
        // It has already ended if this fails.
        let _ = kill_process(self.first_process, Signal::KILL);
        let process = PathBuf::from("/proc").join(self.pid().to_string());
        let started = Instant::now();
        while process.exists() && started.elapsed() < END_DEADLINE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that outlives the owner by a moment and removes the cluster's cgroups.
pub struct Janitor {
    process: Child,
    /// Its closing, by us or by the kernel when we die, is the signal to clean up.
    owner_lives: Option<ChildStdin>,
}

impl Janitor {
    /// Makes a cgroup `name` in every hierarchy and starts the process that will remove it.
    pub fn start(name: &str) -> Result<Self> {
        let mut process = Command::new("setsid") // out of reach of a Ctrl-C that ends the owner
            .args(["sh", "-c", JANITOR, "janitor", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the janitor")?;
        let janitor = Self { owner_lives: process.stdin.take(), process };
        for hierarchy in cgroup_hierarchies()? {
            let cgroup = hierarchy.join(name);
            fs::create_dir_all(&cgroup).with_context(|| format!("make the cgroup {}", cgroup.display()))?;
        }
        Ok(janitor)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.owner_lives = None;
        // It ends by itself, and what it could not remove the next start does.
        let _ = self.process.wait();
    }
}

/// The root of cgroup v2, or of every hierarchy of v1.
fn cgroup_hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(CGROUPS);
    if let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) {
        enable_controllers(root, &controllers);
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("read {CGROUPS}"))?;
    let hierarchies: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    if hierarchies.is_empty() {
        bail!("no cgroups are mounted at {CGROUPS}: a node cannot limit its pods");
    }
    Ok(hierarchies)
}

/// Lets the cgroups below the root of v2 limit everything that the kubelet asks for.
fn enable_controllers(root: &Path, controllers: &str) {
    for controller in controllers.split_whitespace() {
        // What cannot be enabled and is needed, the kubelet names in its error.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes the empty cgroups of clusters whose names start with `prefix` and whose janitor was killed too.
pub fn remove_stale_cgroups(prefix: &str) -> Result<()> {
    for hierarchy in cgroup_hierarchies()? {
        for entry in fs::read_dir(&hierarchy)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                remove_cgroup(&entry.path());
            }
        }
    }
    Ok(())
}

/// The kernel refuses to remove one that is in use, which is as it should be.
fn remove_cgroup(cgroup: &Path) {
    for child in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&child.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
