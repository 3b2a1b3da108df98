//! What the exchange's journal proves: when orders were gone and positions flat, and which orders were wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;

use crate::exchange::{JournalEvent, Kind, Side, is_flat, is_future};

/// A portfolio's journal.
pub struct Journal<'a>(pub &'a [JournalEvent]);

impl Journal<'_> {
    fn since(&self, ns: u64) -> impl Iterator<Item = &JournalEvent> {
        self.0.iter().filter(move |event| event.monotonic_ns >= ns)
    }

    fn before(&self, ns: u64) -> impl Iterator<Item = &JournalEvent> {
        self.0.iter().filter(move |event| event.monotonic_ns < ns)
    }

    /// Orders that worked just before `ns`.
    pub fn open_orders(&self, ns: u64) -> u32 {
        self.before(ns).last().map_or(0, |event| event.open_orders)
    }

    /// Signed position of each product just before `ns`.
    pub fn positions(&self, ns: u64) -> BTreeMap<String, Decimal> {
        self.before(ns).map(|event| (event.product_id.clone(), event.position)).collect()
    }

    /// When no order worked any more, first after `ns`; `ns` itself if none did.
    pub fn orders_gone(&self, ns: u64) -> Option<u64> {
        if self.open_orders(ns) == 0 {
            return Some(ns);
        }
        self.since(ns).find(|event| event.open_orders == 0).map(|event| event.monotonic_ns)
    }

    /// When every position was closed, first after `ns`.
    pub fn flat(&self, ns: u64) -> Option<u64> {
        let mut positions = self.positions(ns);
        self.since(ns).find_map(|event| {
            positions.insert(event.product_id.clone(), event.position);
            positions.iter().all(|(product, size)| is_flat(product, *size)).then_some(event.monotonic_ns)
        })
    }

    /// When no order that raises a leg worked any more, first after `ns`; `ns` itself if none did.
    pub fn raising_orders_gone(&self, ns: u64) -> Option<u64> {
        let mut working: HashMap<&str, Decimal> = HashMap::new();
        let mut gone = None;
        for event in self.0 {
            let Some(order) = event.order_id.as_deref() else { continue };
            if event.monotonic_ns >= ns && working.is_empty() {
                gone.get_or_insert(ns);
            }
            match event.kind {
                Kind::OrderAccepted if raises(event) => drop(working.insert(order, event.size)),
                Kind::OrderCancelled | Kind::OrderExpired => drop(working.remove(order)),
                Kind::Fill => {
                    if let Some(left) = working.get_mut(order) {
                        *left -= event.filled;
                    }
                    working.retain(|_, left| *left > Decimal::ZERO);
                }
                _ => {}
            }
            if event.monotonic_ns >= ns && working.is_empty() {
                gone.get_or_insert(event.monotonic_ns);
            }
        }
        gone.or_else(|| working.is_empty().then_some(ns))
    }

    /// Orders accepted from `from` until before `until` that raise a leg or would flip it.
    pub fn raising(&self, from: u64, until: u64) -> Vec<&JournalEvent> {
        let accepted = self.since(from).filter(move |event| event.monotonic_ns < until);
        accepted.filter(|event| event.kind == Kind::OrderAccepted && raises(event)).collect()
    }

    /// Orders accepted from one trader after one of its successor: two traded at once.
    pub fn out_of_turn(&self) -> Vec<&JournalEvent> {
        let mut newest = 0;
        let accepted = self.0.iter().filter(|event| event.kind == Kind::OrderAccepted);
        let late = accepted.filter(|event| {
            let epoch = epoch(event);
            newest = newest.max(epoch);
            epoch < newest
        });
        late.collect()
    }

    /// How many traders, one after the other, have had an order accepted.
    pub fn traders(&self) -> usize {
        let accepted = self.0.iter().filter(|event| event.kind == Kind::OrderAccepted);
        accepted.filter_map(|event| event.client_order_id.split('-').nth(1)).collect::<BTreeSet<_>>().len()
    }

    /// Orders that were accepted.
    pub fn accepted(&self) -> usize {
        self.0.iter().filter(|event| event.kind == Kind::OrderAccepted).count()
    }
}

