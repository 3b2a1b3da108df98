//! Whether the ledger can be relied on while a bot runs: its disk takes what is written, its pages are whole, and its file
//! is the one that was opened.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::place::Source;
use super::reading::reading;
use super::writing::{in_its_time, stands_still};
use super::{Inner, Ledger, LedgerError, LedgerHead, Recovered, file_error};
use crate::clock::Clock;

/// Least free space of the volume: room for what must still become known of the orders that work.
const LEAST_FREE_BYTES: u64 = 1 << 20;

/// What keeps the ledger from being relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerProblem {
    pub kind: ProblemKind,
    /// What is wrong and what to do.
    pub message: String,
    finder: Finder,
    next_step: &'static str,
}

/// Who has found a problem, and so who finds that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finder {
    /// A write, which one that succeeds disproves.
    Write,
    /// A look at file and volume: on a disk that is nearly full a small write may well succeed.
    Check,
}

/// The kinds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
pub enum ProblemKind {
    /// The disk does not take what is written.
    Unwritable,
    /// Its pages cannot be read.
    Damaged,
    /// The file is not there any more, or is another one; the server has lost something, or another process writes there.
    Lost,
}

/// Kept by the ledger itself: every write and every look at the file moves it.
#[derive(Debug)]
pub(super) struct Health {
    /// Device and number of the file that was opened.
    file: Option<(u64, u64)>,
    /// Held as long as somebody waits for the volume's answer, which may hang: one thread at most.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
    /// Epoch of the intent that was fenced off last, unless one was taken since.
    fenced: Mutex<Option<i64>>,
    problem: watch::Sender<Option<LedgerProblem>>,
}

impl Health {
    /// Of a ledger that has just been opened.
    pub fn of(source: &Source) -> Self {
        Self {
            file: identity(source),
            looking: Arc::default(),
            fenced: Mutex::new(None),
            problem: watch::Sender::new(None),
        }
    }

    /// # Errors
    /// The file is not the one that was opened: what is written to that one is lost with it.
    pub async fn same_file(&self, source: &Source, clock: &Clock) -> Result<(), LedgerError> {
        let Source::File(path) = source else { return Ok(()) };
        let path = path.clone();
        let is = if stands_still(clock, source) {
            identity(source)
        } else {
            // A volume that hangs must not hold up the tasks of a kill. A write has the store to itself, so at most one
            // thread waits here for all of them.
            let source = source.clone();
            tokio::task::spawn_blocking(move || identity(&source))
                .await
                .map_err(|cause| LedgerError::Stopped { cause })?
        };
        if is == self.file { Ok(()) } else { Err(LedgerError::Gone { path }) }
    }

    /// Takes in how a write ended, and whether the disk or the server took anything for it. It says nothing of pages
    /// that it did not touch; nor does a refusal, or a write that changed nothing.
    pub fn wrote(&self, result: &Result<bool, LedgerError>) {
        match result {
            Ok(true) => self.cleared(ProblemKind::Unwritable, Finder::Write),
            Err(error @ LedgerError::Fenced { epoch, .. }) => {
                *self.fenced.lock().unwrap_or_else(PoisonError::into_inner) = Some(*epoch);
                self.found(error, Finder::Write);
            }
            Err(error) if error.is_storage() => self.found(error, Finder::Write),
            _ => {}
        }
    }

    /// Epoch of the intent that was fenced off last: whether it still would be is what tells the end of that.
    pub fn fenced(&self) -> Option<i64> {
        *self.fenced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An intent was taken.
    pub fn is_not_fenced(&self) {
        *self.fenced.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// As a look finds that finds too little space.
    #[cfg(test)]
    pub fn too_full(&self) {
        self.found(&file_error(Path::new("/"), "write to", std::io::ErrorKind::StorageFull.into()), Finder::Check);
    }

    fn found(&self, error: &LedgerError, finder: Finder) {
        let kind = match error {
            LedgerError::Corrupt { .. } => ProblemKind::Damaged,
            LedgerError::Gone { .. }
            | LedgerError::TakenOver { .. }
            | LedgerError::EntriesLost { .. }
            | LedgerError::Fenced { .. } => ProblemKind::Lost,
            _ => ProblemKind::Unwritable,
        };
        let next_step = next_step(error);
        let problem = LedgerProblem { kind, message: format!("{error}{next_step}"), finder, next_step };
        self.problem.send_if_modified(|old| {
            // The words move with what was tried; the first ones stay, unless something else is to be done.
            if let Some(old) = old.as_mut().filter(|old| old.kind == kind && old.next_step == next_step) {
                old.finder = old.finder.max(finder);
                return false;
            }
            tracing::error!(reason = error.reason(), %error, "the ledger cannot be relied on");
            *old = Some(problem);
            true
        });
    }

    /// A finder clears what it may have found itself, and a check what any has.
    fn cleared(&self, kind: ProblemKind, finder: Finder) {
        self.problem.send_if_modified(|old| {
            let ends = old.as_ref().is_some_and(|old| old.kind == kind && old.finder <= finder);
            if ends {
                tracing::info!(%kind, "the ledger can be relied on again");
                *old = None;
            }
            ends
        });
    }
}

/// What a person, or the bot itself, does about it, where the error does not say so already.
fn next_step(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Gone { .. } | LedgerError::Corrupt { .. } => {
            "; restart the bot: it keeps what is there under another name and rebuilds its ledger from the exchange's \
             history, or stop it and restore a backup first"
        }
        LedgerError::TakenOver { .. } => {
            "; this one's orders are refused until it is restarted, and then it waits until the other one has ended"
        }
        LedgerError::Unread { .. } => "; the bot begins anew by itself once it can be read",
        LedgerError::EntriesLost { .. } => "; until then every write is refused",
        LedgerError::Fenced { .. } => {
            "; where no other pod of the bot runs, its Lease was restored to an earlier state: docs/ledger.md says how \
             the ledger forgets the later epoch"
        }
        _ => "; the bot goes on by itself once the disk, or the database server, takes what is written",
    }
}

/// A server has none: it is asked with every connection.
fn identity(source: &Source) -> Option<(u64, u64)> {
    let Source::File(path) = source else { return None };
    std::fs::metadata(path).ok().map(|file: Metadata| (file.dev(), file.ino()))
}

impl Ledger {
    /// What keeps it from being relied on, as it changes.
    #[must_use]
    pub fn problems(&self) -> watch::Receiver<Option<LedgerProblem>> {
        self.inner.health.problem.subscribe()
    }

