//! Writes the bot's part of status, by server-side apply or into a file: transitions at once, figures that the market
//! moves at most once a minute and only when they moved, nothing when nothing changed ([`pace`]).

mod pace;

use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::conditions::ConditionType;
use arbbot_crds::names::MANAGER_BOT;
use arbbot_crds::{ArbBot, ArbBotStatus};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::books::BooksView;
use crate::clock::Clock;
use crate::control::file::state::{StateError, StatusFile};
use crate::control::lease::{CALL, Standing};
use crate::control::report::{ControlFacts, Facts, compose, risk_level};
use crate::exchange::SessionFacts;
use crate::execution::engine::View;
use crate::ledger::Ledger;
use crate::risk::Gate;
use crate::telemetry::metrics::Metrics;
use pace::{Next, Pace};

/// How often time alone is looked at (loss of contact shows without any event).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the last status is tried: the last word on a bot's orders is worth a moment of its end.
const LAST_ATTEMPTS: u32 = 4;

/// Where status goes to.
pub enum StatusSink {
    Kubernetes {
        client: Client,
        namespace: String,
        name: String,
    },
    /// The state directory of a bot that runs without Kubernetes.
    File(StatusFile),
}

/// The status task.
pub struct StatusTask {
    pub sink: StatusSink,
    pub pod_uid: String,
    pub node: String,
    pub clock: Clock,
    pub gate: Arc<Gate>,
    pub ledger: Ledger,
    pub control: watch::Receiver<ControlFacts>,
    pub session: watch::Receiver<SessionFacts>,
    pub view: watch::Receiver<View>,
    pub books: watch::Receiver<BooksView>,
    pub metrics: Metrics,
}

impl StatusTask {
    /// Runs until it is told to stop, then writes a last time. `before` is the status that an earlier process left:
    /// its transition times are kept.
    pub async fn run(mut self, before: Option<ArbBotStatus>, shutdown: CancellationToken) {
        let lease = before.as_ref().and_then(|status| status.bot.as_ref()?.lease.clone());
        let mut conditions = own_conditions(before);
        let mut logged = Vec::new();
        let mut pace = Pace::default();
        let mut failures = 0_u32;
        let mut last_attempts = LAST_ATTEMPTS;
        loop {
            let stopping = shutdown.is_cancelled();
            let Composed { mut status, is_acknowledged, engine_is_behind } = self.compose(&mut conditions);
            if let Some(bot) = &mut status.bot {
                // Until the Lease is read, who held it last stays said: should it be gone, nothing else tells it.
                bot.lease = bot.lease.take().or_else(|| lease.clone());
            }
            log_transitions(&mut logged, &conditions);
            let mut pause = LOOK_EVERY;
            if (is_acknowledged || stopping) && !self.is_silent() {
                let next = match stopping {
                    true => pace.last(&status),
                    false => pace.next(&status, engine_is_behind, self.clock.boottime()),
                };
                match next {
                    Next::Write(status) => {
                        match self.write(&status).await {
                            Ok(()) => {
                                failures = 0;
                                pace.wrote(*status, self.clock.boottime());
                            }
                            Err(error) => {
                                // Whether it arrived is not known, nor what has become of the object meanwhile.
                                pace.forget();
                                failures = failures.saturating_add(1);
                                tracing::warn!(%error, failures, "status is not written; it is tried again");
                            }
                        }
                        self.metrics.status_write(failures == 0);
                    }
                    Next::Look(after) => pause = after,
                    Next::Rest => {}
                }
            }
            if stopping {
                last_attempts -= 1;
                if failures == 0 || last_attempts == 0 {
                    return;
                }
            }
            if failures > 0 {
                pause = Duration::from_millis(200) * failures.min(10);
            }
            tokio::select! {
                () = shutdown.cancelled(), if !stopping => {}
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.control.changed(), if failures == 0 => {}
                Ok(()) = self.session.changed(), if failures == 0 => {}
                Ok(()) = self.view.changed(), if failures == 0 => {}
            }
        }
    }

    /// A bot without its ledger may not be the only one of its ArbBot: it says nothing before it is the trader.
    fn is_silent(&self) -> bool {
        self.ledger.is_unread() && !matches!(self.control.borrow().standing, Some(Standing::Trader { .. }))
    }

    fn compose(&mut self, conditions: &mut Vec<Condition>) -> Composed {
        // The gate last: what the control task has published was in force there before, never later.
        let control = self.control.borrow_and_update().clone();
        let session = self.session.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        let books = self.books.borrow().clone();
        let (in_force, contact) = self.gate.current();
        let restrictions = self.gate.restrictions();
        let facts = Facts {
            control: &control,
            session: &session,
            view: &view,
            books: &books,
            in_force: &in_force,
            contact,
            restrictions: &restrictions,
            ledger: &self.ledger.head(),
            pod_uid: &self.pod_uid,
            node: &self.node,
        };
        self.metrics.risk_level.set(risk_level(facts).into());
        self.metrics.fills_outstanding.set(i64::try_from(books.outstanding).unwrap_or(i64::MAX));
        self.metrics.books_problem.set(books.problem.is_some().into());
        let status = compose(facts, conditions, &Time(self.clock.now()));
        Composed {
            status,
            is_acknowledged: is_acknowledged(&control, &self.gate),
            engine_is_behind: control.generation.is_some() && view.generation != control.generation,
        }
    }

