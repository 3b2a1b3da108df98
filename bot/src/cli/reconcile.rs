//! `arb-bot reconcile`: what the ledger says beside what the exchange shows. It only reads; a running bot does the same
//! every ten seconds, and closes entry where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::cli::connect::Connection;
use crate::cli::ledger::Place;
use crate::cli::output::Rows;
use crate::exchange::{Exchange, Holdings, OrderState};
use crate::execution::orders::of_a_bot;
use crate::ledger::{self, Binding, FillRecord, OrderRecord, RecordStatus};

/// A bot trades while it is looked at: only what two looks, this long apart, both show is a difference.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// The bot's clock says when the first order was created, the exchange's clock says what is listed.
const CLOCKS_APART: Duration = Duration::from_secs(600);

/// Flags of `arb-bot reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    place: Place,
}

/// Compares orders, fills, position and balance, and prints every difference.
///
/// # Errors
/// There is no ledger, the exchange does not answer, or they differ: the error says what to do.
pub async fn reconcile(args: ReconcileArgs) -> anyhow::Result<()> {
    let place = args.place.ledger();
    let binding = ledger::binding(&place).await?.context("the ledger is empty: no bot has opened it yet")?;
    if binding.execution == "Paper" {
        bail!("this ledger is of a bot on paper: none of its orders ever left it, so there is nothing to compare");
    }
    let client = args.connection.open().await?;
    let portfolio = client.key_permissions().await?.portfolio;
    if portfolio != binding.portfolio {
        bail!(
            "the key is of portfolio {portfolio}, the ledger of {}: use a key of the ledger's portfolio",
            binding.portfolio
        );
    }
    let mut rows = look(&place, &binding, &client).await?;
    if rows.iter().any(|row| row.result.is_difference()) {
        tokio::time::sleep(SECOND_LOOK).await;
        rows = confirmed(&rows, look(&place, &binding, &client).await?);
    }
    rows.splice(0..0, summaries(&rows));
    let mut table = Rows::new(&["what", "name", "ledger", "exchange", "result"]);
    for row in &rows {
        table.push([
            row.what.to_owned(),
            row.name.clone(),
            row.ledger.clone(),
            row.exchange.clone(),
            row.result.text(),
        ]);
    }
    table.print(args.connection.output)?;
    match rows.iter().filter(|row| row.result.is_difference()).count() {
        0 => Ok(()),
        differences => bail!(
            "ledger and exchange differ in {differences} of the lines above. A running bot takes in its own orders by \
             itself; while it shows PositionsReconciled=False, find out who traded on the account, and halt it \
             (spec.mode: Halted) if you do not know"
        ),
    }
}

/// The second look, without what only it shows to differ.
fn confirmed(first: &[Row], second: Vec<Row>) -> Vec<Row> {
    let differed: BTreeSet<_> = first.iter().filter(|row| row.result.is_difference()).map(Row::about).collect();
    second.into_iter().filter(|row| !row.result.is_difference() || differed.contains(&row.about())).collect()
}

/// A line for the orders and one for the fills of this bot, whose differences have lines of their own.
fn summaries(rows: &[Row]) -> Vec<Row> {
    let summary = |what, detail| {
        let differences = rows.iter().filter(|row| row.what == detail).count();
        let text = if differences == 0 { String::new() } else { format!("{differences} below") };
        let name = "of this bot".to_owned();
        Row { what, name, ledger: String::new(), exchange: text, result: Verdict::of(differences == 0) }
    };
    vec![summary("orders", "order"), summary("fills", "fill")]
}

async fn look<E: Exchange>(place: &ledger::Place, binding: &Binding, client: &E) -> anyhow::Result<Vec<Row>> {
    let products = [binding.spot_product.clone(), binding.future_product.clone()];
    let known = ledger::orders(place).await?;
    let orders = client.orders(&products, listed_since(&known)).await?;
    let holdings = client.holdings().await?;
    let base = client.product(&binding.spot_product).await?.base_currency;
    let filled: Vec<_> =
        orders.iter().filter(|order| !order.filled.is_zero()).map(|order| order.order_id.clone()).collect();
    let fills = if filled.is_empty() { Vec::new() } else { client.fills(&filled).await? };
    let traded = fills.into_iter().map(|fill| (fill.order_id, fill.trade_id)).collect();
    let (known, books) = (ledger::orders(place).await?, ledger::books(place).await?);
    Ok(compare(binding, &base, &Ledger { orders: &known, fills: &books.fills }, &Shown { orders, holdings, traded }))
}

/// Since when the exchange is asked for orders: every one that the ledger knows is to be among them.
fn listed_since(known: &[OrderRecord]) -> Option<Timestamp> {
    let first = known.iter().map(|order| order.created_at).min();
    first.and_then(|at| at.checked_sub(CLOCKS_APART).ok())
}

/// What the ledger holds.
struct Ledger<'a> {
    orders: &'a [OrderRecord],
    fills: &'a [FillRecord],
}

/// What the exchange shows.
struct Shown {
    orders: Vec<OrderState>,
    holdings: Holdings,
    /// Order and trade of every execution.
    traded: BTreeSet<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Matches,
    /// Not the bot's, and none of its business.
    NotOurs,
    Differs,
}

impl Verdict {
    fn of(matches: bool) -> Self {
        if matches { Self::Matches } else { Self::Differs }
    }

    fn is_difference(self) -> bool {
        self == Self::Differs
    }