/// Whether an order raises its leg, or is larger than it. The bots are long spot and short the future.
fn raises(order: &JournalEvent) -> bool {
    let lowers = if is_future(&order.product_id) { Side::Buy } else { Side::Sell };
    order.side != lowers || order.size > order.position.abs()
}

/// Which holder of the Lease sent the order: the second part of `<uid8>-<epoch>-<sequence>-<class>`.
fn epoch(order: &JournalEvent) -> i64 {
    order.client_order_id.split('-').nth(1).and_then(|epoch| epoch.parse().ok()).unwrap_or_default()
}

/// The value below which `percent` of the samples lie (nearest rank); `None` without samples.
pub fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{FUTURE, SPOT};

    fn event(ns: u64, kind: &str, product: &str, side: &str, size: &str, position: &str, open: u32) -> JournalEvent {
        serde_json::from_value(serde_json::json!({
            "seq": ns, "monotonic_ns": ns, "portfolio": "p", "kind": kind, "client_order_id": "", "order_id": format!("{product}{ns}"), "filled": "0", "product_id": product,
            "side": side, "size": size, "price": null, "position": position, "open_orders": open, "reason": "",
        }))
        .unwrap()
    }

    #[test]
    fn a_portfolio_is_flat_when_the_last_leg_is_closed() {
        let events = [
            event(1, "position_changed", SPOT, "BUY", "0.07", "0.07", 2),
            event(2, "position_changed", FUTURE, "SELL", "7", "-7", 2),
            event(11, "order_cancelled", SPOT, "BUY", "0.01", "0.07", 1),
            event(12, "order_cancelled", FUTURE, "SELL", "1", "-7", 0),
            event(13, "position_changed", FUTURE, "BUY", "7", "0", 0),
            event(14, "position_changed", SPOT, "SELL", "0.07", "0.000001", 0),
        ];
        let journal = Journal(&events);
        assert_eq!((journal.orders_gone(10), journal.flat(10)), (Some(12), Some(14)));
        assert_eq!(Journal(&events[..5]).flat(10), None);
    }

    #[test]
    fn an_order_that_raises_or_flips_a_leg_is_found() {
        let order = |ns, product, side, size, position| event(ns, "order_accepted", product, side, size, position, 1);
        let events = [
            order(1, SPOT, "BUY", "0.01", "0.07"),
            order(2, SPOT, "SELL", "0.07", "0.07"),
            order(3, SPOT, "SELL", "0.08", "0.07"),
            order(4, FUTURE, "SELL", "1", "-7"),
            order(5, FUTURE, "BUY", "7", "-7"),
            order(6, FUTURE, "BUY", "8", "-7"),
        ];
        let wrong: Vec<_> = Journal(&events).raising(0, 100).iter().map(|event| event.seq).collect();
        assert_eq!(wrong, [1, 3, 4, 6]);
        assert!(Journal(&events).raising(5, 6).is_empty());
    }

    #[test]
    fn an_order_of_a_replaced_trader_is_found() {
        let order = |ns, epoch: i64| {
            let mut order = event(ns, "order_accepted", SPOT, "BUY", "0.01", "0.07", 1);
            order.client_order_id = format!("0b9d6bcd-{epoch}-{ns}-enter");
            order
        };
        let events = [order(1, 1), order(2, 1), order(3, 2), order(4, 1), order(5, 2)];
        let late: Vec<_> = Journal(&events).out_of_turn().iter().map(|event| event.seq).collect();
        assert_eq!(late, [4]);
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&samples, 50), percentile(&samples, 99)), (Some(50.0), Some(99.0)));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
