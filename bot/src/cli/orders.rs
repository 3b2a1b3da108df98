//! `arb-bot orders`: lists, previews, places, edits and cancels orders by hand, and tells the story of one.

mod place;
mod trace;

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use self::place::{Place, Preview};
use self::trace::Trace;
use crate::cli::account::is_working;
use crate::cli::connect::Connection;
use crate::cli::output::Rows;
use crate::exchange::Exchange;
use crate::exchange::venue::Client;
use crate::exchange::venue::manual;

/// Commands about orders.
#[derive(Debug, Subcommand)]
pub enum OrdersCommand {
    /// List the working orders, or with --all those of the last days.
    List(List),
    /// Show what the exchange would make of an order; nothing is placed.
    Preview(Preview),
    /// Place one order; without --yes only its preview is shown.
    Place(Place),
    /// Change price and size of a resting order that is good till cancelled; without --yes only the preview is shown.
    Edit(Edit),
    /// Cancel orders by their order_id or client_order_id, and wait until the exchange shows them cancelled.
    Cancel(Cancel),
    /// Tell what became of one order: intent, order, fills.
    Trace(Trace),
}

impl OrdersCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The exchange refuses or does not answer; the error says what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run().await,
            Self::Preview(preview) => preview.run().await,
            Self::Place(place) => place.run().await,
            Self::Edit(edit) => edit.run().await,
            Self::Cancel(cancel) => cancel.run().await,
            Self::Trace(trace) => trace.run().await,
        }
    }
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    connection: Connection,
    /// Only orders of this product.
    #[arg(long)]
    product: Option<String>,
    /// Finished orders, too.
    #[arg(long)]
    all: bool,
    /// With --all: how many days back.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3660))]
    days: u16,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        // A working order may be of any age.
        let since = if self.all { Some(days_ago(self.days)?) } else { None };
        let mut rows = order_rows();
        for order in client.order_details(self.product.as_deref(), since).await? {
            if self.all || is_working(&order.status) {
                rows.push(order_row(&order));
            }
        }
        rows.print(self.connection.output)?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Edit {
    #[command(flatten)]
    connection: Connection,
    /// The order: its order_id or client_order_id.
    order: String,
    /// New limit price.
    #[arg(long)]
    price: Option<String>,
    /// New size as a whole, what is filled included.
    #[arg(long)]
    size: Option<String>,
    /// Change it; without this only the preview is shown.
    #[arg(long)]
    yes: bool,
}

impl Edit {
    async fn run(self) -> anyhow::Result<()> {
        if self.price.is_none() && self.size.is_none() {
            bail!("nothing to change: give --price, --size or both");
        }
        let client = self.connection.open().await?;
        let order = find(&client, &self.order).await?;
        if order.kind() != "limit_limit_gtc" {
            bail!(
                "order {} is {}, and the exchange edits only orders that are good till cancelled (limit_limit_gtc): \
                 cancel it and place another",
                order.order_id,
                order.kind()
            );
        }
        // The venue takes a missing one for zero.
        let price = self.price.unwrap_or_else(|| order.term("limit_price"));
        let size = self.size.unwrap_or_else(|| order.term("base_size"));
        let preview = client.preview_edit(&order.order_id, &price, &size).await?;
        let refusals = preview.refusals();
        if !refusals.is_empty() {
            bail!("the exchange would refuse the edit: {}", refusals.join(", "));
        }
        if !self.yes {
            place::preview_rows(&preview).print(self.connection.output)?;
            bail!("nothing was changed: add --yes to set price {price} and size {size} on order {}", order.order_id);
        }
        let refusals = client.edit(&order.order_id, &price, &size).await.with_context(|| {
            format!("whether the order was changed is not known: look with `arb-bot orders trace {}`", order.order_id)
        })?;
        if !refusals.is_empty() {
            bail!("the exchange refused the edit: {}", refusals.join(", "));
        }
        let edited = once(&client, &order.order_id, |order| order.status != "EDIT_QUEUED").await?;
        let mut rows = order_rows();
        rows.push(order_row(&edited));
        rows.print(self.connection.output)?;
        // The exchange takes an edit first and makes it later, when it may have become impossible.
        if edited.term("limit_price").parse() != price.parse::<Decimal>()
            || edited.term("base_size").parse() != size.parse::<Decimal>()
        {
            bail!("the exchange took the edit, but the order does not show it: it may have filled or ended meanwhile");
        }
        Ok(())
    }
}

