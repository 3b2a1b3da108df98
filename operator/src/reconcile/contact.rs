//! A bot whose Lease has expired is out of contact: what it last said of itself is no longer known (pure).

use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionStatus, Reason};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::fetch::Fetched;

/// Types that the operator writes; all others are the bot's.
const OWN: [&str; 3] = ["Ready", "Reconciling", "Stalled"];

/// Whether the operator writes this condition.
pub fn is_own(condition: &Condition) -> bool {
    OWN.contains(&condition.type_.as_str())
}

/// Whether the operator has turned this condition of the bot to Unknown, and the bot has not taken it back.
pub fn is_lost(condition: &Condition) -> bool {
    !is_own(condition)
        && condition.status == ConditionStatus::Unknown.to_string()
        && condition.reason == Reason::ContactLost.to_string()
}

/// When the Lease expires without another renewal.
#[must_use]
pub fn expiry(lease: &Lease) -> Option<Timestamp> {
    let spec = lease.spec.as_ref()?;
    let seconds = u64::try_from(spec.lease_duration_seconds?).ok()?;
    spec.renew_time.as_ref()?.0.checked_add(SignedDuration::try_from(Duration::from_secs(seconds)).ok()?).ok()
}

/// uid of the pod that holds the Lease.
#[must_use]
pub fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Whether the pod that last wrote the bot's part of status is the holder of a Lease that has expired. A pod that waits
/// for another's Lease is in contact, so an expired Lease of that other says nothing about it.
///
/// The clocks of bot and operator may differ, and the Lease may have been read long ago: it must also be unchanged for
/// `controlTimeouts.lease` by this process's own clock. A bot that is in contact makes a Lease that was deleted again at
/// its next renewal: without one for `controlTimeouts.lost`, it is not.
#[must_use]
pub fn lost(fetched: &Fetched, now: Timestamp) -> bool {
    let bot = &fetched.bot;
    let said_by = bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|bot| bot.pod_uid.as_deref());
    let Some(lease) = &fetched.lease else {
        return said_by.is_some() && fetched.lease_unchanged >= bot.spec.control_timeouts.lost.0;
    };
    if fetched.lease_unchanged < bot.spec.control_timeouts.lease.0 {
        return false;
    }
    holder(lease).is_some_and(|holder| said_by.is_none_or(|uid| uid == holder))
        && expiry(lease).is_some_and(|at| at < now)
}

/// How long contact can at least not be lost without another renewal.
#[must_use]
pub fn until_lost(fetched: &Fetched, now: Timestamp) -> Option<Duration> {
    let lost_after = fetched.bot.spec.control_timeouts.lost.0;
    let wait = match &fetched.lease {
        Some(lease) => Duration::try_from(expiry(lease)?.duration_since(now)).ok()?,
        None => lost_after.saturating_sub(fetched.lease_unchanged),
    };
    // The next renewal may shorten the Lease to what the spec says by now.
    Some(wait.min(lost_after) + Duration::from_secs(1))
}

/// The bot's conditions that the operator must write: while contact is lost all of them, turned to Unknown; after that
/// those that the bot has not taken back yet.
#[must_use]
pub fn unknown_conditions(bot: &ArbBot, lost: bool, now: &Time) -> Vec<Condition> {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let of_bot = conditions.iter().filter(|condition| !is_own(condition));
    of_bot
        .filter_map(|condition| match (is_lost(condition), lost) {
            (true, _) => Some(condition.clone()),
            (false, true) => Some(Condition {
                status: ConditionStatus::Unknown.to_string(),
                reason: Reason::ContactLost.to_string(),
                message: format!(
                    "the bot's Lease has expired or is gone; it last said {} ({}). Its resting orders expire by themselves; see the pod's log and node",
                    condition.status, condition.reason
                ),
                last_transition_time: if condition.status == "Unknown" {
                    condition.last_transition_time.clone()
                } else {
                    now.clone()
                },
                ..condition.clone()
            }),
            (false, false) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bot_with_status, fetched, lease};
    use super::*;

    const SAID: &str = r#"
bot: {podUid: pod-1}
conditions:
- {type: Halted, status: "True", reason: NoOrdersWorking, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}
- {type: Ready, status: "True", reason: Available, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}
"#;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn contact_is_lost_when_the_lease_of_the_pod_that_spoke_has_expired() {
        let mut seen = fetched(bot_with_status(SAID));
        seen.lease = Some(lease("pod-1", at(1000), 300));
        assert!(!lost(&seen, at(1299)));
        assert!(lost(&seen, at(1301)));
        seen.lease = Some(lease("pod-0", at(1000), 300));
        assert!(!lost(&seen, at(9999)), "another pod speaks and waits");
    }

    #[test]
    fn a_bot_that_does_not_make_its_deleted_lease_again_is_out_of_contact() {
        let mut seen = fetched(bot_with_status(SAID));
        seen.lease_unchanged = Duration::from_secs(299);
        assert!(!lost(&seen, at(9999)));
        assert_eq!(until_lost(&seen, at(9999)), Some(Duration::from_secs(2)));
        seen.lease_unchanged = Duration::from_secs(300);
        assert!(lost(&seen, at(9999)));
        seen.bot.status.as_mut().unwrap().bot = None;
        assert!(!lost(&seen, at(9999)), "it has never spoken");
    }

    #[test]
    fn a_clock_that_is_wrong_loses_no_contact() {
        let mut seen = fetched(bot_with_status(SAID));
        seen.lease = Some(lease("pod-1", at(1000), 300));
        seen.lease_unchanged = Duration::from_secs(29);
        assert!(!lost(&seen, at(999_999)), "it was renewed 29 s ago by our own clock");
        seen.lease_unchanged = Duration::from_secs(30);
        assert!(lost(&seen, at(999_999)));
    }

    #[test]
    fn lost_conditions_stay_unknown_until_the_bot_takes_them_back() {
        let mut bot = bot_with_status(SAID);
        let now = Time(at(2_000_000_000));
        let unknown = unknown_conditions(&bot, true, &now);
        assert_eq!(unknown.len(), 1, "Ready is not the bot's");
        assert!(is_lost(&unknown[0]) && unknown[0].message.contains("last said True"));
        assert_eq!(unknown[0].last_transition_time, now);

        bot.status.as_mut().unwrap().conditions = unknown.clone();
        assert_eq!(unknown_conditions(&bot, false, &now), unknown, "contact is back, the bot has not spoken");
        let spoken = bot_with_status(SAID);
        assert!(unknown_conditions(&spoken, false, &now).is_empty());
    }
}
