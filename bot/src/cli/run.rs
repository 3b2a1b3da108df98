//! `arb-bot run`: trades for one ArbBot until it is told to stop. The ArbBot is in a cluster, or with `-f` in a file.

mod program;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::decode::Decoded;
use arbbot_crds::incident::uid8;
use arbbot_crds::names;
use clap::Args;
use kube::{Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::program::{Ended, Program};
use crate::clock::Clock;
use crate::control::file::ControlFile;
use crate::control::file::state::AccountLock;
use crate::control::lease::CALL;
use crate::control::observed::{first_seen, untyped};
use crate::ledger::{self, Binding, Ledger, LedgerHead, Recovered, Server};
use crate::telemetry::logs;

/// Flags of `arb-bot run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// File of the ArbBot: runs without a cluster. The file is watched; edit it to halt, kill or change the bot.
    #[arg(short = 'f', long, value_name = "FILE", requires = "state_dir", conflicts_with_all = ["name", "ledger_dir"])]
    pub file: Option<PathBuf>,
    /// With --file: directory for ledger, latches and status.yaml; one for each bot.
    #[arg(long, value_name = "DIR", requires = "file")]
    pub state_dir: Option<PathBuf>,
    /// With --file: directory of the locks that keep an account and product to one bot; the same for all bots of a
    /// machine. Default: arb-bot/locks in $XDG_STATE_HOME or ~/.local/state.
    #[arg(long, value_name = "DIR", requires = "file")]
    pub lock_dir: Option<PathBuf>,
    /// Name of the ArbBot.
    #[arg(long, required_unless_present = "file")]
    pub name: Option<String>,
    /// Namespace of the ArbBot.
    #[arg(long, env = "POD_NAMESPACE", required_unless_present = "file")]
    pub namespace: Option<String>,
    /// uid of this pod: the holder of the Lease.
    #[arg(long, env = "POD_UID", required_unless_present = "file")]
    pub pod_uid: Option<String>,
    /// Node that this pod runs on.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node: String,
    /// Address of /livez, /readyz, /metrics and /status. Default: port 8080 of every address, with --file of 127.0.0.1.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Directory with the files `name` and `privateKey` of the API key.
    #[arg(long, visible_alias = "credentials", default_value = names::CREDENTIALS_DIR)]
    pub credentials_dir: PathBuf,
    /// Directory with the files of the second API key, where spec.credentials names one.
    #[arg(long, visible_alias = "backup-credentials")]
    pub backup_credentials_dir: Option<PathBuf>,
    /// PEM certificates of the exchange's authority. Default: the public ones.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Directory of the ledger; of one in PostgreSQL for its kill journal.
    #[arg(long, default_value = names::LEDGER_DIR)]
    pub ledger_dir: PathBuf,
    /// New file for a recording of the session: all that the engine is told and decides, for `arb-bot replay`.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Directory with the files of the Secret of spec.ledger.postgres: `url` and, where the server's authority is not a
    /// public one, `ca.crt`.
    #[arg(long, value_name = "DIR", default_value = names::LEDGER_SECRET_DIR)]
    pub ledger_secret_dir: PathBuf,
}

impl RunArgs {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    fn listen(&self) -> SocketAddr {
        let address = if self.file.is_some() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        self.listen.unwrap_or_else(|| SocketAddr::from((address, names::BOT_PORT)))
    }
}

/// How long a bot that starts waits for the server of its ledger before it starts without.
const WAIT_FOR_LEDGER: Duration = Duration::from_secs(5);

/// Where control comes from and status goes to, and what else differs with it.
enum Source {
    Cluster(Client),
    /// The lock is held as long as the program runs; a paper account needs none but its ledger's.
    File(ControlFile, Option<AccountLock>),
}

/// Trades for one ArbBot until SIGTERM; then cancels its orders, gives up the Lease and returns.
///
/// # Errors
/// The bot cannot start: the message names what is missing.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stopping = stop_signals()?;
    let log = logs::init()?;
    let clock = Clock::system();
    let (source, first, args) = match args.file.clone() {
        None => {
            let client = Client::try_default().await.context(
                "no way to the API server: run in a pod with a ServiceAccount, set KUBECONFIG, or give the file of an \
                 ArbBot with -f",
            )?;
            let first = own_bot(&client, &args, &stopping).await?;
            (Source::Cluster(client), first, args)
        }
        Some(file) => from_file(&file, args)?,
    };
    let head = first.object.status.as_ref().and_then(|status| status.bot.as_ref()?.ledger.clone());
    let opened = open_ledger(&args, &first.object, head.as_ref(), &clock, &stopping).await?;
    let Some((ledger, recovered)) = opened else {
        tracing::info!("stopped before the ledger was open");
        return Ok(());
    };
    let rebuilding = ledger.discontinued(head.as_ref(), &recovered).await?;
    if let Some(why) = &rebuilding {
        tracing::error!(why, "the exchange's history and the latches in status are read instead");
    }
    if let Some(note) = &recovered.note {
        tracing::warn!(note, "the ledger was opened");
    }
    let source = match source {
        Source::File(mut file, lock) => {
            file.begin(generations(&first.object, &recovered))?;
            Source::File(file, lock)
        }
        cluster @ Source::Cluster(_) => cluster,
    };
    let program = Program { args, log, source, clock, first, ledger, recovered, rebuilding };
    match program.run(stopping.clone()).await? {
        Ended::LedgerIsBack if !stopping.is_cancelled() => Err(begin_anew()),
        _ => Ok(()),
    }
}

