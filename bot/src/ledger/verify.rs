//! Proof that nobody changed the ledger.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::guard::GuardTrip;
use super::place::Source;
use super::posting::Posted;
use super::reading::reading;
use super::record::{Binding, Entry, IncidentRecord, OrderRecord};
use super::store::{StoredEntry, Transaction};
use super::{Ledger, LedgerError, LedgerHead, Place, chain};

/// Computes the chain of a ledger again, and from its entries the tables, and compares both with what is stored. A bot
/// may run meanwhile. Returns the head.
///
/// # Errors
/// The first entry that is not what was written, or a table that is not what its entries say.
pub async fn verify(place: impl Into<Place>) -> Result<LedgerHead, LedgerError> {
    verify_source(&place.into().source()?).await
}

pub(super) async fn verify_source(source: &Source) -> Result<LedgerHead, LedgerError> {
    reading(source, async |tx| verify_now(tx).await).await
}

/// As [`verify`], within a transaction.
pub(super) async fn verify_now(tx: &mut Transaction<'_>) -> Result<LedgerHead, LedgerError> {
    let ledger = tx.ledger();
    let tampered = |(entry, problem)| LedgerError::Tampered { ledger: ledger.clone(), entry, problem };
    let mut head = chain::genesis();
    let mut tables = Tables::default();
    loop {
        let entries = tx.entries_after(head.entries).await?;
        if entries.is_empty() {
            break;
        }
        for stored in entries {
            let (next, entry) = follow(&head, stored).map_err(tampered)?;
            head = next;
            tables.apply(entry)?;
        }
    }
    tables.differs(tx).await?.map_or(Ok(()), |problem| Err(tampered((head.entries, problem))))?;
    Ok(head)
}

/// The head after an entry, and what the entry says; else its number and what is wrong with it.
fn follow(head: &LedgerHead, stored: StoredEntry) -> Result<(LedgerHead, Entry), (i64, String)> {
    let (n, at, kind, payload, hash) = stored;
    let head = chain::append(head, &at, &kind, &payload);
    if head != (LedgerHead { entries: n, head: hash }) {
        return Err((n, "its hash does not follow from what it says and the entry before".to_owned()));
    }
    let entry = Entry::parse(&kind, &payload).map_err(|cause| (n, cause.to_string()))?;
    Ok((head, entry))
}

/// What a ledger belongs to; None: nothing yet, it is new. It is all that a start compares with the chain, because
/// nothing else keeps the ledger of one bot, or of one on paper, from being another's.
///
/// # Errors
/// The table does not say what the chain says, or the disk or the server fails.
pub(super) async fn belongs_to(tx: &mut Transaction<'_>) -> Result<Option<Binding>, LedgerError> {
    let ledger = tx.ledger();
    let tampered = |(entry, problem)| LedgerError::Tampered { ledger: ledger.clone(), entry, problem };
    let (bound, last) = (tx.binding().await?, tx.head().await?);
    let Some((before, stored)) = tx.first_of(BOUND).await? else {
        let is_new = bound.is_none() && last.entries == 0;
        return if is_new { Ok(None) } else { Err(tampered((last.entries, differs(BINDING)))) };
    };
    let n = stored.0;
    // What waited in a kill journal comes before it.
    let head = before.map_or_else(chain::genesis, |head| LedgerHead { entries: n - 1, head });
    let (_, entry) = follow(&head, stored).map_err(tampered)?;
    let (Entry::Bound(first), Some(bound)) = (entry, bound) else { return Err(tampered((n, differs(BINDING)))) };
    let changed = first.compare(&bound).into_iter().find(|(_, was, is)| was != is);
    let changed = changed.map(|(field, was, is)| format!("{}: {field} was {was:?} and is {is:?}", differs(BINDING)));
    changed.map_or(Ok(Some(bound)), |problem| Err(tampered((n, problem))))
}

/// Whether a ledger continues the one that had this head: same entries up to there, none cut off.
///
/// # Errors
/// The disk fails.
pub async fn continues(place: impl Into<Place>, head: &LedgerHead) -> Result<bool, LedgerError> {
    has(&place.into().source()?, head).await
}

async fn has(source: &Source, head: &LedgerHead) -> Result<bool, LedgerError> {
    if head.entries == 0 {
        return Ok(true);
    }
    let hash = reading(source, async |tx| tx.hash(head.entries).await).await?;
    Ok(hash.as_ref() == Some(&head.head))
}

