//! A kill at every moment and under everything that the exchange does not document: it ends flat, and closes nothing twice.

use std::time::Duration;

use arb_bot::ledger::{self, OrderRecord};
use arb_bot::risk::Class;
use arbbot_crds::arbbot::KillAction;
use arbbot_crds::status::EffectiveMode;
use rust_decimal::{Decimal, dec};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api_server::ApiServer;
use super::desk::{Desk, Step, at_a_desk, finish};
use super::{paused, paused_step_by_step};

const FLAT_WITHIN: Duration = Duration::from_secs(600);

async fn with_a_position(desk: Desk<'_>) -> Desk<'_> {
    desk.bot.wait("a position", |view| view.future_owned_contracts <= (-3).into()).await;
    desk
}

/// The saga goes on until the exchange shows nothing, and both sides agree.
async fn ends_flat(desk: Desk<'_>) {
    desk.bot.flat(FLAT_WITHIN).await;
    let truth = desk.exchange.truth().await;
    assert_eq!((truth.contracts, truth.open_orders), (Decimal::ZERO, 0));
    finish(desk).await.unwrap();
}

#[test]
fn a_bot_that_dies_at_any_await_point_of_a_kill_closes_what_it_owns_and_nothing_twice() {
    // Every fourth await point from the engagement to well after the first orders of the saga were answered.
    for turns in (0..160).step_by(4) {
        let is_lost = turns % 8 == 0; // what was on its way when the bot died is lost, or arrives
        paused_step_by_step(at_a_desk(1, turns % 16 == 0, async |desk: Desk<'_>| {
            let mut desk = with_a_position(desk).await.take(&Step::KillSwitch).await;
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            if is_lost {
                desk.network.cut();
            }
            desk = desk.restart().await;
            ends_flat(desk).await;
        }));
    }
}

#[test]
fn a_kill_ends_flat_under_every_behaviour_that_is_not_documented() {
    let behaviours: [Value; 7] = [
        json!({"kind": "refuse_duplicates"}),
        json!({"kind": "refuse_gtd"}),
        json!({"kind": "close_position_ignores_size"}),
        json!({"kind": "close_cancels_orders"}),
        json!({"kind": "closed_book_is_empty"}),
        json!({"kind": "short_account_types"}),
        json!({"kind": "liquidation_buffer_as_fraction"}),
    ];
    for behaviour in behaviours {
        paused(at_a_desk(5, false, async |desk: Desk<'_>| {
            desk.exchange.fault(behaviour.clone()).await;
            let desk = with_a_position(desk).await;
            // In the middle of it the futures session closes for a while, and orders of the saga have no answer.
            desk.exchange.fault(json!({"kind": "session_closed", "seconds": 30})).await;
            desk.exchange.fault(json!({"kind": "drop_replies", "endpoint": "/orders", "count": 2})).await;
            ends_flat(desk.take(&Step::KillSwitch).await).await;
        }));
    }
}

/// The orders of the saga, oldest first.
async fn of_the_kill(desk: &Desk<'_>) -> Vec<OrderRecord> {
    let orders = ledger::orders(&desk.machine.dir.join("ledger")).await.unwrap();
    orders.into_iter().filter(|order| order.class == Some(Class::Kill)).collect()
}

/// Must fail when the deadline counts from the engagement (mutation: `engaged_at` for the time in `Latches::note_flattening`), or
/// from the restart (mutation: `Recovered::flattening` left empty).
#[test]
fn a_kill_that_is_raised_to_flatten_has_its_whole_ladder_and_one_deadline_whatever_restarts() {
    paused(at_a_desk(7, false, async |mut desk: Desk<'_>| {
        let object = desk.machine.spec.clone();
        let mut server = ApiServer::over(&mut desk.bot, object).await;
        let mut desk = with_a_position(desk).await;
        let engage = |action| {
            move |bot: &mut arbbot_crds::ArbBot| {
                (bot.spec.kill_switch.engaged, bot.spec.kill_switch.action) = (true, action);
            }
        };
        server.patch(engage(KillAction::CancelOrders)).await;
        desk.bot.wait("no orders", |view| view.proof.orders_gone.confirmed).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(of_the_kill(&desk).await, []);
        let (spot, future) = desk.bot.view.borrow().mids.unwrap();
        desk.exchange.fault(json!({"kind": "reject_orders", "reason": "INSUFFICIENT_FUND"})).await;
        server.patch(engage(KillAction::Flatten)).await;
        sleep(Duration::from_secs(50)).await;
        let first = of_the_kill(&desk).await.remove(0);
        let mid = if first.product == super::exchange::SPOT { spot } else { future };
        let beyond = first.limit_price.map(|price| (price - mid) * first.side.sign() / mid * dec!(10000));
        // The price may have moved a little until it was sent.
        assert!(beyond.is_some_and(|bps| bps <= dec!(55)), "{beyond:?}: {first:?}");

        (desk, server) = server.restart(desk).await;
        sleep(Duration::from_secs(60)).await;
        let orders = of_the_kill(&desk).await;
        assert!(orders.iter().any(|order| order.epoch == 2), "the next process goes on");
        assert!(orders.iter().all(|order| order.kind == "ImmediateOrCancel"), "{:?}", orders.last());
        sleep(Duration::from_secs(20)).await;
        let last = of_the_kill(&desk).await.pop().unwrap();
        assert_eq!(last.limit_price, None, "two minutes after it was raised: {last:?}");
        desk.exchange.fault(json!({"clear": true})).await;
        desk.bot.wait("flat", |view| view.proof.flat.confirmed).await;
        let open = desk.bot.control_facts.borrow().incidents[0].id.clone();
        server
            .patch(move |bot| {
                (bot.spec.kill_switch.engaged, bot.spec.kill_switch.release) = (false, open);
            })
            .await;
        desk.bot.wait("its end", |view| view.mode == Some(EffectiveMode::Active)).await;
        finish(desk).await.unwrap();
    }));
}
