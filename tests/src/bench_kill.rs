//! `make bench-kill`: how fast a patch stops a bot, next to the floor of the same run.
//!
//! 20 bot processes with an account each trade; the operator runs; etcd waits for the disk. Everything is timed by
//! `CLOCK_MONOTONIC` of one host. The floor is a bare kube-rs watch of the same object in this process; the floor of an
//! acknowledgement is a bare watch that answers with a bare status write on an ArbBot that no bot runs for.

mod floor;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arbbot_crds::ArbBot;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::exchange::JournalEvent;
use crate::harness::{Bot, Desk, Patched, Room, Setup, config, incidents, stopped};
use crate::programs::Programs;
use crate::progress::Progress;
use crate::witness::Witness;

use floor::Floor;
pub use report::Report;

const BOTS: usize = 20;
const TOGGLES: usize = 300;
const KILLS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Between two patches, so that each meets a system at work and not one that is still busy with the patch before: a
/// person in an incident does not send five a second.
const PAUSE: Duration = Duration::from_millis(100);

/// A bot and the third client that watches it.
struct Subject<'a> {
    bot: Bot<'a>,
    witness: Witness,
}

/// One stop of one bot. Times are `CLOCK_MONOTONIC` in nanoseconds.
struct Stop {
    subject: usize,
    sent: u64,
    accepted: u64,
    /// The bare watch has the patched object.
    seen: u64,
    /// The bot's gate closed.
    stopped: u64,
    /// The bot's status is visible to a third client.
    acknowledged: u64,
    /// Entry was opened again.
    until: u64,
}

/// What one bot's account went through.
struct Account {
    journal: Vec<JournalEvent>,
}

/// Runs the whole benchmark; the desk's files are in `directory`.
///
/// # Errors
/// Something does not work, or the run was vacuous.
pub async fn run(directory: &Path, progress: &mut Progress) -> Result<Report> {
    let programs = Programs::built()?;
    let setup = Setup { programs: &programs, directory, accounts: BOTS + 2, fsync: true, audit: false };
    let desk = Desk::start(setup, |step| {
        progress.step(step);
        Ok(())
    })
    .await?;
    let room = desk.room("bench").await?;
    // A client of its own, so that the watches share nothing with who patches.
    let observer = Client::try_from(config(&desk.kubectl.kubeconfig).await?)?;
    progress.step(&format!("{BOTS} bots hold positions and rest orders"));
    let subjects = subjects(&room, &observer).await?;
    let mut floor = Floor::prepare(&room, &observer).await?;
    progress.step(&format!("{TOGGLES} patches of mode, Active to Halted"));
    let mut toggles = Vec::new();
    let mut floor_acks = Vec::new();
    for number in 0..TOGGLES {
        progress.note(&format!("{number}"));
        sleep(PAUSE).await;
        toggles.push(toggle(&subjects, number % BOTS).await?);
        sleep(PAUSE).await;
        floor_acks.push(floor.acknowledge().await?);
    }
    progress.step(&format!("{KILLS} kills"));
    let mut kills = Vec::new();
    for number in 0..KILLS {
        progress.note(&format!("{number}"));
        sleep(PAUSE).await;
        let (stop, released) = kill(&subjects, number % BOTS).await?;
        if let Some(earlier) = kills.iter_mut().rev().find(|kill: &&mut Stop| kill.subject == stop.subject) {
            earlier.until = released;
        }
        kills.push(stop);
    }
    progress.step("What the exchange recorded");
    let mut accounts = Vec::new();
    for subject in &subjects {
        accounts.push(Account { journal: subject.bot.journal().await? });
    }
    let report = Report::new(&toggles, &kills, &floor_acks, &accounts)?;
    progress.done();
    Ok(report)
}

