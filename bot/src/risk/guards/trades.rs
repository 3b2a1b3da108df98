//! Round trips, openings and closings, and fees, as they show once a second. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use arbbot_crds::guards::GuardMetric;
use rust_decimal::Decimal;

use super::readings::Figures;

const DAY: Duration = Duration::from_secs(86_400);
/// Round trips that the win rate looks at, and the fewest that it needs.
const LATEST: usize = 50;
const FEWEST: usize = 10;
/// How often the fees are noted.
const FEES_EVERY: Duration = Duration::from_secs(300);
/// Openings and closings that are kept at most: far more than any guard allows.
const EXECUTIONS: usize = 10_000;

/// What this process has seen.
#[derive(Clone, Debug, Default)]
pub struct Trades {
    /// Equity when nothing was owned last.
    flat_at_quote: Option<Decimal>,
    /// Whether something has been owned since.
    is_open: bool,
    held_contracts: Option<bool>,
    /// When each round trip was closed, and what it brought.
    closed: VecDeque<(Duration, Decimal)>,
    /// When a person accepted the losses, and the win rate: what was closed before counts no more.
    losses_accepted: Duration,
    wins_accepted: Duration,
    executions: VecDeque<Duration>,
    /// Fees paid since the first order, every few minutes.
    fees: VecDeque<(Duration, Decimal)>,
}

impl Trades {
    /// Takes in what the engine knows at `now` (CLOCK_BOOTTIME).
    pub fn note(&mut self, now: Duration, figures: &Figures) {
        self.note_round_trip(now, figures);
        let holds = !figures.contracts.is_zero();
        if self.held_contracts.replace(holds).is_some_and(|before| before != holds) {
            self.executions.push_back(now);
        }
        let since = now.saturating_sub(DAY);
        while self.executions.front().is_some_and(|at| *at < since) || self.executions.len() > EXECUTIONS {
            self.executions.pop_front();
        }
        if self.fees.back().is_none_or(|(at, _)| now >= *at + FEES_EVERY) {
            self.fees.push_back((now, figures.fees_quote));
        }
        while self.fees.get(1).is_some_and(|(at, _)| *at <= since) {
            self.fees.pop_front();
        }
    }

    fn note_round_trip(&mut self, now: Duration, figures: &Figures) {
        if !figures.is_flat {
            self.is_open = true;
            return;
        }
        let Some(equity) = figures.equity_quote else { return };
        if let Some(before) = self.flat_at_quote.filter(|_| self.is_open) {
            self.closed.push_back((now, equity - before));
            if self.closed.len() > LATEST {
                self.closed.pop_front();
            }
        }
        (self.flat_at_quote, self.is_open) = (Some(equity), false);
    }

    /// Loss of the worst round trip of the last day; zero where all brought a profit.
    #[must_use]
    pub fn worst_loss_quote(&self, now: Duration) -> Option<Decimal> {
        let since = now.saturating_sub(DAY).max(self.losses_accepted);
        let losses = self.closed.iter().filter(|(at, _)| *at >= since).map(|(_, result)| -*result);
        losses.max().map(|loss| loss.max(Decimal::ZERO))
    }

    /// Share of the latest round trips that brought a profit.
    #[must_use]
    pub fn win_rate_percent(&self) -> Option<Decimal> {
        let counted = self.closed.iter().filter(|(at, _)| *at >= self.wins_accepted);
        let (all, wins) = counted.fold((0_usize, 0_usize), |(all, wins), (_, result)| {
            (all + 1, wins + usize::from(*result > Decimal::ZERO))
        });
        (all >= FEWEST).then(|| Decimal::from(wins) * Decimal::ONE_HUNDRED / Decimal::from(all))
    }

    /// Times that the futures leg was opened or closed in the last day.
    #[must_use]
    pub fn executions(&self) -> u32 {
        u32::try_from(self.executions.len()).unwrap_or(u32::MAX)
    }

    /// Fees of the last day. `paid` are those since the first order.
    #[must_use]
    pub fn fees_quote(&self, now: Duration, paid: Decimal) -> Option<Decimal> {
        let since = now.saturating_sub(DAY);
        let (_, before) = self.fees.iter().rev().find(|(at, _)| *at <= since).or(self.fees.front())?;
        Some(paid - before)
    }

    /// Begins anew with one metric: a person has accepted what it was.
    pub fn restart(&mut self, metric: GuardMetric, now: Duration) {
        match metric {
            GuardMetric::SingleTradeLossQuote => self.losses_accepted = now,
            GuardMetric::WinRatePercent => self.wins_accepted = now,
            GuardMetric::TransactionCostQuote => self.fees.clear(),
            GuardMetric::ExecutionsPerDay => self.executions.clear(),
            // Counted elsewhere.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::dec;

    fn figures(equity: Decimal, contracts: i64, fees: Decimal) -> Figures {
        Figures {
            equity_quote: Some(equity),
            is_flat: contracts == 0,
            contracts: contracts.into(),
            fees_quote: fees,
            ..Figures::default()
        }
    }

    #[test]
    fn a_round_trip_is_from_flat_to_flat() {
        let (mut trades, hour) = (Trades::default(), 3600);
        let steps = [(0, dec!(0), 0), (1, dec!(-5), -3), (2, dec!(40), -3), (3, dec!(-10), 0), (4, dec!(-12), -1)];
        for (n, equity, contracts) in steps {
            trades.note(Duration::from_secs(n * hour), &figures(equity, contracts, dec!(2) * Decimal::from(n)));
        }
        let now = Duration::from_secs(4 * hour);
        assert_eq!(trades.worst_loss_quote(now), Some(dec!(10)));
        assert_eq!((trades.executions(), trades.win_rate_percent()), (3, None));
        assert_eq!(trades.fees_quote(now, dec!(8)), Some(dec!(8)));
        let later = now + DAY;
        trades.note(later, &figures(dec!(0), -1, dec!(9)));
        assert_eq!((trades.worst_loss_quote(later), trades.executions()), (None, 1));
        assert_eq!(trades.fees_quote(later, dec!(9)), Some(dec!(1)), "what was paid in the last day");
    }

    #[test]
    fn the_win_rate_needs_a_sample() {
        let mut trades = Trades::default();
        let mut equity = dec!(0);
        for n in 0..10u64 {
            trades.note(Duration::from_secs(10 * n), &figures(equity, 0, dec!(0)));
            trades.note(Duration::from_secs(10 * n + 1), &figures(equity, 1, dec!(0)));
            equity += if n < 4 { dec!(1) } else { dec!(-1) };
        }
        assert_eq!(trades.win_rate_percent(), None, "nine are closed");
        trades.note(Duration::from_secs(100), &figures(equity, 0, dec!(0)));
        assert_eq!(trades.win_rate_percent(), Some(dec!(40)));
        // Fails when an accepted loss takes the sample of the win rate along (mutation: `self.closed.clear()` in restart).
        trades.restart(GuardMetric::SingleTradeLossQuote, Duration::from_secs(101));
        let now = Duration::from_secs(102);
        assert_eq!((trades.worst_loss_quote(now), trades.win_rate_percent()), (None, Some(dec!(40))));
        trades.restart(GuardMetric::WinRatePercent, now);
        assert_eq!((trades.win_rate_percent(), trades.executions()), (None, 20));
        trades.restart(GuardMetric::ExecutionsPerDay, now);
        assert_eq!(trades.executions(), 0);
    }
}
