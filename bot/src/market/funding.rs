//! Funding of a future, hour by hour, as the venue showed it.
//!
//! The venue shows the rate of the hour that ended last and no history. An hour in which the market was closed has none.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

/// Hours that are looked back on: a week, so that every hour of the week is in it once.
pub const WINDOW_HOURS: u16 = 168;
/// A rate that was followed by none for so long says nothing any more: two intervals. (In the week's closed hour there is
/// none, so that on Fridays it is waited for until the next one is shown, which is then two hours later.)
const STALE_AFTER: Duration = Duration::from_secs(2 * 3600);

/// The rates of the last week's hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FundingHistory {
    /// By the end of the hour. As a fraction of value; longs pay it to shorts while it is positive.
    rates: BTreeMap<Timestamp, Decimal>,
    /// CLOCK_BOOTTIME at which this process first saw the newest hour.
    seen_at: Option<Duration>,
}

/// What the history lets one expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// End of the newest hour.
    pub hour: Timestamp,
    /// Hours that were seen.
    pub samples: usize,
    /// Rate per hour: the lower of the mean of all hours and the mean of the recent ones.
    pub rate: Decimal,
    /// Hours in a row, up to the newest, with a negative rate, and their mean.
    pub negative_hours: usize,
    pub negative_rate: Decimal,
}

impl FundingHistory {
    /// What the ledger remembers.
    #[must_use]
    pub fn recovered(rates: impl IntoIterator<Item = (Timestamp, Decimal)>) -> Self {
        let mut history = Self { rates: rates.into_iter().collect(), seen_at: None };
        history.forget();
        history
    }

    /// Takes in what the venue shows at `boot`; returns whether the hour is a new one. The first rate of an hour stays.
    pub fn observe(&mut self, hour: Timestamp, rate: Decimal, boot: Duration) -> bool {
        let newest = self.rates.last_key_value().map(|(newest, _)| *newest);
        if self.seen_at.is_none() || newest.is_none_or(|newest| hour > newest) {
            self.seen_at = Some(boot);
        }
        let is_new = !self.rates.contains_key(&hour);
        self.rates.entry(hour).or_insert(rate);
        self.forget();
        is_new
    }

    fn forget(&mut self) {
        let Some((newest, _)) = self.rates.last_key_value() else { return };
        if let Ok(oldest) = newest.checked_sub(SignedDuration::from_hours(WINDOW_HOURS.into())) {
            self.rates.retain(|hour, _| *hour > oldest);
        }
    }

    /// Whether no rate has followed the newest one for too long, by either clock: since this process saw it, or since
    /// its hour ended. The first does not depend on the machine's clock, the second not on when the process began.
    #[must_use]
    pub fn is_stale(&self, boot: Duration, wall: Timestamp) -> bool {
        let ended = self.rates.last_key_value().map(|(hour, _)| wall.duration_since(*hour));
        self.seen_at.is_none_or(|seen| boot.saturating_sub(seen) > STALE_AFTER)
            || ended.is_none_or(|since| Duration::try_from(since).is_ok_and(|since| since > STALE_AFTER))
    }

    /// What is to be expected, with the last `recent` hours looked at by themselves; None without any rate.
    #[must_use]
    pub fn outlook(&self, recent: usize) -> Option<Outlook> {
        let (hour, _) = self.rates.last_key_value()?;
        let since = SignedDuration::from_hours(i64::try_from(recent).unwrap_or(i64::MAX).min(WINDOW_HOURS.into()));
        let since = hour.checked_sub(since).unwrap_or(Timestamp::MIN);
        let lately = self.rates.iter().rev().take_while(|(at, _)| **at > since).map(|(_, rate)| *rate);
        let negative: Vec<_> = self.rates.values().rev().copied().take_while(|rate| *rate < Decimal::ZERO).collect();
        Some(Outlook {
            hour: *hour,
            samples: self.rates.len(),
            rate: mean(self.rates.values().copied())?.min(mean(lately)?),
            negative_hours: negative.len(),
            negative_rate: mean(negative.into_iter()).unwrap_or_default(),
        })
    }
}

