//! `arb-bot ledger export`: what a ledger holds, as rows.

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use super::{Output, Place};
use crate::cli::output::Rows;
use crate::ledger::{self, Books, IncidentRecord, OrderRecord};

/// What of a ledger is listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Every order with what is known of it.
    Orders,
    /// Every kill, and when it was released.
    Incidents,
    /// Every execution of an order.
    Fills,
    /// Funding by the hour: estimates.
    Funding,
    /// Funding that was paid, beside what was estimated.
    Settlements,
    /// Daily settlements of the future, and money that came or went without the bot.
    Cash,
    /// What the bot had made, hour by hour.
    Equity,
    /// The hash chain, an entry a line.
    Entries,
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
    #[arg(value_enum)]
    what: What,
}

impl Export {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let place = self.place.ledger();
        let rows = match self.what {
            What::Orders => orders(ledger::orders(&place).await?),
            What::Incidents => incidents(ledger::incidents(&place).await?),
            What::Fills => fills(ledger::books(&place).await?),
            What::Funding => funding(ledger::books(&place).await?),
            What::Settlements => settlements(ledger::books(&place).await?),
            What::Cash => cash(ledger::books(&place).await?),
            What::Equity => equity(ledger::books(&place).await?),
            What::Entries => {
                let mut rows = Rows::new(&["entry", "time", "kind", "payload", "hash"]);
                for (n, at, kind, payload, hash) in ledger::entries(&place).await? {
                    rows.push([n.to_string(), at, kind, payload, hash]);
                }
                rows
            }
        };
        rows.print(self.output.format)?;
        Ok(())
    }
}

fn orders(orders: Vec<OrderRecord>) -> Rows {
    let mut rows = Rows::new(&[
        "time",
        "client_order_id",
        "order_id",
        "epoch",
        "class",
        "product",
        "side",
        "kind",
        "size",
        "limit_price",
        "status",
        "filled",
        "average_price",
        "fees_quote",
        "reason",
    ]);
    for order in orders {
        rows.push([
            order.created_at.to_string(),
            order.client_order_id,
            order.order_id.unwrap_or_default(),
            order.epoch.to_string(),
            order.class.map(|class| class.to_string()).unwrap_or_default(),
            order.product,
            order.side.to_string(),
            order.kind,
            plain(order.size),
            order.limit_price.map(plain).unwrap_or_default(),
            order.status.to_string(),
            plain(order.filled),
            plain(order.average_price),
            plain(order.fees_quote),
            order.reason.unwrap_or_default(),
        ]);
    }
    rows
}

fn incidents(incidents: Vec<(IncidentRecord, Option<Timestamp>)>) -> Rows {
    let mut rows = Rows::new(&[
        "incident",
        "source",
        "action",
        "phase",
        "reason",
        "engaged_at",
        "orders_cancelled_at",
        "flat_at",
        "released_at",
    ]);
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    for (incident, released_at) in incidents {
        rows.push([
            incident.id.to_string(),
            incident.source,
            incident.action.to_string(),
            incident.phase.to_string(),
            incident.reason,
            incident.engaged_at.to_string(),
            time(incident.orders_cancelled_at),
            time(incident.flat_at),
            time(released_at),
        ]);
    }
    rows
}

fn fills(books: Books) -> Rows {
    let mut rows = Rows::new(&[
        "time",
        "order_id",
        "trade_id",
        "client_order_id",
        "product",
        "side",
        "size",
        "unit_base",
        "price",
        "fee_quote",
        "liquidity",
        "mid_at_decision",
    ]);
    for fill in books.fills {
        let mid = books.decisions.get(&fill.client_order_id).map(|decision| plain(decision.mid));
        rows.push([
            fill.at.to_string(),
            fill.order_id,
            fill.trade_id,
            fill.client_order_id,
            fill.product,
            fill.side.to_string(),
            plain(fill.size),
            plain(fill.unit_base),
            plain(fill.price),
            plain(fill.fee_quote),
            fill.liquidity.to_string(),
            mid.unwrap_or_default(),
        ]);
    }
    rows
}

fn funding(books: Books) -> Rows {
    let mut rows =
        Rows::new(&["hour", "product", "contracts", "unit_base", "mark", "rate", "quality", "accrued_quote"]);
    for hour in books.funding {
        rows.push([
            hour.hour.to_string(),
            hour.product,
            plain(hour.contracts),
            plain(hour.unit_base),
            plain(hour.mark),
            plain(hour.rate),
            hour.quality.to_string(),
            plain(hour.accrued_quote),
        ]);
    }
    rows
}

fn settlements(books: Books) -> Rows {
    let mut rows = Rows::new(&[
        "window_end",
        "product",
        "since",
        "accrued_quote",
        "settled_quote",
        "funding_adjustment",
        "booked_at",
    ]);
    for settlement in books.settlements {
        let adjustment = plain(settlement.adjustment_quote());
        rows.push([
            settlement.window_end.to_string(),
            settlement.product,
            settlement.since.map(|since| since.to_string()).unwrap_or_default(),
            plain(settlement.accrued_quote),
            plain(settlement.settled_quote),
            adjustment,
            settlement.booked_at.to_string(),
        ]);
    }
    rows
}

fn cash(books: Books) -> Rows {
    let mut lines: Vec<_> = books
        .flows
        .into_iter()
        .map(|flow| (flow.at, "flow", String::new(), plain(flow.quote), String::new()))
        .collect();
    lines.extend(books.variation.into_iter().map(|settled| {
        (settled.at, "daily settlement", plain(settled.contracts), String::new(), plain(settled.price))
    }));
    lines.sort_by_key(|line| line.0);
    let mut rows = Rows::new(&["time", "what", "contracts", "quote", "price"]);
    for (at, what, contracts, quote, price) in lines {
        rows.push([at.to_string(), what.to_owned(), contracts, quote, price]);
    }
    rows
}

fn equity(books: Books) -> Rows {
    let mut rows = Rows::new(&[
        "time",
        "equity_quote",
        "cash_quote",
        "funding_quote",
        "fees_quote",
        "spot_base",
        "spot_mid",
        "contracts",
        "future_mid",
    ]);
    for point in books.equity {
        let figures = [
            point.equity_quote,
            point.cash_quote,
            point.funding_quote,
            point.fees_quote,
            point.spot_base,
            point.spot_mid,
            point.contracts,
            point.future_mid,
        ];
        rows.push(std::iter::once(point.at.to_string()).chain(figures.map(plain)).collect::<Vec<_>>());
    }
    rows
}

/// Every digit, and no zero that says nothing.
fn plain(value: Decimal) -> String {
    value.normalize().to_string()
}