impl Ledger {
    /// As [`continues`], for the ledger that is open.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn continues(&self, head: &LedgerHead) -> Result<bool, LedgerError> {
        has(&self.inner.source, head).await
    }
}

/// Kind of the entry that binds a ledger.
const BOUND: &str = "Bound";
/// Its table, for people.
const BINDING: &str = "the binding";

fn differs(what: &str) -> String {
    format!("{what} is not what the entries say")
}

/// What the tables must hold.
#[derive(Default)]
struct Tables {
    binding: Option<Binding>,
    orders: BTreeMap<String, OrderRecord>,
    incidents: BTreeMap<String, (IncidentRecord, Option<Timestamp>)>,
    claim: Option<(String, String)>,
    guard_trips: BTreeMap<String, (GuardTrip, Option<Timestamp>)>,
    posted: Posted,
    funding_rates: BTreeMap<String, Decimal>,
}

impl Tables {
    fn apply(&mut self, entry: Entry) -> Result<(), LedgerError> {
        match entry {
            // A ledger is bound once.
            Entry::Bound(binding) => {
                self.binding.get_or_insert(binding);
            }
            Entry::Adopted { bot_uid } => {
                self.claim = None;
                self.binding = self.binding.take().map(|binding| Binding { bot_uid, ..binding });
            }
            Entry::Intent(order) | Entry::Imported(order) => {
                self.orders.insert(order.client_order_id.clone(), order);
            }
            Entry::Order(update) => {
                if let Some(order) = self.orders.get_mut(&update.client_order_id) {
                    *order = order.updated(&update)?;
                }
            }
            Entry::Incident(incident) => {
                let old = self.incidents.entry(incident.id.to_string()).or_insert_with(|| (incident.clone(), None));
                old.0 = old.0.updated(&incident);
            }
            Entry::Released { id, at } => {
                if let Some(incident) = self.incidents.get_mut(&id.to_string()) {
                    incident.1 = Some(at);
                }
            }
            Entry::Claim { account, product } => self.claim = Some((account, product)),
            Entry::GuardTripped(trip) => {
                self.guard_trips.entry(key(&trip.guard, trip.tripped_at)).or_insert((trip, None));
            }
            Entry::GuardEnded { guard, tripped_at, at } => {
                if let Some(trip) = self.guard_trips.get_mut(&key(&guard, tripped_at)) {
                    trip.1 = trip.1.or(Some(at));
                }
            }
            // It is never in the chain.
            Entry::Equity(_) => {}
            Entry::Postings(postings) => self.posted.take(postings),
            Entry::FundingRate { product, hour, rate } => {
                self.funding_rates.insert(format!("{product} {hour}"), rate);
            }
        }
        Ok(())
    }

    /// The first table that does not hold this.
    async fn differs(&self, tx: &mut Transaction<'_>) -> Result<Option<String>, LedgerError> {
        let orders = tx.orders().await?.into_iter().map(|order| (order.client_order_id.clone(), order)).collect();
        let incidents =
            tx.incidents().await?.into_iter().map(|incident| (incident.0.id.to_string(), incident)).collect();
        let guard_trips = tx.guard_trips().await?.into_iter();
        let guard_trips = guard_trips.map(|trip| (key(&trip.0.guard, trip.0.tripped_at), trip)).collect();
        let posted = Posted::from(tx.books().await?);
        let rates = tx.funding_rates(u32::MAX).await?;
        let rates = rates.into_iter().map(|(product, hour, rate)| (format!("{product} {hour}"), rate)).collect();
        Ok(if self.binding != tx.binding().await? {
            Some(differs(BINDING))
        } else if let Some(id) = difference(&self.orders, &orders) {
            Some(differs(&format!("order {id}")))
        } else if let Some(id) = difference(&self.incidents, &incidents) {
            Some(differs(&format!("incident {id}")))
        } else if let Some(id) = difference(&self.guard_trips, &guard_trips) {
            Some(differs(&format!("the trip of guard {id}")))
        } else if let Some(posting) = self.posted.difference(&posted) {
            Some(differs(&posting))
        } else if let Some(hour) = difference(&self.funding_rates, &rates) {
            Some(differs(&format!("the funding rate of {hour}")))
        } else {
            (self.claim != tx.claim().await?).then(|| differs("the claim"))
        })
    }
}

/// A trip of a guard.
fn key(guard: &str, tripped_at: Timestamp) -> String {
    format!("{guard} at {tripped_at}")
}

/// The first key whose values differ.
fn difference<'a, T: PartialEq>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> Option<&'a str> {
    a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key)).map(String::as_str)
}
