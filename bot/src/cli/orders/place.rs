//! `arb-bot orders preview` and `orders place`: one explicit order of a person.
//!
//! It goes the way of every order: preview, gate, clearance, one request that is never repeated. The client_order_id
//! follows from the order and the day, so that the same command said twice cannot become two orders.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::ControlTimeouts;
use arbbot_crds::control::{Restriction, spec_restrictions};
use arbbot_crds::limits::RiskLimits;
use clap::{Args, ValueEnum};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};

use super::{find_if_there, is_working, order_row, order_rows};
use crate::cli::connect::Connection;
use crate::cli::output::{Format, Rows};
use crate::clock::Clock;
use crate::control::file::state;
use crate::exchange::venue::{Client, manual};
use crate::exchange::{Exchange, ExchangeError, Holdings, NewOrder, OrderKind, Placed, Product, Side};
use crate::risk::exposure::Leg;
use crate::risk::{Class, Exposure, Gate, Permit, Slot, admit, admit_alone};

/// What ids of orders by hand begin with; a bot's begin with a part of its uid.
const PREFIX: &str = "manual-";
/// Days that an earlier order of the same id is looked for. The id changes with the day.
const LOOK_BACK: u16 = 2;

/// How an order is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Rests and never takes; expires by itself after --expires-in.
    PostOnly,
    /// Rests until it is filled or cancelled (needed for `orders edit`).
    Gtc,
    /// Takes what the book offers up to --limit; the rest is cancelled.
    Ioc,
    /// Takes whatever the book offers.
    Market,
    /// Closes a futures position by the exchange's close_position.
    Close,
}

/// The order itself.
#[derive(Clone, Debug, Args)]
pub struct Order {
    /// Product, for example BTC-USD or BIP-20DEC30-CDE.
    product: String,
    /// BUY or SELL.
    #[arg(value_parser = side)]
    side: Side,
    /// Base currency for spot, whole contracts for futures.
    size: Decimal,
    /// How it is executed.
    #[arg(long = "type", value_enum, default_value = "post-only")]
    kind: Kind,
    /// Limit price, in quote currency.
    #[arg(long)]
    limit: Option<Decimal>,
    /// With --type post-only: seconds until it expires by itself.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(5..=2_592_000))]
    expires_in: u32,
}

fn side(text: &str) -> Result<Side, String> {
    text.to_uppercase().parse().map_err(|_| "it must be BUY or SELL".to_owned())
}

impl Order {
    fn new_order(&self, client_order_id: String, now: Timestamp) -> anyhow::Result<NewOrder> {
        let limit = || self.limit.context("an order of this type needs --limit PRICE");
        let kind = match self.kind {
            Kind::PostOnly => OrderKind::PostOnly {
                limit_price: limit()?,
                expires_at: now + SignedDuration::from_secs(self.expires_in.into()),
            },
            Kind::Gtc => OrderKind::GoodTillCancelled { limit_price: limit()?, post_only: true },
            Kind::Ioc => OrderKind::ImmediateOrCancel { limit_price: limit()? },
            Kind::Market | Kind::Close if self.limit.is_some() => {
                bail!("--limit has no meaning for --type market and close: leave it out, or use --type ioc")
            }
            Kind::Market => OrderKind::Market,
            Kind::Close => OrderKind::ClosePosition,
        };
        let Self { product, side, size, .. } = self.clone();
        Ok(NewOrder { client_order_id, product, side, size, kind })
    }

    /// The id that this order has under this label for this portfolio.
    fn id(&self, portfolio: &str, label: &str) -> String {
        let price = self.limit.map(|price| price.normalize().to_string()).unwrap_or_default();
        let size = self.size.normalize().to_string();
        let (side, kind) = (self.side.to_string(), format!("{:?}", self.kind));
        let mut hash = Sha256::new();
        for part in [portfolio, &self.product, &side, &size, &kind, &price, label] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        digest.iter().take(10).fold(PREFIX.to_owned(), |id, byte| format!("{id}{byte:02x}"))
    }
}

#[derive(Debug, Args)]
pub struct Preview {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    order: Order,
}

impl Preview {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let order = self.order.new_order(String::new(), client.venue_clock().now())?;
        let preview = client.preview(&order).await?;
        preview_rows(&preview).print(self.connection.output)?;
        let refusals = preview.refusals();
        if refusals.is_empty() {
            Ok(())
        } else {
            bail!("the exchange would refuse this order: {}", refusals.join(", "))
        }
    }
}

#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    order: Order,
    /// Place it; without this only the preview is shown.
    #[arg(long)]
    yes: bool,
    /// Part of the client_order_id. Default: today's date (UTC). Another one places the same order a second time.
    #[arg(long)]
    label: Option<String>,
    /// Directory of a bot that runs without Kubernetes: an incident that is open there forbids what it forbids the bot.
    #[arg(long, requires = "file")]
    state_dir: Option<PathBuf>,
}

