//! Backup while a bot runs, and restore while none does.

use std::fs::File;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

use super::store::Store;
use super::verify::verify_file;
use super::{FILE, LedgerError, LedgerHead, file_error, lock, set_aside};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub head: LedgerHead,
    /// Where the ledger is that was there before.
    pub replaced: Option<PathBuf>,
}

/// Copies the ledger of a directory into a new file, as it is at one moment, and verifies the copy. A bot may run
/// meanwhile. Returns the head of the copy.
///
/// # Errors
/// There is no ledger, the target exists, the disk fails, or the ledger is damaged.
pub async fn backup(dir: &Path, target: &Path) -> Result<LedgerHead, LedgerError> {
    if target.exists() {
        return Err(LedgerError::Exists { path: target.to_owned() });
    }
    put(&dir.join(FILE), target).await
}

/// Puts a backup in the place of the ledger of a directory. The ledger that was there is kept under another name.
///
/// # Errors
/// A bot has the ledger open, the backup is not whole, or the disk fails; then nothing is changed.
pub async fn restore(dir: &Path, backup: &Path, now: Timestamp) -> Result<Restored, LedgerError> {
    if !backup.exists() {
        return Err(LedgerError::Missing { path: backup.to_owned() });
    }
    std::fs::create_dir_all(dir).map_err(|cause| file_error(dir, "create the ledger's directory", cause))?;
    let path = dir.join(FILE);
    let _lock = lock(dir, &path)?;
    let staged = dir.join(format!("{FILE}.restoring"));
    remove_if_there(&staged)?;
    let head = put(backup, &staged).await?;
    let replaced = if path.exists() { Some(set_aside(&path, "replaced", now)?) } else { None };
    rename(&staged, &path)?;
    Ok(Restored { head, replaced })
}

/// A whole and verified copy under the target's name, or nothing under it.
async fn put(source: &Path, target: &Path) -> Result<LedgerHead, LedgerError> {
    if !source.exists() {
        return Err(LedgerError::Missing { path: source.to_owned() });
    }
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    remove_if_there(&partial)?;
    let mut store = Store::connect(source, false).await?;
    let copied = store.copy_to(&partial).await;
    store.close().await;
    copied?;
    let verified = verify_file(&partial).await;
    // The connection that verified it has left its log, which is empty.
    for suffix in ["-wal", "-shm"] {
        remove_if_there(&super::with_suffix(&partial, suffix))?;
    }
    let head = verified?;
    rename(&partial, target)?;
    Ok(head)
}

/// Renames a file durably.
fn rename(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let synced = File::open(from).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(from, to));
    synced.map_err(|cause| file_error(to, "write", cause))?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|cause| file_error(dir, "write the directory", cause))
}

fn remove_if_there(path: &Path) -> Result<(), LedgerError> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(file_error(path, "remove", cause)),
        _ => Ok(()),
    }
}
