//! One way to say something to people: log, metric and Kubernetes Event together.

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, Reason, shorten};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};

use crate::api;
use crate::metrics::Metrics;

/// Longest note that the Events API takes.
const NOTE_BYTES: usize = 1024;

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether a person should look.
    pub warning: bool,
    /// From the closed list of reasons, or `Released`, or on a policy `Halted` or `Flat`.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub note: String,
    /// What was under way: `Reconcile`, or the kill with its id, so that no later kill is folded into an earlier one.
    pub action: String,
}

impl Report {
    /// Something expected has happened.
    #[must_use]
    pub fn normal(reason: Reason, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.to_string(), note: note.into(), action: "Reconcile".to_owned() }
    }

    /// Something that a person should look at.
    #[must_use]
    pub fn warning(reason: Reason, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, note) }
    }

    /// A latch is gone from the bot's status.
    #[must_use]
    pub fn released(incident: &str) -> Self {
        let note = format!("the latch of incident {incident} is released");
        Self { warning: false, reason: "Released".to_owned(), note, action: format!("Kill {incident}") }
    }

    /// A policy's `release` frees its kill on every bot.
    #[must_use]
    pub fn released_by_policy(incident: &str) -> Self {
        let note = format!("kill {incident} is released: every bot that has finished it frees its latch");
        Self { note, ..Self::released(incident) }
    }

    /// A condition of a policy has become True for every bot that it selects: `Halted` or `Flat`.
    #[must_use]
    pub fn every_bot(type_: ConditionType, generation: i64, note: impl Into<String>) -> Self {
        let action = format!("Generation {generation}");
        Self { reason: type_.to_string(), action, ..Self::normal(Reason::AllBots, note) }
    }

    /// A drain has taken its next step.
    #[must_use]
    pub fn draining(step: &str, note: impl Into<String>) -> Self {
        Self { action: format!("Drain {}", shorten(step, 64)), ..Self::normal(Reason::Draining, note) }
    }

    /// A guard has tripped that only a person's release ends.
    #[must_use]
    pub fn guard_tripped(incident: &str, note: impl Into<String>) -> Self {
        Self { action: format!("Guard {incident}"), ..Self::warning(Reason::GuardTripped, note) }
    }

    /// A kill began.
    #[must_use]
    pub fn engaged(incident: &str, note: impl Into<String>) -> Self {
        Self { action: format!("Kill {incident}"), ..Self::normal(Reason::KillSwitchEngaged, note) }
    }
}

/// Publishes reports. The recorder aggregates repeats, so there is one for the whole process.
pub struct Reports {
    recorder: Recorder,
    metrics: Metrics,
}

impl Reports {
    /// Reports of this operator.
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { recorder: Recorder::new(client, Reporter::from("arbbot-operator")), metrics }
    }

    /// Reports on an ArbBot.
    pub async fn publish(&self, bot: &ArbBot, report: &Report) {
        self.publish_on(&bot.object_ref(&()), report).await;
    }

    /// Reports on the namespace of a bot, where a terminating namespace takes no Events any more.
    pub async fn publish_on_namespace(&self, bot: &ArbBot, report: &Report) {
        let name = bot.namespace();
        let namespace = ObjectReference { name, ..Namespace::default().object_ref(&()) };
        self.publish_on(&namespace, report).await;
    }

    /// Reports on any object. A report that cannot be stored as an Event is still in the log and the metric.
    pub async fn publish_on(&self, object: &ObjectReference, report: &Report) {
        let kind = if report.warning { "Warning" } else { "Normal" };
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_deref());
        if report.warning {
            tracing::warn!(namespace, name, reason = report.reason, "{}", report.note);
        } else {
            tracing::info!(namespace, name, reason = report.reason, "{}", report.note);
        }
        self.metrics.reported(kind, &report.reason);
        let event = Event {
            type_: if report.warning { EventType::Warning } else { EventType::Normal },
            reason: report.reason.clone(),
            note: Some(shorten(&report.note, NOTE_BYTES).to_owned()),
            action: report.action.clone(),
            secondary: None,
        };
        if let Err(error) = api::call("publish an Event", self.recorder.publish(&event, object)).await {
            tracing::warn!(namespace, name, reason = report.reason, %error, "the Event is not stored");
        }
    }
}
