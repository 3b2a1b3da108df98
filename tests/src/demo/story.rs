//! The story: two bots trade, one is killed, the other is restricted by a policy.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use arbbot_crds::conditions::ConditionType;
use arbbot_crds::names::{BOT_PORT, LABEL_BOT, MANAGER_INCIDENT};
use arbbot_crds::{ArbBot, ArbPolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::stage::Stage;
use super::table::{self, Act};
use crate::clock::monotonic_ns;
use crate::exchange::{Account, Admin, Portfolio};
use crate::harness::{condition_is, incidents, stopped};
use crate::measure::Journal;
use crate::objects;
use crate::progress::Progress;
use crate::witness::Witness;

/// Namespace of the bots.
pub const DESK: &str = "desk-a";
const KILLED: &str = "btc-carry";
const RESTRICTED: &str = "eth-carry";
const POLICY: &str = "eth-brake";
const PATIENCE: Duration = Duration::from_secs(120);

struct Scene {
    client: Client,
    admin: Admin,
}

struct Actor {
    name: &'static str,
    portfolio: String,
    witness: Witness,
}

/// Plays the story; returns what to print at the end.
pub async fn play(stage: &Stage, progress: &mut Progress) -> Result<String> {
    let scene = Scene { client: stage.client().await?, admin: stage.admin()? };
    progress.step("Two ArbBots on two accounts, and an ArbPolicy for one of them");
    let accounts = stage.accounts()?;
    let [btc, eth, ..] = accounts.as_slice() else { return Err(anyhow!("the exchange has too few accounts")) };
    create(stage, btc, eth).await?;
    let killed = scene.actor(KILLED, btc);
    let restricted = scene.actor(RESTRICTED, eth);
    progress.step("Both bots Ready");
    for actor in [&killed, &restricted] {
        let ready = |bot: &ArbBot| condition_is(bot, ConditionType::Ready, "True");
        scene.sees(stage, actor, "Ready=True", 0, ready).await?;
    }
    progress.step("Both bots hold both legs, and orders rest at the exchange");
    for actor in [&killed, &restricted] {
        scene.wait_until_trading(stage, actor, progress).await?;
    }
    progress.step("kubectl patch: the kill switch of btc-carry");
    let kill = scene.kill(stage, &killed).await?;
    progress.step("kubectl patch: ReduceOnly for eth-carry by the policy");
    let reduce = scene.reduce(stage, &restricted).await?;
    progress.step("kubectl get arbbots");
    let arbbots = stage.kubectl().run(&["get", "arbbots", "-n", DESK]).await?;
    let incident = killed.witness.latest().and_then(|sight| incidents(&sight.bot).first().map(|i| i.id.clone()));
    let incident = incident.ok_or_else(|| anyhow!("{KILLED} shows no incident"))?;
    Ok(format!(
        "\n{}\n\n$ kubectl get arbbots -n {DESK}\n{arbbots}\n{}",
        table::table(&kill, &reduce),
        lines(stage, &incident)
    ))
}

async fn create(stage: &Stage, btc: &Account, eth: &Account) -> Result<()> {
    let kubectl = stage.kubectl();
    kubectl.apply(&objects::namespace(DESK)).await?;
    let authority = std::fs::read_to_string(stage.data.join("ca.crt"))?;
    let mut eth_bot = objects::bot(RESTRICTED, eth, &stage.exchange, "eth-carry-key");
    objects::merge(
        &mut eth_bot,
        &json!({
            "metadata": {"labels": {"book": "eth"}},
            "spec": {"strategy": {"fundingCarry": {"spotProduct": "ETH-USD", "futureProduct": "ETP-20DEC30-CDE"}}},
        }),
    );
    let mut policy = objects::policy(POLICY);
    policy["spec"]["selector"] = json!({"matchLabels": {"book": "eth"}});
    let objects = [
        objects::authority(&authority),
        objects::secret("btc-carry-key", &btc.key),
        objects::secret("eth-carry-key", &eth.key),
        objects::bot(KILLED, btc, &stage.exchange, "btc-carry-key"),
        eth_bot,
        policy,
    ];
    for mut object in objects {
        object["metadata"]["namespace"] = json!(DESK);
        kubectl.apply(&object).await?;
    }
    Ok(())
}

impl Scene {
    fn bots(&self) -> Api<ArbBot> {
        Api::namespaced(self.client.clone(), DESK)
    }

    fn actor(&self, name: &'static str, account: &Account) -> Actor {
        Actor { name, portfolio: account.portfolio.clone(), witness: Witness::of(self.bots(), name) }
    }

    /// When the demo's own watch first saw it, at or after `since`.
    async fn sees(
        &self,
        stage: &Stage,
        actor: &Actor,
        what: &str,
        since: u64,
        wanted: impl Fn(&ArbBot) -> bool,
    ) -> Result<u64> {
        match actor.witness.first(what, since, PATIENCE, wanted).await {
            Ok(sight) => Ok(sight.ns),
            Err(error) => {
                let name = format!("arbbot/{}", actor.name);
                let shown = stage.kubectl().run(&["-n", DESK, "describe", &name]).await.unwrap_or_default();
                Err(error).with_context(|| format!("{}\n{shown}", actor.name))
            }
        }
    }

    async fn wait_until_trading(&self, stage: &Stage, actor: &Actor, progress: &mut Progress) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let portfolio = self.admin.portfolio(&actor.portfolio).await?;
            if portfolio.is_carrying() && !portfolio.open_orders.is_empty() {
                return Ok(());
            }
            progress.note(&format!("{} {}", actor.name, positions(&portfolio)));
            if Instant::now() > limit {
                let name = format!("arbbot/{}", actor.name);
                let shown = stage.kubectl().run(&["-n", DESK, "describe", &name]).await.unwrap_or_default();
                return Err(anyhow!("{} does not trade: {}\n{shown}", actor.name, positions(&portfolio)));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn kill(&self, stage: &Stage, actor: &Actor) -> Result<Act> {
        let patch = json!({"spec": {"killSwitch": {"engaged": true, "reason": "demo"}}});
        self.bots().get(actor.name).await?; // so that the time of the patch is not that of a TLS handshake
        let sent = monotonic_ns();
        let bot = self.bots().patch(actor.name, &incident(), &Patch::Merge(patch)).await?;
        let accepted = monotonic_ns();
        let generation = bot.metadata.generation.unwrap_or_default();
        let applied = |bot: &ArbBot| applied_generation(bot) >= Some(generation);
        let acknowledged = self.sees(stage, actor, "the acknowledgement", sent, applied).await?;
        let halted = |bot: &ArbBot| condition_is(bot, ConditionType::Halted, "True");
        let claimed_orders_gone = Some(self.sees(stage, actor, "Halted=True", sent, halted).await?);
        let flat = |bot: &ArbBot| condition_is(bot, ConditionType::Flat, "True");
        let claimed_flat = Some(self.sees(stage, actor, "Flat=True", sent, flat).await?);
        let page = self.status_page(actor).await?;
        let stopped = stopped(&page, |state| state["generation"].as_i64() >= Some(generation));
        let events = self.admin.journal(&actor.portfolio, 0).await?;
        let journal = Journal(&events);
        Ok(Act {
            sent,
            accepted,
            stopped,
            acknowledged,
            last_raising: journal.raising(sent, u64::MAX).last().map(|order| order.monotonic_ns),
            orders: journal.open_orders(sent),
            orders_gone: journal.orders_gone(sent),
            flat: journal.flat(sent),
            claimed_orders_gone,
            claimed_flat,
        })
    }

    async fn reduce(&self, stage: &Stage, actor: &Actor) -> Result<Act> {
        let policies: Api<ArbPolicy> = Api::namespaced(self.client.clone(), DESK);
        let patch = json!({"spec": {"mode": "ReduceOnly"}});
        let sent = monotonic_ns();
        let policy = policies.patch(POLICY, &incident(), &Patch::Merge(patch)).await?;
        let accepted = monotonic_ns();
        let generation = policy.metadata.generation.unwrap_or_default();
        let applied = |bot: &ArbBot| {
            let bot = bot.status.as_ref().and_then(|status| status.bot.as_ref());
            let mut policies = bot.into_iter().flat_map(|bot| bot.applied_policies.iter());
            policies.any(|policy| policy.name == POLICY && policy.generation >= generation)
        };
        let acknowledged = self.sees(stage, actor, "the acknowledgement", sent, applied).await?;
        let page = self.status_page(actor).await?;
        let stopped = stopped(&page, |state| {
            let policies = state["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
            policies.iter().any(|p| p["name"] == POLICY && p["generation"].as_i64() >= Some(generation))
        });
        let limit = Instant::now() + PATIENCE;
        let (events, orders_gone) = loop {
            let events = self.admin.journal(&actor.portfolio, 0).await?;
            let gone = Journal(&events).raising_orders_gone(sent);
            if gone.is_some() || Instant::now() > limit {
                break (events, gone);
            }
            sleep(Duration::from_millis(50)).await;
        };
        let journal = Journal(&events);
        Ok(Act {
            sent,
            accepted,
            stopped,
            acknowledged,
            last_raising: journal.raising(sent, u64::MAX).last().map(|order| order.monotonic_ns),
            orders: journal.open_orders(sent),
            orders_gone,
            flat: None,
            claimed_orders_gone: None,
            claimed_flat: None,
        })
    }

    /// What the bot says at `/status`: directly where its pod is a process of this machine, else through the API server.
    async fn status_page(&self, actor: &Actor) -> Result<Value> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), DESK);
        let pods = pods.list(&ListParams::default().labels(&format!("{LABEL_BOT}={}", actor.name))).await?;
        let running = pods.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        let pod = running.ok_or_else(|| anyhow!("{} has no pod", actor.name))?;
        let ip = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
        if ip.starts_with("127.") {
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
            return Ok(client.get(format!("http://{ip}:{BOT_PORT}/status")).send().await?.json().await?);
        }
        let name = pod.metadata.name.unwrap_or_default();
        let path = format!("/api/v1/namespaces/{DESK}/pods/{name}:{BOT_PORT}/proxy/status");
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }
}

