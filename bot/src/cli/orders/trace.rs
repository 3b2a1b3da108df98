//! `arb-bot orders trace`: the story of one order, from the bot's ledger and from the exchange.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{LOOK_BACK, find_if_there};
use crate::cli::connect::Connection;
use crate::cli::output::Rows;
use crate::exchange::venue::manual::{Fill, OrderDetails};
use crate::ledger;

#[derive(Debug, Args)]
pub struct Trace {
    #[command(flatten)]
    connection: Connection,
    /// The order: its client_order_id or order_id.
    order: String,
    /// Directory of a bot that runs without Kubernetes: its ledger has the intent.
    #[arg(long)]
    state_dir: Option<PathBuf>,
}

/// When, who says it, what happened, and the details.
type Line = [String; 4];

impl Trace {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let mut lines: Vec<Line> = Vec::new();
        if let Some(dir) = &self.state_dir {
            for entry in ledger::history(&dir.join(ledger::DIR), &self.order).await? {
                lines.push([entry.at, "ledger".to_owned(), entry.kind, entry.detail]);
            }
        }
        let order = find_if_there(&client, &self.order, LOOK_BACK).await?;
        if let Some(order) = &order {
            lines.extend(order_lines(order));
            lines.extend(client.fills(&order.order_id).await?.into_iter().map(fill_line));
        }
        if lines.is_empty() {
            bail!(
                "nothing is known of {:?}: the exchange lists no such order of this key within {LOOK_BACK} days{}. An \
                 order that was never placed has nothing here",
                self.order,
                if self.state_dir.is_none() { " (--state-dir adds a bot's ledger)" } else { ", nor does the ledger" }
            );
        }
        if order.is_none() {
            lines.push([
                String::new(),
                "exchange".to_owned(),
                "absent".to_owned(),
                "the exchange does not list this order".to_owned(),
            ]);
        }
        // Times of the same form: RFC 3339 in UTC sorts as text down to the second, and the sort keeps equal ones.
        lines.sort_by(|a, b| (a[0].is_empty(), &a[0]).cmp(&(b[0].is_empty(), &b[0])));
        let mut rows = Rows::new(&["time", "source", "event", "detail"]);
        lines.into_iter().for_each(|line| rows.push(line));
        rows.print(self.connection.output)?;
        Ok(())
    }
}

fn order_lines(order: &OrderDetails) -> Vec<Line> {
    let line = |time: &str, event: &str, detail: String| [time.to_owned(), "exchange".to_owned(), event.into(), detail];
    let placed = format!(
        "order {} ({}): {} {} {} {} at {}",
        order.order_id,
        order.client_order_id,
        order.side,
        order.term("base_size"),
        order.product_id,
        order.kind(),
        order.term("limit_price")
    );
    let why: Vec<&str> = [&order.reject_reason, &order.reject_message, &order.cancel_message]
        .into_iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty() && !text.ends_with("UNSPECIFIED"))
        .collect();
    let now = format!(
        "filled {} at {} on average, fees {} {}",
        order.filled_size,
        order.average_filled_price,
        order.total_fees,
        why.join(", ")
    );
    let latest = [&order.last_update_time, &order.last_fill_time].into_iter().find(|time| !time.is_empty());
    vec![
        line(&order.created_time, "placed", placed),
        line(latest.map_or("", String::as_str), &order.status, now.trim_end().to_owned()),
    ]
}

fn fill_line(fill: Fill) -> Line {
    let detail = format!(
        "{} at {}, {}, fee {}, trade {}",
        fill.size, fill.price, fill.liquidity_indicator, fill.commission, fill.trade_id
    );
    [fill.trade_time, "exchange".to_owned(), "fill".to_owned(), detail]
}
