//! A futures position and what fills, variation margin and funding do to it.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::book::Side;

/// Hours of the UTC day at which accrued funding is paid.
pub const FUNDING_SETTLEMENT_HOURS: [i64; 2] = [0, 12];

/// A futures position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Signed: positive long, negative short.
    pub contracts: Decimal,
    /// Signed entry value in quote currency: Σ contracts × contract size × entry price of what is still open.
    /// Kept instead of an average price so that no rounding creates or destroys money.
    /// The daily variation margin sets it to the settlement price.
    pub cost: Decimal,
    /// The same without variation margin, for the average entry price that is shown.
    pub entry: Decimal,
    pub realized_pnl: Decimal,
    /// Realised since the last daily settlement.
    pub daily_realized_pnl: Decimal,
    /// Profit or loss paid out by daily settlements.
    pub variation: Decimal,
    pub fees: Decimal,
    /// Funding accrued hourly and not yet paid.
    pub funding_accrued: Decimal,
    /// Funding paid so far.
    pub funding_settled: Decimal,
}

impl Position {
    /// Applies a fill of `size` contracts worth `value` and returns the profit or loss it realised.
    pub fn apply(&mut self, side: Side, size: Decimal, value: Decimal) -> Decimal {
        let signed = side.sign() * size;
        let opens = self.contracts.is_zero() || self.contracts.is_sign_positive() == signed.is_sign_positive();
        if opens {
            self.contracts += signed;
            self.cost += side.sign() * value;
            self.entry += side.sign() * value;
            return Decimal::ZERO;
        }
        let closing = size.min(self.contracts.abs());
        let closing_value = if closing == size { value } else { round(value * closing / size) };
        let share = |whole: Decimal| {
            if closing == self.contracts.abs() { whole } else { round(whole * closing / self.contracts.abs()) }
        };
        let (closing_cost, closing_entry) = (share(self.cost), share(self.entry));
        // Selling a long brings its value and gives up its cost; buying a short back, the reverse.
        let realized = -side.sign() * closing_value - closing_cost;
        self.cost -= closing_cost;
        self.entry -= closing_entry;
        self.contracts += side.sign() * closing;
        self.realized_pnl += realized;
        if size > closing {
            self.contracts += side.sign() * (size - closing);
            self.cost += side.sign() * (value - closing_value);
            self.entry += side.sign() * (value - closing_value);
        }
        realized
    }

    /// Average entry price per base unit; 0 when flat.
    pub fn average_entry(&self, contract_size: Decimal) -> Decimal {
        self.entry.checked_div(self.contracts * contract_size).unwrap_or_default()
    }

    /// Pays out what was gained or lost up to `mark` and goes on from there; returns the amount.
    pub fn settle_variation(&mut self, contract_size: Decimal, mark: Decimal) -> Decimal {
        let paid = self.unrealized_pnl(contract_size, mark);
        self.cost += paid;
        self.variation += paid;
        self.daily_realized_pnl = Decimal::ZERO;
        paid
    }

    /// Accrues the funding of an hour: `per_contract` in quote currency, paid by longs and received by shorts.
    pub fn accrue_funding(&mut self, per_contract: Decimal) {
        self.funding_accrued -= self.contracts * per_contract;
    }

    /// Pays what accrued; returns the amount.
    pub fn settle_funding(&mut self) -> Decimal {
        let paid = std::mem::take(&mut self.funding_accrued);
        self.funding_settled += paid;
        paid
    }

    /// Profit or loss in quote currency if closed at `mark`.
    pub fn unrealized_pnl(&self, contract_size: Decimal, mark: Decimal) -> Decimal {
        self.contracts * contract_size * mark - self.cost
    }

    /// Nothing left to report or to pay.
    pub fn is_empty(&self) -> bool {
        self.contracts.is_zero() && self.funding_accrued.is_zero()
    }
}

/// Rounds a division so that later additions stay exact in 28 digits.
fn round(value: Decimal) -> Decimal {
    value.round_dp(10)
}
