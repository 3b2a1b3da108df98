//! What a deletion waits for, and the ways out (pure).

use arbbot_crds::arbbot::DeletionPolicy;
use arbbot_crds::conditions::{ConditionType, Reason, find};
use arbbot_crds::names::FINALIZER;
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::jiff::SignedDuration;

use crate::reconcile::fetch::Fetched;
use crate::reconcile::verdict::{Verdict, is_acknowledged};
use crate::reconcile::{drain, pods, remedy};

/// A deletion that waits for longer than this needs a person.
const STALLED_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What keeps the deletion, and the ways out.
pub(super) fn waiting(fetched: &Fetched, since: SignedDuration) -> Verdict {
    let trouble = fetched
        .children
        .deployment
        .as_ref()
        .and_then(|d| pods::diagnose(d, &fetched.pods, &fetched.pod_events))
        .and_then(|verdict| verdict.why().map(|why| why.message.clone()));
    let is_late = since > STALLED_AFTER;
    if let Some(verdict) = draining(fetched, trouble.is_some(), is_late) {
        return verdict;
    }
    let mut message = unconfirmed(&fetched.bot);
    if let Some(trouble) = trouble {
        message = format!("{message}. The bot does not run: {trouble}");
    }
    if is_late {
        Verdict::stalled(Reason::DeletionWaitsForFlat, message)
    } else {
        Verdict::reconciling(Reason::DeletionWaitsForFlat, message)
    }
}

/// Where the drain of a deletion is. None: it is not under way, or the pod that would do it does not run.
fn draining(fetched: &Fetched, has_trouble: bool, is_late: bool) -> Option<Verdict> {
    let (bot, policies) = (&fetched.bot, fetched.policies());
    // Until the bot has read the deletion it may still turn out to be flat.
    if drain::is_held(bot, &policies) && (is_acknowledged(bot) || is_late) {
        return Some(blocked(bot, &policies, &fetched.all_policies()));
    }
    let reported = drain::reported(bot).filter(|_| drain::is_demanded(bot, &policies));
    match reported {
        Some(reported) if drain::has_timed_out(bot, reported) => {
            Some(drain::timed_out(bot, &format!("; or delete it as it is: {}", policy_patch(bot, "Orphan"))))
        }
        Some(reported) if !has_trouble => {
            Some(Verdict::reconciling(Reason::Draining, drain::step(bot, &policies, &fetched.all_policies(), reported)))
        }
        _ => None,
    }
}

/// Something holds the bot Halted, and a drain may not trade then: both ways out.
fn blocked(bot: &ArbBot, policies: &[&ArbPolicy], all: &[&ArbPolicy]) -> Verdict {
    let (who, lift) = remedy::describe(&remedy::holds(bot, policies, all));
    let lift = if lift.is_empty() { "let the bot reach the exchange".to_owned() } else { lift };
    let text = format!(
        "the deletion drains the position, but {who} holds the bot Halted. Either do not wait, for this bot alone: {} closes the position as a kill does (Orphan instead of Flatten keeps it); or end the halt, then the drain goes on: {lift}",
        policy_patch(bot, "Flatten")
    );
    Verdict::stalled(Reason::DeletionBlockedByHalted, text)
}

fn policy_patch(bot: &ArbBot, policy: &str) -> String {
    remedy::patch_bot(bot, &format!(r#"{{"deletionPolicy":"{policy}"}}"#))
}

/// What the exchange has not confirmed yet, and both ways out.
fn unconfirmed(bot: &ArbBot) -> String {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let said = |type_: ConditionType| match find(conditions, type_) {
        Some(c) => format!("{type_}={} ({}: {})", c.status, c.reason, c.message),
        None => format!("{type_} is not reported yet"),
    };
    match bot.spec.deletion_policy {
        DeletionPolicy::Drain | DeletionPolicy::Flatten => format!(
            "the deletion waits until the exchange confirms that no order works and the position is closed: {}, {}. Either let the bot reach the exchange, then it goes on by itself; or keep the position: {}",
            said(ConditionType::Halted),
            said(ConditionType::Flat),
            policy_patch(bot, "Orphan")
        ),
        DeletionPolicy::Orphan => format!(
            "the deletion waits until the exchange confirms that no order works: {}. Either let the bot reach the exchange, then it goes on by itself; or cancel the orders there by hand, delete the bot's pod and Lease, and remove the finalizer {FINALIZER}",
            said(ConditionType::Halted)
        ),
    }
}
