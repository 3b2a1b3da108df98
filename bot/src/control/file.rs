//! Control from a file: the same ArbBot YAML as in a cluster, without one. The file stands for the API server: it is
//! read every 200 ms, a change counts once it has been read twice alike, and a file that cannot be read is loss of
//! contact. A lock on account and product stands for the Lease and the operator's claim.
//!
//! What an API server would refuse is refused here: the last good control stays, nothing is loosened, and a kill in it
//! is obeyed all the same ([`arbbot_crds::decode`]).

pub mod document;
pub mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::arbbot::{ArbBot, PAPER_ACCOUNT};
use arbbot_crds::decode::{self, Decoded, Unreadable};
use kube::api::{DynamicObject, ObjectMeta};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::document::{Document, DocumentError};
use self::state::{Memory, StateError, StatusFile};
use crate::clock::Clock;
use crate::control::contact::Round;
use crate::control::lease::{CALL, Standing};
use crate::risk::Gate;

/// How often the file is read.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After this long a change must still read the same: an editor may be in the middle of writing.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the control task hears that nothing changed, to try again what a disk refused.
const ROUND_EVERY: Duration = Duration::from_secs(5);

/// Why a bot cannot start from its file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the last good content in {dir} cannot be read: {cause}; mend the file of the ArbBot")]
    LastGood { dir: PathBuf, cause: String },
}

/// The file that a bot takes its control from, and what is remembered of it.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
    dir: PathBuf,
    memory: Memory,
}

impl ControlFile {
    /// Reads the file, or where it is not valid the last good content, and says what is in force until the first round
    /// of [`FileTask`]. `dir` is the state directory.
    ///
    /// # Errors
    /// There is no valid content to start from; the error names what is wrong with the file.
    pub fn open(path: &Path, dir: &Path) -> Result<(Self, Decoded<ArbBot>), FileError> {
        let known = Memory::load(dir)?;
        let new = || Memory { uid: new_uid(), ..Memory::default() };
        let mut memory = known.clone().unwrap_or_else(new);
        let first = match (document::load(path), &known) {
            (Ok(_), _) => document::read(path)?,
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(known)) => {
                tracing::error!(%error, "the last good control is in force");
                known.last_good.clone()
            }
        };
        memory.take(first);
        let file = Self { path: path.to_owned(), dir: dir.to_owned(), memory };
        let last_good = |cause: String| FileError::LastGood { dir: dir.to_owned(), cause };
        let document = document::parse(&file.memory.last_good).map_err(last_good)?;
        let mut object = file.object(document.metadata, document.spec);
        if let (Some(status), Value::Object(remembered)) = (object.data["status"].as_object_mut(), remembered(dir)) {
            status.extend(remembered.into_iter().filter(|(field, _)| field != "claim"));
        }
        let decoded = decode::arb_bot(object.metadata, &object.data, None).map_err(|e| last_good(e.to_string()))?;
        Ok((file, decoded))
    }

    /// Begins a new epoch, durably: no two processes mint the same order id.
    ///
    /// # Errors
    /// The disk fails.
    pub fn begin(&mut self, known_generations: impl IntoIterator<Item = i64>) -> Result<(), StateError> {
        self.memory.epoch += 1;
        // A disk that failed may have lost a generation that an incident is named after.
        self.memory.generation = known_generations.into_iter().fold(self.memory.generation, i64::max);
        self.memory.save(&self.dir)
    }

    /// Where status goes to.
    #[must_use]
    pub fn status_file(&self, name: &str) -> StatusFile {
        StatusFile { dir: self.dir.clone(), metadata: json!({"name": name, "uid": self.memory.uid}) }
    }

    /// What stands for the pod's uid.
    #[must_use]
    pub fn holder(&self) -> String {
        format!("{}-{}", self.memory.uid, self.memory.epoch)
    }

    /// The object as an API server would show it. The lock is held, so the claim is granted.
    fn object(&self, metadata: ObjectMeta, spec: Value) -> DynamicObject {
        let on_paper = spec.get("execution").is_some_and(|execution| execution == "Paper");
        let portfolio = spec.pointer("/venue/coinbase/portfolio").cloned().unwrap_or_default();
        let account = if on_paper { PAPER_ACCOUNT.into() } else { portfolio };
        let product = spec.pointer("/strategy/fundingCarry/futureProduct").cloned().unwrap_or_default();
        let generation = self.memory.generation;
        DynamicObject {
            types: None,
            metadata: ObjectMeta {
                uid: Some(self.memory.uid.clone()),
                generation: Some(generation),
                resource_version: Some(generation.to_string()),
                ..metadata
            },
            data: json!({
                "spec": spec,
                "status": {"claim": {"account": account, "product": product, "granted": true}},
            }),
        }
    }

    /// The object after another content was read, and why it does not count as it is.
    fn seen(&mut self, text: String) -> (DynamicObject, Option<Unreadable>) {
        let last_good = document::parse(&self.memory.last_good).ok();
        let before = last_good.as_ref().and_then(|good| serde_json::from_value(good.spec.clone()).ok());
        let parsed = document::parse(&text);
        let refused = match &parsed {
            Ok(document) => document.problem(before.as_ref()).or_else(|| renamed(document, last_good.as_ref())),
            Err(why) => Some(Unreadable { field: self.path.display().to_string(), why: why.clone() }),
        };
        let engages = document::engages(&text);
        let readable = parsed.as_ref().is_ok_and(|document| {
            serde_json::from_value::<arbbot_crds::arbbot::ArbBotSpec>(document.spec.clone()).is_ok()
        });
        self.memory.generation += 1;
        if refused.is_none() && readable {
            self.memory.last_good.clone_from(&text);
        }
        self.memory.content = text;
        let metadata = last_good.map(|good| good.metadata).unwrap_or_default();
        let spec = match parsed {
            Ok(document) => document.spec,
            Err(_) if engages => json!({"killSwitch": {"engaged": true}}),
            Err(_) => json!({}),
        };
        let mut object = self.object(metadata, spec);
        // The lock stays on the account that it was taken for.
        let claim = before.map(|spec: arbbot_crds::arbbot::ArbBotSpec| {
            let product = &spec.strategy.funding_carry.future_product;
            json!({"claim": {"account": spec.account(), "product": product, "granted": true}})
        });
        if let (Some(claim), Some(data)) = (claim, object.data.as_object_mut()) {
            data.insert("status".to_owned(), claim);
        }
        (object, refused)
    }
}

