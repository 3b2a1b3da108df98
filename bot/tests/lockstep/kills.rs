//! A kill at every moment and under everything that the exchange does not document: it ends flat, and closes nothing twice.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

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
