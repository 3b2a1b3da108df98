//! `arb-bot status`: what a bot that runs without Kubernetes wrote of itself.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, bail};
use arbbot_crds::ArbBotStatus;
use arbbot_crds::guards::GuardStatus;
use clap::Args;

use crate::cli::output::{Format, Rows};
use crate::control::file::state::{STATUS, read_status};
use crate::ledger;

/// Flags of `arb-bot status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The bot's state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Form of the output; the file status.yaml in the directory has everything.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Format,
}

/// Prints it.
///
/// # Errors
/// There is no status, or it cannot be read.
pub fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let Some(status) = read_status(&args.state_dir)? else {
        bail!("{} does not exist: no bot ever ran with this --state-dir", args.state_dir.join(STATUS).display());
    };
    let running = is_running(&args.state_dir)?;
    rows(&status, running).print(args.output)?;
    if !running {
        eprintln!("the bot is not running: this is what it wrote last");
    }
    Ok(())
}

/// A running bot holds the lock of its ledger.
fn is_running(dir: &std::path::Path) -> anyhow::Result<bool> {
    let path = dir.join(ledger::DIR).join(ledger::LOCK);
    match File::open(&path) {
        Ok(file) => Ok(file.try_lock_shared().is_err()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to open {}", path.display())),
    }
}

fn rows(status: &ArbBotStatus, running: bool) -> Rows {
    let mut rows = Rows::new(&["what", "value", "reason", "message"]);
    rows.push(["Running", if running { "True" } else { "False" }]);
    for condition in &status.conditions {
        rows.push([&condition.type_, &condition.status, &condition.reason, &condition.message]);
    }
    if let Some(bot) = &status.bot {
        let generation = bot.applied_generation.map(|generation| generation.to_string()).unwrap_or_default();
        let mode = bot.effective_mode.map(|mode| mode.to_string()).unwrap_or_default();
        let execution = bot.execution.map(|execution| execution.to_string()).unwrap_or_default();
        rows.push(["execution", &execution]);
        rows.push(["effectiveMode", &mode, "", &format!("generation {generation} of the file")]);
        rows.push(["openOrders", &bot.open_orders.unwrap_or_default().to_string()]);
        if let Some(position) = &bot.position {
            rows.push(["futureContracts", &position.future_contracts]);
            rows.push(["spotBase", &position.spot_base]);
            rows.push(["leverage", &position.leverage]);
        }
        if let Some(pnl) = &bot.pnl {
            rows.push(["P&L", &pnl.total_quote, "", &format!("fees {}", pnl.fees_quote)]);
        }
        for guard in &bot.guards {
            rows.push(["guard", &guard.name, &format!("{:?}", guard.state), &of_guard(guard)]);
        }
    }
    for incident in status.kill_switch.iter().flat_map(|kill| &kill.incidents) {
        let message = format!(
            "{}: {}; to release, once Finished: engaged false and release {}",
            incident.source, incident.reason, incident.id
        );
        rows.push(["incident", &incident.id, &format!("{:?}", incident.phase), &message]);
    }
    rows
}

fn of_guard(guard: &GuardStatus) -> String {
    let GuardStatus { metric, action, value, threshold, since, .. } = guard;
    let said = format!("{metric} was {value} at {}, the threshold is {threshold}; its action is {action}", since.0);
    match &guard.incident {
        Some(incident) => format!("{said}; to release: spec.killSwitch.release {incident}"),
        None => format!("{said}; it ends by itself"),
    }
}
