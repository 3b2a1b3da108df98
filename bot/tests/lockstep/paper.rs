//! A bot on paper: the same engine on the exchange's public market data, and not one order at the exchange.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_bot::clock::Clock;
use arb_bot::execution::driver::TICK;
use arb_bot::execution::engine::{Reconciliation, View};
use arbbot_crds::arbbot::{Execution, KillAction};
use arbbot_crds::control::Restriction;
use rust_decimal::{Decimal, dec};
use serde_json::json;

use super::bot::{Bot, Machine};
use super::exchange::{Exchange, START};
use super::network::Network;
use super::paused;
use super::spec;

/// A machine on which there is no key.
fn machine<'a>(exchange: &Exchange, network: &Arc<Network>, dir: &'a Path) -> Machine<'a> {
    let mut spec = spec::spec(&exchange.portfolio(), &json!({}), &json!({}));
    spec.spec.execution = Execution::Paper;
    spec.spec.credentials = Default::default();
    spec.spec.venue.coinbase.portfolio = None;
    let clock = Clock::driven_by_tokio(START.parse().unwrap());
    Machine {
        clock,
        tick: TICK,
        seed: 7,
        dir,
        dial: network.dial(Arc::clone(&exchange.simulator)),
        spec,
        acknowledged: Default::default(),
        anchor: Default::default(),
        record: None,
    }
}

fn has_both_legs(view: &View) -> bool {
    view.future_owned_contracts < Decimal::ZERO && view.spot_owned_base == -view.future_owned_contracts * dec!(0.01)
}

fn kill() -> Vec<Restriction> {
    vec![Restriction::kill("incident/0a1b2c3d-2", KillAction::Flatten, "drill")]
}

async fn assert_that_no_order_reached(exchange: &Exchange) {
    let transcript = exchange.transcript().await;
    assert!(transcript.is_empty(), "{transcript:#?}");
}

#[test]
fn a_paper_bot_needs_no_key_builds_both_legs_and_a_kill_closes_them_without_one_order_at_the_exchange() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let (exchange, network) = (Exchange::start(11, false), Network::new(11));
        let machine = machine(&exchange, &network, dir.path());
        let mut bot = Bot::start(&machine, 1).await;
        let facts = bot.session("market data", |facts| facts.open).await;
        assert_eq!((facts.execution, facts.account.as_deref()), (Some(Execution::Paper), Some("paper")));
        let view = bot.wait("both legs", has_both_legs).await;
        assert!(view.fees_quote > Decimal::ZERO && view.reconciliation == Reconciliation::Matches, "{view:#?}");
        bot.wait("working orders or none", |view| view.unknown_orders == 0).await;
        bot.control(kill()).await;
        let view = bot.wait("flat, confirmed twice", |view| view.proof.flat.confirmed).await;
        assert_eq!((view.future_owned_contracts, view.open_orders), (Decimal::ZERO, 0));
        assert_that_no_order_reached(&exchange).await;
        assert!(bot.is_alive());
    });
}

#[test]
fn the_paper_account_survives_every_death_and_the_ledger_agrees_with_it() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let (exchange, network) = (Exchange::start(12, false), Network::new(12));
        let machine = machine(&exchange, &network, dir.path());
        let mut bot = Bot::start(&machine, 1).await;
        let mut owned = (Decimal::ZERO, Decimal::ZERO);
        for epoch in 2..14_i64 {
            tokio::time::sleep(Duration::from_millis(1300 * epoch.unsigned_abs())).await;
            bot.kill().await;
            bot = Bot::start(&machine, epoch).await;
            let view = bot.wait("reconciled", |view| view.reconciliation == Reconciliation::Matches).await;
            owned = (view.spot_owned_base, view.future_owned_contracts);
        }
        assert!(owned.1 < Decimal::ZERO, "{owned:?}");
        // A kill that a death interrupts goes on.
        bot.control(kill()).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        bot.kill().await;
        let mut bot = Bot::start(&machine, 20).await;
        bot.control(kill()).await;
        let view = bot.wait("flat", |view| view.proof.flat.confirmed).await;
        assert_eq!(view.reconciliation, Reconciliation::Matches);
        assert_that_no_order_reached(&exchange).await;
    });
}

#[test]
fn lost_market_data_closes_entry_and_comes_back_by_itself() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let (exchange, network) = (Exchange::start(13, false), Network::new(13));
        let machine = machine(&exchange, &network, dir.path());
        let mut bot = Bot::start(&machine, 1).await;
        bot.wait("both legs", has_both_legs).await;
        network.block(Some("simulator"));
        bot.wait("links down", |view| view.links.iter().any(|(_, down)| down.is_some())).await;
        assert!(bot.gate.current().0.entry > arbbot_crds::control::Entry::Active);
        tokio::time::sleep(Duration::from_secs(90)).await;
        network.block(None);
        bot.wait("links up", |view| view.links.iter().all(|(_, down)| down.is_none())).await;
        bot.wait("fresh prices", |view| view.prices_fresh).await;
        bot.control(kill()).await;
        bot.wait("flat", |view| view.proof.flat.confirmed).await;
        assert_that_no_order_reached(&exchange).await;
    });
}

#[test]
fn the_ledger_of_a_paper_bot_does_not_open_for_a_live_one() {
    paused(async {
        let dir = tempfile::tempdir().unwrap();
        let (exchange, network) = (Exchange::start(14, false), Network::new(14));
        let mut machine = machine(&exchange, &network, dir.path());
        let bot = Bot::start(&machine, 1).await;
        bot.wait("both legs", has_both_legs).await;
        bot.kill().await;
        machine.spec = spec::spec(&exchange.portfolio(), &json!({}), &json!({}));
        let error = machine.ledger().await.expect_err("it opened").to_string();
        assert!(error.contains("spec.execution") && error.contains("Paper"), "{error}");
    });
}

#[test]
fn the_same_seed_gives_the_same_fills_on_paper() {
    let run = || {
        paused(async {
            let dir = tempfile::tempdir().unwrap();
            let (exchange, network) = (Exchange::start(15, false), Network::new(15));
            let machine = machine(&exchange, &network, dir.path());
            let bot = Bot::start(&machine, 1).await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            let view = bot.view.borrow().clone();
            bot.kill().await;
            (view.spot_owned_base, view.future_owned_contracts, view.fees_quote)
        })
    };
    let first = run();
    assert!(first.1 < Decimal::ZERO, "{first:?}");
    assert_eq!(first, run());
}
