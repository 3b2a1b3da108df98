//! Hourly funding of a US perpetual-style future.
//!
//! CDE's formula: Premium = TWAP over the hour of (future mark − spot mark) / spot mark, divided by 24, from 20
//! samples three minutes apart; F = 0.75 × Premium + 0.25 × previous F. It accrues each hour and is paid twice a day.
//! A position pays contracts × contract size × mark × F, so a short receives while F > 0.

use exchange_matching::position::FUNDING_SETTLEMENT_HOURS;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use rust_decimal::dec;

use super::{Exchange, Now};

const SAMPLE_SECONDS: i64 = 180;
const HOUR_SECONDS: i64 = 3600;

/// Funding state of one future.
#[derive(Debug, Clone)]
pub struct Funding {
    /// Rate of the hour that ended last, per hour.
    pub rate: Decimal,
    /// When `rate` was fixed.
    pub time: Timestamp,
    /// Replaces the rate of the hour that is running (a fault or a recording).
    pub spike: Option<Decimal>,
    samples: Vec<Decimal>,
    next_sample: Timestamp,
    next_hour: Timestamp,
}

/// What is due at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Sample,
    /// The hour ended: accrue with the new rate; `settle` when accruals are also paid.
    Hour {
        settle: bool,
    },
}

impl Funding {
    /// Starts with a known rate, as if the hour before `now` had produced it.
    pub fn new(now: Timestamp, rate: Decimal) -> Self {
        let hour = now.as_second().div_euclid(HOUR_SECONDS) * HOUR_SECONDS;
        let at = |seconds| Timestamp::from_second(seconds).unwrap_or(now);
        Self {
            rate,
            time: at(hour),
            spike: None,
            samples: Vec::new(),
            next_sample: now,
            next_hour: at(hour + HOUR_SECONDS),
        }
    }

    /// The next thing due at or before `now`; call until it says `Nothing`.
    pub fn due(&self, now: Timestamp) -> Due {
        if now >= self.next_hour && self.next_hour <= self.next_sample {
            let hour = self.next_hour.as_second().div_euclid(HOUR_SECONDS).rem_euclid(24);
            return Due::Hour { settle: FUNDING_SETTLEMENT_HOURS.contains(&hour) };
        }
        if now >= self.next_sample { Due::Sample } else { Due::Nothing }
    }

    /// Records the premium sample that is due. `None` while there is no price (a closed session).
    pub fn sample(&mut self, premium: Option<Decimal>) {
        self.samples.extend(premium);
        self.next_sample = advance(self.next_sample, SAMPLE_SECONDS);
    }

    /// Ends the hour: fixes the new rate, or none when the hour had no sample.
    pub fn end_hour(&mut self) -> Option<Decimal> {
        self.time = self.next_hour;
        self.next_hour = advance(self.next_hour, HOUR_SECONDS);
        if let Some(rate) = self.spike.take() {
            self.samples.clear();
            self.rate = rate;
            return Some(rate);
        }
        let count = Decimal::from(self.samples.len());
        let premium = self.samples.drain(..).sum::<Decimal>().checked_div(count)? / dec!(24);
        self.rate = (dec!(0.75) * premium + dec!(0.25) * self.rate).round_dp(9);
        Some(self.rate)
    }
}

impl Exchange {
    pub(super) fn run_funding(&mut self, index: usize, now: Now) {
        loop {
            let Some(due) = self.markets.get(index).and_then(|m| m.funding.as_ref()).map(|f| f.due(now.time)) else {
                return;
            };
            match due {
                Due::Nothing => return,
                Due::Sample => {
                    let premium = self.premium(index, now.time);
                    if let Some(funding) = self.markets[index].funding.as_mut() {
                        funding.sample(premium);
                    }
                }
                Due::Hour { settle } => self.end_funding_hour(index, settle),
            }
        }
    }

    /// (future − spot) / spot; `None` while the session is closed.
    fn premium(&self, index: usize, now: Timestamp) -> Option<Decimal> {
        let future = &self.markets[index];
        let terms = future.product.future.as_ref()?;
        let spot = self.markets.get(self.market_index(&terms.spot_product)?)?;
        if future.is_closed(now) {
            return None;
        }
        (future.mark() - spot.mark()).checked_div(spot.mark())
    }

    fn end_funding_hour(&mut self, index: usize, settle: bool) {
        let recorded = self.recorded_funding_rate(index);
        let market = &mut self.markets[index];
        if let (Some(funding), Some(rate)) = (market.funding.as_mut(), recorded) {
            // A fault comes before the recording.
            funding.spike.get_or_insert(rate);
        }
        let per_contract = market
            .funding
            .as_mut()
            .and_then(Funding::end_hour)
            .map(|rate| market.product.value(Decimal::ONE, market.mark()) * rate);
        for portfolio in self.portfolios.values_mut() {
            let Some(position) = portfolio.positions.get_mut(&index) else { continue };
            position.accrue_funding(per_contract.unwrap_or_default());
            if settle {
                let paid = position.settle_funding();
                portfolio.pay_futures(paid);
            }
        }
    }

    /// What the recording shows at the end of the hour that is running.
    fn recorded_funding_rate(&self, index: usize) -> Option<Decimal> {
        let (market, series) = (self.markets.get(index)?, self.settings.replay.as_ref()?);
        let end = market.funding.as_ref()?.next_hour;
        series.funding_rate(&market.product.id, end.duration_since(self.started))
    }
}

fn advance(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour_of(funding: &mut Funding, end: Timestamp, premium: Option<Decimal>) -> (Option<Decimal>, bool) {
        loop {
            match funding.due(end) {
                Due::Nothing => panic!("the hour did not end"),
                Due::Sample => funding.sample(premium),
                Due::Hour { settle } => return (funding.end_hour(), settle),
            }
        }
    }

    #[test]
    fn three_quarters_of_the_hours_premium_and_a_quarter_of_the_last_rate() {
        let start: Timestamp = "2026-04-07T10:00:00Z".parse().unwrap();
        let mut funding = Funding::new(start, dec!(0.000012));
        let (rate, settle) = hour_of(&mut funding, "2026-04-07T11:00:00Z".parse().unwrap(), Some(dec!(0.00048)));
        // 0.75 × 0.00048 / 24 + 0.25 × 0.000012
        assert_eq!(rate, Some(dec!(0.000018)));
        assert!(!settle);
        assert_eq!(funding.time, "2026-04-07T11:00:00Z".parse().unwrap());
        let (_, settle) = hour_of(&mut funding, "2026-04-07T12:00:00Z".parse().unwrap(), Some(dec!(0.00048)));
        assert!(settle, "accruals are paid at 12:00 UTC");
    }

    #[test]
    fn an_hour_without_a_price_publishes_no_rate() {
        let start: Timestamp = "2026-04-07T10:00:00Z".parse().unwrap();
        let mut funding = Funding::new(start, dec!(0.000012));
        assert_eq!(hour_of(&mut funding, "2026-04-07T11:00:00Z".parse().unwrap(), None).0, None);
        assert_eq!(funding.rate, dec!(0.000012));
    }

    #[test]
    fn an_hour_has_twenty_samples() {
        let start: Timestamp = "2026-04-07T10:00:00Z".parse().unwrap();
        let mut funding = Funding::new(start, Decimal::ZERO);
        let mut samples = 0;
        let end = "2026-04-07T11:00:00Z".parse().unwrap();
        while funding.due(end) == Due::Sample {
            funding.sample(None);
            samples += 1;
        }
        assert_eq!(samples, 20);
    }
}