    fn text(self) -> String {
        match self {
            Self::Matches => "matches",
            Self::NotOurs => "not the bot's",
            Self::Differs => "DIFFERS",
        }
        .to_owned()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: &'static str,
    name: String,
    ledger: String,
    exchange: String,
    result: Verdict,
}

impl Row {
    fn about(&self) -> (&'static str, String) {
        (self.what, self.name.clone())
    }
}

fn compare(binding: &Binding, base: &str, ledger: &Ledger<'_>, shown: &Shown) -> Vec<Row> {
    let Shown { orders, holdings, traded } = shown;
    let owned = |product: &str| -> Decimal {
        let of_product = ledger.orders.iter().filter(|order| order.product == product);
        of_product.map(|order| order.side.sign() * order.filled).sum()
    };
    let contracts = owned(&binding.future_product);
    let at_exchange = holdings.contracts.get(&binding.future_product).copied().unwrap_or_default();
    let (spot, balance) = (owned(&binding.spot_product), holdings.balances.get(base).copied().unwrap_or_default());
    let spot_result = match balance.cmp(&spot) {
        std::cmp::Ordering::Less => Verdict::Differs,
        std::cmp::Ordering::Equal => Verdict::Matches,
        std::cmp::Ordering::Greater => Verdict::NotOurs,
    };
    let more = if balance > spot { format!("{balance}, {} more", balance - spot) } else { balance.to_string() };
    let row = |what, name: &str, ledger: String, exchange: String, result| Row {
        what,
        name: name.to_owned(),
        ledger,
        exchange,
        result,
    };
    let mut rows = vec![
        row(
            "position",
            &binding.future_product,
            contracts.to_string(),
            at_exchange.to_string(),
            Verdict::of(contracts == at_exchange),
        ),
        row("balance", base, spot.to_string(), more, spot_result),
    ];
    let known: BTreeMap<_, _> = ledger.orders.iter().map(|order| (order.client_order_id.as_str(), order)).collect();
    let (ours, others): (Vec<_>, Vec<_>) =
        orders.iter().partition(|order| is_ours(&order.client_order_id, binding, &known));
    rows.extend(of_orders(&known, &ours));
    rows.extend(of_fills(ledger.fills, traded, &ours));
    for order in others.into_iter().filter(|order| !order.status.is_terminal()) {
        let result = if of_a_bot(&order.client_order_id) { Verdict::Differs } else { Verdict::NotOurs };
        let exchange = format!("{} {:?}", order.product, order.status);
        rows.push(row("order of others", &order.client_order_id, String::new(), exchange, result));
    }
    rows
}

/// An order is the bot's if the ledger has it, or if its id begins with the bot's uid.
fn is_ours(id: &str, binding: &Binding, known: &BTreeMap<&str, &OrderRecord>) -> bool {
    let uid8 = binding.bot_uid.get(..8).unwrap_or(&binding.bot_uid);
    known.contains_key(id) || (of_a_bot(id) && id.starts_with(uid8))
}

fn of_orders(known: &BTreeMap<&str, &OrderRecord>, ours: &[&OrderState]) -> Vec<Row> {
    let shown: BTreeMap<_, _> = ours.iter().map(|order| (order.client_order_id.as_str(), *order)).collect();
    let of_ledger = |order: &OrderRecord| format!("{:?}, filled {}", order.status, order.filled.normalize());
    let of_exchange = |order: &OrderState| format!("{:?}, filled {}", order.status, order.filled.normalize());
    let ids: BTreeSet<_> = known.keys().chain(shown.keys()).copied().collect();
    let mut rows = Vec::new();
    for id in ids {
        let (ledger, exchange) = match (known.get(id), shown.get(id)) {
            (Some(order), Some(seen)) => {
                if order.filled == seen.filled && order.status == seen.status.into() {
                    continue;
                }
                (of_ledger(order), of_exchange(seen))
            }
            // What the exchange never took is not in its listing.
            (Some(order), None) if matches!(order.status, RecordStatus::NotPlaced | RecordStatus::Rejected) => continue,
            (Some(order), None) => (of_ledger(order), "not there".to_owned()),
            (None, seen) => ("not there".to_owned(), seen.map_or_else(String::new, |order| of_exchange(order))),
        };
        rows.push(Row { what: "order", name: id.to_owned(), ledger, exchange, result: Verdict::Differs });
    }
    rows
}

fn of_fills(fills: &[FillRecord], traded: &BTreeSet<(String, String)>, ours: &[&OrderState]) -> Vec<Row> {
    let ids: BTreeSet<_> = ours.iter().map(|order| order.order_id.as_str()).collect();
    let booked: BTreeSet<_> = fills.iter().map(|fill| (fill.order_id.clone(), fill.trade_id.clone())).collect();
    let traded: BTreeSet<_> = traded.iter().filter(|(order, _)| ids.contains(order.as_str())).cloned().collect();
    let mut rows = Vec::new();
    for (order, trade) in booked.symmetric_difference(&traded) {
        let there = |set: &BTreeSet<_>| {
            let there = set.contains(&(order.clone(), trade.clone()));
            if there { "there" } else { "not there" }.to_owned()
        };
        let (ledger, exchange) = (there(&booked), there(&traded));
        let name = format!("trade {trade} of order {order}");
        rows.push(Row { what: "fill", name, ledger, exchange, result: Verdict::Differs });
    }
    rows
}

#[cfg(test)]
mod tests;
