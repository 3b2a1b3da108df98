//! Helm's whole life of the operator on a real node, under two live bots: install, upgrade, rollback, uninstall, install
//! again. The bots keep their positions and go on trading throughout, and never do two of them trade for one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arbbot_tests::clock::monotonic_ns;
use arbbot_tests::exchange::{self, Account, Admin};
use arbbot_tests::harness::{NodeDesk, OPERATOR, OPERATOR_NAMESPACE, Setup};
use arbbot_tests::helm::{CHART, Helm};
use arbbot_tests::kubectl::Kubectl;
use arbbot_tests::measure::Journal;
use arbbot_tests::programs::Programs;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const NAMESPACE: &str = "desk-a";
/// Lives through all of it.
const TRADER: &str = "trader";
/// Is killed while there is no operator.
const VICTIM: &str = "victim";
/// Tag of the release that the operator is upgraded to.
const NEXT: &str = "next";
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn bots_live_through_upgrade_rollback_uninstall_and_reinstall() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let programs = Programs::build()?;
    let setup = Setup { programs: &programs, directory: directory.path(), accounts: 3, fsync: false, audit: false };
    let desk = NodeDesk::start(setup, |_| Ok(())).await?;
    desk.load_release(&programs, NEXT).await?;
    let mut accounts = exchange::accounts(&desk.data)?;
    let life = Life {
        admin: Admin::new(&desk.admin, &desk.data)?,
        helm: Helm::for_cluster(&desk.kubectl)?,
        kubectl: &desk.kubectl,
        victim: accounts.pop().context("an account")?,
        trader: accounts.pop().context("an account")?,
    };
    desk.apply_bot(NAMESPACE, TRADER, &life.trader, &json!({})).await?;
    desk.apply_bot(NAMESPACE, VICTIM, &life.victim, &json!({})).await?;
    if let Err(error) = life.live().await {
        let shown = life.kubectl(&["describe", "arbbots,pods"]).await.unwrap_or_default();
        let log = ["-n", OPERATOR_NAMESPACE, "logs", "deployment/arbbot-operator", "--all-pods", "--tail=20"];
        let log = desk.kubectl.run(&log).await.unwrap_or_default();
        return Err(error).context(format!("{shown}\n{log}"));
    }
    Ok(())
}

struct Life<'a> {
    admin: Admin,
    helm: Helm,
    kubectl: &'a Kubectl,
    trader: Account,
    victim: Account,
}

