//! A handle on one ArbBot: patch it, wait for its status, look behind it.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use arbbot_crds::conditions::{self, ConditionType};
use arbbot_crds::names::{BOT_PORT, MANAGER_INCIDENT};
use arbbot_crds::status::{IncidentPhase, IncidentStatus};
use arbbot_crds::{ArbBot, ArbBotStatus};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::desk::Desk;
use crate::clock::monotonic_ns;
use crate::exchange::{Account, JournalEvent, Portfolio};
use crate::process_node::Running;

/// How often the exchange is asked while a test waits for it.
const ASK_EVERY: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 15;

/// A handle on one ArbBot.
pub struct Bot<'a> {
    pub desk: &'a Desk,
    pub namespace: String,
    pub name: String,
    pub account: Account,
}

/// A patch that the API server accepted. Times are `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Debug)]
pub struct Patched {
    pub sent_ns: u64,
    pub accepted_ns: u64,
    pub generation: i64,
}

impl Bot<'_> {
    pub fn api(&self) -> Api<ArbBot> {
        Api::namespaced(self.desk.client.clone(), &self.namespace)
    }

    /// # Errors
    /// It does not exist.
    pub async fn get(&self) -> Result<ArbBot> {
        self.api().get(&self.name).await.with_context(|| format!("get ArbBot {}/{}", self.namespace, self.name))
    }

    /// Patches it as a person in an incident does.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch(&self, patch: Value) -> Result<Patched> {
        self.patch_as(MANAGER_INCIDENT, patch).await
    }

    /// Patches it as another field manager.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch_as(&self, manager: &str, patch: Value) -> Result<Patched> {
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let sent_ns = monotonic_ns();
        let bot = self.api().patch(&self.name, &parameters, &Patch::Merge(patch)).await?;
        Ok(Patched { sent_ns, accepted_ns: monotonic_ns(), generation: bot.metadata.generation.unwrap_or_default() })
    }

    /// Engages its kill switch.
    ///
    /// # Errors
    /// The API server refuses, which must not happen.
    pub async fn kill(&self) -> Result<Patched> {
        self.patch(json!({"spec": {"killSwitch": {"engaged": true, "reason": "test"}}})).await
    }

    /// Waits until the bot is as wanted.
    ///
    /// # Errors
    /// It is not in time; the message shows its conditions and the end of its log.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&ArbBot) -> bool + Send) -> Result<ArbBot> {
        self.wait_for(what, PATIENCE, wanted).await
    }

    /// Waits until the bot is as wanted, at most so long.
    ///
    /// # Errors
    /// It is not in time; the message shows its conditions and the end of its log.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&ArbBot) -> bool + Send,
    ) -> Result<ArbBot> {
        let mut versions = Box::pin(watcher::watch_object(self.api(), &self.name).default_backoff());
        let found = timeout(limit, async {
            loop {
                match versions.next().await {
                    Some(Ok(Some(bot))) if wanted(&bot) => return bot,
                    // The watch starts again by itself; the deadline bounds it.
                    _ => {}
                }
            }
        });
        match found.await {
            Ok(bot) => Ok(bot),
            Err(_) => Err(anyhow!("not within {} s: {what}\n{}", limit.as_secs(), self.describe().await)),
        }
    }

    /// Waits until a condition has a status for the present generation, or a later one.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_condition(&self, type_: ConditionType, status: &str) -> Result<ArbBot> {
        let what = format!("{type_}={status} on {}/{}", self.namespace, self.name);
        self.wait(&what, |bot| condition_is(bot, type_, status)).await
    }

    /// Waits until both legs are there and orders rest, by the exchange's word.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn wait_until_trading(&self) -> Result<()> {
        self.wait_until_trading_for(PATIENCE).await
    }

    /// Waits until both legs are there and orders rest, by the exchange's word, at most so long.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn wait_until_trading_for(&self, limit: Duration) -> Result<()> {
        let trading = |portfolio: &Portfolio| portfolio.is_carrying() && !portfolio.open_orders.is_empty();
        self.wait_exchange_for("both legs are there and orders rest", limit, trading).await.map(|_| ())
    }

    /// Waits until the exchange sees the account as wanted.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_exchange(&self, what: &str, wanted: impl Fn(&Portfolio) -> bool + Send) -> Result<Portfolio> {
        self.wait_exchange_for(what, PATIENCE, wanted).await
    }

    async fn wait_exchange_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Portfolio) -> bool + Send,
    ) -> Result<Portfolio> {
        let found = timeout(limit, async {
            loop {
                let portfolio = self.portfolio().await?;
                if wanted(&portfolio) {
                    return Ok::<_, anyhow::Error>(portfolio);
                }
                sleep(ASK_EVERY).await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => {
                let now = self.portfolio().await?;
                bail!("not within {} s at the exchange: {what}\n{now:?}\n{}", limit.as_secs(), self.describe().await)
            }
        }
    }

    /// The account as the exchange sees it.
    ///
    /// # Errors
    /// The exchange does not answer.
    pub async fn portfolio(&self) -> Result<Portfolio> {
        self.desk.exchange.admin.portfolio(&self.account.portfolio).await
    }

    /// What happened on the account, by the exchange's word.
    ///
    /// # Errors
    /// The exchange does not answer.
    pub async fn journal(&self) -> Result<Vec<JournalEvent>> {
        self.desk.exchange.admin.journal(&self.account.portfolio, 0).await
    }

    /// Waits until the kill has finished; returns the incident.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_kill_finished(&self) -> Result<IncidentStatus> {
        let finished = |bot: &ArbBot| incidents(bot).iter().any(|i| i.phase == IncidentPhase::Finished);
        let bot = self.wait("an incident is Finished", finished).await?;
        let incident = incidents(&bot).into_iter().find(|i| i.phase == IncidentPhase::Finished);
        incident.ok_or_else(|| anyhow!("no incident"))
    }

    /// The container of the bot.
    ///
    /// # Errors
    /// None is running.
    pub fn container(&self) -> Result<Running> {
        self.desk.node.bot(&self.namespace, &self.name)
    }

    /// What the bot says at `/status`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status_page(&self) -> Result<Value> {
        let url = format!("http://{}:{BOT_PORT}/status", self.container()?.ip);
        let reply = reqwest::Client::builder().no_proxy().build()?.get(&url).timeout(REQUEST_TIMEOUT).send().await?;
        reply.json().await.with_context(|| format!("read {url}"))
    }

    /// When the gate first took a state of at least this generation that is not Active, by the bot's own clock.
    ///
    /// # Errors
    /// The bot does not answer, or has not taken such a state.
    pub async fn stopped_ns(&self, generation: i64) -> Result<u64> {
        stopped(&self.status_page().await?, |transition| transition["generation"].as_i64() >= Some(generation))
            .ok_or_else(|| anyhow!("the gate of {} has not closed for generation {generation}", self.name))
    }

    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self) -> Result<()> {
        self.api().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until the ArbBot is gone.
    ///
    /// # Errors
    /// It is not in time.
    pub async fn wait_gone(&self) -> Result<()> {
        let gone = timeout(PATIENCE, async {
            while self.api().get_opt(&self.name).await?.is_some() {
                sleep(ASK_EVERY).await;
            }
            Ok::<_, anyhow::Error>(())
        });
        match gone.await {
            Ok(gone) => gone,
            Err(_) => bail!("ArbBot {} is still there\n{}", self.name, self.describe().await),
        }
    }

    /// Its conditions, incidents and the end of its log, for people.
    pub async fn describe(&self) -> String {
        let mut text = String::new();
        match self.get().await {
            Ok(bot) => {
                let status = bot.status.clone().unwrap_or_default();
                let _ = writeln!(text, "{}/{} generation {:?}", self.namespace, self.name, bot.metadata.generation);
                for Condition { type_, status, reason, message, .. } in &status.conditions {
                    let _ = writeln!(text, "  {type_}={status} {reason}: {message}");
                }
                for incident in incidents(&bot) {
                    let _ = writeln!(text, "  incident {} {} of {}", incident.id, incident.phase, incident.source);
                }
                let _ = writeln!(text, "  bot: {}", json!(status.bot));
            }
            Err(error) => drop(writeln!(text, "{error:#}")),
        }
        text + &self.log_tail()
    }

    /// The log of the bot's newest pod.
    pub fn log(&self) -> String {
        let prefix = format!("{}_arbbot-{}-", self.namespace, self.name);
        let logs = std::fs::read_dir(self.desk.node.logs()).into_iter().flatten().flatten();
        let ours = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let newest = ours.max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
        let bytes = newest.and_then(|entry| std::fs::read(entry.path()).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        format!("the end of its log:\n  {tail}")
    }

    /// Messages of the Events about it, with their reasons.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn events(&self) -> Result<String> {
        let columns = "custom-columns=R:.reason,M:.message,N:.note";
        let fields = format!("involvedObject.name={}", self.name);
        let arguments = ["-n", &self.namespace, "get", "events", "--field-selector", &fields, "-o", columns];
        self.desk.kubectl.run(&arguments).await
    }
}

/// Whether a condition has this status and was written for the object's generation.
pub fn condition_is(bot: &ArbBot, type_: ConditionType, status: &str) -> bool {
    let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::find(conditions, type_)
        .is_some_and(|condition| condition.status == status && condition.observed_generation >= bot.metadata.generation)
}

/// Every open incident of a bot.
pub fn incidents(bot: &ArbBot) -> Vec<IncidentStatus> {
    let kill_switch = bot.status.as_ref().and_then(|status: &ArbBotStatus| status.kill_switch.as_ref());
    kill_switch.map(|kill_switch| kill_switch.incidents.clone()).unwrap_or_default()
}

/// When the gate took the first state for which `wanted` holds and that is more restrictive than Active.
pub fn stopped(status_page: &Value, wanted: impl Fn(&Value) -> bool) -> Option<u64> {
    let transitions = status_page["gate"]["transitions"].as_array()?;
    let closed = transitions.iter().find(|transition| transition["entry"] != "Active" && wanted(transition))?;
    closed["monotonic_ns"].as_u64()
}
