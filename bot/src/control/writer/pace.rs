//! When status is written, and with which figures. Pure.
//!
//! A transition goes out at once. Figures that the market moves and the words of a message follow at most once a minute,
//! so that one patch costs one write. An acknowledgement waits for the engine, which would otherwise cost a second
//! write; one that stops something waits only for a moment.

use std::time::Duration;

use arbbot_crds::ArbBotStatus;
use arbbot_crds::conditions::ConditionType;
use arbbot_crds::status::BotStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Least time between two writes that only move figures or messages.
const QUIET_EVERY: Duration = Duration::from_secs(60);
/// Figures that are back after this long have not moved: a resting order is placed again every other minute.
const SETTLE: Duration = Duration::from_secs(5);
/// Longest wait for the engine, which follows the gate within a millisecond unless the machine is overloaded.
const ENGINE_FOLLOWS: Duration = Duration::from_secs(2);
/// Longest wait for the engine of a write that shows a stricter mode or a new incident.
const ENGINE_FOLLOWS_A_STOP: Duration = Duration::from_millis(5);

/// What was written last, and since when there is something else to say.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// And when it was written, on CLOCK_BOOTTIME.
    written: Option<(ArbBotStatus, Duration)>,
    moved_since: Option<Duration>,
    behind_since: Option<Duration>,
}

/// What to do about a status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    Write(Box<ArbBotStatus>),
    /// It is to be looked at again after this long, if nothing else happens before.
    Look(Duration),
    /// There is nothing to be written.
    Rest,
}

impl Pace {
    /// What to do about this status. `engine_is_behind`: the engine does not yet act on what is in force at the gate.
    pub(super) fn next(&mut self, status: &ArbBotStatus, engine_is_behind: bool, now: Duration) -> Next {
        let Some((last, at)) = &self.written else { return Next::Write(Box::new(status.clone())) };
        let moved = quiet(status) != quiet(last);
        self.moved_since = moved.then(|| self.moved_since.unwrap_or(now));
        self.behind_since = engine_is_behind.then(|| self.behind_since.unwrap_or(now));
        let settled = self.moved_since.is_some_and(|since| now >= since + SETTLE);
        if transition(status) == transition(last) {
            let due = settled && now >= *at + QUIET_EVERY;
            return if due { Next::Write(Box::new(status.clone())) } else { Next::Rest };
        }
        let patience = if stops(status, last) { ENGINE_FOLLOWS_A_STOP } else { ENGINE_FOLLOWS };
        if let Some(until) = self.behind_since.map(|since| since + patience).filter(|until| now < *until) {
            return Next::Look(until - now);
        }
        let mut status = status.clone();
        if !settled && is_acknowledgement(&status, last) {
            // An order that is just being placed again is no news; where it is some, the figures follow.
            keep_figures(&mut status, last);
        }
        Next::Write(Box::new(status))
    }

    /// What to do about the last status of this process: nobody corrects its figures after it.
    pub(super) fn last(&self, status: &ArbBotStatus) -> Next {
        let is_news =
            |(last, _): &(ArbBotStatus, _)| transition(status) != transition(last) || quiet(status) != quiet(last);
        if self.written.as_ref().is_none_or(is_news) { Next::Write(Box::new(status.clone())) } else { Next::Rest }
    }

    /// Nothing is known of what stands in status: the next look writes, whatever it is.
    pub(super) fn forget(&mut self) {
        self.written = None;
    }

    /// This status was written at `now`.
    pub(super) fn wrote(&mut self, status: ArbBotStatus, now: Duration) {
        self.written = Some((status, now));
    }
}

/// Whether the mode is stricter than before, or a kill has begun.
fn stops(status: &ArbBotStatus, last: &ArbBotStatus) -> bool {
    let mode = |status: &ArbBotStatus| status.bot.as_ref().and_then(|bot| bot.effective_mode);
    let began = |id: &str| last.kill_switch.iter().flat_map(|kill| &kill.incidents).all(|incident| incident.id != id);
    mode(status) > mode(last) || status.kill_switch.iter().flat_map(|k| &k.incidents).any(|i| began(&i.id))
}

/// The status without what may wait: figures, the words of messages, and the head of the ledger, which moves whenever a
/// resting order is placed again and is anchored with every other write.
fn transition(status: &ArbBotStatus) -> ArbBotStatus {
    let mut status = status.clone();
    if let Some(bot) = &mut status.bot {
        *bot = BotStatus { open_orders: None, position: None, pnl: None, ledger: None, ..std::mem::take(bot) };
    }
    // What is wrong with a spec is no figure of the market: who mends it waits for the answer.
    let of_the_spec = ConditionType::ControlApplied.to_string();
    let figures = |condition: &&mut Condition| condition.type_ != of_the_spec;
    status.conditions.iter_mut().filter(figures).for_each(|condition| condition.message.clear());
    if let Some(credentials) = &mut status.credentials {
        credentials.last_error.clear();
    }
    status
}

