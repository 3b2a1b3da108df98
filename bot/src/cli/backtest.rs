//! `arb-bot backtest`: what a bot would have made of recorded market data.

mod plot;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use arbbot_crds::ArbBot;
use clap::Args;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rust_decimal::{Decimal, dec};
use tempfile::TempDir;

use self::plot::plot;
use crate::backtest::series::{Assumed, Series};
use crate::backtest::{Backtest, Ran};
use crate::books::summary::{Period, Summary};
use crate::cli::progress;
use crate::cli::report::Form;
use crate::cli::report::period::{Section, of_period};
use crate::control::file::document;
use crate::ledger;

/// Where files are in memory.
const MEMORY: &str = "/dev/shm";
const DEPTH_QUOTE: Decimal = dec!(100_000);
/// The end of a period is not in it; the last point is.
const INSTANT: SignedDuration = SignedDuration::from_millis(1);

/// Flags of `arb-bot backtest`.
#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// File with the ArbBot. One that trades live is tested on paper; spec.paper says balance and fees.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Recorded market data: a table (.csv) or a transcript (.jsonl) as `arb-bot capture` writes them, or a directory of
    /// such files, which are played together.
    #[arg(long, value_name = "FILE|DIR")]
    data: PathBuf,
    /// When to begin, in RFC 3339. Default: with the data.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// When to end. Default: with the data.
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
    /// How often the engine looks at the time. A running bot does every 100 ms; with more a backtest takes less time, and
    /// its decisions are up to so much later.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = tick)]
    tick: Duration,
    /// Value of what there is at each best price, where a table does not say sizes, in quote currency.
    #[arg(long, value_name = "QUOTE", default_value_t = DEPTH_QUOTE, value_parser = positive)]
    depth_quote: Decimal,
    /// Difference of the best prices, where a table has a price alone, in basis points. Default: such a table is refused.
    #[arg(long, value_name = "BPS", value_parser = positive)]
    spread_bps: Option<Decimal>,
    /// What returns are measured against, in quote currency. Default: spec.risk.capital.
    #[arg(long, value_name = "QUOTE", value_parser = positive)]
    capital: Option<Decimal>,
    /// Form of the report.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Form,
    /// Draw equity, drawdown and position into a new file: .svg, or .html with the report.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Record the session into a new file, for `arb-bot replay`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// New directory for the ledger, which `arb-bot report` and `arb-bot ledger` read. Default: it is not kept.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

fn tick(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|_| "it must be a time such as 100ms or 1s".to_owned())?;
    let duration = Duration::try_from(duration).ok().filter(|tick| *tick >= Duration::from_millis(1));
    duration.ok_or_else(|| "it must be at least 1ms".to_owned())
}

fn positive(text: &str) -> Result<Decimal, String> {
    let value = text.parse().ok().filter(|value| *value > Decimal::ZERO);
    value.ok_or_else(|| "it must be a decimal greater than zero".to_owned())
}

impl BacktestArgs {
    /// Runs the bot over the data and prints the report.
    ///
    /// # Errors
    /// The ArbBot or the data is wrong somewhere, or a file cannot be written.
    pub fn run(self) -> anyhow::Result<()> {
        let bot = document::load(&self.file)?;
        let assumed = Assumed { depth_quote: self.depth_quote, spread_bps: self.spread_bps };
        let series = Series::open(&self.data, &bot.spec.products(), assumed)?;
        let progress = series.progress();
        let form = self.plot.as_deref().map(plot::Form::of).transpose()?;
        if let Some(path) = self.plot.as_deref().filter(|path| path.exists()) {
            bail!("{} is there already: a picture is drawn into a new file; name another one", path.display());
        }
        let directory = self.plot.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
        if let Some(dir) = directory.filter(|dir| !dir.is_dir()) {
            bail!("there is no directory {} for the picture; make it, or name another one", dir.display());
        }
        let (dir, _kept_until_the_end) = self.ledger_dir()?;
        let backtest = Backtest {
            bot: bot.clone(),
            dir,
            tick: self.tick,
            from: self.from,
            to: self.to,
            record: self.record.clone(),
        };
        progress::draw(&progress);
        let ran = backtest.run(series);
        progress.finish_and_clear();
        let ran = ran.context("the backtest did not come to its end")?;
        let seconds = ran.took.as_secs_f64();
        eprintln!(
            "{} events in {seconds:.1} s of this machine, {:.0} per second",
            ran.events,
            rate(ran.events, seconds)
        );
        let report = |form| self.report(form, &bot, &ran);
        if let (Some(path), Some(form)) = (&self.plot, form) {
            let picture = plot(&ran.curve, &bot_name(&bot))?;
            let text = match form {
                plot::Form::Svg => picture,
                plot::Form::Html => plot::page(&bot_name(&bot), &picture, &report(Form::Markdown)),
            };
            write_new(path, &text)?;
        }
        print!("{}", report(self.output));
        Ok(())
    }

