//! The bots of the bench: objects as people write them, and the words of the bots and pods that are not there.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use arbbot_crds::names::{LABEL_BOT, LABEL_BOT_UID, MANAGER_BOT, child_name};
use arbbot_crds::{ArbBot, ArbPolicy};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::clock::monotonic_ns;
use crate::exchange::{Account, KeyFile};
use crate::harness::Patched;
use crate::objects;

/// Namespaces that the bots are spread over.
pub const NAMESPACES: usize = 20;
/// Requests at once: enough to keep a small machine's API server busy.
const AT_ONCE: usize = 48;
/// Nobody renews the Leases of bots that are not there, so they are long.
const LEASE_SECONDS: u32 = 24 * 3600;
const NODE: &str = "node-1";
const CHILD_PATIENCE: Duration = Duration::from_secs(120);
const CHILD_POLL: Duration = Duration::from_millis(500);

/// Writes as administrator, and as the bots that are not there.
pub struct Population {
    client: Client,
    bots: usize,
}

impl Population {
    pub fn new(client: Client, bots: usize) -> Self {
        Self { client, bots }
    }

    /// Makes namespaces, policies, and bots that are at work as far as status and Lease tell.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(&self) -> Result<()> {
        self.each(NAMESPACES, |number| self.create_namespace(number)).await?;
        self.each(self.bots, |number| self.create_bot(number)).await
    }

    /// What a controller manager and a kubelet would write once the bots' pods are ready.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn make_pods_ready(&self) -> Result<()> {
        self.each(self.bots, |number| self.make_pod_ready(number)).await
    }

    /// Tightens a limit of one bot, as a person does.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn tighten(&self, number: usize, max_order_notional: usize) -> Result<Patched> {
        let patch = json!({"spec": {"risk": {"limits": {"maxOrderNotional": max_order_notional.to_string()}}}});
        let sent_ns = monotonic_ns();
        let patched = self.bots_of(number).patch(&name(number), &PatchParams::default(), &Patch::Merge(patch)).await?;
        let generation = patched.metadata.generation.unwrap_or_default();
        Ok(Patched { sent_ns, accepted_ns: monotonic_ns(), generation })
    }

    /// The bot's word that it obeys this generation.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn acknowledge(&self, number: usize, generation: i64) -> Result<()> {
        let parameters = PatchParams::apply(MANAGER_BOT).force();
        let status = Patch::Apply(bot_status(number, generation));
        self.bots_of(number).patch_status(&name(number), &parameters, &status).await?;
        Ok(())
    }

    async fn each<F>(&self, count: usize, work: impl Fn(usize) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        stream::iter(0..count).map(work).buffer_unordered(AT_ONCE).try_collect().await
    }

    fn bots_of(&self, number: usize) -> Api<ArbBot> {
        Api::namespaced(self.client.clone(), &namespace(number))
    }

    async fn create_namespace(&self, number: usize) -> Result<()> {
        let object: Namespace = serde_json::from_value(objects::namespace(&namespace(number)))?;
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        let policies: Api<ArbPolicy> = Api::namespaced(self.client.clone(), &namespace(number));
        for policy in policies_of_a_desk() {
            policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        }
        Ok(())
    }

    async fn create_bot(&self, number: usize) -> Result<()> {
        let bot: ArbBot = serde_json::from_value(bot(number))?;
        let made = self.bots_of(number).create(&PostParams::default(), &bot).await;
        let uid = made.with_context(|| format!("create ArbBot {}", key(number)))?.uid().unwrap_or_default();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace(number));
        leases.create(&PostParams::default(), &serde_json::from_value(lease(number, &uid))?).await?;
        self.acknowledge(number, 1).await
    }

    async fn make_pod_ready(&self, number: usize) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace(number));
        let at = Timestamp::now().to_string();
        let conditions = json!([{
            "type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.", "lastUpdateTime": at, "lastTransitionTime": at,
        }]);
        let status = json!({"status": {
            "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": conditions,
        }});
        let parameters = PatchParams { field_manager: Some("kube-controller-manager".into()), ..Default::default() };
        let name = child_name(&name(number));
        let limit = Instant::now() + CHILD_PATIENCE;
        loop {
            match deployments.patch_status(&name, &parameters, &Patch::Merge(&status)).await {
                Ok(_) => return Ok(()),
                // The operator reports a failed reconcile, too; it tries again.
                Err(kube::Error::Api(answer)) if answer.is_not_found() && Instant::now() < limit => {
                    sleep(CHILD_POLL).await
                }
                Err(error) => {
                    let what = format!("write the status of Deployment {}/{name}", namespace(number));
                    return Err(error).context(what);
                }
            }
        }
    }
}

