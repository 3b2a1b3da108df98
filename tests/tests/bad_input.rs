//! What is wrong outside the API server's reach: Secrets, keys, certificates, endpoints, accounts. Each shows in a
//! condition, an Event and the log, names the field or object and the remedy, and nothing trades.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arbbot_crds::ArbBot;
use arbbot_crds::conditions::{self, ConditionType, Reason};
use arbbot_tests::exchange::{self, KeyFile};
use arbbot_tests::harness::{Bot, Desk, Room, run};
use arbbot_tests::measure::Journal;
use arbbot_tests::{objects, scenarios};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(
        20,
        scenarios![
            a_missing_secret_is_named,
            a_secret_without_the_private_key_is_named,
            a_missing_authority_is_named,
            an_unreachable_exchange_is_named,
            a_wrong_authority_is_named,
            a_key_that_may_transfer_is_refused,
            a_key_that_may_not_trade_is_refused,
            a_malformed_key_is_refused,
            a_key_of_another_portfolio_is_refused,
            a_new_key_that_is_refused_leaves_the_earlier_one_in_use,
            an_unknown_product_is_named,
            a_second_bot_on_the_same_account_and_product_does_not_trade,
            a_limit_below_one_contract_is_named,
            an_image_that_cannot_be_pulled_is_named,
        ],
    )
}

/// What a person must find.
struct Expected<'a> {
    condition: ConditionType,
    status: &'a str,
    reason: Reason,
    /// Words of the message: the field or object, and the remedy.
    words: &'a [&'a str],
}

/// The condition is there with reason and words, an Event says the same, the log does, and nothing was traded.
async fn expect(bot: &Bot<'_>, expected: &Expected<'_>) -> Result<()> {
    let Expected { condition, status, reason, words } = expected;
    let shown = |bot: &ArbBot| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions::find(conditions, *condition).is_some_and(|condition| {
            condition.status == *status
                && condition.reason == reason.to_string()
                && words.iter().all(|word| condition.message.contains(word))
        })
    };
    bot.wait(&format!("{condition}={status} {reason} with {words:?}"), shown).await?;
    let mut events = String::new();
    let told = async {
        for _ in 0..100 {
            events = bot.events().await?;
            if events.lines().any(|line| line.contains(&reason.to_string()) && words.iter().all(|w| line.contains(w))) {
                return Ok::<_, anyhow::Error>(true);
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok(false)
    };
    let told = told.await?;
    ensure!(told, "no Event says {reason} with {words:?}: {events}\n{}", bot.describe().await);
    let log = bot.log() + &bot.desk.operator_log();
    let logged = log.lines().any(|line| {
        let line = line.replace("\\\"", "\"");
        line.contains(&bot.name) && words.iter().all(|word| line.contains(word))
            || line.contains(&reason.to_string()) && words.iter().all(|word| line.contains(word))
    });
    ensure!(logged, "no line of the log says {words:?}");
    let accepted = Journal(&bot.journal().await?).accepted();
    ensure!(accepted == 0, "{accepted} orders were accepted");
    Ok(())
}

/// A bot whose Secret holds another key.
async fn bot_with_key<'a>(room: &Room<'a>, key: KeyFile) -> Result<Bot<'a>> {
    let (object, account) = room.draft("bot").await?;
    room.apply(&objects::secret("bot-key", &key)).await?;
    room.apply(&object).await?;
    Ok(room.handle("bot", &account))
}

async fn a_missing_secret_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("missing-secret").await?;
    let bot = room.bot("bot", json!({"spec": {"credentials": {"secretRef": {"name": "absent"}}}})).await?;
    let (condition, reason) = (ConditionType::Stalled, Reason::SecretMissing);
    expect(&bot, &Expected { condition, status: "True", reason, words: &["absent", "Secret"] }).await?;
    // The remedy works without a further step.
    room.apply(&objects::secret("absent", &bot.account.key)).await?;
    bot.wait_until_trading().await
}

