//! A recorded session replays to identical decisions.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use arb_bot::recording::{Ending, Replayed, replay};
use arbbot_crds::arbbot::Mode;

use super::desk::{Desk, Step, at_a_recorded_desk, finish};
use super::paused;

pub fn replayed(path: &Path) -> Replayed {
    replay(BufReader::new(File::open(path).unwrap())).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails when something that the engine is told is not recorded. Tried: `Recorder::changed_control` that writes the control
/// of the first turn only; replay then names the first turn under another one.
#[test]
fn a_live_session_under_faults_and_kills_replays_to_identical_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let script = [
        Step::Pass { tenths: 100 },
        Step::Faults { percent: 40, orders_only: true, cut_per_mille: 10, tenths: 150 },
        Step::Exchange { fault: 19, tenths: 60 }, // a gap of the price
        Step::KillSwitch,
        Step::Pass { tenths: 80 },
        Step::Release,
        Step::Exchange { fault: 22, tenths: 100 }, // cancels are slow
        Step::Kill { tenths: 5 },
        Step::Down { tenths: 30 },
        Step::Mode(Mode::Stopped),
        Step::Pass { tenths: 100 },
        Step::Release,
        Step::KillAtOrder { steps: 5 },
        Step::Pass { tenths: 100 },
    ];
    let shown = paused(at_a_recorded_desk(21, dir.path(), async |mut desk: Desk<'_>| {
        desk.bot.wait("the bot begins", |view| view.seen_exchange && view.prices_fresh).await;
        for step in &script {
            desk = desk.take(step).await;
        }
        finish(desk).await
    }))
    .unwrap();
    assert!(shown.restarts >= 2 && !shown.struck.is_empty(), "{shown:?}");
    let mut orders = 0;
    for life in 1..=shown.restarts + 1 {
        let path = dir.path().join(format!("session-{life}.jsonl"));
        let done = replayed(&path);
        assert_eq!(done.ending, Ending::Whole);
        orders += done.orders;
        println!("life {life}: {done:?}, {} bytes", fs::metadata(&path).unwrap().len());
    }
    assert!(orders >= shown.orders && shown.orders > 20, "{orders} of {}", shown.orders);
}