/// Puts a new process of the same program in the place of this one, of which then nothing is under way any more. Returns
/// only where that fails.
fn begin_anew() -> anyhow::Error {
    tracing::warn!("the ledger can be read: the bot begins anew, with it");
    let failed = |cause| anyhow::Error::new(cause).context("the bot cannot begin anew by itself: start it again");
    match std::env::current_exe() {
        Ok(program) => failed(Command::new(program).args(std::env::args_os().skip(1)).exec()),
        Err(cause) => failed(cause),
    }
}

/// Opens the ledger. A database that is away, or still has the session of the pod before, is waited for, visibly; then the
/// bot starts without it, so that it obeys a kill. None: the bot is stopped.
async fn open_ledger(
    args: &RunArgs,
    bot: &ArbBot,
    anchor: Option<&LedgerHead>,
    clock: &Clock,
    stopping: &CancellationToken,
) -> anyhow::Result<Option<(Ledger, Recovered)>> {
    let in_postgres = bot.spec.ledger.postgres.is_some();
    match (in_postgres, bot.spec.execution) {
        (false, _) => Server::is_not_in(&args.ledger_dir)?,
        (true, Execution::Paper) => {
            anyhow::bail!("spec.ledger.postgres does not go with execution Paper: a paper account needs a volume")
        }
        (true, Execution::Live) => {
            Server::of_bot(&args.ledger_secret_dir, &namespace_of(bot), &bot.name_any()).point(&args.ledger_dir)?;
        }
    }
    let (binding, until) = (Binding::of(bot), clock.boottime() + WAIT_FOR_LEDGER);
    loop {
        let open = Ledger::open(&args.ledger_dir, &binding, clock.clone());
        let error = match stopping.run_until_cancelled(open).await {
            None => return Ok(None),
            Some(Err(error)) if in_postgres && error.may_pass() => error,
            Some(opened) => return Ok(Some(opened?)),
        };
        if clock.boottime() >= until {
            return Ok(Some(Ledger::unread(&args.ledger_dir, &binding, anchor, clock.clone(), &error)?));
        }
        tracing::warn!(reason = error.reason(), %error, "the ledger cannot be opened; trying again");
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stopping.cancelled() => return Ok(None),
        }
    }
}

/// Namespace of an ArbBot; a file need not name one.
pub(super) fn namespace_of(bot: &ArbBot) -> String {
    bot.namespace().unwrap_or_else(|| "default".to_owned())
}

/// Takes the account's lock for the ArbBot of a file.
fn from_file(path: &Path, mut args: RunArgs) -> anyhow::Result<(Source, Decoded<ArbBot>, RunArgs)> {
    let dir = args.state_dir.clone().context("--file needs --state-dir")?;
    let (file, first) = ControlFile::open(path, &dir)?;
    let bot = &first.object;
    let lock = match bot.spec.execution {
        Execution::Live => Some(lock(bot, &args, &dir)?),
        Execution::Paper => None,
    };
    args.name = Some(bot.name_any());
    args.ledger_dir = dir.join(ledger::DIR);
    Ok((Source::File(file, lock), first, args))
}

fn lock(bot: &ArbBot, args: &RunArgs, dir: &Path) -> anyhow::Result<AccountLock> {
    let lock_dir = args.lock_dir.clone().or_else(default_lock_dir).context(
        "there is no home directory for the locks that keep an account to one bot: give --lock-dir, the same to every \
         bot of this machine",
    )?;
    let (portfolio, product) = (bot.spec.account(), &bot.spec.strategy.funding_carry.future_product);
    let state = std::path::absolute(dir)?;
    Ok(AccountLock::take(&lock_dir, portfolio, product, &bot.name_any(), &state)?)
}

fn default_lock_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("arb-bot/locks"))
}

/// Every generation of this bot that something durable remembers.
fn generations(bot: &ArbBot, recovered: &Recovered) -> Vec<i64> {
    let uid8 = uid8(&bot.uid().unwrap_or_default());
    let incidents = recovered.incidents.iter().map(|incident| &incident.id).chain(&recovered.released);
    let of_incidents = incidents.filter(|id| id.source == uid8).map(|id| id.generation);
    let applied = bot.status.as_ref().and_then(|status| status.bot.as_ref()?.applied_generation);
    of_incidents.chain(applied).collect()
}

/// Cancelled by SIGTERM or SIGINT. Made before anything else: the first process of a container does not end by a signal
/// that it does not listen to, so one that came while the bot starts would be lost, and with it the time to hand over.
pub(super) fn stop_signals() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(stopping)
}

/// Reads the own ArbBot; waits for it as long as it takes, visibly.
async fn own_bot(client: &Client, args: &RunArgs, stopping: &CancellationToken) -> anyhow::Result<Decoded<ArbBot>> {
    let api = untyped::<ArbBot>(client, args.namespace());
    loop {
        let problem = match timeout(CALL, api.get(args.name())).await {
            Ok(Ok(bot)) => match first_seen(bot) {
                Ok(bot) => return Ok(bot),
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CALL.as_secs()),
        };
        tracing::warn!(
            arbbot = args.name(),
            namespace = args.namespace(),
            problem,
            "the ArbBot cannot be read; trying again"
        );
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stopping.cancelled() => anyhow::bail!("stopped before ArbBot {} could be read: {problem}", args.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_while_the_bot_still_starts_is_not_lost() {
        let stopping = stop_signals().unwrap();
        assert!(!stopping.is_cancelled());
        kill_process(getpid(), Signal::TERM).unwrap();
        // Whoever looks later sees it, too.
        timeout(Duration::from_secs(5), stopping.cancelled()).await.unwrap();
        assert!(stopping.is_cancelled());
    }
}
