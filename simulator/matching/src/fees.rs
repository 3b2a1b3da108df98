//! What an exchange charges.

use rust_decimal::Decimal;

/// Fee per side as a fraction of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeRates {
    pub maker: Decimal,
    pub taker: Decimal,
}

impl FeeRates {
    /// Fee of a fill worth `value`, in quote currency.
    pub fn of(&self, value: Decimal, maker: bool) -> Decimal {
        (value * if maker { self.maker } else { self.taker }).round_dp(8)
    }
}
