//! `arb-bot capture`: records public market data into a file that the simulator replays.

mod recording;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::recording::{Recording, Transcript};
use crate::cli::connect::PRODUCTION;
use crate::cli::output::Format;
use crate::cli::run::stop_signals;
use crate::clock::Clock;
use crate::control::file::document;
use crate::exchange::venue::key::ApiKey;
use crate::exchange::venue::market_data::{MarketData, Source, Told};
use crate::exchange::venue::transport::Transport;
use crate::randomness::Randomness;

/// Where production streams market data.
const PRODUCTION_WEB_SOCKET: &str = "wss://advanced-trade-ws.coinbase.com";
/// How often what is recorded is handed to the operating system.
const FLUSH: Duration = Duration::from_secs(1);
/// How often progress is told where nobody watches a terminal, in flushes.
const TELL_EVERY: u32 = 10;

/// Flags of `arb-bot capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// File to write: CSV, as `exchange-simulator serve --replay` reads it. It must not exist yet.
    csv: PathBuf,
    /// Product to record, for example BTC-USD (repeatable). Default: both products of the ArbBot of -f.
    #[arg(long = "product", value_name = "ID", value_parser = product, required_unless_present = "file")]
    products: Vec<String>,
    /// How long, for example 10m or 1h30m. Default: until Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasting: Option<Duration>,
    /// Also write every frame and reply as it came: a file of JSON lines with the time of receipt.
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// File with an ArbBot, whose first endpoint is used.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Base URL of REST. Default: the first endpoint of the ArbBot, else production.
    #[arg(long, value_name = "URL", requires = "web_socket_url")]
    rest_url: Option<String>,
    /// URL of the WebSocket of market data. Default: the first endpoint of the ArbBot, else production.
    #[arg(long, value_name = "URL", requires = "rest_url")]
    web_socket_url: Option<String>,
    /// PEM certificates of the exchange's authority. Default: the public ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Directory with the files `name` and `privateKey` of an API key, for an exchange that shows nothing without one.
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
    /// Form of the summary.
    #[arg(long, short = 'o', value_enum, default_value_t)]
    output: Format,
}

fn product(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("a product is named like BTC-USD or BIP-20DEC30-CDE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "it must be a time such as 90s, 10m or 1h30m".to_owned())?;
    Duration::try_from(duration).ok().filter(|d| !d.is_zero()).ok_or_else(|| "it must be more than nothing".to_owned())
}

impl CaptureArgs {
    /// Records until the time is over or a signal comes, and prints what was recorded.
    ///
    /// # Errors
    /// A product is unknown, the exchange does not answer at the start, a file cannot be written, or no price came.
    pub async fn run(self) -> anyhow::Result<()> {
        let stopping = stop_signals()?;
        let source = self.source()?;
        let data = MarketData::open(source.clone(), Transport::Network, Clock::system(), Randomness::system()).await;
        let data = Arc::new(data.context("nothing was recorded")?);
        let first = data.products().await.context("nothing was recorded")?;
        let recording = Recording::begin(create(&self.csv)?, &source.products, &source.rest_url, data.now())?;
        let transcript = self.raw.as_deref().map(create).transpose()?.map(Transcript::new);
        let mut capture = Capture { recording, transcript, shows_progress: true };
        for told in first {
            capture.take(&told)?;
        }
        let until = self.lasting.map(|lasting| Instant::now() + lasting);
        capture.run(&data, until, stopping).await.with_context(|| format!("{} is incomplete", self.csv.display()))?;
        let (rows, prices) = capture.finish(&data).with_context(|| format!("{} is incomplete", self.csv.display()))?;
        eprintln!("recorded into {}", self.csv.display());
        rows.print(self.output)?;
        if prices == 0 {
            bail!("no price came: the file says since when, and the lines above why");
        }
        Ok(())
    }

    fn source(&self) -> anyhow::Result<Source> {
        let bot = self.file.as_deref().map(document::load).transpose()?;
        let endpoint = bot.as_ref().and_then(|bot| bot.spec.venue.coinbase.endpoints.first());
        let of_bot = |url: Option<&String>, production: &str| url.cloned().unwrap_or_else(|| production.to_owned());
        let mut products = self.products.clone();
        if let Some(bot) = bot.as_ref().filter(|_| products.is_empty()) {
            products = bot.spec.products().to_vec();
        }
        products.sort();
        products.dedup();
        Ok(Source {
            rest_url: of_bot(self.rest_url.as_ref().or(endpoint.map(|e| &e.rest_url)), PRODUCTION),
            web_socket_url: of_bot(
                self.web_socket_url.as_ref().or(endpoint.map(|e| &e.market_web_socket_url)),
                PRODUCTION_WEB_SOCKET,
            ),
            ca_file: self.ca_file.clone(),
            key: self.credentials.as_deref().map(ApiKey::load).transpose()?,
            products,
        })
    }
}

/// A file that nobody has yet: recordings are not overwritten.
fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::options().write(true).create_new(true).open(path);
    Ok(BufWriter::new(file.with_context(|| format!("{} cannot be made; name a new file", path.display()))?))
}

