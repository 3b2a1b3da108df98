//! A backtest over a series that is made here.

use std::fmt::Write;

use arb_bot::backtest::Backtest;
use arb_bot::backtest::series::{Assumed, Series};
use arb_bot::execution::driver::TICK;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rust_decimal::dec;

use crate::desk::{FUTURE, SPOT, START, bot};

/// Lines of each product in a second.
const A_SECOND: i64 = 10;
const HEAD: &str = r##"time,product,price,funding_rate,best_bid,best_ask,bid_size,ask_size,trade_price,trade_size
# 2026-11-16T15:00:00Z: BTC-USD {"price_increment":"0.01","base_increment":"0.00000001","base_min_size":"0.00001","quote_min_size":"1"}
# 2026-11-16T15:00:00Z: BIP-20DEC30-CDE {"price_increment":"5","base_increment":"1","base_min_size":"1","fcm_trading_session_details":{"is_session_open":true},"future_product_details":{"contract_size":"0.01","contract_root_unit":"BTC","intraday_margin_rate":{"long_margin_rate":"0.25","short_margin_rate":"0.3"}}}
"##;

pub struct Played {
    pub events_per_second: f64,
    /// The engine's ticks counted, too.
    pub turns_per_second: f64,
}

/// Plays so many seconds of two products whose prices walk at random, with trades.
pub fn play(seconds: u32) -> Played {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("market.csv");
    std::fs::write(&path, table(seconds)).unwrap();
    let assumed = Assumed { depth_quote: dec!(100000), spread_bps: None };
    let series = Series::open(&path, &[SPOT.to_owned(), FUTURE.to_owned()], assumed).unwrap();
    // In memory, as the command has it.
    let ledger = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let backtest =
        Backtest { bot: bot(), dir: ledger.path().join("ledger"), tick: TICK, from: None, to: None, record: None };
    let ran = backtest.run(series).unwrap();
    assert!(
        !ran.orders.is_empty() && !ran.view.future_owned_contracts.is_zero(),
        "the bot did not trade: {:#?}",
        ran.view
    );
    let (events, took) = (ran.events as f64, ran.took.as_secs_f64());
    let ticks = f64::from(seconds) / TICK.as_secs_f64();
    Played { events_per_second: events / took, turns_per_second: (events + ticks) / took }
}

fn table(seconds: u32) -> String {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut text, start) = (HEAD.to_owned(), START.parse::<Timestamp>().unwrap());
    let (mut steps, mut basis) = (12_000_i64, 0_i64);
    for n in 0..i64::from(seconds) * A_SECOND {
        let at = start + SignedDuration::from_millis(n * 1000 / A_SECOND + 37);
        steps += rng.random_range(-1..=1);
        basis = (basis + rng.random_range(-1..=1)).clamp(-3, 3);
        for (product, price, size) in [(SPOT, steps * 5, "0.5"), (FUTURE, (steps + basis) * 5, "40")] {
            let rate = if n == 0 && product == FUTURE { "0.00003" } else { "" };
            let (bid, ask) = (price, price + 5);
            let _ = write!(text, "{at},{product},{bid},{rate},{bid},{ask},{size},{size}");
            let _ = match rng.random_range(0..4) {
                0 => writeln!(text, ",{bid},{size}"),
                1 => writeln!(text, ",{ask},{size}"),
                _ => writeln!(text),
            };
        }
    }
    text
}
