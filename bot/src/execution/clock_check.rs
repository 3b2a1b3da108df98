//! The machine's clock against the exchange's: while they differ by much nothing raises a leg.
//!
//! What is decided does not go by a clock that has stepped ([`Clock::now`]); what a person and other programs make of the
//! records does, and one of the two clocks is wrong.

use std::time::Duration;

use arbbot_crds::control::{Entry, Restriction};
use k8s_openapi::jiff::SignedDuration;

use crate::clock::{BELIEVED, Clock};
use crate::risk::{Gate, Slot};

/// How often the clocks are compared. No call is needed for it: the exchange's time goes on by CLOCK_BOOTTIME.
const EVERY: Duration = Duration::from_secs(1);
/// Source of the restriction.
pub const SOURCE: &str = "clock";

/// When they are compared next.
#[derive(Debug, Default)]
pub struct ClockCheck {
    next: Duration,
}

impl ClockCheck {
    /// Compares them, if a second has passed. `ahead`: how far the machine's clock is ahead of the exchange's; None
    /// without a session.
    pub fn turn(&mut self, clock: &Clock, gate: &Gate, ahead: impl FnOnce() -> Option<SignedDuration>, boot: Duration) {
        if boot < self.next {
            return;
        }
        self.next = boot + EVERY;
        let ahead = ahead();
        if ahead.is_some_and(|ahead| ahead.abs() <= BELIEVED) {
            clock.believe_the_machine();
        }
        // Without a session the time that has passed is what there is to compare with.
        let off = ahead.unwrap_or_else(|| clock.unbelieved());
        let restriction = (off.abs() > BELIEVED).then(|| Restriction::entry(SOURCE, Entry::ReduceOnly, said(off)));
        gate.set(Slot::Clock, restriction.into_iter().collect());
    }
}

fn said(off: SignedDuration) -> String {
    // In whole minutes: the figure moves by milliseconds.
    let seconds = (off.abs().as_secs() + 5) / 10 * 10;
    let direction = if off.is_negative() { "behind" } else { "ahead of" };
    format!(
        "the machine's clock is {} min {} s {direction} the exchange's: set it right (NTP), and entry opens by itself",
        seconds / 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_closes_entry_within_a_second_and_its_end_opens_it() {
        let (clock, gate, mut check) = (Clock::manual(), Gate::new(Clock::manual()), ClockCheck::default());
        let closed = |gate: &Gate| gate.restrictions().into_iter().find(|of| of.source == SOURCE).map(|of| of.why);
        let venue = clock.clone();
        for minutes in [60, -60] {
            clock.step(SignedDuration::from_mins(minutes));
            clock.advance(EVERY);
            // With a session and without one.
            for ahead in [Some(SignedDuration::from_mins(minutes)), None] {
                check.next = Duration::ZERO;
                check.turn(&clock, &gate, || ahead, venue.boottime());
                let why = closed(&gate).unwrap();
                let way = if minutes > 0 { "ahead of" } else { "behind" };
                assert!(why.starts_with(&format!("the machine's clock is 60 min 0 s {way}")), "{why}");
            }
            clock.step(SignedDuration::from_mins(-minutes));
            clock.advance(EVERY);
            check.turn(&clock, &gate, || Some(SignedDuration::ZERO), venue.boottime());
            assert_eq!(closed(&gate), None);
        }
    }
}