    async fn write(&self, status: &ArbBotStatus) -> Result<(), WriteError> {
        match &self.sink {
            StatusSink::Kubernetes { client, namespace, name } => apply_known(client, namespace, name, status).await,
            StatusSink::File(file) => Ok(file.write(status).await?),
        }
    }
}

/// A definition that is older than the bot may not know a field, or a value of one: then the words that a kill and an
/// acknowledgement are proven by are written alone.
async fn apply_known(client: &Client, namespace: &str, name: &str, status: &ArbBotStatus) -> Result<(), WriteError> {
    match apply(client, namespace, name, &json!(status)).await {
        Err(error) if error.is_of_the_schema() => {
            tracing::warn!(%error, "the installed CustomResourceDefinition is older than this bot: status is shortened");
        }
        written => return written,
    }
    apply(client, namespace, name, &essential(status)).await.map_err(|error| match error.is_of_the_schema() {
        true => WriteError::Refused(Box::new(error)),
        false => error,
    })
}

async fn apply(client: &Client, namespace: &str, name: &str, status: &Value) -> Result<(), WriteError> {
    let api: Api<ArbBot> = Api::namespaced(client.clone(), namespace);
    let body = json!({
        "apiVersion": "arbbot.io/v1alpha1",
        "kind": "ArbBot",
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(MANAGER_BOT).force();
    match timeout(CALL, api.patch_status(name, &params, &Patch::Apply(&body))).await {
        Ok(result) => result.map(|_| ()).map_err(|error| WriteError::Api(Box::new(error))),
        Err(_) => Err(WriteError::Timeout),
    }
}

/// A status, and what was true of the very facts that it is made of: later ones belong to the next status.
struct Composed {
    status: ArbBotStatus,
    is_acknowledged: bool,
    /// The engine does not yet act on the generation that is in force at the gate.
    engine_is_behind: bool,
}

/// Whether the control task has made durable what is in force at the gate. Otherwise its acknowledgement comes within
/// milliseconds and is the next write; a write before it would only delay it.
fn is_acknowledged(control: &ControlFacts, gate: &Gate) -> bool {
    let (generation, policies) = gate.versions();
    let applied = control.policies.iter().map(|policy| (&policy.name, policy.generation));
    generation.is_none()
        || (generation == control.generation
            && applied.eq(policies.iter().map(|policy| (&policy.name, policy.generation))))
}

/// What every release of the definitions knows: conditions, latches, what the bot obeys, and what the next process must
/// not lose. None of it has a closed list of values but the latches' own words.
fn essential(status: &ArbBotStatus) -> Value {
    const OF_STATUS: [&str; 3] = ["conditions", "killSwitch", "bot"];
    const OF_BOT: [&str; 6] = ["appliedGeneration", "appliedPolicies", "podUid", "lease", "ledger", "ownedSince"];
    let keep = |value: Option<&mut Value>, kept: &[&str]| {
        if let Some(Value::Object(fields)) = value {
            fields.retain(|name, _| kept.contains(&name.as_str()));
        }
    };
    let mut status = json!(status);
    keep(Some(&mut status), &OF_STATUS);
    keep(status.get_mut("bot"), &OF_BOT);
    status
}

/// Why status was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("failed to apply status: {0}")]
    Api(Box<kube::Error>),
    #[error(
        "the installed CustomResourceDefinition refuses even the shortened status: {0}; apply the definitions of this release"
    )]
    Refused(Box<WriteError>),
    #[error("no answer to the status write within {} s", CALL.as_secs())]
    Timeout,
    #[error(transparent)]
    File(#[from] StateError),
}

impl WriteError {
    /// Whether the schema refuses it. Server-side apply refuses a field that the schema does not have with an error of its
    /// own making (code 500), validation refuses a value as Invalid (code 422).
    fn is_of_the_schema(&self) -> bool {
        let Self::Api(error) = self else { return false };
        let kube::Error::Api(status) = error.as_ref() else { return false };
        status.code == 422 || status.message.contains("field not declared in schema")
    }
}

/// Logs every condition whose status or reason changed, so that the log tells the same story as status.
fn log_transitions(logged: &mut Vec<Condition>, conditions: &[Condition]) {
    for condition in conditions {
        let Condition { type_, status, reason, message, .. } = condition;
        let old = logged.iter().find(|old| old.type_ == *type_);
        if old.is_none_or(|old| old.status != *status || old.reason != *reason) {
            tracing::info!(condition = type_, status, reason, message, "condition");
        }
    }
    *logged = conditions.to_vec();
}

/// The conditions of the bot that an earlier process left.
fn own_conditions(before: Option<ArbBotStatus>) -> Vec<Condition> {
    let operators = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(|t| t.to_string());
    let known: Vec<String> = ConditionType::iter().map(|type_| type_.to_string()).collect();
    let mut conditions = before.map(|status| status.conditions).unwrap_or_default();
    conditions.retain(|condition| known.contains(&condition.type_) && !operators.contains(&condition.type_));
    conditions
}

#[cfg(test)]
mod tests;
