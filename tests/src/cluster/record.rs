//! What a running cluster leaves in its directory for others: a lock that says whether it lives, and a
//! record (`cluster.json`) that says what it is.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::certificates::write_private;
use super::home::{log_directory, state_directory};
use super::node::import_image;

/// A look at the lock holds it for an instant; one who really wants it tries longer than that.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// The content of `cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The process whose end is the cluster's end.
    pub owner_pid: u32,
    pub kind: Kind,
    pub server: String,
    pub kubeconfig: PathBuf,
    /// The host's address as pods see it; only with a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// The first process inside the node's namespaces: `nsenter --target PID --all`; only with a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_pid: Option<u32>,
    pub components: Vec<Component>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    pub name: String,
    pub pid: u32,
    pub log: PathBuf,
}

impl Record {
    pub fn write(&self, directory: &Path) -> Result<()> {
        let (file, new) = (directory.join("cluster.json"), directory.join("cluster.json.new"));
        write_private(&new, &serde_json::to_string_pretty(self)?)?;
        fs::rename(&new, &file).with_context(|| format!("write {}", file.display()))
    }

    /// Loads an OCI archive into the node's image store, under the name that its annotation
    /// `io.containerd.image.name` gives. Blocks.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let pid = self.node_pid.context("a cluster without a node has no image store")?;
        import_image(pid, archive).with_context(|| format!("load the image {}", archive.display()))
    }

    /// The record of the cluster that runs in `directory`; `None` when none runs there, or not yet.
    pub fn of_running(directory: &Path) -> Result<Option<Self>> {
        if owner(directory)?.is_none() {
            return Ok(None);
        }
        let file = directory.join("cluster.json");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }
}

/// The process whose cluster runs, or is being started, in `directory`.
pub fn owner(directory: &Path) -> Result<Option<u32>> {
    let path = directory.join("cluster.lock");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look for a cluster in {}", directory.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("look at {}", path.display())),
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    // Empty for the instant between the lock and the number.
    Ok(pid.trim().parse().ok())
}

/// Makes `directory` ours for as long as the returned file is open (the kernel drops the lock with the
/// process), and removes what a cluster that died there left behind.
pub fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("cluster.lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => bail!(
                "a cluster is already running in {0}: end it with `cluster down --dir {0}`, or choose another directory",
                directory.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    remove_files(directory)?;
    Ok(file)
}

/// Removes what is ours, and nothing else: the directory may hold other things too.
pub fn remove_files(directory: &Path) -> Result<()> {
    for file in ["kubeconfig", "cluster.json"] {
        ignore_missing(fs::remove_file(directory.join(file)))?;
    }
    for ours in [state_directory(directory), log_directory(directory)] {
        ignore_missing(fs::remove_dir_all(&ours)).with_context(|| format!("remove {}", ours.display()))?;
    }
    Ok(())
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