impl Memory {
    /// Takes a valid content in; another one than before is another generation.
    fn take(&mut self, content: String) {
        if self.content != content {
            self.generation += 1;
        }
        self.content.clone_from(&content);
        self.last_good = content;
    }
}

/// A uid that begins with a letter: an incident id such as 4231708e-2 would be a number in YAML where nobody quotes it.
fn new_uid() -> String {
    loop {
        let uid = Uuid::new_v4().to_string();
        if uid.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return uid;
        }
    }
}

/// The name is in order ids of nobody, but in status, logs and the lock.
fn renamed(document: &Document, before: Option<&Document>) -> Option<Unreadable> {
    let before = before?.metadata.name.as_ref()?;
    (document.metadata.name.as_ref() != Some(before)).then(|| Unreadable {
        field: "metadata.name".to_owned(),
        why: format!("it must stay {before}: run another bot, with another --state-dir"),
    })
}

/// The status that an earlier process left, with the claim.
fn remembered(dir: &Path) -> Value {
    match state::read_status(dir) {
        Ok(status) => json!(status.unwrap_or_default()),
        Err(error) => {
            tracing::error!(%error, "the last status cannot be read; the ledger remembers every latch");
            json!({})
        }
    }
}

/// Watches the file.
pub struct FileTask {
    pub file: ControlFile,
    pub clock: Clock,
    pub gate: Arc<Gate>,
    pub rounds: mpsc::Sender<Round>,
}

impl FileTask {
    /// Runs until it is told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut problem = None;
        let mut told: Option<Duration> = None;
        loop {
            let began = self.clock.boottime();
            let round = match self.look().await {
                Ok(changed) => {
                    problem = None;
                    self.gate.in_contact(began);
                    changed.or_else(|| self.round(None).filter(|_| told.is_none_or(|at| began >= at + ROUND_EVERY)))
                }
                Err(error) => {
                    if problem.as_ref() != Some(&error) {
                        tracing::error!(
                            error,
                            "contact is lost: the bot closes entry, then cancels, until the file is back"
                        );
                    }
                    problem = Some(error);
                    None
                }
            };
            if let Some(round) = round {
                told = Some(began);
                let changed = round.bot.is_some();
                // The control task ends only with the program.
                self.rounds.send(round).await.ok();
                if changed {
                    self.remember().await;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn round(&self, seen: Option<(DynamicObject, Option<Unreadable>)>) -> Option<Round> {
        let (bot, refused) = seen.map_or((None, None), |(bot, refused)| (Some(bot), refused));
        // There are no policies without a cluster.
        let policies = Some((Vec::new(), None));
        Some(Round { standing: Some(Standing::Trader { epoch: self.file.memory.epoch }), bot, refused, policies })
    }

    /// Reads the file; a round where another content has settled.
    async fn look(&mut self) -> Result<Option<Round>, String> {
        let text = self.read().await?;
        if text == self.file.memory.content {
            return Ok(None);
        }
        sleep(SETTLE).await;
        if self.read().await? != text {
            return Ok(None);
        }
        let seen = self.file.seen(text);
        let refused = seen.1.as_ref().map(ToString::to_string);
        tracing::info!(file = %self.file.path.display(), generation = self.file.memory.generation, refused, "the file changed");
        Ok(self.round(Some(seen)))
    }

    async fn read(&self) -> Result<String, String> {
        let path = self.file.path.clone();
        // A file on a network that hangs must not hang the bot.
        match timeout(CALL, tokio::task::spawn_blocking(move || document::read(&path))).await {
            Ok(Ok(read)) => read.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("{} is not read within {} s", self.file.path.display(), CALL.as_secs())),
        }
    }

    /// Remembers content and generation; the control is in force already and waits for no disk.
    async fn remember(&self) {
        let (memory, dir) = (self.file.memory.clone(), self.file.dir.clone());
        let saved = timeout(CALL, tokio::task::spawn_blocking(move || memory.save(&dir))).await;
        let error = match saved {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CALL.as_secs()),
        };
        tracing::error!(error, "the state directory does not take the change; it is in force");
    }
}

#[cfg(test)]
mod tests {
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
}
