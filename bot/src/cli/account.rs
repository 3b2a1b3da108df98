//! `arb-bot account snapshot` and `arb-bot positions`: what the account holds, as the exchange shows it.

use clap::{Args, Subcommand};
use rust_decimal::Decimal;

use crate::cli::connect::Connection;
use crate::cli::output::Rows;
use crate::exchange::Exchange;
use crate::exchange::venue::manual::Position;

/// Commands about the account.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Everything at once: key, balances, futures account, positions, working orders, fees.
    Snapshot(Snapshot),
}

#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    connection: Connection,
}

/// Flags of `arb-bot positions`.
#[derive(Debug, Args)]
pub struct PositionsArgs {
    #[command(flatten)]
    connection: Connection,
}

impl AccountCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The exchange does not answer; the error says what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self::Snapshot(snapshot) = self;
        let client = snapshot.connection.open().await?;
        let mut rows = Rows::new(&["what", "name", "value", "detail"]);
        let permissions = client.key_permissions().await?;
        rows.push(["key", "fingerprint", &client.fingerprint(), ""]);
        rows.push(["key", "portfolio", &permissions.portfolio, ""]);
        let may =
            [("view", permissions.can_view), ("trade", permissions.can_trade), ("transfer", permissions.can_transfer)];
        for (what, allowed) in may {
            rows.push(["key", what, if allowed { "yes" } else { "no" }, ""]);
        }
        for balance in client.balances().await? {
            let held = format!("{} more held", balance.hold.value);
            let detail = if is_zero(&balance.hold.value) { String::new() } else { held };
            rows.push(["balance".into(), balance.currency, balance.available_balance.value, detail]);
        }
        let futures = client.futures_balance().await?;
        for (name, amount) in [
            ("total", futures.total_usd_balance),
            ("buying power", futures.futures_buying_power),
            ("available margin", futures.available_margin),
            ("initial margin", futures.initial_margin),
            ("unrealized P&L", futures.unrealized_pnl),
            ("liquidation buffer", futures.liquidation_buffer_amount),
        ] {
            rows.push(["futures account", name, &amount.value, "USD"]);
        }
        for position in client.positions().await? {
            let size = signed(&position);
            let detail = format!("entry {} now {}", position.avg_entry_price, position.current_price);
            rows.push(["position".into(), position.product_id, size, detail]);
        }
        for order in client.order_details(None, None).await? {
            if is_working(&order.status) {
                let detail = format!("{} {} at {}", order.side, order.term("base_size"), order.term("limit_price"));
                rows.push(["order".into(), order.order_id, order.status, format!("{} {detail}", order.product_id)]);
            }
        }
        for (name, futures) in [("spot", false), ("futures", true)] {
            let fees = client.fees(futures).await?;
            let detail = format!("maker {} taker {} of value", fees.maker_fee_rate, fees.taker_fee_rate);
            rows.push(["fees".into(), name.to_owned(), fees.pricing_tier, detail]);
        }
        rows.print(snapshot.connection.output)?;
        Ok(())
    }
}

/// Prints the futures positions.
///
/// # Errors
/// The exchange does not answer; the error says what to do.
pub async fn positions(args: PositionsArgs) -> anyhow::Result<()> {
    let client = args.connection.open().await?;
    let mut rows =
        Rows::new(&["product", "contracts", "entry_price", "current_price", "unrealized_pnl", "daily_realized_pnl"]);
    for position in client.positions().await? {
        let contracts = signed(&position);
        let Position { product_id, avg_entry_price, current_price, unrealized_pnl, daily_realized_pnl, .. } = position;
        rows.push([product_id, contracts, avg_entry_price, current_price, unrealized_pnl, daily_realized_pnl]);
    }
    rows.print(args.connection.output)?;
    Ok(())
}

/// Contracts with the sign of the position: negative is short.
fn signed(position: &Position) -> String {
    let size = position.number_of_contracts.trim_start_matches('-');
    if position.side == "SHORT" { format!("-{size}") } else { size.to_owned() }
}

fn is_zero(text: &str) -> bool {
    text.is_empty() || text.parse::<Decimal>().is_ok_and(|value| value.is_zero())
}

/// Whether something can still happen to an order of this status.
pub(super) fn is_working(status: &str) -> bool {
    !matches!(status, "FILLED" | "CANCELLED" | "EXPIRED" | "FAILED")
}
