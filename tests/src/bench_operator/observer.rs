//! A third client that watches every ArbBot and notes when the operator has spoken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{ConditionType, is_true};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::monotonic_ns;

const POLL: Duration = Duration::from_millis(100);
const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

/// What the operator said last of one bot.
#[derive(Clone, Copy, Default)]
struct Seen {
    generation: Option<i64>,
    observed: Option<i64>,
    ready: bool,
    /// `CLOCK_MONOTONIC` when `observed` rose last.
    observed_ns: u64,
}

type Bots = Arc<Mutex<HashMap<String, Seen>>>;

/// Watches every ArbBot.
pub struct Observer {
    bots: Bots,
    changes: watch::Receiver<()>,
    task: AbortHandle,
}

impl Observer {
    pub fn start(client: Client) -> Self {
        let bots = Bots::default();
        let (changed, changes) = watch::channel(());
        let seen = bots.clone();
        let task = tokio::spawn(async move {
            let api: Api<ArbBot> = Api::all(client);
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let mut touched = Box::pin(events.touched_objects());
            while let Some(bot) = touched.next().await {
                // An error means that the watch starts again; who waits has a deadline.
                if let Ok(bot) = bot {
                    note(&seen, &bot);
                    changed.send_replace(());
                }
            }
        });
        Self { bots, changes, task: task.abort_handle() }
    }

    /// Waits until the operator has reported the present generation of so many bots, and calls them Ready if asked.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub async fn wait_reported(&self, count: usize, ready: bool, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let reported = |seen: &&Seen| seen.observed >= seen.generation && (seen.ready || !ready);
            let now = locked(&self.bots).values().filter(reported).count();
            if now >= count {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("within {} s the operator has reported only {now} of {count} bots", limit.as_secs());
            }
            sleep(POLL).await;
        }
    }

    /// When the operator's report of this generation of a bot (`namespace/name`) was seen; `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// It is not seen in time.
    pub async fn wait_observed(&self, key: &str, generation: i64) -> Result<u64> {
        let mut changes = self.changes.clone();
        let seen = timeout(CHANGE_DEADLINE, async {
            loop {
                let seen = locked(&self.bots).get(key).copied().unwrap_or_default();
                if seen.observed >= Some(generation) {
                    return Ok(seen.observed_ns);
                }
                changes.changed().await?;
            }
        });
        seen.await.map_err(|_| anyhow!("the operator did not report generation {generation} of {key}"))?
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(bots: &Bots) -> MutexGuard<'_, HashMap<String, Seen>> {
    bots.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(bots: &Bots, bot: &ArbBot) {
    let key = format!("{}/{}", bot.namespace().unwrap_or_default(), bot.name_any());
    let status = bot.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    let mut bots = locked(bots);
    let seen = bots.entry(key).or_default();
    if observed > seen.observed {
        seen.observed_ns = monotonic_ns();
    }
    seen.generation = bot.metadata.generation;
    seen.observed = observed;
    seen.ready = status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready));
}