    /// The ledger's directory, and what removes it at the end.
    fn ledger_dir(&self) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
        if let Some(dir) = &self.state_dir {
            let ledger = dir.join(ledger::DIR);
            if ledger.exists() {
                bail!(
                    "{} is there already: a backtest begins with an empty ledger; name a new directory",
                    ledger.display()
                );
            }
            return Ok((ledger, None));
        }
        // Nothing of it has to survive, so no disk has to be waited for.
        let made =
            tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).context("there is no place for a ledger")?;
        Ok((made.path().join(ledger::DIR), Some(made)))
    }

    fn report(&self, form: Form, bot: &ArbBot, ran: &Ran) -> String {
        let to = ran.to.checked_add(INSTANT).unwrap_or(ran.to);
        let future = &bot.spec.strategy.funding_carry.future_product;
        let summary = Summary::of(&ran.books, future, Period { from: ran.from, to });
        let capital = self.capital.unwrap_or(bot.spec.risk.capital.0);
        of_period(form, &format!("Backtest of {}", bot_name(bot)), &summary, Some(capital), vec![at_the_end(ran)])
    }
}

fn rate(events: u64, seconds: f64) -> f64 {
    // Precise enough for people.
    #[allow(clippy::cast_precision_loss)]
    let events = events as f64;
    if seconds > 0.0 { events / seconds } else { 0.0 }
}

fn bot_name(bot: &ArbBot) -> String {
    bot.metadata.name.clone().unwrap_or_default()
}

fn at_the_end(ran: &Ran) -> Section {
    let view = &ran.view;
    let text = |value: Decimal| Some(value.normalize().to_string());
    Section {
        title: "Series",
        figures: vec![
            ("moments", Some(ran.moments.to_string())),
            ("events", Some(ran.events.to_string())),
            ("orders_sent", Some(ran.orders.len().to_string())),
            ("orders_open_at_the_end", Some(view.open_orders.to_string())),
            ("spot_at_the_end_base", text(view.spot_owned_base)),
            ("contracts_at_the_end", text(view.future_owned_contracts)),
            ("guards_at_the_end", Some(guards_at_the_end(ran))),
            ("why_at_the_end", Some(why_at_the_end(ran)).filter(|why| !why.is_empty())),
        ],
    }
}

/// Every guard that warns or has tripped, and since when, in the time of the market.
fn guards_at_the_end(ran: &Ran) -> String {
    let shown = ran.view.guards.shown.iter();
    let said: Vec<_> = shown.map(|guard| format!("since {:.0}: {}", guard.status.since.0, guard.message)).collect();
    if said.is_empty() { "none".to_owned() } else { said.join("; ") }
}

