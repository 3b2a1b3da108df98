//! Guards at work: what they see, what a trip takes from the bot, and what alone ends it.

use std::time::Duration;

use arb_bot::execution::engine::View;
use arbbot_crds::arbbot::Mode;
use arbbot_crds::control::Entry;
use arbbot_crds::guards::{Guard, GuardState, Guards};
use arbbot_crds::status::EffectiveMode;
use rust_decimal::{Decimal, dec};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::api_server::ApiServer;
use super::bot::Bot;
use super::desk::{Desk, Step, at_a_desk_with, finish};
use super::paused;

/// The shipped guards, and no others: unlike the other tests here, which are not about them.
fn shipped(desk: &mut arbbot_crds::ArbBot) {
    desk.spec.risk.guards = Guards::default();
}

fn state(view: &View, name: &str) -> GuardState {
    view.guards.shown.iter().find(|guard| guard.status.name == name).map(|guard| guard.status.state).unwrap_or_default()
}

fn incident(view: &View, name: &str) -> Option<String> {
    view.guards.shown.iter().find(|guard| guard.status.name == name)?.status.incident.clone()
}

fn demands(bot: &Bot, source: &str) -> Option<Entry> {
    bot.gate.restrictions().iter().find(|restriction| restriction.source == source).map(|restriction| restriction.entry)
}

/// As the control task shows a new spec.
fn patch(bot: &Bot, change: impl FnOnce(&mut arbbot_crds::ArbBot)) {
    bot.spec.send_modify(|spec| {
        spec.metadata.generation = spec.metadata.generation.map(|generation| generation + 1);
        change(spec);
    });
}

async fn with_a_position(desk: &Desk<'_>) {
    desk.bot.wait("a position", |view| view.future_owned_contracts <= (-3).into()).await;
}

#[test]
fn a_silent_socket_trips_market_data_and_the_trip_ends_by_itself() {
    paused(at_a_desk_with(3, shipped, async |desk: Desk<'_>| {
        with_a_position(&desk).await;
        let began = Instant::now();
        desk.exchange.fault(json!({"kind": "websocket_silent"})).await;
        desk.bot.wait("it warns", |view| state(view, "market-data") == GuardState::Warns).await;
        assert!((10..16).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        let view = desk.bot.wait("a trip", |view| state(view, "market-data") == GuardState::Tripped).await;
        assert!((30..36).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!(incident(&view, "market-data"), None, "it ends by itself");
        assert_eq!(demands(&desk.bot, "guard/market-data"), Some(Entry::ReduceOnly));
        desk.exchange.fault(json!({"clear": true})).await;
        let healed = Instant::now();
        desk.bot.wait("its end", |view| state(view, "market-data") == GuardState::Good).await;
        assert!(healed.elapsed() >= Duration::from_secs(29), "{:?}", healed.elapsed());
        assert_eq!(demands(&desk.bot, "guard/market-data"), None);
        finish(desk).await.unwrap();
    }));
}

#[test]
fn a_daily_loss_outlives_two_deaths_of_the_bot_and_only_its_own_id_ends_it() {
    paused(at_a_desk_with(4, shipped, async |desk: Desk<'_>| {
        with_a_position(&desk).await;
        // The peak, before the fees of the entry, is in the ledger by then.
        sleep(Duration::from_secs(70)).await;
        let desk = desk.restart().await;
        desk.bot.wait("it looks", |view| view.seen_exchange && view.prices_fresh).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(state(&desk.bot.view.borrow(), "daily-loss"), GuardState::Good, "2 % of 25,000 are not lost");
        // What the first process lost is 2 % of this.
        patch(&desk.bot, |spec| spec.spec.risk.capital = 100.into());
        let view = desk.bot.wait("a trip", |view| state(view, "daily-loss") == GuardState::Tripped).await;
        assert_eq!(incident(&view, "daily-loss").as_deref(), Some("0a1b2c3d-2"));
        assert_eq!(demands(&desk.bot, "guard/daily-loss"), Some(Entry::ReduceOnly));
        assert_eq!(
            desk.bot.wait("it is obeyed", |view| view.mode == Some(EffectiveMode::ReduceOnly)).await.open_orders,
            0
        );
        sleep(Duration::from_secs(2)).await;

        // The next process has the capital that the first had: nothing is wrong any more but the trip.
        let desk = desk.restart().await;
        let wrong = ["yes", "00000000-9", "0a1b2c3d-1", "0a1b2c3d-99"];
        for release in wrong {
            patch(&desk.bot, |spec| spec.spec.kill_switch.release = release.to_owned());
            sleep(Duration::from_secs(60)).await;
            let view = desk.bot.view.borrow().clone();
            assert_eq!(incident(&view, "daily-loss").as_deref(), Some("0a1b2c3d-2"), "{release}");
            assert_eq!(demands(&desk.bot, "guard/daily-loss"), Some(Entry::ReduceOnly), "{release}");
        }
        patch(&desk.bot, |spec| spec.spec.kill_switch.release = "0a1b2c3d-2".to_owned());
        desk.bot.wait("its end", |view| state(view, "daily-loss") == GuardState::Good).await;
        assert_eq!(demands(&desk.bot, "guard/daily-loss"), None);
        // It does not come back with the next process either.
        let desk = desk.restart().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(state(&desk.bot.view.borrow(), "daily-loss"), GuardState::Good);
        finish(desk).await.unwrap();
    }));
}

