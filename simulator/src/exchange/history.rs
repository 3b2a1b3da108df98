//! A market's past: its last trades, and candles made of all of them.

use std::collections::VecDeque;

use jiff::Timestamp;
use rust_decimal::Decimal;

use super::book::Side;

/// Trades kept.
const TRADES: usize = 1_000;
/// Lengths that are recorded, in seconds, and how many candles of each are kept: two days of minutes, a month of
/// hours, three years of days. Every other length is made of these.
const RECORDED: [(i64, usize); 3] = [(60, 2_880), (3_600, 720), (86_400, 1_100)];

/// A public trade as history shows it; `taker` is the side that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    pub id: u64,
    pub time: Timestamp,
    pub price: Decimal,
    pub size: Decimal,
    pub taker: Side,
}

impl From<&super::Trade> for Past {
    fn from(trade: &super::Trade) -> Self {
        Self { id: trade.id, time: trade.time, price: trade.price, size: trade.size, taker: trade.taker }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Unix seconds.
    pub start: i64,
    pub open: Decimal,
    pub high: Decimal,
    pub low: Decimal,
    pub close: Decimal,
    pub volume: Decimal,
}

#[derive(Debug, Default)]
pub struct History {
    trades: VecDeque<Past>,
    bars: [VecDeque<Bar>; RECORDED.len()],
}

impl History {
    pub fn record(&mut self, time: Timestamp, id: u64, taker: Side, price: Decimal, size: Decimal) {
        if self.trades.len() == TRADES {
            self.trades.pop_front();
        }
        self.trades.push_back(Past { id, time, price, size, taker });
        for ((seconds, kept), bars) in RECORDED.iter().zip(&mut self.bars) {
            let start = floor(time.as_second(), *seconds);
            let bar = Bar { start, open: price, high: price, low: price, close: price, volume: size };
            match bars.back_mut().filter(|last| last.start == start) {
                Some(last) => *last = merge(*last, bar),
                None => {
                    if bars.len() == *kept {
                        bars.pop_front();
                    }
                    bars.push_back(bar);
                }
            }
        }
    }

    /// The last trades of a time range, newest first.
    pub fn trades(&self, from: Option<i64>, to: Option<i64>, limit: usize) -> Vec<Past> {
        let within = |t: &&Past| {
            let second = t.time.as_second();
            from.is_none_or(|from| second >= from) && to.is_none_or(|to| second <= to)
        };
        self.trades.iter().rev().filter(within).take(limit).copied().collect()
    }

    /// Candles of `seconds` that begin in a time range, newest first. An interval without a trade has none.
    pub fn candles(&self, seconds: i64, from: i64, to: i64, limit: usize) -> Vec<Bar> {
        let whole = RECORDED.iter().zip(&self.bars).rev().find(|((recorded, _), _)| seconds % recorded == 0);
        let Some((_, bars)) = whole else { return Vec::new() };
        let mut candles: Vec<Bar> = Vec::new();
        for bar in bars {
            let bar = Bar { start: floor(bar.start, seconds), ..*bar };
            match candles.last_mut().filter(|last| last.start == bar.start) {
                Some(last) => *last = merge(*last, bar),
                None => candles.push(bar),
            }
        }
        let within = candles.into_iter().rev().filter(|bar| (from..=to).contains(&bar.start));
        within.take(limit).collect()
    }

    /// Volume and opening price of the last 24 hours, by the hour; `None` without a trade in them.
    pub fn day(&self, now: Timestamp) -> Option<Bar> {
        let from = now.as_second().saturating_sub(86_400);
        let hours = self.bars[1].iter().filter(|bar| bar.start > from);
        hours.copied().reduce(merge)
    }
}

fn floor(second: i64, length: i64) -> i64 {
    second.div_euclid(length) * length
}

/// Two bars as one, the earlier first.
fn merge(first: Bar, second: Bar) -> Bar {
    Bar {
        start: first.start,
        open: first.open,
        high: first.high.max(second.high),
        low: first.low.min(second.low),
        close: second.close,
        volume: first.volume + second.volume,
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    fn record(history: &mut History, second: i64, price: Decimal) {
        history.record(Timestamp::from_second(second).unwrap(), 1, Side::Buy, price, dec!(2));
    }

    #[test]
    fn candles_of_every_length_come_from_the_same_trades() {
        let mut history = History::default();
        for (second, price) in [(0, dec!(5)), (59, dec!(7)), (60, dec!(3)), (899, dec!(4)), (900, dec!(9))] {
            record(&mut history, second, price);
        }
        let minutes = history.candles(60, 0, 10_000, 10);
        assert_eq!(minutes.iter().map(|b| b.start).collect::<Vec<_>>(), [900, 840, 60, 0]);
        let quarter = history.candles(900, 0, 10_000, 10)[1];
        let volume = dec!(8);
        assert_eq!(quarter, Bar { start: 0, open: dec!(5), high: dec!(7), low: dec!(3), close: dec!(4), volume });
        assert_eq!(history.candles(3_600, 0, 10_000, 10)[0].volume, dec!(10));
        assert_eq!(history.candles(86_400, 0, 10_000, 10)[0].close, dec!(9));
        assert_eq!(history.candles(60, 60, 840, 10).len(), 2);
        assert_eq!(history.trades(Some(59), Some(900), 2).len(), 2);
    }

    #[test]
    fn a_long_run_stays_bounded() {
        let mut history = History::default();
        for minute in 0..200_000 {
            record(&mut history, minute * 60, dec!(1));
        }
        let kept: Vec<usize> = history.bars.iter().map(VecDeque::len).collect();
        assert_eq!((history.trades.len(), kept), (TRADES, vec![2_880, 720, 139]));
    }
}
