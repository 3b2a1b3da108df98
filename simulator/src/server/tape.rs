//! What the market channels have not yet sent of the trades of a market. The trades themselves are in its history.

use crate::exchange::Trade;

/// One market's news.
#[derive(Debug, Default)]
pub struct Tape {
    /// Not yet sent on market_trades.
    unsent: Vec<Trade>,
    /// When the first trade was, in Unix seconds, since candles were last sent.
    traded_from: Option<i64>,
    traded: bool,
}

impl Tape {
    /// `heard`: somebody listens to market_trades.
    pub fn record(&mut self, trade: &Trade, heard: bool) {
        if heard {
            self.unsent.push(trade.clone());
        }
        self.traded_from.get_or_insert(trade.time.as_second());
        self.traded = true;
    }

    /// Trades since the last call, newest first.
    pub fn take_unsent(&mut self) -> Vec<Trade> {
        let mut trades = std::mem::take(&mut self.unsent);
        trades.reverse();
        trades
    }

    /// Since when candles have changed that the last call did not know of.
    pub fn take_traded_from(&mut self) -> Option<i64> {
        self.traded_from.take()
    }

    /// Whether there was a trade since the last call.
    pub fn take_traded(&mut self) -> bool {
        std::mem::take(&mut self.traded)
    }
}