async fn a_secret_without_the_private_key_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("half-secret").await?;
    let (object, account) = room.draft("bot").await?;
    room.kubectl(&["delete", "secret", "bot-key"]).await?;
    room.kubectl(&["create", "secret", "generic", "bot-key", "--from-literal=name=x"]).await?;
    room.apply(&object).await?;
    let bot = room.handle("bot", &account);
    let shown = |bot: &ArbBot| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.message.contains("privateKey"))
    };
    bot.wait("a condition names the key privateKey", shown).await?;
    ensure!(Journal(&bot.journal().await?).accepted() == 0, "it trades");
    Ok(())
}

async fn a_missing_authority_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("missing-authority").await?;
    let reference = json!({"configMapKeyRef": {"name": "absent", "key": "ca.crt"}});
    let bot = room.bot("bot", json!({"spec": {"venue": {"coinbase": {"caBundle": reference}}}})).await?;
    let (condition, reason) = (ConditionType::Stalled, Reason::PodCannotStart);
    expect(&bot, &Expected { condition, status: "True", reason, words: &["absent"] }).await
}

/// A bot whose exchange is somewhere else.
async fn bot_at<'a>(room: &Room<'a>, authority: &str) -> Result<Bot<'a>> {
    let endpoint = json!({
        "name": "simulator",
        "restUrl": format!("https://{authority}"),
        "marketWebSocketUrl": format!("wss://{authority}/ws"),
        "userWebSocketUrl": format!("wss://{authority}/ws/user"),
    });
    room.bot("bot", json!({"spec": {"venue": {"coinbase": {"endpoints": [endpoint]}}}})).await
}

async fn an_unreachable_exchange_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unreachable").await?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let bot = bot_at(&room, &closed).await?;
    let (condition, reason) = (ConditionType::ExchangeConnected, Reason::ExchangeUnreachable);
    expect(&bot, &Expected { condition, status: "False", reason, words: &[&closed, "endpoints"] }).await
}

async fn a_wrong_authority_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("wrong-authority").await?;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?.cert.pem();
    room.apply(&objects::authority(&other)).await?;
    let bot = room.bot("bot", json!({})).await?;
    let (condition, reason) = (ConditionType::ExchangeConnected, Reason::CertificateUntrusted);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["caBundle"] }).await
}

/// A bot with one of the simulator's keys that a bot must not have; they belong to the portfolio of account 0.
async fn bot_with_bad_key<'a>(room: &Room<'a>, key: &str) -> Result<Bot<'a>> {
    let data = room.desk.exchange.directory();
    let (mut object, mut account) = room.draft("bot").await?;
    account.portfolio = exchange::accounts(data)?.remove(0).portfolio;
    object["spec"]["venue"]["coinbase"]["portfolio"] = json!(account.portfolio);
    room.apply(&objects::secret("bot-key", &exchange::key(data, key)?)).await?;
    room.apply(&object).await?;
    Ok(room.handle("bot", &account))
}

async fn a_key_that_may_transfer_is_refused(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("may-transfer").await?;
    let bot = bot_with_bad_key(&room, "transfer").await?;
    let (condition, reason) = (ConditionType::CredentialsValid, Reason::KeyMayTransfer);
    let words = &["transfer", "spec.credentials.secretRef"];
    expect(&bot, &Expected { condition, status: "False", reason, words }).await
}

async fn a_key_that_may_not_trade_is_refused(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("may-not-trade").await?;
    let bot = bot_with_bad_key(&room, "view-only").await?;
    let (condition, reason) = (ConditionType::CredentialsValid, Reason::KeyMayNotTrade);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["spec.credentials.secretRef"] }).await
}

async fn a_malformed_key_is_refused(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("malformed").await?;
    let bot = bot_with_key(&room, KeyFile { name: "organizations/x".into(), private_key: "not a key".into() }).await?;
    let (condition, reason) = (ConditionType::CredentialsValid, Reason::KeyUnreadable);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["privateKey"] }).await?;
    let everything = json!(bot.get().await?).to_string() + &bot.events().await? + &bot.log();
    ensure!(!everything.contains("not a key"), "the content of the key is shown");
    Ok(())
}

