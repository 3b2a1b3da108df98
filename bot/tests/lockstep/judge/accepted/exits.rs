//! Which leg an exit may lower, and how far: the rows Trim of SAFETY §2 and Kill of §2 and §3.

use arb_bot::risk::Class;
use exchange_simulator::exchange::book::Side;
use exchange_simulator::exchange::journal::JournalEvent;
use k8s_openapi::jiff::SignedDuration;
use rust_decimal::Decimal;

use super::{Held, Judge, Leg};

/// How late a fill may be known: while replies and frames are lost it is looked for again and again. Until then the bot
/// acts by the position before it.
pub const KNOWN_WITHIN: SignedDuration = SignedDuration::from_secs(20);

impl Judge {
    /// The position of a leg changed.
    pub(super) fn moved(&mut self, event: &JournalEvent, leg: Leg) {
        let before = std::mem::replace(&mut self.positions[leg as usize], event.position);
        let past = &mut self.past[leg as usize];
        past.push_back((event.time, before));
        past.retain(|(until, _)| *until + KNOWN_WITHIN >= event.time);
    }

    /// Positions of a leg that the bot may have known, in its own unit: least and most.
    fn known(&self, event: &JournalEvent, leg: Leg) -> (Decimal, Decimal) {
        let now = self.positions[leg as usize];
        let past = self.past[leg as usize].iter().filter(|(until, _)| *until + KNOWN_WITHIN >= event.time);
        past.fold((now, now), |(least, most), (_, position)| (least.min(*position), most.max(*position)))
    }

    pub(super) fn judge_exit(&mut self, event: &JournalEvent, class: Class, leg: Leg, size: Decimal, legs: [Held; 2]) {
        match (class, leg) {
            (Class::Trim, _) => self.judge_trim(event, legs[leg as usize].unit_base * size, legs),
            (Class::Kill, Leg::Spot) => self.judge_kill_of_spot(event, size, legs),
            _ => {}
        }
    }

    /// A trim lowers the larger leg: it leaves the legs no further apart than they were. Whatever was outstanding counts as
    /// filled or not, as is better for it.
    fn judge_trim(&mut self, event: &JournalEvent, size_base: Decimal, legs: [Held; 2]) {
        let [spot, future] = [Leg::Spot, Leg::Future].map(|leg| {
            let (least, most) = self.known(event, leg);
            let held = legs[leg as usize];
            ((least - held.sells) * held.unit_base, (most + held.buys) * held.unit_base)
        });
        // Spot is positive and the future negative: their sum is by how much spot is the larger leg.
        let ahead_base = match event.side {
            Side::Sell => spot.1 + future.1,
            Side::Buy => -(spot.0 + future.0),
        };
        if size_base > ahead_base * Decimal::TWO {
            let (side, ahead) = (event.side, ahead_base.normalize());
            let message = format!("this {side} of {size_base} lowers a leg that is larger by {ahead}");
            self.wrong(event, "trims the larger leg", message);
        }
    }

    /// A kill closes the future first and spot follows what filled: spot stays the hedge of the contracts that are held, all
    /// the more while the futures session is closed. A sale that works counts as filled.
    fn judge_kill_of_spot(&mut self, event: &JournalEvent, size: Decimal, legs: [Held; 2]) {
        let [spot, future] = legs;
        // Contracts are held short: the most is nearest to none.
        let (_, most) = self.known(event, Leg::Future);
        let hedge_base = -most.min(Decimal::ZERO) * future.unit_base;
        let left_base = spot.position - spot.sells - size;
        if left_base < hedge_base {
            let message = format!("{left_base} of spot would be left as the hedge of {hedge_base}");
            self.wrong(event, "keeps the hedge", message);
        }
    }
}
