//! What the ledger says of one incident, for the review after it. Reads beside a running bot.

use std::collections::{BTreeMap, HashMap};

use arbbot_crds::incident::IncidentId;
use arbbot_crds::status::IncidentPhase;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::history::{described, described_update};
use super::reading::reading;
use super::record::Entry;
use super::{IncidentRecord, LedgerError, OrderRecord, Place};

/// Something that happened in an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: Timestamp,
    pub event: &'static str,
    pub detail: String,
}

/// An incident from the closing of the gate to its release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentStory {
    pub incident: IncidentRecord,
    /// When the exchange had confirmed everything twice.
    pub finished_at: Option<Timestamp>,
    pub released_at: Option<Timestamp>,
    /// Orders that were sent in it, oldest first, as they stood at its end.
    pub orders: Vec<OrderRecord>,
    /// Oldest first.
    pub timeline: Vec<Moment>,
}

impl IncidentStory {
    /// Time from the closing of the gate to this moment.
    #[must_use]
    pub fn after(&self, at: Timestamp) -> SignedDuration {
        at.duration_since(self.incident.engaged_at)
    }
}

/// The story of an incident. None: the ledger does not know it.
///
/// # Errors
/// There is no ledger, or it cannot be read.
pub async fn incident(place: impl Into<Place>, id: &IncidentId) -> Result<Option<IncidentStory>, LedgerError> {
    let source = place.into().source()?;
    let stored = reading(&source, async |tx| tx.entries().await).await?;
    let mut entries = Vec::with_capacity(stored.len());
    for (n, at, kind, payload, _) in stored {
        let tampered = |problem: String| LedgerError::Tampered { ledger: source.to_string(), entry: n, problem };
        let at: Timestamp = at.parse().map_err(|cause| tampered(format!("its time: {cause}")))?;
        entries.push((at, Entry::parse(&kind, &payload).map_err(|cause| tampered(cause.to_string()))?));
    }
    Ok(story(id, &entries))
}

/// Since when each incident that is closing the position does so: it was engaged to flatten, or its action rose to it, or
/// a late fill has opened its finished kill again. The deadline of a kill counts from there, across restarts.
pub(super) fn flattening(entries: &[(Timestamp, Entry)]) -> BTreeMap<IncidentId, Timestamp> {
    let mut incidents: BTreeMap<&IncidentId, IncidentRecord> = BTreeMap::new();
    let mut since = BTreeMap::new();
    for (at, entry) in entries {
        let Entry::Incident(new) = entry else { continue };
        let old = incidents.get(&new.id);
        // The journal's entry may be imported long after the gate has closed. What status remembered says when it was
        // engaged, not when its action rose.
        let is_fresh = old.is_none() && new.orders_cancelled_at.is_none();
        let begins = if is_fresh { new.engaged_at } else { *at };
        let record = old.map_or_else(|| new.clone(), |old| old.updated(new));
        if record.is_flattening() {
            since.entry(new.id.clone()).or_insert(begins);
        } else {
            since.remove(&new.id);
        }
        incidents.insert(&new.id, record);
    }
    since
}

/// How long after its end what is written still belongs to an incident: answers that came last.
const LAST_ANSWERS: SignedDuration = SignedDuration::from_secs(5);

fn story(id: &IncidentId, entries: &[(Timestamp, Entry)]) -> Option<IncidentStory> {
    let mut incident: Option<IncidentRecord> = None;
    let (mut released_at, mut finished_at, mut release_written_at) = (None, None, None);
    for (at, entry) in entries {
        match entry {
            Entry::Incident(new) if new.id == *id => {
                // Words about it that come later prove nothing anew.
                finished_at = (new.phase == IncidentPhase::Finished).then(|| finished_at.unwrap_or(*at));
                incident = Some(incident.map_or_else(|| new.clone(), |old| old.updated(new)));
            }
            Entry::Released { id: released, at: freed_at } if released == id => {
                (released_at, release_written_at) = (Some(*freed_at), Some(*at));
            }
            _ => {}
        }
    }
    let incident = incident?;
    // After the release the bot trades again.
    let end = release_written_at.or(finished_at.and_then(|at| at.checked_add(LAST_ANSWERS).ok()));
    let is_inside = |at: Timestamp| at >= incident.engaged_at && end.is_none_or(|end| at <= end);
    let mut orders: HashMap<&str, OrderRecord> = HashMap::new();
    let mut timeline = Vec::new();
    let mut phase = None;
    for (at, entry) in entries.iter().filter(|(at, _)| is_inside(*at)) {
        let (event, detail) = match entry {
            Entry::Incident(new) if new.id == *id => {
                // The times of orders and position are known only now: each new word of it is a moment.
                let before = phase.replace(new.phase);
                match before {
                    None => ("gate closed", format!("{}: {}", new.source, new.reason)),
                    Some(before) if before == new.phase => continue,
                    Some(_) => ("phase", new.phase.to_string()),
                }
            }
            Entry::Released { id: released, .. } if released == id => ("released", String::new()),
            Entry::Intent(order) => {
                orders.insert(&order.client_order_id, order.clone());
                ("order sent", format!("{}: {}", order.client_order_id, described(order)))
            }
            Entry::Order(update) => {
                if let Some(order) = orders.get_mut(update.client_order_id.as_str())
                    && let Ok(updated) = order.updated(update)
                {
                    *order = updated;
                }
                ("order", format!("{}: {}", update.client_order_id, described_update(update)))
            }
            _ => continue,
        };
        timeline.push(Moment { at: *at, event, detail });
    }
    let mut orders: Vec<_> = orders.into_values().collect();
    orders.sort_by(|a, b| (a.created_at, &a.client_order_id).cmp(&(b.created_at, &b.client_order_id)));
    Some(IncidentStory { incident, finished_at, released_at, orders, timeline })
}