/// Namespace of a bot, or of a desk.
pub fn namespace(number: usize) -> String {
    format!("desk-{:02}", number % NAMESPACES)
}

fn name(number: usize) -> String {
    format!("carry-{number:05}")
}

/// `namespace/name` of a bot.
pub fn key(number: usize) -> String {
    format!("{}/{}", namespace(number), name(number))
}

/// A ceiling for everybody, and a tighter one for the bots of one group.
fn policies_of_a_desk() -> [Value; 2] {
    let policy = |name: &str, spec: Value| json!({"apiVersion": "arbbot.io/v1alpha1", "kind": "ArbPolicy", "metadata": {"name": name}, "spec": spec});
    [
        policy("desk-ceiling", json!({"risk": {"limits": {"maxPositionNotional": "20000"}}})),
        policy(
            "juniors",
            json!({"selector": {"matchLabels": {"group": "juniors"}}, "risk": {"limits": {"maxOpenOrders": 4}}}),
        ),
    ]
}

fn bot(number: usize) -> Value {
    let key = KeyFile { name: String::new(), private_key: String::new() };
    let account = Account { portfolio: portfolio(number), key };
    let mut bot = objects::bot(&name(number), &account, "exchange.example:443", "coinbase-key");
    let group = if number.is_multiple_of(4) { "juniors" } else { "seniors" };
    let changes = json!({
        "metadata": {"labels": {"group": group, "app.kubernetes.io/part-of": "carry"}},
        "spec": {
            "controlTimeouts": {"lease": "30s", "stale": "60s", "lost": "5m"},
            "risk": {"limits": {"maxOrderNotional": "5000", "maxPositionNotional": "25000"}},
        },
    });
    objects::merge(&mut bot, &changes);
    bot
}

/// Each bot has an account of its own.
fn portfolio(number: usize) -> String {
    format!("f931ff79-a4b0-48d6-9aa2-{number:012}")
}

fn pod_uid(number: usize) -> String {
    format!("0a51cd3e-5a52-4df1-8a0e-{number:012}")
}

fn lease(number: usize, bot_uid: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": child_name(&name(number)), "labels": {LABEL_BOT: name(number), LABEL_BOT_UID: bot_uid}},
        "spec": {
            "holderIdentity": pod_uid(number), "leaseDurationSeconds": LEASE_SECONDS, "leaseTransitions": 1,
            "acquireTime": now, "renewTime": now,
        },
    })
}

/// The bot's part of status while it trades: everything that a bot says, as long as it says it.
fn bot_status(number: usize, generation: i64) -> Value {
    let at = "2026-01-02T03:04:05Z";
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at,
            "observedGeneration": generation,
        })
    };
    json!({
        "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": name(number)},
        "status": {
            "conditions": [
                condition("ControlApplied", "True", "Applied", "the bot obeys this generation and every policy that selects it"),
                condition("Trading", "True", "EntryOpen", "entry is open; two orders rest"),
                condition("Halted", "False", "EntryOpen", "entry is open"),
                condition("Flat", "False", "PositionOpen", "-14 contracts of BIP-20DEC30-CDE and 0.14 of BTC-USD"),
                condition("WithinRiskLimits", "True", "WithinLimits", "every value is inside its limit"),
                condition("CredentialsValid", "True", "KeyAccepted", "key 5f0c1d2e3a4b is accepted for this portfolio"),
                condition("ExchangeConnected", "True", "Connected", "REST and both WebSockets are up"),
                condition("PositionsReconciled", "True", "Reconciled", "ledger and exchange agree"),
            ],
            "bot": {
                "appliedGeneration": generation, "effectiveMode": "Active", "openOrders": 2,
                "position": {
                    "futureContracts": "-14", "spotBase": "0.14", "notionalQuote": "9800.00", "leverage": "0.6533",
                },
                "pnl": {"totalQuote": "12.34", "feesQuote": "5.60"},
                "account": portfolio(number),
                "links": {"endpoint": "simulator", "rest": "Up", "marketWebSocket": "Up", "userWebSocket": "Up"},
                "lease": {"holder": pod_uid(number), "epoch": 1},
                "ledger": {"entries": 124, "head": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
                "ownedSince": at, "podUid": pod_uid(number), "node": NODE, "version": env!("CARGO_PKG_VERSION"),
            },
            "killSwitch": {"incidents": []},
            "credentials": {"fingerprint": "5f0c1d2e3a4b", "verifiedAt": at},
        },
    })
}