/// How often, and how many times, a cancelled or edited order is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
const LOOKS: usize = 20;

#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    connection: Connection,
    /// The orders: order_id or client_order_id of each.
    #[arg(required_unless_present = "all")]
    orders: Vec<String>,
    /// Every working order of the account, whoever placed it.
    #[arg(long, conflicts_with = "orders")]
    all: bool,
    /// With --all: only of this product.
    #[arg(long, requires = "all")]
    product: Option<String>,
    /// Needed with --all.
    #[arg(long)]
    yes: bool,
}

impl Cancel {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let mut ids = Vec::new();
        if self.all {
            let orders = client.order_details(self.product.as_deref(), None).await?;
            ids.extend(orders.into_iter().filter(|order| is_working(&order.status)).map(|order| order.order_id));
            if !self.yes {
                bail!("{} working orders would be cancelled, those of bots among them: add --yes", ids.len());
            }
        }
        for order in &self.orders {
            ids.push(find(&client, order).await?.order_id);
        }
        let refused: BTreeMap<String, String> = client.cancel(&ids).await?.into_iter().collect();
        let mut rows = Rows::new(&["order_id", "status", "filled", "refused"]);
        let mut open = 0;
        for id in ids {
            let order = once(&client, &id, |order| !is_working(&order.status)).await?;
            open += usize::from(is_working(&order.status));
            let why = refused.get(&id).cloned().unwrap_or_default();
            rows.push([id, order.status, order.filled_size, why]);
        }
        rows.print(self.connection.output)?;
        if open > 0 {
            bail!("{open} orders still work: the exchange took the request but has not cancelled them yet; look again");
        }
        Ok(())
    }
}

/// An order once it is as it should be, or as it is after some seconds. An accepted request is not yet done.
async fn once(
    client: &Client,
    order_id: &str,
    done: impl Fn(&manual::OrderDetails) -> bool,
) -> anyhow::Result<manual::OrderDetails> {
    let mut order = client.order_detail(order_id).await?;
    for _ in 0..LOOKS {
        if done(&order) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        order = client.order_detail(order_id).await?;
    }
    Ok(order)
}

/// Days that an order is looked for by its client_order_id, which the venue has no index of.
const LOOK_BACK: u16 = 30;

/// The order with this order_id (a UUID) or client_order_id.
async fn find(client: &Client, id: &str) -> anyhow::Result<manual::OrderDetails> {
    match find_if_there(client, id, LOOK_BACK).await? {
        Some(order) => Ok(order),
        None => bail!(
            "the exchange shows no order with the order_id {id:?}, nor one of the last {LOOK_BACK} days with that \
             client_order_id: `arb-bot orders list --all` shows what there is for this key"
        ),
    }
}

async fn find_if_there(client: &Client, id: &str, days: u16) -> anyhow::Result<Option<manual::OrderDetails>> {
    let by_client_id = client.order_details(None, Some(days_ago(days)?)).await?;
    if let Some(order) = by_client_id.into_iter().find(|order| order.client_order_id == id || order.order_id == id) {
        return Ok(Some(order));
    }
    let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if !is_uuid {
        return Ok(None);
    }
    match client.order_detail(id).await {
        Ok(order) => Ok(Some(order)),
        Err(crate::exchange::ExchangeError::BadRequest { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn days_ago(days: u16) -> anyhow::Result<Timestamp> {
    Timestamp::now().checked_sub(SignedDuration::from_hours(i64::from(days) * 24)).context("too many days")
}

fn order_rows() -> Rows {
    Rows::new(&[
        "order_id",
        "client_order_id",
        "product",
        "side",
        "kind",
        "size",
        "limit_price",
        "status",
        "filled",
        "average_price",
        "fees",
        "created",
    ])
}

fn order_row(order: &manual::OrderDetails) -> [String; 12] {
    let size = [order.term("base_size"), order.term("quote_size")].into_iter().find(|size| !size.is_empty());
    [
        order.order_id.clone(),
        order.client_order_id.clone(),
        order.product_id.clone(),
        order.side.clone(),
        order.kind(),
        size.unwrap_or_default(),
        order.term("limit_price"),
        order.status.clone(),
        order.filled_size.clone(),
        order.average_filled_price.clone(),
        order.total_fees.clone(),
        order.created_time.clone(),
    ]
}
