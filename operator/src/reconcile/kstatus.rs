//! The published rules of kstatus (sigs.k8s.io/cli-utils), which Flux, Argo CD and `helm --wait` go by, applied to the
//! status that we write in every state.

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Mode;
use arbbot_crds::conditions::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use super::fixtures::{bot, fetched};
use super::report::desired;
use super::verdict::Verdict;
use crate::claim::Claims;

/// What kstatus makes of an object.
pub fn kstatus(metadata: &kube::api::ObjectMeta, observed: Option<i64>, conditions: &[Condition]) -> &'static str {
    let status = |type_: &str| conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
    if metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    if observed.is_some() && observed != metadata.generation {
        return "InProgress";
    }
    match (status("Reconciling"), status("Stalled"), status("Ready")) {
        (Some("True"), _, _) => "InProgress",
        (_, Some("True"), _) => "Failed",
        (_, _, Some("False" | "Unknown")) => "InProgress",
        _ => "Current",
    }
}

fn of(bot: ArbBot, verdict: &Verdict) -> &'static str {
    let claim = Claims::default().decide(&bot, []);
    let fetched = fetched(bot);
    let status = desired(&fetched, &claim, verdict, false, &Time(Timestamp::UNIX_EPOCH));
    kstatus(fetched.bot.meta(), status.observed_generation, &status.conditions)
}

fn paused() -> ArbBot {
    let mut bot = bot("");
    bot.annotations_mut().insert("arbbot.io/paused".to_owned(), "true".to_owned());
    bot
}

use kube::ResourceExt;

#[test]
fn every_state_has_the_verdict_that_helm_and_flux_should_see() {
    let mut deleted = bot("");
    deleted.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let mut stopped = bot("");
    stopped.spec.mode = Mode::Stopped;
    let reconciling = |reason| Verdict::reconciling(reason, "m");
    let stalled = |reason| Verdict::stalled(reason, "m");
    let table = [
        ("applying", bot(""), reconciling(Reason::Progressing), "InProgress"),
        ("not acknowledged", bot(""), reconciling(Reason::NotAcknowledged), "InProgress"),
        ("ready", bot(""), Verdict::Ready, "Current"),
        ("halted", bot("  mode: Halted\n"), Verdict::Ready, "Current"),
        ("broken image", bot(""), stalled(Reason::PodCannotStart), "Failed"),
        ("invalid spec", bot(""), stalled(Reason::InvalidSpec), "Failed"),
        ("account shared", bot(""), stalled(Reason::AccountShared), "Failed"),
        ("deleting", deleted.clone(), reconciling(Reason::DeletionWaitsForFlat), "Terminating"),
        ("deletion is blocked", deleted, stalled(Reason::DeletionBlockedByHalted), "Terminating"),
        ("draining", stopped.clone(), reconciling(Reason::Draining), "InProgress"),
        ("drain timed out", stopped.clone(), stalled(Reason::DrainTimedOut), "Failed"),
        ("stopped", stopped, Verdict::Stopped, "Current"),
        ("paused and running", paused(), Verdict::Ready, "Current"),
        ("paused before it was made", paused(), Verdict::Paused, "Current"),
        ("paused, image broken", paused(), stalled(Reason::PodCannotStart), "Failed"),
    ];
    for (state, bot, verdict, expected) in table {
        assert_eq!(of(bot, &verdict), expected, "{state}");
    }
}

#[test]
fn a_status_of_an_earlier_generation_is_in_progress() {
    let mut changed = bot("");
    let claim = Claims::default().decide(&changed, []);
    let status = desired(&fetched(changed.clone()), &claim, &Verdict::Ready, false, &Time(Timestamp::UNIX_EPOCH));
    changed.metadata.generation = Some(4);
    assert_eq!(kstatus(changed.meta(), status.observed_generation, &status.conditions), "InProgress");
}
