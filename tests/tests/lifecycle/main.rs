//! The life of a bot and of a desk on the real API server: stopped and back, deleted in every way, paused, edited by
//! hand, rolled out, and killed and released by one policy.

/// Asks again until the answer is there. A macro, because a closure would have to promise more lifetimes than it has.
macro_rules! eventually {
    ($what:expr, $ask:expr) => {{
        let until = crate::Until::new($what);
        loop {
            if let Some(found) = $ask {
                break found;
            }
            until.again().await?;
        }
    }};
}

mod deletion;
mod drift;
mod paper;
mod policies;
mod stopping;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, find};
use arbbot_tests::harness::{Bot, PATIENCE, Room, condition_is, run};
use arbbot_tests::scenarios;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::sleep;

use deletion::{
    a_deletion_under_a_halted_policy_names_both_ways_out, a_namespace_can_be_deleted_and_nothing_rests_at_the_exchange,
    foreground_deletion_closes_the_position_first, the_ledger_is_adopted_by_a_bot_of_the_same_name,
};
use drift::{
    an_object_that_nobody_can_read_says_so_and_stops_no_other,
    every_child_changed_by_hand_is_restored_and_then_nothing_is_written,
};
use paper::a_bot_on_paper_needs_no_key_obeys_a_kill_and_sends_nothing_to_the_exchange;
use policies::{
    a_bot_created_under_an_engaged_policy_starts_latched, a_desk_is_killed_and_released_by_one_policy,
    a_policy_that_is_relabelled_away_while_engaged_releases_nothing,
    a_policy_with_a_broken_selector_says_so_and_binds_every_bot,
};
use stopping::{
    a_cold_change_hands_over_and_keeps_the_position, a_kill_on_a_stopped_bot_is_latched, a_pause_does_not_pause_a_kill,
    stopped_drains_then_scales_to_zero_and_comes_back,
};

fn main() -> ExitCode {
    run(
        24,
        scenarios![
            a_bot_on_paper_needs_no_key_obeys_a_kill_and_sends_nothing_to_the_exchange,
            stopped_drains_then_scales_to_zero_and_comes_back,
            a_kill_on_a_stopped_bot_is_latched,
            foreground_deletion_closes_the_position_first,
            a_deletion_under_a_halted_policy_names_both_ways_out,
            a_namespace_can_be_deleted_and_nothing_rests_at_the_exchange,
            the_ledger_is_adopted_by_a_bot_of_the_same_name,
            a_pause_does_not_pause_a_kill,
            a_desk_is_killed_and_released_by_one_policy,
            a_bot_created_under_an_engaged_policy_starts_latched,
            a_policy_that_is_relabelled_away_while_engaged_releases_nothing,
            every_child_changed_by_hand_is_restored_and_then_nothing_is_written,
            a_cold_change_hands_over_and_keeps_the_position,
            an_object_that_nobody_can_read_says_so_and_stops_no_other,
            a_policy_with_a_broken_selector_says_so_and_binds_every_bot,
        ],
    )
}

const DEPLOYMENT: &str = "deployment/arbbot-bot";
const POLL: Duration = Duration::from_millis(100);

fn ready_because(bot: &ArbBot, reason: &str) -> bool {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition_is(bot, ConditionType::Ready, "True")
        && find(conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
}

fn stalled_because(bot: &ArbBot, reason: &str) -> Option<String> {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let stalled = find(conditions, ConditionType::Stalled)?;
    (stalled.status == "True" && stalled.reason == reason).then(|| stalled.message.clone())
}

/// The patience of one question.
struct Until<'a> {
    what: &'a str,
    ends: Instant,
}

impl<'a> Until<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, ends: Instant::now() + PATIENCE }
    }

    /// Waits a moment before the question is asked again.
    async fn again(&self) -> Result<()> {
        ensure!(Instant::now() < self.ends, "not within {} s: {}", PATIENCE.as_secs(), self.what);
        sleep(POLL).await;
        Ok(())
    }
}

async fn patch_policy(room: &Room<'_>, patch: Value) -> Result<()> {
    let patch = patch.to_string();
    let arguments = ["patch", "arbpolicy/desk", "--type=merge", "--field-manager=arb-incident", "-p", &patch];
    room.kubectl(&arguments).await.map(drop)
}

async fn wait_policy(room: &Room<'_>, condition: &str) -> Result<()> {
    let condition = format!("--for=condition={condition}");
    room.kubectl(&["wait", &condition, "arbpolicy/desk", "--timeout=60s"]).await.map(drop)
}

/// Runs a kubectl command as a message names it.
async fn run_line(room: &Room<'_>, line: &str) -> Result<()> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    ensure!(words.first().is_some_and(|word| word == "kubectl"), "no command: {line}");
    let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
    room.desk.kubectl.run(&words).await.map(drop)
}

/// The kubectl commands that a message names, in their order: each ends with a patch in quotes.
fn commands(message: &str) -> Vec<String> {
    let starts = message.match_indices("kubectl ").map(|(at, _)| &message[at..]);
    let whole = starts.filter_map(|line| line.match_indices('\'').nth(1).map(|(end, _)| line[..=end].to_owned()));
    whole.collect()
}

/// Gives a bot that may have reached its target a larger one, and waits until it trades towards it.
async fn trades_more(bot: &Bot<'_>) -> Result<()> {
    let larger = json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": "15000"}}}});
    bot.patch(larger).await?;
    bot.wait_until_trading().await
}

async fn deployment(bot: &Bot<'_>) -> Result<Deployment> {
    let api: Api<Deployment> = Api::namespaced(bot.desk.client.clone(), &bot.namespace);
    Ok(api.get(&format!("arbbot-{}", bot.name)).await?)
}
