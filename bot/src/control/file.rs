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
mod tests;
