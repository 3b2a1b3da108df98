//! `arb-bot preflight`: a checklist of what an ArbBot needs before it may trade.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::{Endpoint, Execution};
use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use rust_decimal::Decimal;
use tokio::sync::mpsc;

use crate::cli::connect::Connection;
use crate::cli::output::Rows;
use crate::cli::run::namespace_of;
use crate::clock::Clock;
use crate::exchange::venue::{Client, Connector, PublicRest, PublicSession, Session, Settings, Transport, VenueClock};
use crate::exchange::{Exchange, ExchangeError, Holdings, Product};
use crate::ledger::{self, Place, Server};
use crate::randomness::Randomness;

/// Clock error from which a person should look at it, and from which it is refused. The bot itself uses the venue's time.
const SKEW_NOTED: SignedDuration = SignedDuration::from_secs(2);
const SKEW_REFUSED: SignedDuration = SignedDuration::from_secs(30);

/// Longest wait until prices and orders stream.
const UP_WITHIN: Duration = Duration::from_secs(10);
/// Room for the events of that time; a full channel only makes a WebSocket wait.
const EVENTS: usize = 1024;

/// Flags of `arb-bot preflight`; needs -f.
#[derive(Debug, Args)]
pub struct PreflightArgs {
    #[command(flatten)]
    connection: Connection,
    /// Directory with the files of the Secret of spec.ledger.postgres.
    #[arg(long, value_name = "DIR")]
    ledger_secret_dir: Option<PathBuf>,
}

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
enum Verdict {
    #[strum(serialize = "ok")]
    Ok,
    /// A person should know; the bot can trade.
    #[strum(serialize = "warn")]
    Warn,
    #[strum(serialize = "FAIL")]
    Fail,
}

/// The checklist so far.
struct Checklist {
    rows: Rows,
    failed: usize,
}

impl Checklist {
    fn note(&mut self, check: &str, verdict: Verdict, detail: impl Into<String>) {
        self.failed += usize::from(verdict == Verdict::Fail);
        self.rows.push([check.to_owned(), verdict.to_string(), detail.into()]);
    }

    /// Ok or Fail.
    fn require(&mut self, check: &str, holds: bool, detail: impl Into<String>) {
        self.note(check, if holds { Verdict::Ok } else { Verdict::Fail }, detail);
    }

    /// The value, or its error as a failed check.
    fn take<T>(&mut self, check: &str, result: Result<T, ExchangeError>) -> Option<T> {
        result.map_err(|error| self.note(check, Verdict::Fail, error.to_string())).ok()
    }
}

/// Prints the checklist.
///
/// # Errors
/// A check failed, or there is no ArbBot or key to check.
pub async fn preflight(args: PreflightArgs) -> anyhow::Result<()> {
    let bot = args.connection.bot()?.context("preflight checks an ArbBot: give its file with -f")?;
    let mut list = Checklist { rows: Rows::new(&["check", "result", "detail"]), failed: 0 };
    match bot.spec.execution {
        Execution::Live => live(&mut list, &args.connection.client()?, &bot).await,
        Execution::Paper => paper(&mut list, &args.connection.market_data()?, &bot).await,
    }
    if list.failed == 0 {
        web_sockets(&mut list, &args.connection, &bot).await;
    }
    if bot.spec.ledger.postgres.is_some() {
        database(&mut list, args.ledger_secret_dir.as_deref(), &bot).await;
    }
    list.rows.print(args.connection.output)?;
    match list.failed {
        0 => Ok(()),
        failed => bail!("{failed} of the checks failed: mend what their details say, then run preflight again"),
    }
}

/// Whether the database of the ledger answers.
async fn database(list: &mut Checklist, secret: Option<&Path>, bot: &ArbBot) {
    let check = "ledger's database";
    let Some(secret) = secret else {
        let detail = "not looked at: give --ledger-secret-dir, a directory with the files of its Secret";
        return list.note(check, Verdict::Warn, detail);
    };
    let server = Server::of_bot(secret, &namespace_of(bot), &bot.name_any());
    let detail = server.to_string();
    let answer = ledger::answers(Place::Server(server)).await;
    list.require(check, answer.is_ok(), answer.map_or_else(|error| error.to_string(), |()| detail));
}

async fn live(list: &mut Checklist, client: &Client, bot: &ArbBot) {
    list.note("key files", Verdict::Ok, format!("fingerprint {}", client.fingerprint()));
    if time(list, client.measure_time().await, client.venue_clock()) && key(list, client, bot).await {
        account(list, client, bot).await;
    }
}