/// Whether a transition only says which generations are in force.
fn is_acknowledgement(status: &ArbBotStatus, last: &ArbBotStatus) -> bool {
    let without = |status: &ArbBotStatus| {
        let mut status = transition(status);
        status.conditions.iter_mut().for_each(|condition| condition.observed_generation = None);
        if let Some(bot) = &mut status.bot {
            bot.applied_generation = None;
            bot.applied_policies.clear();
        }
        status
    };
    without(status) == without(last)
}

/// What may wait: the figures that a person looks at, and the words.
fn quiet(status: &ArbBotStatus) -> impl PartialEq {
    let figures = status.bot.clone().map(|bot| (bot.open_orders, bot.position, bot.pnl));
    let messages: Vec<_> = status.conditions.iter().map(|condition| condition.message.clone()).collect();
    (figures, messages, status.credentials.clone().map(|credentials| credentials.last_error))
}

fn keep_figures(status: &mut ArbBotStatus, last: &ArbBotStatus) {
    if let (Some(bot), Some(last)) = (&mut status.bot, &last.bot) {
        let BotStatus { open_orders, position, pnl, .. } = last.clone();
        *bot = BotStatus { open_orders, position, pnl, ..std::mem::take(bot) };
    }
}

#[cfg(test)]
mod tests {
    use arbbot_crds::conditions::{ConditionType, Reason, set_condition};
    use arbbot_crds::status::{EffectiveMode, LedgerStatus, PnlStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn status(generation: i64, open_orders: u32, entries: i64, message: &str) -> ArbBotStatus {
        let bot = BotStatus {
            applied_generation: Some(generation),
            effective_mode: Some(EffectiveMode::Active),
            open_orders: Some(open_orders),
            ledger: Some(LedgerStatus { entries, head: String::new() }),
            pnl: Some(PnlStatus::default()),
            ..BotStatus::default()
        };
        let mut status = ArbBotStatus { bot: Some(bot), ..ArbBotStatus::default() };
        say(&mut status, true, Reason::EntryOpen, message, generation);
        status
    }

    fn say(status: &mut ArbBotStatus, is: bool, reason: Reason, message: &str, generation: i64) {
        let now = Time(Timestamp::UNIX_EPOCH);
        set_condition(
            &mut status.conditions,
            ConditionType::Trading,
            is.into(),
            reason,
            message,
            Some(generation),
            &now,
        );
    }

    /// A pace that wrote generation 1 with two orders at second 100.
    fn pace() -> Pace {
        let mut pace = Pace::default();
        pace.wrote(status(1, 2, 10, "open"), seconds(100.0));
        pace
    }

    fn writes(pace: &mut Pace, status: &ArbBotStatus, behind: bool, now: f64) -> Option<ArbBotStatus> {
        match pace.next(status, behind, seconds(now)) {
            Next::Write(status) => {
                pace.wrote((*status).clone(), seconds(now));
                Some(*status)
            }
            _ => None,
        }
    }

    #[test]
    fn the_first_status_is_written() {
        assert!(writes(&mut Pace::default(), &status(1, 0, 0, ""), true, 0.0).is_some());
    }

    #[test]
    fn a_figure_is_written_a_minute_after_the_last_write_once_it_has_settled() {
        let mut settled = pace();
        let moved = status(1, 1, 12, "open");
        for second in 101..160 {
            assert_eq!(writes(&mut settled, &moved, false, second.into()), None, "at {second}");
        }
        assert_eq!(writes(&mut settled, &moved, false, 160.0), Some(moved.clone()));
        let mut late = pace();
        assert_eq!(writes(&mut late, &moved, false, 198.0), None);
        assert_eq!(writes(&mut late, &moved, false, 202.0), None);
        assert_eq!(writes(&mut late, &moved, false, 203.0), Some(moved));
    }

    #[test]
    fn other_words_with_the_same_reason_wait_as_figures_do() {
        let mut pace = pace();
        let reworded = status(1, 2, 10, "open, in other words");
        assert_eq!(writes(&mut pace, &reworded, false, 101.0), None);
        assert_eq!(writes(&mut pace, &reworded, false, 159.0), None);
        assert_eq!(writes(&mut pace, &reworded, false, 160.0), Some(reworded));
    }

    /// Fails if the words of `ControlApplied` wait, too.
    #[test]
    fn what_is_wrong_with_the_spec_is_told_at_once() {
        let wrong = |guard: &str| {
            let mut status = status(1, 2, 10, "open");
            let (type_, reason) = (ConditionType::ControlApplied, Reason::GuardInvalid);
            let now = Time(Timestamp::UNIX_EPOCH);
            set_condition(&mut status.conditions, type_, false.into(), reason, guard, Some(1), &now);
            status
        };
        let mut pace = Pace::default();
        pace.wrote(wrong("no metric HourlyLosQuote"), seconds(100.0));
        assert!(writes(&mut pace, &wrong("no metric HourlyLosQuote"), false, 101.0).is_none());
        assert!(writes(&mut pace, &wrong("tripAt is not a string"), false, 102.0).is_some());
    }

    #[test]
    fn an_order_that_is_placed_again_is_no_news() {
        let mut pace = pace();
        for second in 101..400 {
            // Every ten seconds one order is missing for a moment, and the ledger grows.
            let orders = if second % 10 == 0 { 1 } else { 2 };
            assert_eq!(writes(&mut pace, &status(1, orders, second.into(), "open"), false, second.into()), None);
        }
    }

    #[test]
    fn a_patch_is_one_write_also_while_an_order_is_placed_again() {
        let mut pace = pace();
        assert_eq!(writes(&mut pace, &status(1, 1, 12, "open"), false, 200.0), None);
        let written = writes(&mut pace, &status(2, 1, 12, "open"), false, 200.1).unwrap();
        let bot = written.bot.unwrap();
        assert_eq!((bot.applied_generation, bot.open_orders), (Some(2), Some(2)), "it rests again in a moment");
        assert_eq!(bot.ledger.unwrap().entries, 12, "the ledger is anchored with every write");
        for second in 201..400 {
            assert_eq!(writes(&mut pace, &status(2, 2, 13, "open"), false, second.into()), None);
        }
    }

    #[test]
    fn a_figure_that_stays_is_in_the_next_acknowledgement() {
        let mut pace = pace();
        assert_eq!(writes(&mut pace, &status(1, 1, 12, "open"), false, 101.0), None);
        let written = writes(&mut pace, &status(2, 1, 12, "open"), false, 106.0).unwrap();
        assert_eq!(written.bot.unwrap().open_orders, Some(1));
    }

    #[test]
    fn a_change_of_a_condition_is_written_at_once_with_the_figures_of_the_moment() {
        let mut pace = pace();
        let mut closed = status(1, 0, 12, "");
        say(&mut closed, false, Reason::LimitExceeded, "closed", 1);
        assert_eq!(writes(&mut pace, &closed, false, 100.001), Some(closed));
    }

    #[test]
    fn an_acknowledgement_waits_for_the_engine_and_is_one_write() {
        let mut pace = pace();
        let mut acknowledged = status(1, 2, 10, "open");
        acknowledged.bot.as_mut().unwrap().applied_generation = Some(2);
        assert_eq!(pace.next(&acknowledged, true, seconds(101.0)), Next::Look(ENGINE_FOLLOWS));
        assert_eq!(writes(&mut pace, &acknowledged, true, 102.5), None);
        let followed = status(2, 2, 10, "open");
        assert_eq!(writes(&mut pace, &followed, false, 102.6), Some(followed.clone()));
        assert_eq!(writes(&mut pace, &followed, false, 103.0), None);
    }

    #[test]
    fn an_engine_that_does_not_follow_keeps_no_acknowledgement_back() {
        let mut pace = pace();
        let acknowledged = status(2, 2, 10, "open");
        assert_eq!(writes(&mut pace, &acknowledged, true, 101.0), None);
        assert_eq!(writes(&mut pace, &acknowledged, true, 103.0), Some(acknowledged));
    }

    #[test]
    fn the_last_word_of_a_process_has_its_last_figures() {
        let pace = pace();
        let gone = status(1, 0, 12, "open");
        assert_eq!(pace.last(&gone), Next::Write(Box::new(gone)));
        assert_eq!(pace.last(&status(1, 2, 12, "open")), Next::Rest);
    }

    #[test]
    fn what_stops_something_waits_for_the_engine_only_for_a_moment() {
        let mut pace = pace();
        let mut halted = status(2, 2, 10, "open");
        halted.bot.as_mut().unwrap().effective_mode = Some(EffectiveMode::Halted);
        assert_eq!(pace.next(&halted, true, seconds(101.0)), Next::Look(ENGINE_FOLLOWS_A_STOP));
        assert_eq!(writes(&mut pace, &halted, true, 101.005), Some(halted));
    }
}