async fn a_key_of_another_portfolio_is_refused(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("other-portfolio").await?;
    let other = desk.account()?;
    let bot = bot_with_key(&room, other.key).await?;
    let (condition, reason) = (ConditionType::CredentialsValid, Reason::PortfolioMismatch);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["venue.coinbase.portfolio"] }).await
}

async fn a_new_key_that_is_refused_leaves_the_earlier_one_in_use(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("refused-new-key").await?;
    let bot = room.trading_bot("bot").await?;
    let credentials = |bot: &ArbBot| bot.status.clone().and_then(|status| status.credentials).unwrap_or_default();
    let before = credentials(&bot.get().await?);
    room.apply(&objects::secret("bot-key", &desk.account()?.key)).await?;
    let refused = |bot: &ArbBot| {
        let now = credentials(bot);
        now.fingerprint == before.fingerprint && !now.pending.is_empty() && now.last_error.contains("portfolio")
    };
    bot.wait("status names the refused key and why", refused).await?;
    let condition = |bot: &ArbBot, reason: Reason| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        conditions::find(&conditions, ConditionType::CredentialsValid)
            .is_some_and(|condition| condition.status == "True" && condition.reason == reason.to_string())
    };
    bot.wait("the condition says so", |bot| condition(bot, Reason::PortfolioMismatch)).await?;
    bot.wait_until_trading().await?;
    room.apply(&objects::secret("bot-key", &bot.account.key)).await?;
    let mended = |bot: &ArbBot| {
        let now = credentials(bot);
        now.pending.is_empty() && now.last_error.is_empty() && condition(bot, Reason::KeyAccepted)
    };
    bot.wait("the first key is wanted again", mended).await.map(drop)
}

async fn an_unknown_product_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("unknown-product").await?;
    let products = json!({"spotProduct": "XRP-USD"});
    let bot = room.bot("bot", json!({"spec": {"strategy": {"fundingCarry": products}}})).await?;
    let (condition, reason) = (ConditionType::ExchangeConnected, Reason::ProductUnavailable);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["XRP-USD"] }).await
}

async fn a_second_bot_on_the_same_account_and_product_does_not_trade(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("shared-account").await?;
    let first = room.trading_bot("first").await?;
    room.apply(&objects::bot("second", &first.account, desk.exchange.authority(), "first-key")).await?;
    let second = room.handle("second", &first.account);
    let shared = |bot: &ArbBot| {
        let conditions = bot.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| {
            condition.reason == Reason::AccountShared.to_string() && condition.message.contains("first")
        })
    };
    second.wait("AccountShared, naming the first bot", shared).await?;
    let claim = second.get().await?.status.and_then(|status| status.claim);
    ensure!(!claim.is_some_and(|claim| claim.granted), "both hold the claim");
    let prefixes: std::collections::BTreeSet<String> = first
        .journal()
        .await?
        .iter()
        .filter(|event| event.kind == exchange::Kind::OrderAccepted)
        .map(|event| event.client_order_id.chars().take(8).collect())
        .collect();
    ensure!(prefixes.len() == 1, "both bots have traded: {prefixes:?}");
    first.wait_until_trading().await
}

async fn a_limit_below_one_contract_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("below-one-contract").await?;
    let limits: Value = json!({"maxDeltaNotional": "100"});
    let bot = room.bot("bot", json!({"spec": {"risk": {"limits": limits}}})).await?;
    let (condition, reason) = (ConditionType::WithinRiskLimits, Reason::LimitBelowOneContract);
    expect(&bot, &Expected { condition, status: "False", reason, words: &["maxDeltaNotional"] }).await
}

async fn an_image_that_cannot_be_pulled_is_named(desk: Arc<Desk>) -> Result<()> {
    let room = desk.room("bad-image").await?;
    let bot = room.bot("bot", json!({"spec": {"image": "nowhere.invalid/absent:1"}})).await?;
    let (condition, reason) = (ConditionType::Stalled, Reason::PodCannotStart);
    expect(&bot, &Expected { condition, status: "True", reason, words: &["nowhere.invalid/absent:1"] })
        .await
        .context("spec.image")
}