/// What a bot on paper needs: market data, and limits that let it trade.
async fn paper(list: &mut Checklist, data: &PublicRest, bot: &ArbBot) {
    list.note("execution", Verdict::Ok, "on paper: no key is used and no order leaves the bot");
    if !time(list, data.measure_time().await, data.venue_clock()) {
        return;
    }
    let carry = &bot.spec.strategy.funding_carry;
    let spot = list.take("spot product", data.product(&carry.spot_product).await);
    let future = list.take("future product", data.product(&carry.future_product).await);
    let best = data.best_bid_ask(&carry.future_product).await;
    if let Some((_, future)) = products(list, bot, spot, future, best) {
        let balance = bot.spec.paper.clone().unwrap_or_default().balance;
        let needs = carry.target_notional.0 * Decimal::TWO;
        let advice = if balance.0 >= needs { "" } else { ": the legs may not fit; raise spec.paper.balance" };
        let verdict = if balance.0 >= needs { Verdict::Ok } else { Verdict::Warn };
        list.note("paper balance", verdict, format!("{balance} {}{advice}", future.quote_currency));
    }
}

/// Opens what streams prices and orders, as a bot does.
async fn web_sockets(list: &mut Checklist, connection: &Connection, bot: &ArbBot) {
    let Some(endpoint) = connection.endpoint(bot) else { return };
    // Nobody reads the events: the checklist ends before they are many.
    let (events, _unread) = mpsc::channel(EVENTS);
    let connector = Connector::new(Transport::Network, Clock::system(), Randomness::system(), events);
    let Endpoint { name, market_web_socket_url: market, user_web_socket_url: user, .. } = &endpoint;
    let (up, urls) = match &connection.credentials {
        Some(credentials) if bot.spec.execution == Execution::Live => {
            (with_key(&endpoint, credentials, connection, bot, &connector).await, format!("{market}, {user}"))
        }
        // On paper nobody listens to an account.
        _ => (without_key(&endpoint, connection, bot, &connector).await, market.clone()),
    };
    let mend = |cause| format!("{cause}: check the URLs of the endpoint {name} in spec.venue.coinbase.endpoints");
    list.require("WebSockets", up.is_ok(), up.map_or_else(mend, |()| urls));
}

async fn with_key(
    endpoint: &Endpoint,
    credentials: &Path,
    connection: &Connection,
    bot: &ArbBot,
    connector: &Connector,
) -> Result<(), String> {
    let settings = Settings {
        endpoint: endpoint.clone(),
        ca_file: connection.ca_file.clone(),
        credentials_dir: credentials.to_owned(),
        portfolio: bot.spec.account().to_owned(),
        products: bot.spec.products(),
        requests_per_second: bot.spec.venue.coinbase.requests_per_second,
    };
    let session = Session::open(settings, connector).await.map_err(|error| error.to_string())?;
    session.up_within(UP_WITHIN).await
}

async fn without_key(
    endpoint: &Endpoint,
    connection: &Connection,
    bot: &ArbBot,
    connector: &Connector,
) -> Result<(), String> {
    let ca_file = connection.ca_file.as_deref();
    let session = PublicSession::open(endpoint, ca_file, bot.spec.products(), Arc::new(drop), connector).await;
    session.map_err(|error| error.to_string())?.up_within(UP_WITHIN).await
}

