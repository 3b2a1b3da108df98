//! What the account earned, from the exchange's own figures: its equity at every full hour.
//!
//! Equity = USD in both wallets (fees, variation margin and settled funding are in it) + unrealised profit or loss of the
//! futures at mid + accrued funding + spot at mid, in quote currency.

use arb_bot::books::performance;
pub use arb_bot::books::performance::max_drawdown as max_drawdown_quote;
use rust_decimal::Decimal;

/// Hours of a daily return.
const DAY: usize = 24;
/// Days of a year: this market has no holiday.
const YEAR: u32 = 365;

/// Change of the equity from the beginning to the end.
pub fn pnl_quote(equity: &[Decimal]) -> Decimal {
    equity.last().zip(equity.first()).map_or(Decimal::ZERO, |(last, first)| last - first)
}

/// Change of the equity over each full day, as a share of the capital.
pub fn daily_returns(equity: &[Decimal], capital_quote: Decimal) -> Vec<Decimal> {
    let days: Vec<Decimal> = equity.iter().step_by(DAY).copied().collect();
    days.windows(2).map(|day| (day[1] - day[0]) / capital_quote).collect()
}

/// Of the daily returns. None for less than two days, or where every day was the same.
pub fn sharpe(returns: &[Decimal]) -> Option<Decimal> {
    performance::sharpe(returns, YEAR.into())
}

mod tests {
    use rust_decimal::dec;

    use super::*;

    #[test]
    fn profit_and_drawdown_are_of_the_hours() {
        let equity = [dec!(1000), dec!(1010), dec!(995), dec!(1020), dec!(1006)];
        assert_eq!((pnl_quote(&equity), max_drawdown_quote(&equity)), (dec!(6), dec!(15)));
        assert_eq!((pnl_quote(&[]), max_drawdown_quote(&[])), (dec!(0), dec!(0)));
    }

    #[test]
    fn a_sharpe_ratio_is_of_full_days() {
        // Three days of +10, +30 and +20, and an hour that is no day.
        let mut equity: Vec<Decimal> = vec![dec!(1000)];
        for day in [dec!(10), dec!(30), dec!(20)] {
            let last = *equity.last().unwrap();
            equity.extend(std::iter::repeat_n(last, DAY - 1));
            equity.push(last + day);
        }
        equity.push(dec!(5000));
        let returns = daily_returns(&equity, dec!(1000));
        assert_eq!(returns, [dec!(0.01), dec!(0.03), dec!(0.02)]);
        // Mean 0.02, deviation 0.01.
        assert_eq!(sharpe(&returns).unwrap().round_dp(6), (dec!(2) * dec!(19.104973)).round_dp(6));
        assert_eq!((sharpe(&returns[..1]), sharpe(&[dec!(0.01), dec!(0.01)])), (None, None));
    }
}
