//! The equity of a rolling day: highs of five minutes each, kept in the ledger so that a restart forgets no loss. Pure.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use crate::ledger::EquityHigh;

/// Length of a bucket.
const BUCKET_SECONDS: i64 = 300;
/// Readings in a row that must have reached an equity before it is a high: one bad price must not be a peak for a day.
const CONFIRMED: usize = 3;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Highest equity of each bucket of the last day, the equity now, and from where on it counts for whom.
#[derive(Clone, Debug, Default)]
pub struct Equity {
    highs: BTreeMap<Timestamp, Decimal>,
    now: Option<(Timestamp, Decimal)>,
    /// The last [`CONFIRMED`] readings.
    latest: VecDeque<Decimal>,
    /// When a person released the trip of a guard of a loss: for that guard what was lost before counts no more.
    accepted: BTreeMap<String, Timestamp>,
    /// What the ledger does not have yet.
    unsaved: BTreeMap<Timestamp, Decimal>,
}

impl Equity {
    /// What the ledger has kept: the highs, and when which guard of a loss was released.
    #[must_use]
    pub fn recovered(highs: &[EquityHigh], accepted: BTreeMap<String, Timestamp>) -> Self {
        Self { highs: highs.iter().map(|high| (high.at, high.equity_quote)).collect(), accepted, ..Self::default() }
    }

    /// Takes in the equity of this instant; None: it cannot be told.
    pub fn note(&mut self, at: Timestamp, equity: Option<Decimal>) {
        self.now = equity.map(|equity| (at, equity));
        let Some(equity) = equity else { return };
        self.latest.push_back(equity);
        if self.latest.len() > CONFIRMED {
            self.latest.pop_front();
        }
        // A bucket counts as long as any of it is inside the window.
        let oldest = at.saturating_sub(DAY).map_or(Timestamp::MIN, bucket_of);
        self.highs.retain(|at, _| *at >= oldest);
        self.accepted.retain(|_, at| *at >= oldest);
        let lowest = self.latest.iter().min().copied().filter(|_| self.latest.len() == CONFIRMED);
        let Some(confirmed) = lowest else { return };
        // What a release has split is two buckets.
        let split = self.accepted.values().filter(|accepted| **accepted <= at).max().copied();
        let bucket = split.map_or(bucket_of(at), |split| split.max(bucket_of(at)));
        let high = self.highs.entry(bucket).or_insert(confirmed);
        if confirmed >= *high {
            *high = confirmed;
            self.unsaved.insert(bucket, confirmed);
        }
    }

    /// Fall from the peak of the last 24 hours. None: the equity of now cannot be told.
    #[must_use]
    pub fn daily_loss_quote(&self) -> Option<Decimal> {
        self.loss_since(DAY, None)
    }

    /// Fall from the peak of the last hour. None: the equity of now cannot be told.
    #[must_use]
    pub fn hourly_loss_quote(&self) -> Option<Decimal> {
        self.loss_since(HOUR, None)
    }

    /// The guards of which a loss was accepted in the last day, with their own fall of the last 24 hours and of the last hour.
    pub fn of_guards(&self) -> impl Iterator<Item = (&str, Option<Decimal>, Option<Decimal>)> {
        let losses = |at: &Timestamp| (self.loss_since(DAY, Some(*at)), self.loss_since(HOUR, Some(*at)));
        self.accepted.iter().map(move |(guard, at)| {
            let (day, hour) = losses(at);
            (guard.as_str(), day, hour)
        })
    }

    fn loss_since(&self, window: SignedDuration, accepted: Option<Timestamp>) -> Option<Decimal> {
        let (at, now) = self.now?;
        let oldest = at.saturating_sub(window).map_or(Timestamp::MIN, bucket_of);
        let oldest = accepted.map_or(oldest, |accepted| accepted.max(oldest));
        let peak = self.highs.range(oldest..).map(|(_, high)| *high).max()?;
        Some((peak - now).max(Decimal::ZERO))
    }

    /// A person has accepted what a guard says was lost: for that guard the equity counts from here, for every other as before.
    pub fn accept(&mut self, guard: &str, at: Timestamp) {
        self.accepted.insert(guard.to_owned(), at);
    }

    /// The highs that the ledger does not have yet.
    pub fn take_unsaved(&mut self) -> Vec<EquityHigh> {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.into_iter().map(|(at, equity_quote)| EquityHigh { at, equity_quote }).collect()
    }
}