/// Returns whether the exchange answers at all.
fn time(list: &mut Checklist, measured: Result<(), ExchangeError>, clock: &VenueClock) -> bool {
    if list.take("exchange", measured).is_none() {
        return false;
    }
    let skew = clock.skew();
    let verdict = match skew.abs() {
        skew if skew > SKEW_REFUSED => Verdict::Fail,
        skew if skew > SKEW_NOTED => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let advice = if verdict == Verdict::Ok { "" } else { ": set the machine's clock, for example with chrony" };
    let ahead = skew.as_secs_f64();
    list.note("clock", verdict, format!("{ahead:.1} s ahead of the exchange at {}{advice}", Clock::system().now()));
    true
}

/// Returns whether the key is accepted.
async fn key(list: &mut Checklist, client: &Client, bot: &ArbBot) -> bool {
    let Some(permissions) = list.take("key", client.key_permissions().await) else { return false };
    let may = permissions.can_view && permissions.can_trade;
    let advice = if may { "" } else { ": create a key with both permissions" };
    let shown = format!("view {}, trade {}{advice}", permissions.can_view, permissions.can_trade);
    list.require("key may view and trade", may, shown);
    let advice = if permissions.can_transfer { "it may: create a key without this permission" } else { "it may not" };
    list.require("key may not transfer", !permissions.can_transfer, advice);
    let expected = bot.spec.account();
    let matches = permissions.portfolio.eq_ignore_ascii_case(expected);
    let actual = permissions.portfolio;
    let detail = if matches {
        actual
    } else {
        format!("the key is of {actual}, spec.venue.coinbase.portfolio is {expected}: use a key of that portfolio")
    };
    list.require("key is of the portfolio", matches, detail);
    true
}

async fn account(list: &mut Checklist, client: &Client, bot: &ArbBot) {
    let carry = &bot.spec.strategy.funding_carry;
    let spot = list.take("spot product", client.product(&carry.spot_product).await);
    // An INTX product is refused by the client, with the date on which it ended.
    let future = list.take("future product", client.product(&carry.future_product).await);
    let best = client.best_bid_ask(&carry.future_product).await;
    if let Some((spot, _)) = products(list, bot, spot, future, best)
        && let Some(holdings) = list.take("balances", client.holdings().await)
    {
        balances(list, bot, &spot, &holdings);
    }
    for (check, futures) in [("spot fees", false), ("futures fees", true)] {
        if let Some(fees) = list.take(check, client.fees(futures).await) {
            let detail = format!("maker {}, taker {} of value", fees.maker_fee_rate, fees.taker_fee_rate);
            list.note(check, Verdict::Ok, detail);
        }
    }
}

/// Checks what is known of the products; returns them where both are.
fn products(
    list: &mut Checklist,
    bot: &ArbBot,
    spot: Option<Product>,
    future: Option<Product>,
    best: Result<(String, String), ExchangeError>,
) -> Option<(Product, Product)> {
    for (check, product) in [("spot product", &spot), ("future product", &future)] {
        if let Some(product) = product {
            tradable(list, check, product);
        }
    }
    let (spot, future) = (spot?, future?);
    let same = spot.base_currency == future.base_currency;
    let detail = format!("{} is of {}, {} of {}", spot.id, spot.base_currency, future.id, future.base_currency);
    list.require("the legs hedge each other", same, detail);
    if let Some((bid, ask)) = list.take("futures prices", best) {
        contract(list, bot, &future, &bid, &ask);
    }
    Some((spot, future))
}

fn tradable(list: &mut Checklist, check: &str, product: &Product) {
    if !product.tradable {
        list.note(check, Verdict::Fail, format!("{} takes no orders now: choose another product", product.id));
        return;
    }
    match &product.future {
        Some(future) if !future.session_open => {
            let reopens = future.reopens_at.map_or_else(String::new, |at| format!(" until {at}"));
            list.note(check, Verdict::Warn, format!("{}: its session is closed{reopens}", product.id));
        }
        _ => list.note(check, Verdict::Ok, product.id.clone()),
    }
}

/// Limits below one contract make a bot that never trades.
fn contract(list: &mut Checklist, bot: &ArbBot, future: &Product, bid: &str, ask: &str) {
    let Some((bid, ask)) = bid.parse::<Decimal>().ok().zip(ask.parse::<Decimal>().ok()) else {
        let detail = format!("the book of {} is empty: limits cannot be compared with a contract", future.id);
        return list.note("futures prices", Verdict::Warn, detail);
    };
    let limits = &bot.spec.risk.limits;
    let mid = (bid + ask) / Decimal::TWO;
    let slippage = Decimal::ONE + limits.max_slippage_bps.0 / Decimal::from(10_000);
    let one = (mid * future.unit_base).round_dp(2);
    // Orders are measured at their limit price.
    let one_order = (ask.max(mid * slippage) * future.unit_base).round_dp(2);
    for (field, value, one) in [
        ("maxPositionNotional", limits.max_position_notional.0, one_order),
        ("maxOrderNotional", limits.max_order_notional.0, one_order),
        ("maxDeltaNotional", limits.max_delta_notional.0, one),
        ("maxLegImbalanceNotional", limits.max_leg_imbalance_notional.0, one_order),
        ("targetNotional", bot.spec.strategy.funding_carry.target_notional.0, one),
    ] {
        let holds = value >= one;
        let advice = if holds { "" } else { ": raise it" };
        list.require(field, holds, format!("{value}; one contract is {one}{advice}"));
    }
    let (target, most) = (bot.spec.strategy.funding_carry.target_notional, limits.max_position_notional);
    if target.0 > most.0 {
        let detail = format!("{target} is more than maxPositionNotional, {most}: the position stops there");
        list.note("targetNotional fits", Verdict::Warn, detail);
    }
}

fn balances(list: &mut Checklist, bot: &ArbBot, spot: &Product, holdings: &Holdings) {
    let target = bot.spec.strategy.funding_carry.target_notional.0;
    let of = |currency: &str| holdings.balances.get(currency).copied().unwrap_or_default();
    let (quote, base) = (of(&spot.quote_currency), of(&spot.base_currency));
    let detail = format!(
        "{quote} {}, {base} {}; the spot leg costs {target}, and futures collateral comes on top",
        spot.quote_currency, spot.base_currency
    );
    let verdict = match () {
        () if quote >= target || base > Decimal::ZERO => Verdict::Ok,
        () if quote > Decimal::ZERO => Verdict::Warn,
        () => Verdict::Fail,
    };
    list.note("balances", verdict, detail);
    let collateral = holdings.futures_collateral_quote;
    let enough = collateral > Decimal::ZERO;
    list.require("futures collateral", enough, format!("{} {}", collateral.round_dp(2), spot.quote_currency));
}
