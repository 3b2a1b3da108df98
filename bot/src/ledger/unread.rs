//! A ledger that cannot be read when its bot starts, because its server is away. The bot starts all the same: a kill is
//! obeyed, and goes to the kill journal. Nothing else is written, so nothing is opened, until the bot begins anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::Timestamp;

use super::health::Health;
use super::incident::flattening;
use super::opening::Files;
use super::place::Place;
use super::record::Entry;
use super::writing::in_its_time;
use super::{Binding, Inner, Ledger, LedgerError, LedgerHead, Recovered};
use crate::clock::Clock;

/// Of a ledger whose records were not read.
#[derive(Debug)]
pub(super) struct Unread {
    /// Why not.
    problem: String,
    /// What it must belong to.
    binding: Binding,
}

impl Ledger {
    /// The ledger of a directory without its records. Its head is the one that status anchored: what is shown must not
    /// fall behind.
    ///
    /// # Errors
    /// Another process has the directory, or its disk fails: not even the kill journal can be used.
    pub fn unread(
        dir: &Path,
        binding: &Binding,
        anchor: Option<&LedgerHead>,
        clock: Clock,
        why: &LedgerError,
    ) -> Result<(Self, Recovered), LedgerError> {
        let source = Place::from(dir).source()?;
        let Files { lock, journal, note } = Files::open(dir, &source)?;
        let recovered = Recovered { note, ..journaled(journal.waiting(), clock.now()) };
        let health = Health::of(&source);
        let head = Mutex::new(anchor.cloned().unwrap_or_default());
        let store = tokio::sync::Mutex::new(None);
        let unread = Some(Unread { problem: why.to_string(), binding: binding.clone() });
        let inner = Inner { source, clock, store, head, journal, health, unread, _lock: lock };
        inner.health.wrote(&inner.is_read().map(|()| false));
        Ok((Self { inner: Arc::new(inner) }, recovered))
    }

    /// Whether its records are unread: the bot is to begin anew once they [can be](Self::can_be_read).
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.inner.unread.is_some()
    }

    /// Reads everything, as the next start will: what passes here passes there.
    ///
    /// # Errors
    /// The server is still away, another process still has the ledger, or it is not this bot's.
    pub async fn can_be_read(&self) -> Result<(), LedgerError> {
        let Inner { source, clock, journal, unread, .. } = &*self.inner;
        let Some(Unread { binding, .. }) = unread else { return Ok(()) };
        match in_its_time(clock, source, Self::load(source, binding, clock, journal)).await {
            Ok((store, ..)) => {
                store.close().await;
                Ok(())
            }
            // The next start sets it aside.
            Err(LedgerError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    /// # Errors
    /// The ledger's records are unread.
    pub(super) fn is_read(&self) -> Result<(), LedgerError> {
        let Some(Unread { problem, .. }) = &self.unread else { return Ok(()) };
        Err(LedgerError::Unread { ledger: self.source.to_string(), problem: problem.clone() })
    }
}

/// What the kill journal of an earlier process remembers.
fn journaled(waiting: Vec<Entry>, now: Timestamp) -> Recovered {
    let entries: Vec<_> = waiting.iter().map(|entry| (now, entry.clone())).collect();
    let mut recovered = Recovered { flattening: flattening(&entries), ..Recovered::default() };
    let mut incidents = BTreeMap::new();
    for entry in waiting {
        match entry {
            Entry::Intent(order) => recovered.orders.push(order),
            Entry::Incident(incident) => drop(incidents.insert(incident.id.clone(), incident)),
            _ => {}
        }
    }
    recovered.incidents = incidents.into_values().collect();
    recovered
}