/// The bucket that an instant is in, by its beginning.
fn bucket_of(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(BUCKET_SECONDS) * BUCKET_SECONDS).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::dec;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// Three readings in a row.
    fn hold(equity: &mut Equity, second: i64, value: Decimal) {
        for n in 0..3 {
            equity.note(at(second + n), Some(value));
        }
    }

    #[test]
    fn midnight_and_a_restart_forget_no_loss_and_a_day_does() {
        let mut equity = Equity::default();
        hold(&mut equity, 0, dec!(100));
        equity.note(at(3600), Some(dec!(40)));
        assert_eq!(equity.daily_loss_quote(), Some(dec!(60)));
        assert_eq!(equity.hourly_loss_quote(), Some(dec!(60)), "the bucket of an hour ago counts to its end");
        let mut again = Equity::recovered(&equity.take_unsaved(), BTreeMap::new());
        assert_eq!(again.daily_loss_quote(), None, "nobody knows the equity of now");
        hold(&mut again, 20 * 3600, dec!(50));
        assert_eq!((again.daily_loss_quote(), again.hourly_loss_quote()), (Some(dec!(50)), Some(dec!(0))));
        hold(&mut again, 24 * 3600 + 400, dec!(50));
        assert_eq!(again.daily_loss_quote(), Some(dec!(0)), "the peak is older than a day");
    }

    /// Fails when each reading may be the peak (mutation: `CONFIRMED` = 1).
    #[test]
    fn a_price_that_is_wrong_for_two_seconds_is_no_peak() {
        let mut equity = Equity::default();
        hold(&mut equity, 0, dec!(100));
        for (second, value) in [(3, dec!(900)), (4, dec!(900)), (5, dec!(99))] {
            equity.note(at(second), Some(value));
        }
        assert_eq!(equity.daily_loss_quote(), Some(dec!(1)));
        hold(&mut equity, 6, dec!(200));
        equity.note(at(9), Some(dec!(150)));
        assert_eq!(equity.daily_loss_quote(), Some(dec!(50)), "what lasts is one");
    }

    /// Fails when a release clears the highs of all (mutation: `self.highs.clear()` in accept), and when a restart forgets
    /// which guard was released (mutation: `recovered` drops `accepted`).
    #[test]
    fn what_a_person_has_accepted_counts_no_more_for_that_guard_and_still_for_every_other() {
        let mut equity = Equity::default();
        hold(&mut equity, 0, dec!(100));
        hold(&mut equity, 3, dec!(40));
        equity.accept("mild", at(6));
        let of_mild = |equity: &Equity| equity.of_guards().map(|(_, day, hour)| (day, hour)).collect::<Vec<_>>();
        assert_eq!(of_mild(&equity), [(None, None)], "nothing was seen since");
        hold(&mut equity, 7, dec!(40));
        equity.note(at(10), Some(dec!(30)));
        assert_eq!(of_mild(&equity), [(Some(dec!(10)), Some(dec!(10)))]);
        assert_eq!((equity.daily_loss_quote(), equity.hourly_loss_quote()), (Some(dec!(70)), Some(dec!(70))));
        // Another process, in the same five minutes.
        let mut again = Equity::recovered(&equity.take_unsaved(), [("mild".to_owned(), at(6))].into());
        again.note(at(20), Some(dec!(25)));
        assert_eq!(of_mild(&again), [(Some(dec!(15)), Some(dec!(15)))]);
        assert_eq!(again.daily_loss_quote(), Some(dec!(75)));
        again.note(at(86_400 + 400), Some(dec!(25)));
        assert_eq!(of_mild(&again), [], "the window is over");
    }

    proptest! {
        /// Fails when the peak is taken of the calendar day instead of the last 24 h (mutation: `oldest` = the last midnight).
        #[test]
        fn the_daily_loss_is_never_less_than_the_fall_from_any_equity_that_lasted_in_the_last_day(
            steps in prop::collection::vec((1i64..7200, -500i64..500), 1..60),
        ) {
            let (mut equity, mut seen, mut now) = (Equity::default(), Vec::new(), 0);
            for (pause, value) in steps {
                now += pause;
                let value = Decimal::from(value);
                equity.note(at(now), Some(value));
                seen.push((now, value));
                // What three readings in a row reached, the last of them within the day.
                let lasted = seen.windows(3).filter(|three| three[2].0 >= now - 86_400);
                let peak = lasted.filter_map(|three| three.iter().map(|(_, value)| *value).min()).max();
                prop_assert_eq!(peak.is_some(), equity.daily_loss_quote().is_some());
                if let Some(peak) = peak {
                    prop_assert!(equity.daily_loss_quote().unwrap() >= peak - value);
                }
                prop_assert!(equity.highs.len() <= 290);
            }
        }
    }
}