#[test]
fn a_guard_that_kills_closes_the_position() {
    paused(at_a_desk_with(5, shipped, async |desk: Desk<'_>| {
        with_a_position(&desk).await;
        let guard =
            json!({"name": "x", "metric": "PositionCount", "tripAt": "1", "action": "Kill", "confirmations": 1});
        let guard: Guard = serde_json::from_value(guard).unwrap();
        patch(&desk.bot, |spec| spec.spec.risk.guards.list.push(guard));
        let view = desk.bot.wait("flat", |view| view.proof.flat.confirmed).await;
        assert_eq!((view.mode, view.future_owned_contracts), (Some(EffectiveMode::Flatten), 0.into()));
        let desk = desk.take(&Step::Mode(Mode::Halted)).await;
        finish(desk).await.unwrap();
    }));
}

fn open_incidents(bot: &Bot) -> Vec<(String, String)> {
    let facts = bot.control_facts.borrow();
    facts.incidents.iter().map(|open| (open.id.clone(), open.source.clone())).collect()
}

/// Fails when a trip that becomes a kill opens no incident (mutation: `raise` in risk/guards.rs returns None), when a restart
/// loses the kill (mutation: `this.kill(trip)` in GuardWatch::new is left out and the ledger's incidents are not recovered), and
/// when the release of the milder trip frees it (mutation: the raised trip keeps its incident).
#[test]
fn a_guards_kill_is_an_incident_that_a_restart_and_the_removal_of_the_guard_survive_and_only_its_release_ends() {
    paused(at_a_desk_with(6, shipped, async |mut desk: Desk<'_>| {
        let object = desk.machine.spec.clone();
        let mut server = ApiServer::over(&mut desk.bot, object).await;
        // Both legs: an entry that is cut half-way is trimmed to nothing.
        let both = |view: &View| view.future_owned_contracts <= (-8).into() && view.spot_owned_base >= dec!(0.08);
        desk.bot.wait("both legs", both).await;
        let guard = |action: &str| -> Guard {
            let guard =
                json!({"name": "x", "metric": "PositionCount", "tripAt": "1", "action": action, "release": "Manual"});
            serde_json::from_value(guard).unwrap()
        };
        server.patch(|bot| bot.spec.risk.guards.list = vec![guard("ReduceOnly")]).await;
        let view = desk.bot.wait("a trip", |view| state(view, "x") == GuardState::Tripped).await;
        assert_eq!(incident(&view, "x").as_deref(), Some("0a1b2c3d-2"));
        assert_eq!(open_incidents(&desk.bot), [], "it does not kill");
        assert!(view.future_owned_contracts <= (-7).into(), "{}", view.future_owned_contracts);

        server.patch(|bot| bot.spec.risk.guards.list = vec![guard("Kill")]).await;
        let kill = [("0a1b2c3d-3".to_owned(), "guard/x".to_owned())];
        let mut facts = desk.bot.control_facts.clone();
        let opened = facts.wait_for(|facts| !facts.incidents.is_empty());
        tokio::time::timeout(Duration::from_secs(10), opened).await.expect("no incident").unwrap();
        assert_eq!(open_incidents(&desk.bot), kill);
        let held = desk.bot.view.borrow().future_owned_contracts;
        assert!(held < Decimal::ZERO, "{held}: it is not yet flat");
        // GitOps takes the guard away, with a release of the milder trip; the next process sees nothing else.
        server
            .patch(|bot| {
                bot.spec.risk.guards.list.clear();
                bot.spec.kill_switch.release = "0a1b2c3d-2".to_owned();
            })
            .await;
        let (mut desk, mut server) = server.restart(desk).await;
        assert_eq!(open_incidents(&desk.bot), kill, "the ledger has it");
        let flat = |view: &View| view.proof.flat.confirmed && view.mode == Some(EffectiveMode::Flatten);
        let view = desk.bot.wait("flat", flat).await;
        assert_eq!((view.future_owned_contracts, view.spot_owned_base), (Decimal::ZERO, Decimal::ZERO));
        assert_eq!(incident(&view, "x").as_deref(), Some("0a1b2c3d-3"));

        for release in ["", "0a1b2c3d-2", "00000000-3", "0a1b2c3d-99"] {
            server.patch(|bot| bot.spec.kill_switch.release = release.to_owned()).await;
            sleep(Duration::from_secs(45)).await;
            assert_eq!(open_incidents(&desk.bot), kill, "{release}");
            assert_eq!(demands(&desk.bot, "guard/x"), Some(Entry::Halted), "{release}");
            assert_eq!(desk.bot.view.borrow().mode, Some(EffectiveMode::Flatten), "{release}");
        }
        (desk, server) = server.restart(desk).await;
        sleep(Duration::from_secs(45)).await;
        assert_eq!(open_incidents(&desk.bot), kill, "another restart");
        assert_eq!(demands(&desk.bot, "guard/x"), Some(Entry::Halted), "another restart");

        server.patch(|bot| bot.spec.kill_switch.release = "0a1b2c3d-3".to_owned()).await;
        desk.bot.wait("its end", |view| view.mode == Some(EffectiveMode::Active)).await;
        assert_eq!((open_incidents(&desk.bot), demands(&desk.bot, "guard/x")), (Vec::new(), None));
        let (desk, _server) = server.restart(desk).await;
        sleep(Duration::from_secs(45)).await;
        assert_eq!((open_incidents(&desk.bot), demands(&desk.bot, "guard/x")), (Vec::new(), None));
        finish(desk).await.unwrap();
    }));
}