impl Life<'_> {
    async fn live(&self) -> Result<()> {
        for (name, account) in [(TRADER, &self.trader), (VICTIM, &self.victim)] {
            self.is_carrying(account).await?;
            self.kubectl(&["wait", "--for=condition=Ready", &format!("arbbot/{name}"), "--timeout=90s"]).await?;
        }
        let began = monotonic_ns();
        let first = self.pod(TRADER).await?;

        self.upgrade(&["logLevel=debug"]).await?;
        self.upgrade(&["logLevel=debug", &format!("image.tag={NEXT}")]).await?;
        ensure!(self.operators().await?.contains(&format!("arbbot-operator:{NEXT}")), "the old operator still runs");
        self.goes_on_trading("after two upgrades of the operator", 11_000).await?;
        ensure!(self.pod(TRADER).await? == first, "an upgrade of the operator alone has replaced the bot's pod");

        self.upgrade(&[&format!("image.tag={NEXT}"), &format!("bot.image.tag={NEXT}")]).await?;
        self.runs_image(&format!("arb-bot:{NEXT}")).await?;
        self.goes_on_trading("after an upgrade of the bots", 12_000).await?;
        self.helm.run(&["rollback", OPERATOR, "1", "--namespace", OPERATOR_NAMESPACE, "--wait"]).await?;
        self.runs_image(&format!("arb-bot:{}", env!("CARGO_PKG_VERSION"))).await?;
        ensure!(!self.operators().await?.contains(NEXT), "the operator was not rolled back");
        self.goes_on_trading("after the rollback", 13_000).await?;

        self.uninstall().await?;
        let before = self.pod(TRADER).await?;
        self.goes_on_trading("without an operator", 14_000).await?;
        self.kill_without_an_operator().await?;

        self.helm.run(&["install", OPERATOR, CHART, "--namespace", OPERATOR_NAMESPACE, "--wait"]).await?;
        self.is_adopted().await?;
        ensure!(self.pod(TRADER).await? == before, "the new operator has replaced the bot's pod");
        self.goes_on_trading("after the new installation", 15_000).await?;
        self.the_exchange_agrees(began).await?;

        let flatten = r#"{"spec":{"deletionPolicy":"Flatten"}}"#;
        self.patch(TRADER, flatten).await?;
        self.kubectl(&["delete", &format!("arbbot/{TRADER}"), "--timeout=90s"]).await?;
        ensure!(self.admin.portfolio(&self.trader.portfolio).await?.is_flat(), "deleted with a position");
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(&[&["-n", NAMESPACE], arguments].concat()).await
    }

    async fn patch(&self, bot: &str, patch: &str) -> Result<()> {
        let bot = format!("arbbot/{bot}");
        self.kubectl(&["patch", &bot, "--type=merge", "--field-manager=arb-incident", "-p", patch]).await.map(|_| ())
    }

    /// Upgrades the release to the chart with just these values.
    async fn upgrade(&self, values: &[&str]) -> Result<()> {
        let values = values.join(",");
        let namespace = ["--namespace", OPERATOR_NAMESPACE];
        let upgrade = ["upgrade", OPERATOR, CHART, "--reset-values", "--set", &values, "--wait", "--timeout=90s"];
        self.helm.run(&[&upgrade[..], &namespace].concat()).await.map(|_| ())
    }

    async fn operators(&self) -> Result<String> {
        let images = "jsonpath={.items[*].spec.containers[*].image}";
        self.kubectl.run(&["-n", OPERATOR_NAMESPACE, "get", "pods", "-o", images]).await
    }

    /// uids of the bot's pods.
    async fn pod(&self, bot: &str) -> Result<String> {
        let label = format!("arbbot.io/bot={bot}");
        self.kubectl(&["get", "pods", "-l", &label, "-o", "jsonpath={.items[*].metadata.uid}"]).await
    }

    /// Waits until both bots run this image, and nothing else.
    async fn runs_image(&self, image: &str) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let pods = self.kubectl(&["get", "pods", "-o", "json"]).await?;
            let pods: Value = serde_json::from_str(&pods)?;
            let pods = pods["items"].as_array().context("pods")?;
            let runs = |pod: &Value| {
                pod["spec"]["containers"][0]["image"] == image && pod["status"]["containerStatuses"][0]["ready"] == true
            };
            if pods.len() == 2 && pods.iter().all(runs) {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "not both bots run {image}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn is_carrying(&self, account: &Account) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let portfolio = self.admin.portfolio(&account.portfolio).await?;
            if portfolio.is_carrying() && !portfolio.open_orders.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < limit, "not trading: {portfolio:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The trader is told to hold more, and trades for it; it has both legs all the time.
    async fn goes_on_trading(&self, when: &str, target: u32) -> Result<()> {
        let from = monotonic_ns();
        let more = json!({"spec": {"strategy": {"fundingCarry": {"targetNotional": target.to_string()}}}});
        self.patch(TRADER, &more.to_string()).await?;
        let limit = Instant::now() + PATIENCE;
        loop {
            let events = self.admin.journal(&self.trader.portfolio, 0).await?;
            let new: Vec<_> = events.into_iter().filter(|event| event.monotonic_ns >= from).collect();
            if Journal(&new).accepted() > 0 {
                break;
            }
            ensure!(Instant::now() < limit, "{when}: no order was accepted for {} s", PATIENCE.as_secs());
            sleep(Duration::from_millis(200)).await;
        }
        let portfolio = self.admin.portfolio(&self.trader.portfolio).await?;
        ensure!(portfolio.is_carrying(), "{when}: {portfolio:?}");
        Ok(())
    }

    async fn uninstall(&self) -> Result<()> {
        self.helm.run(&["uninstall", OPERATOR, "--namespace", OPERATOR_NAMESPACE, "--wait"]).await?;
        let gone =
            ["get", "deployments,clusterroles,validatingadmissionpolicies", "-A", "--ignore-not-found", "-o", "name"];
        let left = self.kubectl.run(&gone).await?;
        let ours = left.lines().filter(|name| name.contains(OPERATOR));
        ensure!(ours.clone().next().is_none(), "left: {:?}", ours.collect::<Vec<_>>());
        let wait = ["-n", OPERATOR_NAMESPACE, "wait", "--for=delete", "pod", "--all", "--timeout=60s"];
        self.kubectl.run(&wait).await?;
        let bots = self.kubectl(&["get", "arbbots", "-o", "name"]).await?;
        ensure!(bots.lines().count() == 2, "ArbBots left: {bots}");
        Ok(())
    }

    async fn kill_without_an_operator(&self) -> Result<()> {
        let sent = monotonic_ns();
        self.patch(VICTIM, r#"{"spec":{"killSwitch":{"engaged":true}}}"#).await?;
        for condition in ["Halted", "Flat"] {
            let condition = format!("--for=condition={condition}");
            self.kubectl(&["wait", &condition, &format!("arbbot/{VICTIM}"), "--timeout=60s"]).await?;
        }
        let events = self.admin.journal(&self.victim.portfolio, 0).await?;
        let journal = Journal(&events);
        ensure!(!journal.positions(sent).is_empty(), "there was no position, so nothing was proven");
        ensure!(journal.orders_gone(sent).is_some() && journal.flat(sent).is_some(), "the journal disagrees");
        Ok(())
    }

    /// The new operator reconciles both bots as they are, the latched one too.
    async fn is_adopted(&self) -> Result<()> {
        self.patch(TRADER, r#"{"spec":{"logLevel":"debug"}}"#).await?;
        for bot in [TRADER, VICTIM] {
            let name = format!("arbbot/{bot}");
            let generation = self.kubectl(&["get", &name, "-o", "jsonpath={.metadata.generation}"]).await?;
            let observed = format!("--for=jsonpath={{.status.observedGeneration}}={generation}");
            self.kubectl(&["wait", &observed, &name, "--timeout=60s"]).await?;
            self.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=60s"]).await?;
        }
        let victim = format!("arbbot/{VICTIM}");
        let open = self.kubectl(&["get", &victim, "-o", "jsonpath={.status.killSwitch.incidents[*].phase}"]).await?;
        ensure!(open == "Finished", "the latch is {open:?}");
        Ok(())
    }

    /// The trader was never flat, and no order of a pod came after one of its successor.
    async fn the_exchange_agrees(&self, since: u64) -> Result<()> {
        let events = self.admin.journal(&self.trader.portfolio, 0).await?;
        ensure!(Journal(&events).flat(since).is_none(), "the position was not kept");
        for account in [&self.trader, &self.victim] {
            let events = self.admin.journal(&account.portfolio, 0).await?;
            let journal = Journal(&events);
            let wrong = journal.out_of_turn();
            ensure!(wrong.is_empty(), "two traders on one account: {wrong:?}");
        }
        let killed = self.admin.portfolio(&self.victim.portfolio).await?;
        ensure!(killed.is_flat(), "the killed bot trades again: {killed:?}");
        Ok(())
    }
}