/// Everything that closes entry, where the condition `Trading` names the strongest; otherwise what the strategy makes of the
/// market.
fn why_at_the_end(ran: &Ran) -> String {
    let closed: Vec<_> = ran.restrictions.iter().map(|by| format!("{}: {}", by.source, by.why)).collect();
    if closed.is_empty() { ran.view.carry.why.clone() } else { closed.join("; ") }
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    let mut file = file.with_context(|| format!("{} cannot be made; name a new file", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("{} is not written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::execution::driver::TICK;

    const CLOSED: &str = r##"# 2026-11-16T15:00:00Z: BTC-USD {"price_increment":"0.01","base_increment":"0.00000001","base_min_size":"0.00001","quote_min_size":"1"}
# 2026-11-16T15:00:00Z: BIP-20DEC30-CDE {"price_increment":"5","base_increment":"1","base_min_size":"1","fcm_trading_session_details":{"is_session_open":false},"future_product_details":{"contract_size":"0.01","contract_root_unit":"BTC","intraday_margin_rate":{"long_margin_rate":"0.25","short_margin_rate":"0.3"}}}
2026-11-16T15:00:00Z,BTC-USD,60000,,59995,60005
2026-11-16T15:00:00Z,BIP-20DEC30-CDE,60000,0.00003,59995,60005
2026-11-16T15:00:20Z,BTC-USD,60010,,60005,60015
"##;

    #[test]
    fn a_backtest_that_may_not_trade_says_what_closes_entry_not_what_it_would_do() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("closed.csv");
        std::fs::write(&data, CLOSED).unwrap();
        let bot: ArbBot = serde_json::from_value(json!({
            "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": "closed"},
            "spec": {
                "execution": "Paper", "venue": {"coinbase": {}},
                "strategy": {"fundingCarry": {
                    "spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "3000",
                    "entry": {"minSamples": 1},
                }},
            },
        }))
        .unwrap();
        let series = |products: [String; 2]| {
            Series::open(&data, &products, Assumed { depth_quote: Decimal::ONE_THOUSAND, spread_bps: None }).unwrap()
        };
        let backtest = |name: &str, bot: ArbBot| Backtest {
            bot,
            dir: dir.path().join(name),
            tick: Duration::from_secs(1),
            from: None,
            to: None,
            record: None,
        };
        let ran = backtest("one", bot.clone()).run(series(bot.spec.products())).unwrap();
        assert!(why_at_the_end(&ran).contains("session: the futures session is closed"), "{}", why_at_the_end(&ran));
        assert_eq!(ran.orders.len(), 0);

        let mut misspelt = bot.clone();
        misspelt.spec.risk.guards =
            serde_json::from_value(json!([{"name": "cost", "metric": "TransactionCost"}])).unwrap();
        let error = backtest("three", misspelt).run(series(bot.spec.products())).unwrap_err().to_string();
        assert!(error.contains("spec.risk.guards[cost]") && error.contains("other guards"), "{error}");

        let mut other = bot;
        other.spec.strategy.funding_carry.spot_product = "ETH-USD".to_owned();
        other.spec.strategy.funding_carry.future_product = "ETP-20DEC30-CDE".to_owned();
        let error = backtest("two", other.clone()).run(series(other.spec.products())).unwrap_err().to_string();
        assert!(error.contains("no line of ETH-USD or ETP-20DEC30-CDE"), "{error}");
    }

    /// Fails without a uid and a generation, of which the id of an incident is made, and with a rate rounded to four decimals.
    #[test]
    fn the_report_names_a_guard_that_has_tripped_since_when_and_its_incident() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("closed.csv");
        std::fs::write(&data, CLOSED).unwrap();
        let bot: ArbBot = serde_json::from_value(json!({
            "apiVersion": "arbbot.io/v1alpha1", "kind": "ArbBot", "metadata": {"name": "tripped"},
            "spec": {
                "execution": "Paper", "venue": {"coinbase": {}},
                "strategy": {"fundingCarry": {
                    "spotProduct": "BTC-USD", "futureProduct": "BIP-20DEC30-CDE", "targetNotional": "3000",
                }},
                "risk": {"guards": [{
                    "name": "dear", "metric": "FundingRateAbs", "tripAt": "0.00002", "action": "Kill", "release": "Manual",
                }]},
            },
        }))
        .unwrap();
        let assumed = Assumed { depth_quote: Decimal::ONE_THOUSAND, spread_bps: None };
        let series = Series::open(&data, &bot.spec.products(), assumed).unwrap();
        let dir = dir.path().join("ledger");
        let backtest = Backtest { bot, dir, tick: Duration::from_secs(1), from: None, to: None, record: None };
        let ran = backtest.run(series).unwrap();
        let said = guards_at_the_end(&ran);
        for part in ["since 2026-11-16T15:00:0", "guard dear: FundingRateAbs was 0.00003", "bac47e57-1"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_tick_is_a_time_and_sizes_are_more_than_nothing() {
        assert_eq!(tick("100ms"), Ok(TICK));
        assert!(tick("0s").is_err() && tick("soon").is_err() && tick("10us").is_err());
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("0.5").is_ok());
    }
}
