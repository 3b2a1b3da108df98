//! A third party that watches one ArbBot and notes when it saw what.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use arbbot_crds::ArbBot;
use futures::StreamExt;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::clock::monotonic_ns;

/// An ArbBot as it was seen at a moment.
#[derive(Debug)]
pub struct Sight {
    /// `CLOCK_MONOTONIC` when the watch event arrived.
    pub ns: u64,
    pub bot: ArbBot,
}

/// A bare watch of one ArbBot.
pub struct Witness {
    sights: watch::Receiver<Vec<Arc<Sight>>>,
    forget: Arc<watch::Sender<Vec<Arc<Sight>>>>,
    task: AbortHandle,
}

impl Witness {
    /// Starts to watch.
    pub fn of(api: Api<ArbBot>, name: &str) -> Self {
        let (sender, sights) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        let name = name.to_owned();
        let noted = sender.clone();
        let task = tokio::spawn(async move {
            let mut versions = Box::pin(watcher::watch_object(api, &name).default_backoff());
            while let Some(version) = versions.next().await {
                let ns = monotonic_ns();
                // An error means that the watch starts again; who waits has a deadline.
                if let Ok(Some(bot)) = version {
                    noted.send_modify(|sights| sights.push(Arc::new(Sight { ns, bot })));
                }
            }
        });
        Self { sights, forget: sender, task: task.abort_handle() }
    }

    /// The first sight at or after `since` for which `wanted` holds.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn first(
        &self,
        what: &str,
        since: u64,
        limit: Duration,
        wanted: impl Fn(&ArbBot) -> bool,
    ) -> Result<Arc<Sight>> {
        let mut sights = self.sights.clone();
        let found = timeout(limit, async {
            loop {
                let hit = sights.borrow_and_update().iter().find(|s| s.ns >= since && wanted(&s.bot)).cloned();
                if let Some(hit) = hit {
                    return Ok(hit);
                }
                sights.changed().await?;
            }
        });
        found.await.map_err(|_| anyhow!("not seen within {} s: {what}", limit.as_secs()))?
    }

    /// The newest sight.
    pub fn latest(&self) -> Option<Arc<Sight>> {
        self.sights.borrow().last().cloned()
    }

    /// Forgets all but the newest sight.
    pub fn forget(&self) {
        self.forget.send_modify(|sights| drop(sights.drain(..sights.len().saturating_sub(1))));
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