impl Place {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let now = client.venue_clock().now();
        let permissions = client.key_permissions().await?;
        let label = self.label.clone().unwrap_or_else(|| now.strftime("%Y-%m-%d").to_string());
        let id = self.order.id(&permissions.portfolio, &label);
        eprintln!("client_order_id {id}");
        if permissions.can_transfer {
            bail!("this API key may transfer funds: use one that may only view and trade");
        }
        if let Some(order) = find_if_there(&client, &id, LOOK_BACK).await? {
            bail!(
                "this very order was placed before (order {}, {}): nothing was placed now. See `arb-bot orders trace \
                 {id}`; to place it a second time, give another --label",
                order.order_id,
                order.status
            );
        }
        let order = self.order.new_order(id.clone(), Timestamp::now())?;
        let gate = self.gate()?;
        let permit = self.admit(&client, &gate, order.clone()).await?;
        if self.order.kind != Kind::Close {
            let preview = client.preview(&order).await?;
            let refusals = preview.refusals();
            if !refusals.is_empty() {
                bail!("the exchange would refuse this order: {}", refusals.join(", "));
            }
            if !self.yes || self.connection.output == Format::Table {
                preview_rows(&preview).print(self.connection.output)?;
            }
        }
        if !self.yes {
            bail!("nothing was placed: add --yes to place the order");
        }
        let cleared = gate.clear(permit)?;
        let order_id = match client.place(cleared).await {
            Ok(Placed::Accepted { order_id }) => order_id,
            Ok(Placed::Rejected { reason, message }) => bail!("the exchange refused the order: {reason}: {message}"),
            Err(error) if error.proves_not_placed() => return Err(error).context("the order was not placed"),
            Err(error) => return self.outcome_unknown(&client, &id, &error).await,
        };
        let mut rows = order_rows();
        rows.push(order_row(&client.order_detail(&order_id).await.with_context(|| {
            format!("order {order_id} is placed, but could not be read: `arb-bot orders trace {order_id}`")
        })?));
        rows.print(self.connection.output)?;
        Ok(())
    }

    /// The reply was lost: the list tells whether the order is there. It is not sent again.
    async fn outcome_unknown(&self, client: &Client, id: &str, error: &ExchangeError) -> anyhow::Result<()> {
        eprintln!("the exchange has not answered ({error}); looking for the order");
        // The request may still be under way until its token expires.
        let until = tokio::time::Instant::now() + crate::risk::gate::TOKEN_LIFE + Duration::from_secs(5);
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Ok(Some(order)) = find_if_there(client, id, LOOK_BACK).await {
                let mut rows = order_rows();
                rows.push(order_row(&order));
                rows.print(self.connection.output)?;
                return Ok(());
            }
        }
        bail!(
            "whether the order was placed is not known: the exchange does not list it (yet). It was not sent again. Look \
             with `arb-bot orders trace {id}`; the same command today has the same client_order_id and places it at \
             most once"
        )
    }

    /// A gate with the control of the ArbBot's file, where one is given, and of its open incidents.
    fn gate(&self) -> anyhow::Result<Gate> {
        let bot = self.connection.bot()?;
        let mut restrictions = bot.as_ref().map(spec_restrictions).unwrap_or_default();
        if let Some(dir) = &self.state_dir {
            let status = state::read_status(dir)?;
            let incidents = status.and_then(|status| status.kill_switch).map(|kill| kill.incidents);
            restrictions.extend(incidents.into_iter().flatten().map(|incident| {
                Restriction::kill(format!("incident/{}", incident.id), incident.action, incident.reason)
            }));
        }
        let limits = bot.map_or_else(RiskLimits::default, |bot| bot.spec.risk.limits);
        let clock = Clock::system();
        let gate = Gate::new(clock.clone());
        gate.set(Slot::Claim, Vec::new());
        gate.set(Slot::Engine, Vec::new());
        gate.set_control(&limits, &ControlTimeouts::default(), restrictions, None, Vec::new());
        gate.in_contact(clock.boottime());
        Ok(gate)
    }

    /// With an ArbBot's file under its mode and all of its limits, measured against the whole account; without one under
    /// the product's own rules.
    async fn admit(&self, client: &Client, gate: &Gate, order: NewOrder) -> anyhow::Result<Permit> {
        let (control, contact) = gate.current();
        let Some(bot) = self.connection.bot()? else {
            let product = client.product(&order.product).await?;
            let leg = leg(client, product, &client.holdings().await?).await?;
            return Ok(admit_alone(order, &leg)?);
        };
        let exposure = exposure(client, &bot).await?;
        let lowers = exposure.leg(&order.product).is_some_and(|leg| order.size <= leg.reducible(order.side));
        let class = if lowers { Class::Reduce } else { Class::Enter };
        admit(order, class, &exposure, &control, contact).with_context(|| {
            let file = self.connection.file.as_deref().unwrap_or_else(|| std::path::Path::new("-f"));
            format!("{} does not allow this order; change it there, or leave -f out to act without it", file.display())
        })
    }
}