    /// Notes that a write had no answer for so long.
    pub fn does_not_answer(&self, waited: Duration) {
        let place = format!("the ledger {}", self.inner.source);
        self.inner.health.found(&LedgerError::Deadline { place, waited }, Finder::Write);
    }

    /// Looks at file and volume; where the disk or the server did not take something, tries whether it does now.
    pub async fn check(&self) {
        let Inner { health, source, .. } = &*self.inner;
        let is = |kind| health.problem.borrow().as_ref().is_some_and(|problem| problem.kind == kind);
        if let Source::File(path) = source {
            if let Err(error) = self.look(path).await {
                return health.found(&error, Finder::Check);
            }
            health.cleared(ProblemKind::Lost, Finder::Check);
        }
        // It tells itself how it failed.
        if (is(ProblemKind::Unwritable) || is(ProblemKind::Lost)) && matches!(self.try_again().await, Some(Ok(()))) {
            health.is_not_fenced();
            health.cleared(ProblemKind::Unwritable, Finder::Check);
            health.cleared(ProblemKind::Lost, Finder::Check);
        }
    }

    /// Whether the file is there, and room on its volume.
    async fn look(&self, path: &Path) -> Result<(), LedgerError> {
        let Inner { health, source, clock, .. } = &*self.inner;
        if stands_still(clock, source) {
            health.same_file(source, clock).await?;
            return free_space(path);
        }
        let Ok(looking) = Arc::clone(&health.looking).try_lock_owned() else {
            // The look before this one: whoever waited for it has said how long.
            let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(file_error(path, "look at", cause));
        };
        let (file, source, path) = (health.file, source.clone(), path.to_owned());
        let look = tokio::task::spawn_blocking(move || {
            let _looking = looking;
            if identity(&source) != file {
                return Err(LedgerError::Gone { path });
            }
            free_space(&path)
        });
        look.await.map_err(|cause| LedgerError::Stopped { cause })?
    }

    /// Reads every page, on a connection of its own.
    pub async fn check_pages(&self) {
        let Inner { health, source, clock, .. } = &*self.inner;
        if source.is_server() {
            // Its pages are the server's.
            return;
        }
        match in_its_time(clock, source, reading(source, async |tx| tx.check_pages().await)).await {
            Ok(()) => health.cleared(ProblemKind::Damaged, Finder::Check),
            Err(error @ LedgerError::Corrupt { .. }) => health.found(&error, Finder::Check),
            // A full disk, say: that is found by what is written.
            Err(error) => tracing::warn!(reason = error.reason(), %error, "the ledger's pages were not checked"),
        }
    }

    /// Why this is not the ledger that went before, as far as can be told; None: it is.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn discontinued(
        &self,
        anchor: Option<&LedgerHead>,
        recovered: &Recovered,
    ) -> Result<Option<String>, LedgerError> {
        if let Some(why) = &recovered.begun_anew {
            return Ok(Some(why.clone()));
        }
        // One that is unread tells nothing.
        let Some(anchor) = anchor.filter(|_| !self.is_unread()) else { return Ok(None) };
        let continues = in_its_time(&self.inner.clock, &self.inner.source, self.continues(anchor)).await?;
        let LedgerHead { entries, .. } = self.head();
        Ok((!continues).then(|| {
            format!(
                "the ledger has {entries} entries and does not continue the one that status anchored with {}: it was \
                 lost, cut, or replaced by an older backup",
                anchor.entries
            )
        }))
    }
}

/// # Errors
/// Too little of the volume is free.
fn free_space(path: &Path) -> Result<(), LedgerError> {
    let dir = path.parent().unwrap_or(path);
    // What cannot be asked is found by what is written.
    let Ok(volume) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    if free >= LEAST_FREE_BYTES {
        return Ok(());
    }
    let cause = std::io::Error::new(
        std::io::ErrorKind::StorageFull,
        format!("{} KiB are free, and at least {} are needed", free >> 10, LEAST_FREE_BYTES >> 10),
    );
    Err(file_error(dir, "write to", cause))
}
