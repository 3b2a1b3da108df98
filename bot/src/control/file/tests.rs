//! Edits of the file, good and bad, and what of them is in force.

use super::document::tests::BOT;
use super::*;
use crate::control::observed::Observed;
use arbbot_crds::arbbot::Mode;

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, text: &str) {
        std::fs::write(self.dir.path().join("bot.yaml"), text).unwrap();
    }

    fn open(&self) -> Result<(ControlFile, Decoded<ArbBot>), FileError> {
        ControlFile::open(&self.dir.path().join("bot.yaml"), &self.dir.path().join("state"))
    }
}

fn generation(decoded: &Decoded<ArbBot>) -> Option<i64> {
    decoded.object.metadata.generation
}

#[test]
fn identity_and_generation_outlive_a_restart_and_an_edit_made_meanwhile_is_another_generation() {
    let desk = Desk::new();
    desk.write(BOT);
    let (mut file, first) = desk.open().unwrap();
    file.begin([]).unwrap();
    let (mut again, second) = desk.open().unwrap();
    let claim = first.object.status.as_ref().and_then(|status| status.claim.clone());
    assert!(claim.is_some_and(|claim| claim.granted), "the lock stands for the claim");
    assert_eq!((first.object.metadata.uid.clone(), generation(&first)), (second.object.metadata.uid, Some(1)));
    again.begin([]).unwrap();
    assert_eq!((file.memory.epoch, again.memory.epoch), (1, 2));
    desk.write(&format!("{BOT}  mode: Halted\n"));
    assert_eq!(generation(&desk.open().unwrap().1), Some(2));
}

#[test]
fn a_bot_never_started_needs_a_valid_file_and_one_that_was_starts_from_its_last_good_one() {
    let desk = Desk::new();
    desk.write("spec: [");
    assert!(desk.open().unwrap_err().to_string().contains("not an ArbBot"));
    desk.write(BOT);
    desk.open().unwrap().0.begin([]).unwrap();
    desk.write("spec: [");
    assert_eq!(desk.open().unwrap().1.object.spec.mode, Mode::Active);
}

#[test]
fn an_incident_id_is_text_in_yaml_without_quotes() {
    for _ in 0..1000 {
        let id = format!("{}-2", arbbot_crds::incident::uid8(&new_uid()));
        assert_eq!(serde_yaml::from_str::<Value>(&id).unwrap(), Value::String(id));
    }
}

/// Each edit, and the mode, kill and problem that are in force after it.
#[test]
fn an_edit_that_is_wrong_keeps_the_last_good_control_and_a_kill_in_it_is_obeyed() {
    let desk = Desk::new();
    desk.write(BOT);
    let (mut file, first) = desk.open().unwrap();
    let mut observed = Observed::new(first);
    observed.policies_listed(Vec::new(), None);
    for (text, mode, engaged, problems) in [
        (format!("{BOT}  mode: ReduceOnly\n"), Mode::ReduceOnly, false, 0),
        ("spec: [".to_owned(), Mode::ReduceOnly, false, 1),
        (format!("{BOT}  moed: Active\n"), Mode::ReduceOnly, false, 1),
        (BOT.replace("BTC-USD", "ETH-USD"), Mode::ReduceOnly, false, 1),
        (format!("{BOT}  mode: Halted\n  moed: Active\n"), Mode::Halted, false, 1),
        ("spec: [\nkillSwitch: {engaged: true".to_owned(), Mode::Halted, true, 1),
        (String::new(), Mode::Halted, true, 1),
        (BOT.to_owned(), Mode::Active, false, 0),
        (format!("{BOT}  moed: a\n  killSwitch: {{engaged: true}}\n"), Mode::Active, true, 1),
    ] {
        let (bot, refused) = file.seen(text.clone());
        assert!(observed.bot_seen(bot, refused), "{text}");
        let (bot, _) = observed.complete().unwrap();
        assert_eq!((bot.spec.mode, bot.spec.kill_switch.engaged), (mode, engaged), "{text}");
        assert_eq!(observed.unreadable(&[]).len(), problems, "{text} {:?}", observed.unreadable(&[]));
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_loss_of_contact_and_an_atomic_rename_is_a_change() {
    let desk = Desk::new();
    desk.write(BOT);
    let (file, _) = desk.open().unwrap();
    let (rounds, mut seen) = mpsc::channel(4);
    let clock = Clock::system();
    let gate = Arc::new(Gate::new(clock.clone()));
    let mut task = FileTask { file, clock, gate, rounds };
    assert!(task.look().await.unwrap().is_none(), "nothing changed");
    let path = desk.dir.path().join("bot.yaml");
    std::fs::write(desk.dir.path().join("new"), format!("{BOT}  mode: Halted\n")).unwrap();
    std::fs::rename(desk.dir.path().join("new"), &path).unwrap();
    let round = task.look().await.unwrap().unwrap();
    assert_eq!(round.bot.unwrap().metadata.generation, Some(2));
    std::fs::remove_file(&path).unwrap();
    assert!(task.look().await.unwrap_err().contains("cannot be read"));
    seen.close();
}