/// Both legs of an ArbBot as the account has them.
async fn exposure(client: &Client, bot: &ArbBot) -> anyhow::Result<Exposure> {
    let carry = &bot.spec.strategy.funding_carry;
    let holdings = client.holdings().await?;
    let mut spot = leg(client, client.product(&carry.spot_product).await?, &holdings).await?;
    let future = leg(client, client.product(&carry.future_product).await?, &holdings).await?;
    spot.index = future.index;
    let working = client.order_details(None, None).await?;
    let ours = [&carry.spot_product, &carry.future_product];
    let open = working.iter().filter(|order| is_working(&order.status) && ours.contains(&&order.product_id)).count();
    Ok(Exposure {
        spot_cost_quote: spot.notional(spot.buys, spot.mid.unwrap_or_default()),
        spot,
        future,
        open_orders: u32::try_from(open).unwrap_or(u32::MAX),
        orders_last_minute: 0,
        futures_collateral_quote: holdings.futures_collateral_quote,
    })
}

async fn leg(client: &Client, product: Product, holdings: &Holdings) -> anyhow::Result<Leg> {
    let owned = match product.future {
        Some(_) => holdings.contracts.get(&product.id),
        None => holdings.balances.get(&product.base_currency),
    };
    let outstanding = |side: Side, orders: &[manual::OrderDetails]| -> Decimal {
        let of_side = orders.iter().filter(|order| order.side == side.to_string() && is_working(&order.status));
        of_side.filter_map(|order| order.term("base_size").parse::<Decimal>().ok()).sum()
    };
    let orders = client.order_details(Some(&product.id), None).await?;
    let (bid, ask) = client.best_bid_ask(&product.id).await?;
    let mid = bid.parse::<Decimal>().ok().zip(ask.parse::<Decimal>().ok()).map(|(bid, ask)| (bid + ask) / Decimal::TWO);
    Ok(Leg {
        owned: owned.copied().unwrap_or_default(),
        deficit: Decimal::ZERO,
        buys: outstanding(Side::Buy, &orders),
        sells: outstanding(Side::Sell, &orders),
        mid,
        index: product.future.as_ref().and_then(|future| future.index),
        product: product.into(),
    })
}

pub(super) fn preview_rows(preview: &manual::Preview) -> Rows {
    let mut rows = Rows::new(&["preview", "value"]);
    for (name, value) in [
        ("order_total", &preview.order_total),
        ("commission_total", &preview.commission_total),
        ("base_size", &preview.base_size),
        ("quote_size", &preview.quote_size),
        ("best_bid", &preview.best_bid),
        ("best_ask", &preview.best_ask),
        ("slippage", &preview.slippage),
        ("margin", &preview.order_margin_total),
    ] {
        if !value.is_empty() {
            rows.push([name, value]);
        }
    }
    for (name, values) in [("warning", &preview.warning), ("refused", &preview.refusals())] {
        for value in values {
            rows.push([name, value]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    fn order(size: Decimal) -> Order {
        let (product, limit) = ("BTC-USD".to_owned(), Some(dec!(50000)));
        Order { product, side: Side::Buy, size, kind: Kind::PostOnly, limit, expires_in: 120 }
    }

    #[test]
    fn the_same_command_has_the_same_id_and_any_other_another() {
        let id = order(dec!(0.1)).id("p", "2026-11-21");
        assert_eq!(id, order(dec!(0.100)).id("p", "2026-11-21"), "the same size in other words");
        let other_kind = Order { kind: Kind::Ioc, ..order(dec!(0.1)) }.id("p", "2026-11-21");
        let others = [
            order(dec!(0.2)).id("p", "2026-11-21"),
            order(dec!(0.1)).id("q", "2026-11-21"),
            order(dec!(0.1)).id("p", "2026-11-22"),
            other_kind,
        ];
        assert!(!others.contains(&id), "{id} {others:?}");
        assert!(id.starts_with(PREFIX) && id.len() == PREFIX.len() + 20, "{id}");
    }

    #[test]
    fn an_order_without_the_price_that_it_needs_is_refused_with_the_flag_to_add() {
        let without = Order { limit: None, ..order(dec!(0.1)) };
        let error = without.new_order(String::new(), Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains("--limit"), "{error}");
        let market = Order { kind: Kind::Market, ..order(dec!(0.1)) };
        assert!(market.new_order(String::new(), Timestamp::UNIX_EPOCH).is_err());
    }
}
