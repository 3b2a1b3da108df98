//! A recorded session replays to the same decisions, and another decision is found.

use std::fs;
use std::io::{self, BufReader, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use arbbot_crds::arbbot::{KillAction, Mode};
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};
use serde_json::Value;

use super::world::{TICK, World};
use crate::exchange::Touch;
use crate::execution::engine::Event;
use crate::recording::{Ending, Recorder, ReplayError, Replayed, WhenFull, replay};

/// What happens to the recorded engine.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Price(i64),
    Mode(Mode),
    Kill,
    Release,
    Faulty(bool),
    LateContact(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..20).prop_map(Step::Pass),
        3 => (-300i64..300).prop_map(Step::Price),
        1 => prop::sample::select(vec![Mode::Active, Mode::ReduceOnly, Mode::Halted, Mode::Stopped]).prop_map(Step::Mode),
        1 => Just(Step::Kill),
        2 => Just(Step::Release),
        1 => any::<bool>().prop_map(Step::Faulty),
        1 => (1u64..90).prop_map(Step::LateContact),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Pass(seconds) => world.pass(Duration::from_secs(*seconds)),
        Step::Price(by) => {
            // On every product's tick.
            let best_bid = dec!(59995) + Decimal::from(by / 5 * 5);
            world.touch = Touch { best_bid, best_ask: best_bid + dec!(10) };
            world.pass(TICK);
        }
        Step::Mode(mode) => world.mode(*mode),
        Step::Kill => world.kill(KillAction::Flatten),
        Step::Release => world.control(Vec::new()),
        Step::Faulty(faulty) => world.faulty = *faulty,
        Step::LateContact(seconds) => {
            world.clock.advance(Duration::from_secs(*seconds));
            world.give(Event::Tick);
        }
    }
}

fn replay_text(text: &str) -> Result<Replayed, ReplayError> {
    replay(BufReader::new(text.as_bytes()))
}

/// Another size in the first order of a recording from this line on.
fn with_another_size(text: &str, from: usize) -> Option<String> {
    let is_order = |line: &&str| line.contains("\"place\"");
    let at = from + text.lines().skip(from).position(|line| is_order(&line))?;
    let changed = |(number, line): (usize, &str)| {
        if number != at {
            return line.to_owned() + "\n";
        }
        let mut line: Value = serde_json::from_str(line).unwrap();
        let decided = line.pointer_mut("/turn/decided").unwrap().as_array_mut().unwrap();
        let order = decided.iter_mut().find_map(|decision| decision.pointer_mut("/place/order/size")).unwrap();
        *order = "0.123".into();
        format!("{line}\n")
    };
    Some(text.lines().enumerate().map(changed).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Fails when something that the engine is told is not recorded. Tried: `Recorder::changed_control` that writes the
    /// control of the first turn only.
    #[test]
    fn a_recording_replays_to_identical_decisions_and_another_decision_is_found(
        script in prop::collection::vec(step(), 1..25), from in 0usize..400,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.jsonl");
        let mut world = World::recorded(&path);
        world.pass(Duration::from_secs(10));
        for step in &script {
            take(&mut world, step);
        }
        let placed = world.accepted.len() as u64;
        drop(world);
        let text = fs::read_to_string(&path).unwrap();
        let done = replay_text(&text).unwrap();
        prop_assert_eq!(done.ending, Ending::Whole);
        prop_assert!(done.orders >= placed && placed > 0, "{} of {}", done.orders, placed);
        if let Some(changed) = with_another_size(&text, from) {
            let error = replay_text(&changed).unwrap_err();
            prop_assert!(matches!(&error, ReplayError::Differs(found) if found.what == "decisions"), "{}", error);
        }
    }
}

#[test]
fn a_recording_that_was_cut_is_replayed_up_to_there_and_one_that_lost_turns_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.jsonl");
    let mut world = World::recorded(&path);
    world.pass(Duration::from_secs(5));
    drop(world);
    let text = fs::read_to_string(&path).unwrap();
    let whole = replay_text(&text).unwrap();
    let cut = &text[..text.len() - 60];
    let cut = replay_text(cut).unwrap();
    assert_eq!(cut.ending, Ending::Cut);
    assert!(cut.turns + 2 >= whole.turns && cut.turns <= whole.turns);
    let lines: Vec<_> = text.lines().collect();
    let end = lines.len() - 1;
    let without_one = [&lines[..end - 1], &lines[end..]].concat().join("\n") + "\n";
    let error = replay_text(&without_one).unwrap_err().to_string();
    assert!(error.contains("it says that there are"), "{error}");
    for (wrong, named) in [
        (String::new(), "no header"),
        ("{}\n".to_owned(), "line 1"),
        (text.replacen("session-recording", "other", 1), "\"arbbot.io/other\""),
        (text.replacen("\"version\":1", "\"version\":99", 1), "version 99"),
        (text.replacen("{\"turn\":", "{\"turns\":", 1), "line 2"),
    ] {
        let error = replay_text(&wrong).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// A recording that would fill the disk takes the room that the ledger needs. Tried: `is_full` that looks at the size only.
#[test]
fn a_recording_ends_before_its_file_system_is_full_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("session.jsonl");
    let file = fs::File::create(&path).unwrap();
    let mut world =
        World::recorded_by(|start| Recorder::begin(&path, file, || 63 << 20, start, WhenFull::Wait).unwrap());
    world.pass(Duration::from_secs(5));
    drop(world);
    let done = replay_text(&fs::read_to_string(&path).unwrap()).unwrap();
    let Ending::Incomplete(why) = &done.ending else { panic!("{done:?}") };
    assert!(why.starts_with("63 MiB are free"), "{why}");
}

/// A disk that takes the header and then nothing until it is released.
struct Stuck {
    is_stuck: bool,
    released: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stuck {
            self.released.recv().ok();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.is_stuck = true;
        Ok(())
    }
}

/// Tried: the end and the writer waited for in the task that drops the recorder; it never came back.
#[test]
fn a_disk_that_does_not_answer_holds_up_the_end_of_the_trading_for_two_seconds_at_most() {
    let (release, released) = channel();
    let disk = Stuck { is_stuck: false, released };
    let path = std::path::Path::new("stuck");
    let mut world = World::recorded_by(|start| Recorder::begin(path, disk, || u64::MAX, start, WhenFull::End).unwrap());
    world.pass(Duration::from_secs(5));
    let (ended, end) = channel();
    std::thread::spawn(move || {
        let began = Instant::now();
        drop(world);
        ended.send(began.elapsed()).ok();
    });
    let took = end.recv_timeout(Duration::from_secs(20)).expect("it ends while the disk is stuck");
    assert!(took >= Duration::from_secs(2), "it gets its time: {took:?}");
    drop(release);
}