/// Fails when the guards' recorder is not waited for (mutation: `self.guards.end()` in Driver::run is left out and only the first
/// recorder is joined).
#[test]
fn an_orderly_end_leaves_the_ledger_the_equity_of_the_last_minute() {
    paused(at_a_desk_with(7, shipped, async |desk: Desk<'_>| {
        with_a_position(&desk).await;
        sleep(Duration::from_secs(10)).await;
        let Desk { bot, machine, .. } = desk;
        bot.stop().await;
        let (_, recovered) = machine.ledger().await.unwrap();
        assert!(!recovered.guards.equity.is_empty());
    }));
}

/// Fails when a restart does not wait for a kill (mutation: `kills` is false in restart_if_due), and when it is forgotten
/// (mutation: `self.restart_due = Some(trip)` is left out there).
#[test]
fn a_guard_restarts_the_bot_once_no_kill_is_under_way_and_not_before() {
    paused(at_a_desk_with(8, shipped, async |desk: Desk<'_>| {
        with_a_position(&desk).await;
        let desk = desk.take(&Step::KillSwitch).await;
        let guard = json!({"name": "x", "metric": "EvaluationsPerMinute", "tripAt": "100000", "action": "Restart"});
        let guard: Guard = serde_json::from_value(guard).unwrap();
        patch(&desk.bot, |spec| spec.spec.risk.guards.list.push(guard));
        desk.bot.wait("a trip", |view| state(view, "x") == GuardState::Tripped).await;
        desk.bot.flat(Duration::from_secs(600)).await;
        sleep(Duration::from_secs(60)).await;
        assert!(!desk.bot.restart.is_cancelled(), "the incident is open");
        let desk = desk.take(&Step::Release).await;
        let released = tokio::time::timeout(Duration::from_secs(10), desk.bot.restart.cancelled());
        released.await.expect("it restarts once the kill is over");
        finish(desk).await.unwrap();
    }));
}
