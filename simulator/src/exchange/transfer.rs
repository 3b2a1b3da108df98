//! Portfolios that clients make, and money moved between them.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::portfolio::{Portfolio, Sweep};
use super::{Exchange, Now};

/// Portfolios that one key may create.
const MAX_CREATED: usize = 50;

/// Why a portfolio cannot be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("portfolio not found")]
    NotFound,
    #[error("insufficient funds in the source portfolio")]
    InsufficientFunds,
    #[error("the portfolio is not empty, or is the default one")]
    NotEmpty,
    #[error("too many portfolios")]
    TooMany,
    #[error("a sweep is pending already")]
    SweepPending,
}

impl Exchange {
    /// Portfolios that a key of `creator` sees.
    pub fn portfolios_of(&self, creator: Uuid) -> impl Iterator<Item = &Portfolio> {
        self.portfolios.values().filter(move |p| !p.participant && p.creator == creator)
    }

    /// # Errors
    /// When there are too many.
    pub fn create_portfolio(&mut self, now: Now, creator: Uuid, name: &str) -> Result<Uuid, TransferError> {
        if self.portfolios_of(creator).count() > MAX_CREATED {
            return Err(TransferError::TooMany);
        }
        let id = self.new_uuid();
        self.open_portfolio(now, id, name, Decimal::ZERO);
        if let Some(portfolio) = self.portfolios.get_mut(&id) {
            portfolio.creator = creator;
        }
        Ok(id)
    }

    /// # Errors
    /// When it is not there, still holds something, or is the key's own.
    pub fn delete_portfolio(&mut self, creator: Uuid, id: Uuid) -> Result<(), TransferError> {
        let portfolio = self.portfolios.get(&id).filter(|p| p.creator == creator).ok_or(TransferError::NotFound)?;
        let empty = portfolio.balances.values().all(|b| b.total.is_zero() && b.hold.is_zero());
        if id == creator || !empty || !portfolio.open.is_empty() || !portfolio.positions.is_empty() {
            return Err(TransferError::NotEmpty);
        }
        self.portfolios.remove(&id);
        Ok(())
    }

    /// # Errors
    /// When a portfolio is not the creator's, or the source has too little that is free.
    pub fn move_funds(
        &mut self,
        creator: Uuid,
        from: Uuid,
        to: Uuid,
        currency: &str,
        amount: Decimal,
    ) -> Result<(), TransferError> {
        let own = |id: &Uuid| self.portfolios.get(id).filter(|p| p.creator == creator);
        let source = own(&from).ok_or(TransferError::NotFound)?;
        own(&to).ok_or(TransferError::NotFound)?;
        let balance = source.balance(currency);
        let free = if currency == "USD" { self.available_usd(source) } else { balance.total - balance.hold };
        if amount <= Decimal::ZERO || amount > free {
            return Err(TransferError::InsufficientFunds);
        }
        for (id, change) in [(from, -amount), (to, amount)] {
            if let Some(portfolio) = self.portfolios.get_mut(&id) {
                portfolio.balance_mut(currency).total += change;
            }
        }
        Ok(())
    }

    /// The sweep that is still to come.
    pub fn pending_sweep(&self, now: Now, portfolio: Uuid) -> Option<&Sweep> {
        self.portfolios.get(&portfolio)?.sweep.as_ref().filter(|sweep| sweep.scheduled > now.time)
    }

    /// Schedules a sweep of `amount` USD, or of everything free, for the next settlement.
    ///
    /// # Errors
    /// When one is pending, or it is more than what is free.
    pub fn schedule_sweep(&mut self, now: Now, id: Uuid, amount: Option<Decimal>) -> Result<(), TransferError> {
        if self.pending_sweep(now, id).is_some() {
            return Err(TransferError::SweepPending);
        }
        let portfolio = self.portfolios.get(&id).ok_or(TransferError::NotFound)?;
        // Whether the futures wallet has it is seen when the sweep is made.
        let free = self.available_usd(portfolio) + self.futures_excess(portfolio).max(Decimal::ZERO);
        if amount.is_some_and(|amount| amount <= Decimal::ZERO || amount > free) {
            return Err(TransferError::InsufficientFunds);
        }
        let sweep = Sweep { id: self.new_uuid(), amount, scheduled: self.calendar.next_settlement };
        if let Some(portfolio) = self.portfolios.get_mut(&id) {
            portfolio.sweep = Some(sweep);
        }
        Ok(())
    }

    /// Takes back the pending sweep; false when there is none.
    pub fn cancel_sweep(&mut self, now: Now, id: Uuid) -> bool {
        let pending = self.pending_sweep(now, id).is_some();
        if let Some(portfolio) = self.portfolios.get_mut(&id) {
            portfolio.sweep = None;
        }
        pending
    }
}
