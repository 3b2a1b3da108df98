//! What the market channels remember of the trades of a market: the last ones, and candles of five minutes.

use std::collections::VecDeque;

use rust_decimal::Decimal;

use crate::exchange::Trade;

/// Trades in the snapshot of market_trades.
const RECENT: usize = 100;
/// Candles in the snapshot of candles, about a day.
const CANDLES: usize = 300;
/// Coinbase's candles channel knows only this length.
const CANDLE_SECONDS: i64 = 300;

/// Open, high, low, close and volume of five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candle {
    /// Unix seconds.
    pub start: i64,
    pub open: Decimal,
    pub high: Decimal,
    pub low: Decimal,
    pub close: Decimal,
    pub volume: Decimal,
}

/// One market's trades.
#[derive(Debug, Default)]
pub struct Tape {
    recent: VecDeque<Trade>,
    /// Not yet sent on market_trades.
    unsent: Vec<Trade>,
    candles: VecDeque<Candle>,
    /// The first candle that changed since it was last sent.
    changed_from: Option<i64>,
    traded: bool,
}

impl Tape {
    pub fn record(&mut self, trade: &Trade, heard: bool) {
        if heard {
            self.unsent.push(trade.clone());
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(trade.clone());
        self.traded = true;
        let start = trade.time.as_second().div_euclid(CANDLE_SECONDS) * CANDLE_SECONDS;
        self.changed_from.get_or_insert(start);
        let price = trade.price;
        match self.candles.back_mut().filter(|candle| candle.start == start) {
            Some(candle) => {
                candle.high = candle.high.max(price);
                candle.low = candle.low.min(price);
                candle.close = price;
                candle.volume += trade.size;
            }
            None => {
                if self.candles.len() == CANDLES {
                    self.candles.pop_front();
                }
                let volume = trade.size;
                self.candles.push_back(Candle { start, open: price, high: price, low: price, close: price, volume });
            }
        }
    }

    /// The last trades, newest first.
    pub fn recent(&self) -> Vec<&Trade> {
        self.recent.iter().rev().collect()
    }

    /// Candles, newest first.
    pub fn candles(&self) -> Vec<Candle> {
        self.candles.iter().rev().copied().collect()
    }

    /// Trades since the last call, newest first.
    pub fn take_unsent(&mut self) -> Vec<Trade> {
        let mut trades = std::mem::take(&mut self.unsent);
        trades.reverse();
        trades
    }

    /// Candles that changed since the last call, newest first.
    pub fn take_changed_candles(&mut self) -> Vec<Candle> {
        let Some(from) = self.changed_from.take() else { return Vec::new() };
        self.candles.iter().rev().take_while(|candle| candle.start >= from).copied().collect()
    }

    /// Whether there was a trade since the last call.
    pub fn take_traded(&mut self) -> bool {
        std::mem::take(&mut self.traded)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rust_decimal::dec;

    use super::*;
    use crate::exchange::book::Side;

    fn trade(second: i64, price: Decimal) -> Trade {
        let time = Timestamp::from_second(second).unwrap();
        Trade { id: 1, market: 0, price, size: dec!(2), taker: Side::Buy, time }
    }

    #[test]
    fn a_candle_holds_five_minutes_and_is_sent_again_while_it_grows() {
        let mut tape = Tape::default();
        for (second, price) in [(300, dec!(5)), (599, dec!(3)), (599, dec!(4))] {
            tape.record(&trade(second, price), false);
        }
        let first = Candle { start: 300, open: dec!(5), high: dec!(5), low: dec!(3), close: dec!(4), volume: dec!(6) };
        assert_eq!(tape.take_changed_candles(), [first]);
        assert_eq!(tape.take_changed_candles(), []);
        tape.record(&trade(600, dec!(9)), false);
        let changed = tape.take_changed_candles();
        assert_eq!((changed.len(), changed[0].start, changed[0].open), (1, 600, dec!(9)));
        assert_eq!(tape.candles().len(), 2);
    }

    #[test]
    fn nothing_grows_without_bound_when_nobody_listens() {
        let mut tape = Tape::default();
        for second in 0..200_000 {
            tape.record(&trade(second, dec!(1)), false);
        }
        assert_eq!((tape.recent().len(), tape.candles().len(), tape.take_unsent().len()), (RECENT, CANDLES, 0));
    }
}
