//! The kill journal: a preallocated file that takes what a kill must remember while the ledger cannot.
//!
//! Frame: length (u32, little-endian), first 8 bytes of the SHA-256 of the record, record (JSON). A zero length ends
//! the journal. Records are imported by the ledger's next successful write, or at the next start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::LedgerError;
use super::record::Entry;

const FILE: &str = "kill.journal";
/// Size of the journal, in bytes: some two thousand records.
const SIZE: usize = 1 << 20;
const LENGTH: usize = 4;
const CHECKSUM: usize = 8;

/// The kill journal.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Held during disk I/O, which may hang: never locked by an asynchronous task.
    file: Arc<Mutex<Tail>>,
    /// Records that are not in the ledger yet.
    waiting: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    /// Where the next frame goes; only zeros follow.
    offset: usize,
}

impl Journal {
    /// Opens or creates the journal of a directory. Also returns how many bytes of it could not be read: a record torn
    /// by a crash, which nobody was told is safe, or damage.
    pub fn open(dir: &Path) -> Result<(Self, usize), LedgerError> {
        let path = dir.join(FILE);
        let failed = |action| {
            let path = path.clone();
            move |cause| LedgerError::File { path, action, cause }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open the kill journal"))?;
        let content = read(&file).map_err(failed("read the kill journal"))?;
        let (waiting, offset, unreadable) = decode(&content);
        // Zeros, not a hole: an append must need no new block of a full volume. What could not be read is cleared, so
        // that it is never taken for a record after a later append.
        clear(&file, offset).map_err(failed("preallocate the kill journal"))?;
        let file = Arc::new(Mutex::new(Tail { file, offset }));
        Ok((Self { path, file, waiting: Arc::new(Mutex::new(waiting)) }, unreadable))
    }

    /// Records that are not in the ledger yet.
    pub fn waiting(&self) -> Vec<Entry> {
        lock(&self.waiting).clone()
    }

    /// Appends a record; durable when it returns.
    pub async fn append(&self, entry: Entry, deadline: Duration) -> Result<(), LedgerError> {
        let frame = encode(&entry)?;
        let tail = Arc::clone(&self.file);
        let write = tokio::task::spawn_blocking(move || lock(&tail).append(&frame));
        match timeout(deadline, write).await {
            Err(_) => Err(LedgerError::Deadline {
                place: format!("the kill journal {}", self.path.display()),
                waited: deadline,
            }),
            Ok(Err(cause)) => Err(LedgerError::Stopped { cause }),
            Ok(Ok(Err(cause))) if cause.kind() == io::ErrorKind::StorageFull => {
                Err(LedgerError::JournalFull { path: self.path.clone(), waiting: lock(&self.waiting).len() })
            }
            Ok(Ok(Err(cause))) => {
                Err(LedgerError::File { path: self.path.clone(), action: "append to the kill journal", cause })
            }
            Ok(Ok(Ok(()))) => {
                lock(&self.waiting).push(entry);
                Ok(())
            }
        }
    }

    /// Forgets the first `count` waiting records, which are in the ledger now, and empties the file once none waits.
    pub async fn imported(&self, count: usize) -> Result<(), LedgerError> {
        let (tail, waiting) = (Arc::clone(&self.file), Arc::clone(&self.waiting));
        let reset = tokio::task::spawn_blocking(move || {
            let mut tail = lock(&tail);
            let empty = {
                let mut waiting = lock(&waiting);
                let count = count.min(waiting.len());
                waiting.drain(..count);
                waiting.is_empty()
            };
            if empty { tail.reset() } else { Ok(()) }
        });
        let reset = reset.await.map_err(|cause| LedgerError::Stopped { cause })?;
        reset.map_err(|cause| LedgerError::File { path: self.path.clone(), action: "empty the kill journal", cause })
    }
}

impl Tail {
    fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        // A length of zero must follow, so the last bytes stay free.
        if self.offset + frame.len() + LENGTH > SIZE {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(frame, self.offset as u64)?;
        self.file.sync_data()?;
        self.offset += frame.len();
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.file.write_all_at(&vec![0; self.offset], 0)?;
        self.file.sync_data()?;
        self.offset = 0;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is changed only after the I/O succeeded; a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(entry: &Entry) -> Result<Vec<u8>, LedgerError> {
    let record = serde_json::to_vec(entry).map_err(|cause| LedgerError::Unencodable { cause })?;
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX); // longer than the journal: refused by append
    let mut frame = Vec::with_capacity(LENGTH + CHECKSUM + record.len());
    frame.extend(length.to_le_bytes());
    frame.extend(checksum(&record));
    frame.extend(record);
    Ok(frame)
}

fn checksum(record: &[u8]) -> impl Iterator<Item = u8> {
    Sha256::digest(record).into_iter().take(CHECKSUM)
}

/// Every readable record, where the next one goes, and how many bytes follow that are not zero.
fn decode(content: &[u8]) -> (Vec<Entry>, usize, usize) {
    let mut entries = Vec::new();
    let mut rest = content;
    while let Some((entry, after)) = frame(rest) {
        entries.push(entry);
        rest = after;
    }
    (entries, content.len() - rest.len(), rest.iter().filter(|byte| **byte != 0).count())
}

fn frame(content: &[u8]) -> Option<(Entry, &[u8])> {
    let (length, rest) = content.split_first_chunk::<LENGTH>()?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    let (record, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    checksum(record).eq(sum.iter().copied()).then(|| serde_json::from_slice(record).ok())?.map(|entry| (entry, rest))
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(SIZE);
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

fn clear(file: &File, offset: usize) -> io::Result<()> {
    file.write_all_at(&vec![0; SIZE.saturating_sub(offset)], offset as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOON: Duration = Duration::from_secs(5);

    fn entry(account: &str) -> Entry {
        Entry::Claim { account: account.to_owned(), product: "P".to_owned() }
    }

    #[tokio::test]
    async fn records_are_there_after_a_crash_and_gone_after_their_import() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, unreadable) = Journal::open(dir.path()).unwrap();
        assert_eq!((journal.waiting(), unreadable), (Vec::new(), 0));
        journal.append(entry("a"), SOON).await.unwrap();
        journal.append(entry("b"), SOON).await.unwrap();
        assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().len(), SIZE as u64, "it is preallocated");

        let (journal, unreadable) = Journal::open(dir.path()).unwrap();
        assert_eq!((journal.waiting(), unreadable), (vec![entry("a"), entry("b")], 0));
        journal.append(entry("c"), SOON).await.unwrap();
        journal.imported(2).await.unwrap();
        assert_eq!(journal.waiting(), vec![entry("c")]);
        journal.imported(1).await.unwrap();
        journal.append(entry("d"), SOON).await.unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().0.waiting(), vec![entry("d")], "nothing old is read again");
    }

