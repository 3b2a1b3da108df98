//! What the ledger keeps of the guards.

use arbbot_crds::guards::{GuardAction, GuardMetric};
use rust_decimal::dec;

use super::*;
use crate::ledger::{EquityHigh, GuardTrip};

pub(super) fn trip(guard: &str, action: GuardAction, at: Timestamp, incident: Option<&str>) -> GuardTrip {
    GuardTrip {
        guard: guard.to_owned(),
        metric: GuardMetric::DailyLossPercent,
        action,
        value: dec!(2.5),
        threshold: dec!(2),
        tripped_at: at,
        incident: incident.map(|id| id.parse().unwrap()),
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(60 * minute).unwrap()
}

on_both!(a_trip_is_back_after_a_restart_until_it_has_ended_and_the_chain_proves_both);
async fn a_trip_is_back_after_a_restart_until_it_has_ended_and_the_chain_proves_both(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    let by_hand = trip("loss", GuardAction::ReduceOnly, at(0), Some("aaaaaaaa-3"));
    let by_itself = trip("data", GuardAction::ReduceOnly, at(1), None);
    for trip in [&by_hand, &by_itself, &by_hand] {
        ledger.guard_tripped(trip).await.unwrap();
    }
    drop(ledger);
    let (ledger, recovered) = open(dir.path()).await;
    assert_eq!(recovered.guards.trips, [by_hand.clone(), by_itself.clone()]);
    ledger.guard_ended("loss", at(0), at(5)).await.unwrap();
    let head = ledger.head();
    ledger.guard_ended("loss", at(0), at(6)).await.unwrap();
    ledger.guard_ended("nobody", at(0), at(6)).await.unwrap();
    assert_eq!(ledger.head(), head, "what changes nothing is not in the chain");
    drop(ledger);
    let (_ledger, recovered) = open(dir.path()).await;
    assert_eq!(recovered.guards.trips, [by_itself]);
    assert_eq!(recovered.guards.ended, [("loss".to_owned(), by_hand.incident.unwrap())]);
    verify(dir.path()).await.unwrap();
    tamper(dir.path(), "UPDATE guard_trips SET ended_at = NULL").await;
    assert!(verify(dir.path()).await.unwrap_err().to_string().contains("the trip of guard loss"));
}

on_both!(restarts_of_the_last_hour_are_counted_in_the_next_process);
async fn restarts_of_the_last_hour_are_counted_in_the_next_process(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    for trip in [trip("a", GuardAction::Restart, at(0), None), trip("b", GuardAction::Halt, at(0), None)] {
        ledger.guard_tripped(&trip).await.unwrap();
    }
    drop(ledger);
    let restarts = async |clock: Clock| {
        let (_ledger, recovered) = open_as(dir.path(), &binding(), clock).await.unwrap();
        recovered.guards.restarts
    };
    let clock = Clock::manual();
    assert_eq!(restarts(clock.clone()).await, [at(0)]);
    clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(restarts(clock).await, []);
}

on_both!(the_equity_of_a_day_is_kept_beside_the_chain);
async fn the_equity_of_a_day_is_kept_beside_the_chain(kind: Kind) {
    let (dir, ledger) = new_ledger(kind).await;
    let high = |minute, equity_quote| EquityHigh { at: at(minute), equity_quote };
    let head = ledger.head();
    ledger.keep_equity(&[high(0, dec!(5)), high(5, dec!(-7.25))]).await.unwrap();
    ledger.keep_equity(&[high(5, dec!(-6)), high(25 * 60 + 1, dec!(1))]).await.unwrap();
    assert_eq!(ledger.head(), head);
    drop(ledger);
    let (_ledger, recovered) = open(dir.path()).await;
    assert_eq!(recovered.guards.equity, [high(5, dec!(-6)), high(25 * 60 + 1, dec!(1))], "a day and a little more");
    verify(dir.path()).await.unwrap();
}
