//! Backup while a bot runs, and restore while none does. A backup is a file of SQLite, whatever the ledger is.

use std::fs::File;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

use super::opening::{Lock, set_file_aside, with_suffix};
use super::place::{Place, Source};
use super::store::{Access, Store};
use super::verify::{verify_now, verify_source};
use super::{FILE, LedgerError, LedgerHead, file_error};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub head: LedgerHead,
    /// Where the ledger is that was there before.
    pub replaced: Option<String>,
}

/// Copies a ledger of either kind into a new file, as it is at one moment, and verifies the copy. A bot may run
/// meanwhile. Returns the head of the copy.
///
/// # Errors
/// There is no ledger, the target exists, the disk or the server fails, or the ledger is damaged.
pub async fn backup(place: impl Into<Place>, target: &Path) -> Result<LedgerHead, LedgerError> {
    if target.exists() {
        return Err(LedgerError::Exists { path: target.to_owned() });
    }
    if let Some(dir) = target.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) {
        let advice = "make it, or write the backup into another one";
        return Err(LedgerError::NoPath { path: dir.to_owned(), what: "directory", advice });
    }
    put(&place.into().source()?, target).await
}

/// Puts a backup in the place of a ledger of either kind. The ledger that was there is kept under another name.
///
/// # Errors
/// A bot has the ledger open, the backup is not whole, or the disk or the server fails; then nothing is changed.
pub async fn restore(place: impl Into<Place>, backup: &Path, now: Timestamp) -> Result<Restored, LedgerError> {
    let place = place.into();
    let source = place.source()?;
    if std::fs::metadata(backup).is_ok_and(|file| file.len() == 0) {
        let advice = "it was cut off; give another file that `ledger backup` has written";
        return Err(LedgerError::NoPath { path: backup.to_owned(), what: "backup in the empty file", advice });
    }
    if !backup.exists() {
        let advice = "give the file that `ledger backup` has written";
        return Err(LedgerError::NoPath { path: backup.to_owned(), what: "backup", advice });
    }
    match (&place, &source) {
        (_, Source::File(path)) => restore_file(path, &source, backup, now).await,
        (Place::Directory(dir), Source::Server(_)) => {
            // A bot's journal is in its directory, and so is its lock.
            let _lock = Lock::take(dir, &source)?;
            restore_on_server(&source, backup, now).await
        }
        (Place::Server(_), Source::Server(_)) => restore_on_server(&source, backup, now).await,
    }
}

async fn restore_file(path: &Path, source: &Source, backup: &Path, now: Timestamp) -> Result<Restored, LedgerError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|cause| file_error(dir, "create the ledger's directory", cause))?;
    let _lock = Lock::take(dir, source)?;
    let staged = dir.join(format!("{FILE}.restoring"));
    remove_if_there(&staged)?;
    let head = put(&Source::File(backup.to_owned()), &staged).await?;
    let replaced = if path.exists() { Some(set_file_aside(path, "replaced", now)?) } else { None };
    rename(&staged, path)?;
    Ok(Restored { head, replaced: replaced.map(|kept| kept.display().to_string()) })
}

/// In one transaction: a server that fails has the ledger that was there.
async fn restore_on_server(source: &Source, backup: &Path, now: Timestamp) -> Result<Restored, LedgerError> {
    let backup = Source::File(backup.to_owned());
    let head = verify_source(&backup).await?;
    let mut file = Store::connect(&backup, Access::Read).await?;
    let mut store = Store::connect(source, Access::Create).await?;
    let restored = async {
        let mut from = file.begin().await?;
        let mut to = store.begin().await?;
        let replaced = to.set_aside("replaced", now).await?;
        to.prepare_server().await?;
        from.copy_into(&mut to).await?;
        let copied = verify_now(&mut to).await?;
        if copied != head {
            let problem = "the copy is not what the backup is".to_owned();
            return Err(LedgerError::Tampered { ledger: to.ledger(), entry: copied.entries, problem });
        }
        to.commit().await?;
        from.rollback().await?;
        Ok(Restored { head, replaced })
    };
    let restored = restored.await;
    store.close().await;
    file.close().await;
    restored
}

/// A whole and verified copy under the target's name, or nothing under it.
async fn put(source: &Source, target: &Path) -> Result<LedgerHead, LedgerError> {
    source.look()?;
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    remove_if_there(&partial)?;
    let mut store = Store::connect(source, Access::Read).await?;
    let copied = store.copy_to(&partial).await;
    store.close().await;
    let verified = match copied {
        Ok(()) => verify_source(&Source::File(partial.clone())).await,
        Err(error) => Err(error),
    };
    // The connection that verified it has left its log, which is empty.
    for suffix in ["-wal", "-shm"] {
        remove_if_there(&with_suffix(&partial, suffix))?;
    }
    match verified {
        Ok(head) => rename(&partial, target).map(|()| head),
        Err(error) => remove_if_there(&partial).and(Err(error)),
    }
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