    #[tokio::test]
    async fn a_full_journal_says_so_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let big = entry(&"x".repeat(SIZE / 3));
        journal.append(big.clone(), SOON).await.unwrap();
        journal.append(big.clone(), SOON).await.unwrap();
        let error = journal.append(big.clone(), SOON).await.unwrap_err();
        assert!(matches!(error, LedgerError::JournalFull { waiting: 2, .. }), "{error}");
        assert_eq!(Journal::open(dir.path()).unwrap().0.waiting(), vec![big.clone(), big]);
    }

    proptest! {
        /// A crash may leave any part of the last frame; the records before it are read, and it is not.
        #[test]
        fn a_torn_record_hides_nothing_before_it(names in prop::collection::vec("[a-z]{0,40}", 1..6), cut in 0_usize..200) {
            let frames: Vec<_> = names.iter().map(|name| encode(&entry(name)).unwrap()).collect();
            let last = frames.last().unwrap().len();
            let mut content = frames.concat();
            content.truncate(content.len() - cut.clamp(1, last));
            content.resize(content.len() + 300, 0);
            let (read, offset, _) = decode(&content);
            prop_assert_eq!(read.len(), names.len() - 1);
            prop_assert_eq!(offset, frames.iter().map(Vec::len).sum::<usize>() - last);
        }
    }
}
