//! The books over days of settlements: funding paid at midnight and noon, gains paid at five in New York, a closed hour on
//! Friday. Whatever the bot was doing then, dead or alive, both sides have the same money to the last unit.

use std::time::Duration;

use arb_bot::ledger::{self, Books, Quality};
use arbbot_crds::arbbot::Mode;
use arbbot_crds::control::Restriction;
use exchange_simulator::server::Options;
use rust_decimal::{Decimal, dec};
use serde_json::json;
use tokio::time::sleep;

use super::desk::{Desk, Step, finish};
use super::exchange::{Exchange, FUTURE};
use super::network::Network;
use super::{machine, paused};

/// Steps of market and engine: rare, so that days are seconds of this machine.
const TICK: Duration = Duration::from_secs(5);

/// Runs a bot from `start` on and hands it to a test; returns its books as its ledger has them after the end.
async fn over(seed: u64, start: &str, test: impl AsyncFnOnce(Desk<'_>) -> Desk<'_>) -> Books {
    let mut options = Options { tick: TICK, ..Options::default() };
    options.settings.seed = seed;
    let exchange = Exchange::start_with(&options, start);
    let network = Network::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(&exchange, &network, seed, dir.path());
    machine.tick = TICK;
    let desk = test(Desk::new(&exchange, &network, &machine).await).await;
    finish(desk).await.unwrap();
    ledger::books(&dir.path().join("ledger")).await.unwrap()
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

#[test]
fn a_friday_with_its_closed_hour_is_settled_to_the_last_unit() {
    let books = paused(over(3, "2026-11-20T19:40:00Z", async |desk| {
        // 22:00 the day's gain is paid and the session closes for an hour, 00:00 funding is paid.
        sleep(hours(5)).await;
        desk
    }));
    let accrued: Vec<String> = books.funding.iter().map(|hour| hour.hour.to_string()).collect();
    let expected = ["20:00", "21:00", "22:00"].map(|hour| format!("2026-11-20T{hour}:00Z"));
    assert_eq!(accrued[..3], expected, "each hour once, and 22:00 to 23:00 not at all");
    assert_eq!(accrued[3..], ["2026-11-21T00:00:00Z"]);
    for hour in &books.funding {
        assert_eq!((hour.quality, hour.contracts < Decimal::ZERO), (Quality::Observed, true), "{hour:?}");
        assert!((hour.accrued_quote > Decimal::ZERO) == (hour.rate > Decimal::ZERO), "a short receives: {hour:?}");
    }
    let [settlement] = &books.settlements[..] else { panic!("{:#?}", books.settlements) };
    assert_eq!(settlement.window_end.to_string(), "2026-11-21T00:00:00Z");
    assert!(!settlement.settled_quote.is_zero());
    let drift = settlement.adjustment_quote().abs();
    assert!(drift < settlement.accrued_quote.abs() * dec!(0.01), "the estimates were near: {settlement:?}");
    assert_eq!(books.variation.len(), 1, "the day's gain was paid once");
    assert_eq!(books.flows.len(), 1, "nothing but what was there at the start is unexplained: {:?}", books.flows);
    assert!(books.equity.len() >= 5, "{:?}", books.equity.len());
}

#[test]
fn a_bot_that_is_dead_while_money_is_paid_books_it_when_it_comes_back() {
    let books = paused(over(4, "2026-11-17T20:30:00Z", async |mut desk| {
        sleep(hours(1)).await;
        // Dead over the daily settlement at 22:00 and the funding of midnight.
        desk = desk.restart_after(hours(3)).await;
        sleep(hours(1)).await;
        // Noon while the exchange does not answer, and positions that change meanwhile.
        sleep(hours(10)).await;
        desk = desk.take(&Step::Down { tenths: 40 * 600 }).await;
        desk = desk.take(&Step::KillSwitch).await;
        sleep(hours(1)).await;
        desk
    }));
    let missing = books.funding.iter().filter(|hour| hour.quality == Quality::Missing).count();
    assert_eq!(missing, 2, "22:00 and 23:00 nobody saw; midnight is still shown: {:#?}", books.funding);
    assert_eq!(books.settlements.len(), 2, "{:#?}", books.settlements);
    assert_eq!(books.settlements[1].since, Some(books.settlements[0].window_end));
    assert_eq!(books.variation.len(), 1);
    assert_eq!(books.flows.len(), 1, "{:?}", books.flows);
    assert_eq!(books.position(FUTURE), Decimal::ZERO);
}

#[test]
fn money_of_others_is_no_gain_and_no_funding() {
    let books = paused(over(5, "2026-11-17T22:30:00Z", async |mut desk| {
        sleep(Duration::from_secs(1200)).await;
        desk.exchange.deposit(dec!(1234.56));
        sleep(hours(2)).await;
        desk.bot.control(vec![Restriction::mode("spec.mode", Mode::ReduceOnly, "test")]).await;
        desk.exchange.fault(json!({"clear": true})).await;
        desk
    }));
    assert_eq!(books.flows.len(), 2, "{:?}", books.flows);
    assert_eq!(books.flows[1].quote, dec!(1234.56));
    assert_eq!(books.settlements.len(), 1);
    let greatest = books.equity.iter().map(|point| point.equity_quote.abs()).max().unwrap();
    assert!(greatest < dec!(500), "{greatest}");
}
