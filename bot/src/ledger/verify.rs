//! Proof that nobody changed the ledger's file.

use std::collections::BTreeMap;

use super::record::{Entry, IncidentRecord, OrderRecord};
use super::store::{Store, Transaction};
use super::{Ledger, LedgerError, LedgerHead, chain};
use k8s_openapi::jiff::Timestamp;

impl Ledger {
    /// Computes the chain again, and from its entries the tables, and compares both with what is stored.
    ///
    /// # Errors
    /// The first entry that is not what was written, or a table that is not what its entries say.
    pub async fn verify(&self) -> Result<(), LedgerError> {
        // A connection of its own: reading a long ledger must not hold up a write.
        let mut store = Store::connect(&self.inner.path, false).await?;
        let mut tx = store.begin().await?;
        let tampered = |(entry, problem)| LedgerError::Tampered { path: self.inner.path.clone(), entry, problem };
        let mut head = chain::genesis();
        let mut books = Books::default();
        for (n, at, kind, payload, hash) in tx.entries().await? {
            head = chain::append(&head, &at, &kind, &payload);
            if head != (LedgerHead { entries: n, head: hash }) {
                return Err(tampered((
                    n,
                    "its hash does not follow from what it says and the entry before".to_owned(),
                )));
            }
            let entry = Entry::parse(&kind, &payload).map_err(|cause| tampered((n, cause.to_string())))?;
            books.apply(entry)?;
        }
        let differs = books.differs(&mut tx).await?;
        tx.rollback().await?;
        differs.map_or(Ok(()), |problem| Err(tampered((head.entries, problem))))
    }

    /// Whether this ledger continues the one that had this head: same entries up to there, none cut off.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn continues(&self, head: &LedgerHead) -> Result<bool, LedgerError> {
        if head.entries == 0 {
            return Ok(true);
        }
        let mut store = Store::connect(&self.inner.path, false).await?;
        let hash = store.begin().await?.hash(head.entries).await?;
        Ok(hash.as_ref() == Some(&head.head))
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
