//! `arb-bot ledger`: verifies, exports, backs up and restores a bot's ledger.

mod export;

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use k8s_openapi::jiff::Timestamp;

use crate::cli::output::{Format, Rows};
use crate::ledger::{self, LedgerHead};
use export::Export;

/// Where the ledger is in a bot's pod.
const IN_THE_POD: &str = "/var/lib/arbbot";

/// Commands about a ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Prove that nobody changed the ledger: its hash chain, its tables, and with --entries and --head that nothing is cut
    /// off. A bot may run meanwhile.
    Verify(Verify),
    /// List the orders, the incidents, the books or every entry.
    Export(Export),
    /// Copy the ledger, of either kind, into a new file of SQLite, as it is at this moment. A bot may run meanwhile.
    Backup(Backup),
    /// Put a backup, of a ledger of either kind, in the place of the ledger, which is kept under another name. No bot may run.
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
    /// Directory of the ledger, also of one in PostgreSQL. Default: where a bot's pod has it.
    #[arg(long, value_name = "DIR", default_value = IN_THE_POD, conflicts_with = "state_dir")]
    ledger_dir: PathBuf,
    /// Directory of a bot that runs without Kubernetes.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Directory with the files of the Secret of a ledger in PostgreSQL, where no directory of its bot is at hand.
    #[arg(long, value_name = "DIR", requires = "schema", conflicts_with_all = ["ledger_dir", "state_dir"])]
    postgres: Option<PathBuf>,
    /// Schema of that ledger: NAMESPACE/NAME of its bot.
    #[arg(long, value_name = "NAME", requires = "postgres")]
    schema: Option<String>,
}

impl Place {
    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> ledger::Place {
        if let (Some(secret), Some(schema)) = (&self.postgres, &self.schema) {
            return ledger::Place::Server(ledger::Server::in_schema(secret, schema));
        }
        let dir = self.state_dir.as_ref().map_or_else(|| self.ledger_dir.clone(), |state| state.join(ledger::DIR));
        ledger::Place::Directory(dir)
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
    fn print_head(&self, result: &str, ledger: String, head: LedgerHead) -> anyhow::Result<()> {
        let mut rows = Rows::new(&["result", "ledger", "entries", "head"]);
        rows.push([result.to_owned(), ledger, head.entries.to_string(), head.head]);
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
        let place = self.place.ledger();
        let head = ledger::verify(&place).await?;
        if let (Some(entries), Some(anchor)) = (self.entries, self.head) {
            let anchor = LedgerHead { entries, head: anchor };
            if !ledger::continues(&place, &anchor).await? {
                bail!(
                    "the ledger is whole, but it does not continue the one that had {} entries and the head {}: it has {} \
                     entries. It was cut, replaced or restored; compare its orders with the exchange",
                    anchor.entries,
                    anchor.head,
                    head.entries
                );
            }
        }
        self.output.print_head("whole", place.shown()?, head)
    }
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
        let head = ledger::backup(&self.place.ledger(), &self.to).await?;
        self.output.print_head("backed up and verified", self.to.display().to_string(), head)
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
        let place = self.place.ledger();
        let restored = ledger::restore(&place, &self.from, Timestamp::now()).await?;
        if let Some(replaced) = &restored.replaced {
            eprintln!("the ledger that was there is kept as {replaced}");
        }
        eprintln!("orders that are newer than the backup come back from the exchange's history when the bot starts");
        self.output.print_head("restored and verified", place.shown()?, restored.head)
    }
}
