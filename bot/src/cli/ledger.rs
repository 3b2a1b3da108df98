//! `arb-bot ledger`: verifies, exports, backs up and restores a bot's ledger.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::cli::output::{Format, Rows};
use crate::ledger::{self, IncidentRecord, LedgerHead, OrderRecord};

/// Where the ledger is in a bot's pod.
const IN_THE_POD: &str = "/var/lib/arbbot";

/// Commands about a ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Prove that nobody changed the ledger: its hash chain, its tables, and with --entries and --head that nothing is cut
    /// off. A bot may run meanwhile.
    Verify(Verify),
    /// List the orders, the incidents or every entry.
    Export(Export),
    /// Copy the ledger into a new file, as it is at this moment. A bot may run meanwhile.
    Backup(Backup),
    /// Put a backup in the place of the ledger, which is kept under another name. No bot may run.
    Restore(Restore),
}

impl LedgerCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// There is no such ledger, it is damaged, or the disk fails; the error says what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(verify) => verify.run().await,
            Self::Export(export) => export.run().await,
            Self::Backup(backup) => backup.run().await,
            Self::Restore(restore) => restore.run().await,
        }
    }
}

/// Where the ledger is.
#[derive(Debug, Args)]
pub struct Place {
    /// Directory of the ledger. Default: where a bot's pod has it.
    #[arg(long, value_name = "DIR", default_value = IN_THE_POD, conflicts_with = "state_dir")]
    ledger_dir: PathBuf,
    /// Directory of a bot that runs without Kubernetes.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Place {
    /// The ledger's directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.state_dir.as_ref().map_or_else(|| self.ledger_dir.clone(), |state| state.join(ledger::DIR))
    }
}

/// Form of the output.
#[derive(Debug, Args)]
struct Output {
    /// Form of the output.
    #[arg(long = "output", short = 'o', value_enum, default_value_t)]
    format: Format,
}

impl Output {
    fn print_head(&self, result: &str, file: &Path, head: LedgerHead) -> anyhow::Result<()> {
        let mut rows = Rows::new(&["result", "file", "entries", "head"]);
        rows.push([result.to_owned(), file.display().to_string(), head.entries.to_string(), head.head]);
        rows.print(self.format)?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
    /// Number of entries that the ledger had once: `status.bot.ledger.entries` of the ArbBot.
    #[arg(long, requires = "head", value_parser = clap::value_parser!(i64).range(0..))]
    entries: Option<i64>,
    /// Hash of its last entry then: `status.bot.ledger.head`.
    #[arg(long, requires = "entries")]
    head: Option<String>,
}

impl Verify {
    async fn run(self) -> anyhow::Result<()> {
        let dir = self.place.dir();
        let head = ledger::verify(&dir).await?;
        if let (Some(entries), Some(anchor)) = (self.entries, self.head) {
            let anchor = LedgerHead { entries, head: anchor };
            if !ledger::continues(&dir, &anchor).await? {
                bail!(
                    "the ledger is whole, but it does not continue the one that had {} entries and the head {}: it has {} \
                     entries. It was cut, replaced or restored; compare its orders with the exchange",
                    anchor.entries,
                    anchor.head,
                    head.entries
                );
            }
        }
        self.output.print_head("whole", &dir.join(ledger::FILE), head)
    }
}

/// What of a ledger is listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Every order with what is known of it.
    Orders,
    /// Every kill, and when it was released.
    Incidents,
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
    async fn run(self) -> anyhow::Result<()> {
        let dir = self.place.dir();
        let rows = match self.what {
            What::Orders => orders(ledger::orders(&dir).await?),
            What::Incidents => incidents(ledger::incidents(&dir).await?),
            What::Entries => {
                let mut rows = Rows::new(&["entry", "time", "kind", "payload", "hash"]);
                for (n, at, kind, payload, hash) in ledger::entries(&dir).await? {
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

/// Every digit, and no zero that says nothing.
fn plain(value: Decimal) -> String {
    value.normalize().to_string()
}

#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    async fn run(self) -> anyhow::Result<()> {
        let head = ledger::backup(&self.place.dir(), &self.to).await?;
        self.output.print_head("backed up and verified", &self.to, head)
    }
}

#[derive(Debug, Args)]
pub struct Restore {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
    /// A file that `backup` wrote.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

impl Restore {
    async fn run(self) -> anyhow::Result<()> {
        let dir = self.place.dir();
        let restored = ledger::restore(&dir, &self.from, Timestamp::now()).await?;
        if let Some(replaced) = &restored.replaced {
            eprintln!("the ledger that was there is kept as {}", replaced.display());
        }
        eprintln!("orders that are newer than the backup come back from the exchange's history when the bot starts");
        self.output.print_head("restored and verified", &dir.join(ledger::FILE), restored.head)
    }
}