fn mean(rates: impl Iterator<Item = Decimal>) -> Option<Decimal> {
    let (sum, count) = rates.fold((Decimal::ZERO, 0u32), |(sum, count), rate| (sum + rate, count + 1));
    sum.checked_div(Decimal::from(count))
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    fn hour(n: i64) -> Timestamp {
        Timestamp::from_second(n * 3600).unwrap()
    }

    #[test]
    fn an_hour_counts_once_however_often_it_is_shown() {
        let mut history = FundingHistory::default();
        assert!(history.observe(hour(1), dec!(0.00002), Duration::ZERO));
        assert!(!history.observe(hour(1), dec!(0.9), Duration::ZERO));
        assert!(history.observe(hour(3), dec!(0.00004), Duration::ZERO), "the hour between was closed");
        let outlook = history.outlook(12).unwrap();
        assert_eq!((outlook.samples, outlook.rate), (2, dec!(0.00003)));
    }

    #[test]
    fn the_lower_of_the_week_and_of_late_is_expected() {
        let rates = |late: Decimal| {
            let rate = |n| if n > 90 { late } else { dec!(0.00001) };
            FundingHistory::recovered((1..=100).map(|n| (hour(n), rate(n)))).outlook(10).unwrap().rate
        };
        assert_eq!(rates(dec!(-0.00001)), dec!(-0.00001));
        assert_eq!(rates(dec!(0.00021)), dec!(0.00003));
    }

    #[test]
    fn what_is_older_than_a_week_is_forgotten() {
        let history = FundingHistory::recovered((1..=200).map(|n| (hour(n), dec!(0.00001))));
        assert_eq!(history.outlook(12).unwrap().samples, usize::from(WINDOW_HOURS));
    }

    #[test]
    fn only_hours_in_a_row_count_as_negative_for_long() {
        let rates = [dec!(-1), dec!(-1), dec!(1), dec!(-2), dec!(-4)];
        let history = FundingHistory::recovered((1..).map(hour).zip(rates));
        let outlook = history.outlook(12).unwrap();
        assert_eq!((outlook.negative_hours, outlook.negative_rate), (2, dec!(-3)));
    }

    /// Invariant 10, funding older than two intervals. Proven by mutation: `is_stale` always false.
    #[test]
    fn a_rate_that_none_follows_grows_stale_and_one_from_before_a_restart_is_not_fresh_by_itself() {
        let at = |n: u64| (Duration::from_secs(n), Timestamp::from_second(3600 + n.cast_signed()).unwrap());
        let stale = |history: &FundingHistory, (boot, wall): (Duration, Timestamp)| history.is_stale(boot, wall);
        let mut history = FundingHistory::recovered([(hour(1), dec!(1))]);
        assert!(stale(&history, at(0)), "this process has not seen it");
        history.observe(hour(1), dec!(1), Duration::from_secs(60));
        assert!(!stale(&history, at(2 * 3600)));
        history.observe(hour(1), dec!(1), Duration::from_secs(2 * 3600));
        assert!(stale(&history, at(2 * 3600 + 1)), "its hour ended two hours ago");
        // By the other clock, too: that of the machine may be wrong.
        let at_boot = |n: u64| (Duration::from_secs(n), at(60).1);
        assert!(!stale(&history, at_boot(60 + 2 * 3600)));
        assert!(stale(&history, at_boot(60 + 2 * 3600 + 1)));
        // A process that begins anew every hour does not make an old rate fresh.
        let mut again = FundingHistory::recovered([(hour(1), dec!(1))]);
        again.observe(hour(1), dec!(1), Duration::from_secs(3 * 3600));
        assert!(stale(&again, at(3 * 3600)));
    }
}