fn incident() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER_INCIDENT.to_owned()), ..PatchParams::default() }
}

fn applied_generation(bot: &ArbBot) -> Option<i64> {
    bot.status.as_ref().and_then(|status| status.bot.as_ref()).and_then(|bot| bot.applied_generation)
}

fn positions(portfolio: &Portfolio) -> String {
    let positions = portfolio.positions.iter().filter(|(_, size)| !size.is_zero());
    let positions: Vec<_> = positions.map(|(product, size)| format!("{size} {product}")).collect();
    format!("{} orders, {}", portfolio.open_orders.len(), positions.join(", "))
}

/// What a person can do now.
fn lines(stage: &Stage, incident: &str) -> String {
    let kubeconfig = stage.kubeconfig.display();
    let cache = stage.kubeconfig.with_file_name("kube-cache");
    let cache = cache.display();
    let bin = stage.kubectl.parent().unwrap_or(&stage.kubectl).display();
    let patch = format!("kubectl -n {DESK} patch --type=merge --field-manager={MANAGER_INCIDENT}");
    format!(
        r#"Everything keeps running; `make demo-down` ends it. To play with it:

  export KUBECONFIG={kubeconfig}
  export KUBECACHEDIR={cache}
  export PATH={bin}:$PATH
  kubectl get arbbots -n {DESK} --watch

  # kill: cancel everything and flatten; wait until the exchange has confirmed it
  {patch} arbbot/{RESTRICTED} -p '{{"spec":{{"killSwitch":{{"engaged":true,"reason":"trying it"}}}}}}'
  kubectl -n {DESK} wait --for=condition=Flat arbbot/{RESTRICTED} --timeout=60s
  # revert the patch: the kill stays latched
  {patch} arbbot/{RESTRICTED} -p '{{"spec":{{"killSwitch":{{"engaged":false}}}}}}'
  kubectl -n {DESK} get arbbot/{RESTRICTED} -o jsonpath='{{.status.killSwitch.incidents}}{{"\n"}}'
  # release: name the incident of {KILLED}; it trades again ({RESTRICTED}: copy the id from the line before)
  {patch} arbbot/{KILLED} -p '{{"spec":{{"killSwitch":{{"engaged":false,"release":"{incident}"}}}}}}'
  # reduce: nothing raises a leg
  {patch} arbbot/{KILLED} -p '{{"spec":{{"mode":"ReduceOnly"}}}}'
  {patch} arbbot/{KILLED} -p '{{"spec":{{"mode":"Active"}}}}'
  # a policy: every bot that its selector matches; here {RESTRICTED}
  {patch} arbpolicy/{POLICY} -p '{{"spec":{{"mode":"Active"}}}}'
  {patch} arbpolicy/{POLICY} -p '{{"spec":{{"killSwitch":{{"engaged":true}}}}}}'
  # tighten a limit: takes effect between two orders, without a restart
  {patch} arbbot/{KILLED} -p '{{"spec":{{"risk":{{"limits":{{"maxPositionNotional":"5000"}}}}}}}}'"#
    )
}
