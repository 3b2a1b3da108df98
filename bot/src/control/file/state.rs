//! The state directory of a bot that runs without Kubernetes: what the API server would remember for it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use arbbot_crds::ArbBotStatus;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the bot obeys, in its own words; for people and programs.
pub const STATUS: &str = "status.yaml";
/// Identity, generation and the last good file.
const MEMORY: &str = "control.json";

/// Why the state directory does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("failed to {verb} {path}: {source}; check the directory and its permissions")]
    Disk { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be read: {cause}; it tells who the bot is, so nothing is guessed: mend it from a backup, or once the \
         account is flat use a new --state-dir"
    )]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "another bot trades {product} on the account {account}: {holder}. Stop it first, or use another portfolio; the \
         lock is {path}"
    )]
    AccountShared { account: String, product: String, holder: String, path: PathBuf },
}

fn disk<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Disk { verb, path: path.to_owned(), source }
}

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Stands for metadata.uid: order ids and incident ids begin with it.
    pub uid: String,
    /// Stands for metadata.generation: rises with every other content of the file.
    pub generation: i64,
    /// Stands for the transitions of the Lease: rises with every start.
    pub epoch: i64,
    /// The content that the generation belongs to.
    pub content: String,
    /// The last content that was valid.
    pub last_good: String,
}

impl Memory {
    /// What the directory remembers; None in a new one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(dir: &Path) -> Result<Option<Self>, StateError> {
        let path = dir.join(MEMORY);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("read", &path)(error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StateError::Damaged { path, cause: error.to_string() }),
        }
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// The disk fails; what was there before stays.
    pub fn save(&self, dir: &Path) -> Result<(), StateError> {
        write(&dir.join(MEMORY), json!(self).to_string().as_bytes())
    }
}

/// The lock on account and product; held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct AccountLock {
    _file: File,
}

impl AccountLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// Another bot has it, and which; or the disk fails.
    pub fn take(dir: &Path, account: &str, product: &str, bot: &str, state: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(disk("create", dir))?;
        let path = dir.join(format!("{account}_{product}.lock"));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(disk("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.take(512).read_to_string(&mut holder).map_err(disk("read", &path))?;
                let (account, product) = (account.to_owned(), product.to_owned());
                return Err(StateError::AccountShared { account, product, holder: holder.trim().to_owned(), path });
            }
            Err(TryLockError::Error(error)) => return Err(disk("lock", &path)(error)),
        }
        let holder = format!("{bot}, process {}, state in {}\n", std::process::id(), state.display());
        let written = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(disk("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Where a bot writes its status.
#[derive(Clone, Debug)]
pub struct StatusFile {
    pub dir: PathBuf,
    /// `metadata` as status.yaml shows it.
    pub metadata: Value,
}

impl StatusFile {
    /// Replaces the status as a whole.
    ///
    /// # Errors
    /// The disk fails; what was there before stays.
    pub async fn write(&self, status: &ArbBotStatus) -> Result<(), StateError> {
        let path = self.dir.join(STATUS);
        let object = json!({
            "apiVersion": "arbbot.io/v1alpha1",
            "kind": "ArbBot",
            "metadata": self.metadata,
            "status": status,
        });
        let damaged = |cause: String| StateError::Damaged { path: path.clone(), cause };
        let text = serde_yaml::to_string(&object).map_err(|error| damaged(error.to_string()))?;
        let file = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, text.as_bytes())).await;
        written.map_err(|error| damaged(error.to_string()))?
    }
}

/// The status that a bot wrote last; None where none did.
///
/// # Errors
/// It cannot be read.
pub fn read_status(dir: &Path) -> Result<Option<ArbBotStatus>, StateError> {
    #[derive(Deserialize)]
    struct Written {
        status: ArbBotStatus,
    }
    let path = dir.join(STATUS);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk("read", &path)(error)),
        Ok(text) => serde_yaml::from_str::<Written>(&text)
            .map(|written| Some(written.status))
            .map_err(|error| StateError::Damaged { path, cause: error.to_string() }),
    }
}

/// Replaces a file as a whole: whoever reads sees the old content or the new one.
fn write(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(disk("create", dir))?;
    let new = path.with_extension("new");
    let replace = || {
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(dir)?.sync_all()
    };
    replace().map_err(disk("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Invariant 17. Proven by mutation: a lock that is held being no obstacle.
    #[test]
    fn one_bot_holds_an_account_and_product_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let take = |product: &str| AccountLock::take(dir.path(), "account", product, "carry", Path::new("/state"));
        let first = take("BIP").unwrap();
        let error = take("BIP").unwrap_err().to_string();
        assert!(error.contains("carry, process") && error.contains("/state"), "{error}");
        take("ETP").unwrap();
        drop(first);
        take("BIP").unwrap();
    }

    #[test]
    fn what_is_saved_is_loaded_and_a_damaged_memory_is_no_new_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Memory::load(dir.path()).unwrap(), None);
        let memory = Memory { uid: "u".into(), generation: 3, epoch: 2, content: "é\n".into(), last_good: "x".into() };
        memory.save(dir.path()).unwrap();
        assert_eq!(Memory::load(dir.path()).unwrap(), Some(memory));
        fs::write(dir.path().join(MEMORY), "{").unwrap();
        assert!(Memory::load(dir.path()).unwrap_err().to_string().contains("backup"));
    }

    #[tokio::test]
    async fn a_status_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_status(dir.path()).unwrap().is_none());
        let status: ArbBotStatus = serde_json::from_value(json!({"bot": {"openOrders": 2, "version": "1.0"}})).unwrap();
        let file = StatusFile { dir: dir.path().to_owned(), metadata: json!({"name": "carry", "generation": 1}) };
        file.write(&status).await.unwrap();
        assert_eq!(read_status(dir.path()).unwrap(), Some(status));
    }
}
