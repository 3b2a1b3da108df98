//! What an equity curve says. Pure.

use rust_decimal::{Decimal, MathematicalOps};

/// Deepest fall of the equity below an earlier peak; zero where there is none.
#[must_use]
pub fn max_drawdown(equity: &[Decimal]) -> Decimal {
    let fall = |(peak, deepest): (Decimal, Decimal), now: &Decimal| {
        let peak = peak.max(*now);
        (peak, deepest.max(peak - now))
    };
    equity.iter().fold((Decimal::MIN, Decimal::ZERO), fall).1
}

/// Mean of equally long changes by their standard deviation (of a sample), times the square root of how many of them a year
/// has. None for less than two, or where all are the same.
#[must_use]
pub fn sharpe(changes: &[Decimal], of_a_year: Decimal) -> Option<Decimal> {
    let count = Decimal::from(changes.len());
    let mean = changes.iter().sum::<Decimal>().checked_div(count)?;
    let squares: Decimal = changes.iter().map(|change| (change - mean) * (change - mean)).sum();
    let deviation = squares.checked_div(count - Decimal::ONE)?.sqrt()?;
    mean.checked_div(deviation)?.checked_mul(of_a_year.sqrt()?)
}
