//! The basis: how much dearer the future is than spot.

use std::time::Duration;

use rust_decimal::Decimal;

use crate::exchange::Touch;

/// Time over which the mean forgets what was: that between two funding samples, several times over.
const MEMORY: Duration = Duration::from_secs(600);
/// Prices count once in this time: a step must be larger than the rounding, however many prices come.
const EVERY: Duration = Duration::from_secs(1);
/// Decimals that are kept, so that a mean of means does not grow digits.
const DECIMALS: u32 = 18;

/// (future mid − spot mid) / spot mid, smoothed over ten minutes: a fraction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Basis {
    mean: Option<(Decimal, Duration)>,
}

impl Basis {
    /// Takes in the prices of one instant, on CLOCK_BOOTTIME, and returns the mean.
    pub fn observe(&mut self, spot: Touch, future: Touch, boot: Duration) -> Decimal {
        if let Some((mean, at)) = self.mean
            && boot < at + EVERY
        {
            return mean;
        }
        let mid = spot.mid();
        let now = (future.mid() - mid).checked_div(mid).unwrap_or_default();
        let mean = match self.mean {
            None => now,
            Some((mean, at)) => {
                let passed = boot.saturating_sub(at).min(MEMORY).as_millis();
                let weight = Decimal::from(u64::try_from(passed).unwrap_or_default());
                mean + (now - mean) * weight / Decimal::from(u64::try_from(MEMORY.as_millis()).unwrap_or(1))
            }
        };
        let mean = mean.round_dp(DECIMALS);
        self.mean = Some((mean, boot));
        mean
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    fn at(price: Decimal) -> Touch {
        Touch { best_bid: price, best_ask: price }
    }

    #[test]
    fn the_first_price_counts_whole_and_a_later_one_by_the_time_that_has_passed() {
        let mut basis = Basis::default();
        let mut observe = |future, seconds| basis.observe(at(dec!(60000)), at(future), Duration::from_secs(seconds));
        assert_eq!(observe(dec!(60060), 0), dec!(0.001));
        assert_eq!(observe(dec!(60000), 60), dec!(0.0009));
        assert_eq!(observe(dec!(60000), 60), dec!(0.0009), "no time has passed");
        assert_eq!(observe(dec!(59940), 3600), dec!(-0.001));
    }

    /// Fails if each price moves the mean by a step that is rounded.
    #[test]
    fn the_mean_follows_however_often_prices_come() {
        for every in [2u64, 20, 100, 1000, 5000] {
            let mut basis = Basis::default();
            basis.observe(at(dec!(60000)), at(dec!(60000)), Duration::ZERO);
            let turns = (1..=3_600_000 / every).map(|turn| Duration::from_millis(turn * every));
            let last = turns.map(|boot| basis.observe(at(dec!(60000)), at(dec!(60006)), boot)).last().unwrap();
            assert!(
                (last - dec!(0.0001)).abs() < dec!(0.000001),
                "{last} after an hour of 1 bps, told every {every} ms"
            );
        }
    }
}
