//! Which orders ended long ago, in a few bytes. A bot runs for months; its memory must not grow with every order.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::ClientOrderId;

/// The orders that are no longer kept one by one.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Sequence numbers by epoch. An epoch's orders follow each other, so there are few ranges.
    ids: BTreeMap<i64, Vec<RangeInclusive<u64>>>,
}

impl Settled {
    /// Takes an order in.
    pub fn take(&mut self, id: ClientOrderId) {
        let ranges = self.ids.entry(id.epoch).or_default();
        let at = ranges.partition_point(|range| *range.end() < id.sequence);
        ranges.insert(at, id.sequence..=id.sequence);
        ranges.dedup_by(|next, before| {
            let follows = *next.start() <= before.end().saturating_add(1);
            if follows {
                *before = *before.start()..=*next.end().max(before.end());
            }
            follows
        });
    }

    /// Whether the order was taken in: what the venue says of it is in the totals.
    #[must_use]
    pub fn contains(&self, id: ClientOrderId) -> bool {
        self.ids.get(&id.epoch).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&id.sequence)))
    }

    #[cfg(test)]
    pub fn ranges(&self) -> usize {
        self.ids.values().map(Vec::len).sum()
    }
}
