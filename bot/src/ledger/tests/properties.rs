//! Whatever happens in whatever order.

use proptest::prelude::*;
use strum::IntoEnumIterator;

use super::*;

/// What may happen to a ledger.
#[derive(Clone, Debug)]
enum Step {
    Intent(usize),
    Order(usize, RecordStatus, i64),
    Kill(usize, IncidentPhase),
    Release(usize),
    Claim(usize),
    Crash,
}

fn any_step() -> impl Strategy<Value = Step> {
    let status = prop::sample::select(RecordStatus::iter().collect::<Vec<_>>());
    let phase = prop::sample::select(vec![IncidentPhase::CancellingOrders, IncidentPhase::Finished]);
    prop_oneof![
        (0_usize..3).prop_map(Step::Intent),
        (0_usize..3, status, 0_i64..6).prop_map(|(n, status, filled)| Step::Order(n, status, filled)),
        (0_usize..2, phase).prop_map(|(n, phase)| Step::Kill(n, phase)),
        (0_usize..2).prop_map(Step::Release),
        (0_usize..2).prop_map(Step::Claim),
        Just(Step::Crash),
    ]
}

/// Takes the steps; refusals are part of life, failures of the disk are not.
async fn walk(dir: &Path, steps: Vec<Step>) -> Ledger {
    let (mut ledger, _) = open(dir).await;
    for step in steps {
        let order = |n| format!("b-1-{n}");
        let id = |n| format!("aaaaaaaa-{n}");
        let done = match step {
            Step::Intent(n) => ledger.intent(&new_order(&order(n)), Class::Enter, 1).await,
            Step::Order(n, status, filled) => ledger.order(&update(&order(n), status, filled)).await,
            Step::Kill(n, phase) => ledger.open_incident(&incident(&id(n), phase)).await,
            Step::Release(n) => ledger.release_incident(&id(n).parse().unwrap(), Timestamp::UNIX_EPOCH).await,
            Step::Claim(n) => ledger.remember_claim(&order(n), "p").await,
            Step::Crash => {
                let head = ledger.head();
                drop(ledger);
                ledger = open(dir).await.0;
                assert_eq!(ledger.head(), head, "a crash neither adds nor loses an entry");
                Ok(())
            }
        };
        assert!(!done.is_err_and(|error| error.is_storage()));
    }
    ledger
}

fn any_update() -> impl Strategy<Value = OrderUpdate> {
    let status = prop::sample::select(RecordStatus::iter().collect::<Vec<_>>());
    (status, 0_i64..6).prop_map(|(status, filled)| update("b-1-1", status, filled))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, the tables are what the entries say, and the chain holds.
    #[test]
    fn the_tables_follow_from_the_entries(steps in prop::collection::vec(any_step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = Kind::Sqlite.dir();
            walk(dir.path(), steps).await;
            verify(dir.path()).await.unwrap();
        });
    }

    /// A ledger is the same in both databases: its chain, what a start recovers from it, and what its tables hold.
    #[test]
    fn both_databases_make_the_same_ledger(steps in prop::collection::vec(any_step(), 0..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ledgers = Vec::new();
            for kind in [Kind::Sqlite, Kind::Postgres] {
                let dir = kind.dir();
                let head = walk(dir.path(), steps.clone()).await.head();
                assert_eq!(verify(dir.path()).await.unwrap(), head);
                let (_ledger, recovered) = open(dir.path()).await;
                ledgers.push((head, format!("{recovered:?}")));
            }
            assert_eq!(ledgers[0], ledgers[1]);
        });
    }
}

proptest! {
    /// News that come late, twice or in another order never take anything back.
    #[test]
    fn a_record_never_goes_backwards(updates in prop::collection::vec(any_update(), 0..20)) {
        let order = new_order("b-1-1");
        let mut record = OrderRecord::intended(&order, Class::Enter, 1, Timestamp::UNIX_EPOCH);
        for update in updates {
            let new = record.updated(&update).unwrap();
            prop_assert_eq!(&new.updated(&update).unwrap(), &new, "the same update twice changes nothing");
            prop_assert!(new.filled >= record.filled && new.fees_quote >= record.fees_quote);
            prop_assert_eq!(new.filled, record.filled.max(update.filled));
            let ended = record.status.is_terminal();
            let concluded = matches!(record.status, RecordStatus::NotPlaced | RecordStatus::Rejected);
            if ended && !concluded {
                prop_assert_eq!(new.status, record.status, "an end at the exchange is final");
            }
            if concluded && new.status != record.status {
                prop_assert!(new.order_id.is_some(), "only the exchange itself overrules the bot's conclusion");
            }
            prop_assert!(!matches!(new.status, RecordStatus::Intended) || record.status == RecordStatus::Intended);
            record = new;
        }
    }

    /// The sums do not depend on the order in which the news came.
    #[test]
    fn fills_do_not_depend_on_the_order_of_the_news(
        (updates, shuffled) in prop::collection::vec(any_update(), 0..10)
            .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle()))
    ) {
        let start = OrderRecord::intended(&new_order("b-1-1"), Class::Enter, 1, Timestamp::UNIX_EPOCH);
        let end = |updates: &[OrderUpdate]| {
            updates.iter().try_fold(start.clone(), |record, update| record.updated(update))
        };
        let (a, b) = (end(&updates).unwrap(), end(&shuffled).unwrap());
        prop_assert_eq!((a.filled, a.fees_quote), (b.filled, b.fees_quote));
        prop_assert_eq!(a.status.is_terminal(), b.status.is_terminal());
    }
}
