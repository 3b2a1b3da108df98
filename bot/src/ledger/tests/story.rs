//! The story of an incident, as people read it afterwards.

use arbbot_crds::incident::IncidentId;

use super::*;

on_both!(an_incident_is_told_from_the_gate_to_its_release_and_nothing_else_with_it);
async fn an_incident_is_told_from_the_gate_to_its_release_and_nothing_else_with_it(kind: Kind) {
    let dir = kind.dir();
    let clock = Clock::manual();
    let (ledger, _) = Ledger::open(dir.path(), &binding(), clock.clone()).await.unwrap();
    let tick = || clock.advance(Duration::from_secs(1));
    let id: IncidentId = "aaaaaaaa-3".parse().unwrap();
    ledger.intent(&new_order("b-1-1"), Class::Enter, 1).await.unwrap();
    tick();
    let mut record =
        IncidentRecord { engaged_at: clock.now(), ..incident("aaaaaaaa-3", IncidentPhase::CancellingOrders) };
    ledger.open_incident(&record).await.unwrap();
    tick();
    ledger.order(&update("b-1-1", RecordStatus::Cancelled, 0)).await.unwrap();
    ledger.intent_or_journal(&new_order("b-1-2"), Class::Kill, 1, SHORT).await.unwrap();
    tick();
    let filled = OrderUpdate { order_id: Some("venue-2".to_owned()), ..update("b-1-2", RecordStatus::Filled, 5) };
    ledger.order(&filled).await.unwrap();
    record.phase = IncidentPhase::Finished;
    record.flat_at = Some(clock.now());
    ledger.update_incident(&record).await.unwrap();
    // Said again, which proves nothing anew; and a release is written a moment after it.
    tick();
    ledger.update_incident(&IncidentRecord { orders_cancelled_at: record.flat_at, ..record.clone() }).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let released_at = clock.now();
    tick();
    ledger.release_incident(&id, released_at).await.unwrap();
    tick();
    ledger.intent(&new_order("b-1-3"), Class::Enter, 1).await.unwrap();

    let story = super::super::incident(dir.path(), &id).await.unwrap().unwrap();
    let told: Vec<_> = story.timeline.iter().map(|m| (story.after(m.at).as_secs(), m.event)).collect();
    let expected = [(0, "gate closed"), (1, "order"), (1, "order sent"), (2, "order"), (2, "phase"), (64, "released")];
    assert_eq!(told, expected);
    let after = |at: Option<Timestamp>| at.map(|at| story.after(at).as_secs());
    assert_eq!((after(story.finished_at), after(story.released_at)), (Some(2), Some(63)));
    assert_eq!(story.orders.len(), 1, "those of the kill alone");
    assert_eq!((story.orders[0].status, story.orders[0].filled), (RecordStatus::Filled, Decimal::new(5, 2)));
    assert_eq!(story.incident.flat_at, record.flat_at);
    let unknown = super::super::incident(dir.path(), &"bbbbbbbb-1".parse().unwrap()).await.unwrap();
    assert_eq!(unknown, None);
}

// Fails when the deadline of a kill would count from its engagement although it was raised later, or anew with a restart
// (mutations: `*at` for `new.engaged_at` of a fresh one, and the other way round for all).
on_both!(a_restart_in_the_middle_of_a_kill_knows_since_when_it_closes);
async fn a_restart_in_the_middle_of_a_kill_knows_since_when_it_closes(kind: Kind) {
    let dir = kind.dir();
    let clock = Clock::manual();
    let (mut ledger, _) = Ledger::open(dir.path(), &binding(), clock.clone()).await.unwrap();
    let began = clock.now();
    let plain = IncidentRecord { engaged_at: began, ..incident("bbbbbbbb-1", IncidentPhase::CancellingOrders) };
    let cancels =
        IncidentRecord { action: KillAction::CancelOrders, ..incident("aaaaaaaa-3", IncidentPhase::CancellingOrders) };
    let raised = IncidentRecord { action: KillAction::Flatten, ..cancels.clone() };
    let remembered =
        IncidentRecord { orders_cancelled_at: Some(began), ..incident("cccccccc-1", IncidentPhase::Flattening) };
    let ids = ["aaaaaaaa-3", "bbbbbbbb-1", "cccccccc-1"].map(|id| id.parse::<IncidentId>().unwrap());
    clock.advance(Duration::from_secs(1));
    ledger.open_incident(&cancels).await.unwrap();
    clock.advance(Duration::from_secs(3600));
    ledger.open_incident(&raised).await.unwrap();
    let rose = clock.now();
    ledger.open_incident(&plain).await.unwrap();
    ledger.open_incident(&remembered).await.unwrap();
    clock.advance(Duration::from_secs(30));
    for phase in [IncidentPhase::Flattening, IncidentPhase::Confirming] {
        ledger.update_incident(&IncidentRecord { phase, ..raised.clone() }).await.unwrap();
    }
    for _ in 0..2 {
        drop(ledger);
        let recovered;
        (ledger, recovered) = Ledger::open(dir.path(), &binding(), clock.clone()).await.unwrap();
        let known: Vec<_> = ids.iter().map(|id| recovered.flattening.get(id).copied()).collect();
        assert_eq!(known, [Some(rose), Some(began), Some(rose)]);
    }
    // Two of them finish, and a late fill opens one of these again.
    clock.advance(Duration::from_secs(30));
    for record in [&raised, &plain] {
        ledger.update_incident(&IncidentRecord { phase: IncidentPhase::Finished, ..record.clone() }).await.unwrap();
    }
    clock.advance(Duration::from_secs(86_400));
    ledger.update_incident(&IncidentRecord { phase: IncidentPhase::Flattening, ..plain }).await.unwrap();
    let reopened = clock.now();
    drop(ledger);
    let (_, recovered) = Ledger::open(dir.path(), &binding(), clock).await.unwrap();
    let known: Vec<_> = ids.iter().map(|id| recovered.flattening.get(id).copied()).collect();
    assert_eq!(known, [None, Some(reopened), Some(rose)]);
}