async fn subjects<'a>(room: &Room<'a>, observer: &Client) -> Result<Vec<Subject<'a>>> {
    // Room to grow for the whole run, so that orders always rest; the timeouts are the defaults, as in production.
    let changes = json!({"spec": {
        "controlTimeouts": {"lease": "30s", "stale": "60s", "lost": "5m"},
        "strategy": {"fundingCarry": {"targetNotional": "300000"}},
        "risk": {"limits": {"maxPositionNotional": "300000", "maxOrdersPerMinute": 6000}},
    }});
    let api: Api<ArbBot> = Api::namespaced(observer.clone(), &room.name);
    let mut subjects = Vec::new();
    for number in 0..BOTS {
        let name = format!("bot-{number}");
        let bot = room.bot(&name, changes.clone()).await?;
        subjects.push(Subject { bot, witness: Witness::of(api.clone(), &name) });
    }
    for subject in &subjects {
        subject.bot.wait_until_trading().await?;
    }
    Ok(subjects)
}

/// Halts a bot that trades, measures, and lets it trade again.
async fn toggle(subjects: &[Subject<'_>], number: usize) -> Result<Stop> {
    let subject = &subjects[number];
    subject.bot.wait_until_trading().await?;
    subject.witness.forget();
    let patched = subject.bot.patch(json!({"spec": {"mode": "Halted"}})).await?;
    let mut stop = subject.stop(number, &patched).await?;
    let resumed = subject.bot.patch(json!({"spec": {"mode": "Active"}})).await?;
    subject.acknowledged(&resumed).await?;
    stop.until = resumed.sent_ns;
    Ok(stop)
}

/// Kills a bot that trades and measures. One that was killed before is released first; also returns when.
async fn kill(subjects: &[Subject<'_>], number: usize) -> Result<(Stop, u64)> {
    let subject = &subjects[number];
    let released = subject.release().await?;
    subject.bot.wait_until_trading().await?;
    subject.witness.forget();
    let patched = subject.bot.kill().await?;
    let stop = subject.stop(number, &patched).await?;
    let limit = Instant::now() + PATIENCE;
    while !subject.bot.portfolio().await?.is_flat() {
        if Instant::now() > limit {
            bail!("{} is not flat\n{}", subject.bot.name, subject.bot.describe().await);
        }
        sleep(POLL).await;
    }
    Ok((stop, released))
}

impl Subject<'_> {
    async fn stop(&self, subject: usize, patched: &Patched) -> Result<Stop> {
        let &Patched { sent_ns: sent, accepted_ns: accepted, generation } = patched;
        let present = |bot: &ArbBot| bot.metadata.generation >= Some(generation);
        let seen = self.witness.first("the patched object", sent, PATIENCE, present).await?.ns;
        let acknowledged = self.acknowledged(patched).await?;
        let page = self.bot.status_page().await?;
        let stopped = stopped(&page, |state| state["generation"].as_i64() == Some(generation))
            .with_context(|| format!("{} shows no closed gate for generation {generation}", self.bot.name))?;
        Ok(Stop { subject, sent, accepted, seen, stopped, acknowledged, until: u64::MAX })
    }

    async fn acknowledged(&self, patched: &Patched) -> Result<u64> {
        let applied = |bot: &ArbBot| {
            let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
            bot.and_then(|bot| bot.applied_generation) >= Some(patched.generation)
        };
        let sight = self.witness.first("the acknowledgement", patched.sent_ns, PATIENCE, applied).await;
        match sight {
            Ok(sight) => Ok(sight.ns),
            Err(error) => Err(error).context(self.bot.describe().await),
        }
    }

    /// Releases the kill, if there is one; returns when the release was sent.
    async fn release(&self) -> Result<u64> {
        if incidents(&self.bot.get().await?).is_empty() {
            return Ok(0);
        }
        let incident = self.bot.wait_kill_finished().await?;
        let release = json!({"spec": {"killSwitch": {"engaged": false, "release": incident.id}}});
        let released = self.bot.patch(release).await?;
        self.bot.wait("released", |bot| incidents(bot).is_empty()).await?;
        Ok(released.sent_ns)
    }
}
