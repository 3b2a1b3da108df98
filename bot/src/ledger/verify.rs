//! Proof that nobody changed the ledger's file.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use super::reading::reading;
use super::record::{Entry, IncidentRecord, OrderRecord};
use super::store::Transaction;
use super::{FILE, Ledger, LedgerError, LedgerHead, chain};

/// Computes the chain of the ledger in a directory again, and from its entries the tables, and compares both with what is
/// stored. A bot may run meanwhile. Returns the head.
///
/// # Errors
/// The first entry that is not what was written, or a table that is not what its entries say.
pub async fn verify(dir: &Path) -> Result<LedgerHead, LedgerError> {
    verify_file(&dir.join(FILE)).await
}

/// As [`verify`], for a file: a backup has another name.
///
/// # Errors
/// As [`verify`].
pub async fn verify_file(path: &Path) -> Result<LedgerHead, LedgerError> {
    reading(path, async |tx| {
        let tampered = |(entry, problem)| LedgerError::Tampered { path: path.to_owned(), entry, problem };
        let mut head = chain::genesis();
        let mut books = Books::default();
        loop {
            let entries = tx.entries_after(head.entries).await?;
            if entries.is_empty() {
                break;
            }
            for (n, at, kind, payload, hash) in entries {
                head = chain::append(&head, &at, &kind, &payload);
                if head != (LedgerHead { entries: n, head: hash }) {
                    let problem = "its hash does not follow from what it says and the entry before";
                    return Err(tampered((n, problem.to_owned())));
                }
                let entry = Entry::parse(&kind, &payload).map_err(|cause| tampered((n, cause.to_string())))?;
                books.apply(entry)?;
            }
        }
        books.differs(tx).await?.map_or(Ok(()), |problem| Err(tampered((head.entries, problem))))?;
        Ok(head)
    })
    .await
}

/// Whether the ledger in a directory continues the one that had this head: same entries up to there, none cut off.
///
/// # Errors
/// The disk fails.
pub async fn continues(dir: &Path, head: &LedgerHead) -> Result<bool, LedgerError> {
    if head.entries == 0 {
        return Ok(true);
    }
    let hash = reading(&dir.join(FILE), async |tx| tx.hash(head.entries).await).await?;
    Ok(hash.as_ref() == Some(&head.head))
}

impl Ledger {
    /// As [`continues`], for the ledger that is open.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn continues(&self, head: &LedgerHead) -> Result<bool, LedgerError> {
        continues(self.inner.path.parent().unwrap_or(Path::new(".")), head).await
    }
}

/// What the tables must hold.
#[derive(Default)]
struct Books {
    orders: BTreeMap<String, OrderRecord>,
    incidents: BTreeMap<String, (IncidentRecord, Option<Timestamp>)>,
    claim: Option<(String, String)>,
}

impl Books {
    fn apply(&mut self, entry: Entry) -> Result<(), LedgerError> {
        match entry {
            Entry::Bound(_) => {}
            Entry::Adopted { .. } => self.claim = None,
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
        }
        Ok(())
    }

    /// The first table that does not hold this.
    async fn differs(&self, tx: &mut Transaction<'_>) -> Result<Option<String>, LedgerError> {
        let orders = tx.orders().await?.into_iter().map(|order| (order.client_order_id.clone(), order)).collect();
        let incidents =
            tx.incidents().await?.into_iter().map(|incident| (incident.0.id.to_string(), incident)).collect();
        let differs = |what: &str| format!("{what} is not what the entries say");
        Ok(if let Some(id) = difference(&self.orders, &orders) {
            Some(differs(&format!("order {id}")))
        } else if let Some(id) = difference(&self.incidents, &incidents) {
            Some(differs(&format!("incident {id}")))
        } else {
            (self.claim != tx.claim().await?).then(|| differs("the claim"))
        })
    }
}

/// The first key whose values differ.
fn difference<'a, T: PartialEq>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> Option<&'a str> {
    a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key)).map(String::as_str)
}