/// A recording under way, and its transcript.
pub struct Capture<W: Write> {
    pub recording: Recording<W>,
    pub transcript: Option<Transcript<W>>,
    /// Whether standard error shows how far it is.
    pub shows_progress: bool,
}

impl<W: Write> Capture<W> {
    /// Writes down what came.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn take(&mut self, told: &Told) -> std::io::Result<()> {
        if let Some(transcript) = &mut self.transcript {
            transcript.take(told)?;
        }
        self.recording.take(told)
    }

    /// Records until then, or until it is stopped.
    ///
    /// # Errors
    /// A file cannot be written.
    pub async fn run(
        &mut self,
        data: &Arc<MarketData>,
        until: Option<Instant>,
        stopping: CancellationToken,
    ) -> std::io::Result<()> {
        let mut tasks = JoinSet::new();
        let mut told = data.listen(&mut tasks);
        let mut timer = interval(FLUSH);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flushes = 0;
        loop {
            tokio::select! {
                biased; // no choice that a seed does not decide
                () = stopping.cancelled() => break,
                () = over(until) => break,
                _ = timer.tick() => {
                    self.flush()?;
                    flushes += 1;
                    if self.shows_progress {
                        self.progress(flushes);
                    }
                }
                next = told.recv() => match next {
                    Some(next) => self.take(&next)?,
                    None => break,
                },
            }
        }
        drop(tasks);
        self.rest(&mut told)
    }

    /// What had come before the end and was not yet written.
    fn rest(&mut self, told: &mut mpsc::Receiver<Told>) -> std::io::Result<()> {
        while let Ok(next) = told.try_recv() {
            self.take(&next)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if let Some(transcript) = &mut self.transcript {
            transcript.flush()?;
        }
        self.recording.flush()
    }

    fn progress(&self, flushes: u32) {
        let mut stderr = std::io::stderr();
        let line = self.recording.progress();
        // Progress that cannot be shown is no reason to stop.
        let _ = match stderr.is_terminal() {
            true => write!(stderr, "\r\x1b[K{line}"),
            false if flushes % TELL_EVERY == 1 => writeln!(stderr, "{line}"),
            false => Ok(()),
        };
    }
}

impl Capture<BufWriter<File>> {
    /// Ends both files; returns the summary and how many prices there are.
    fn finish(self, data: &MarketData) -> std::io::Result<(crate::cli::output::Rows, u64)> {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        if let Some(transcript) = self.transcript {
            sync(transcript.into_inner())?;
        }
        let (file, rows, prices) = self.recording.finish(data.now())?;
        sync(file)?;
        Ok((rows, prices))
    }
}

fn sync(file: BufWriter<File>) -> std::io::Result<()> {
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_products_are_read_as_people_write_them() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert!(duration("ten").is_err() && duration("0s").is_err() && duration("-5s").is_err());
        assert!(product("BTC-USD").is_ok() && product("BTC,USD").is_err() && product("").is_err());
    }
}
