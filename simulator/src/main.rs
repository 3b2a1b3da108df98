//! `exchange-simulator`: the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use exchange_simulator::data_dir::DataDir;
use exchange_simulator::exchange::product::listings;
use exchange_simulator::exchange::{FeeRates, Settings};
use exchange_simulator::server::Options;
use exchange_simulator::server::clock::Clock;
use exchange_simulator::server::listen::serve;
use market_recording::Series;
use rust_decimal::Decimal;
use tracing_subscriber::EnvFilter;

/// A Coinbase-compatible exchange for demos, drills and tests.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data directory: certificates, accounts, API keys. A complete one is kept as it is.
    Init(Init),
    /// Serve the exchange over HTTPS with WebSockets on the same port; makes the data directory if needed.
    Serve(Serve),
}

#[derive(Args)]
struct Init {
    /// Directory for ca.crt, key.json, keys/, accounts.json and admin.token.
    #[arg(long)]
    data_dir: PathBuf,
    /// Accounts to make, each with a portfolio and a key of its own [default: 1].
    #[arg(long)]
    accounts: Option<usize>,
    /// DNS name or IP address for the certificate, besides localhost, 127.0.0.1 and ::1 (repeatable).
    #[arg(long)]
    dns_name: Vec<String>,
}

#[derive(Args)]
struct Serve {
    /// Address and port; port 0 takes a free one, which is printed.
    #[arg(long)]
    listen: SocketAddr,
    #[command(flatten)]
    init: Init,
    /// Seed of the markets: the same seed gives the same prices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Exchange seconds per real second (tokens are always checked against the real clock).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    speed: u32,
    /// Milliseconds between two steps of the markets.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    tick_ms: u64,
    /// Private requests per second and portfolio; 0 for no limit.
    #[arg(long, default_value_t = 30)]
    rate_limit: u32,
    /// Requests without a key per second and address; 0 for no limit.
    #[arg(long, default_value_t = 10)]
    public_rate_limit: u32,
    /// WebSocket connections, and messages without a token, per second and address; 0 for no limit.
    #[arg(long, default_value_t = 8)]
    web_socket_rate_limit: u32,
    /// Faults from the start, by a YAML file; see docs/simulator.md.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Recorded prices that the markets follow, as `arb-bot capture` writes them: CSV with
    /// time,product,price[,funding_rate[,best_bid,best_ask]].
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Keep the futures session open on Fridays from 17:00 to 18:00 in New York.
    #[arg(long)]
    always_open: bool,
    /// Refuse a repeated client_order_id (DUPLICATE_CLIENT_ORDER_ID) instead of answering with the old order.
    #[arg(long)]
    refuse_duplicates: bool,
    /// Spot fees as fractions of value, maker and taker.
    #[arg(long, num_args = 2, value_names = ["MAKER", "TAKER"])]
    spot_fees: Option<Vec<Decimal>>,
    /// Futures fees as fractions of value, maker and taker.
    #[arg(long, num_args = 2, value_names = ["MAKER", "TAKER"])]
    future_fees: Option<Vec<Decimal>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is installed already"))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match Cli::parse().command {
        Command::Init(init) => init.run().map(|_| ()),
        Command::Serve(args) => {
            let clock = Clock::real(args.speed);
            serve(&args.init.run()?, args.listen, &args.options()?, clock).await
        }
    }
}

impl Init {
    fn run(&self) -> anyhow::Result<DataDir> {
        let data_dir = DataDir::new(&self.data_dir);
        data_dir.init(self.accounts.unwrap_or(1), &self.dns_name)?;
        let found = data_dir.accounts()?.portfolios.len();
        if let Some(asked) = self.accounts.filter(|asked| *asked != found) {
            tracing::warn!(asked, found, "the data directory is kept as it is; delete it to make another");
        }
        Ok(data_dir)
    }
}

impl Serve {
    fn options(&self) -> anyhow::Result<Options> {
        let defaults = Settings::default();
        let replay = self.replay.as_deref().map(read_series).transpose()?;
        let settings = Settings {
            seed: self.seed,
            weekly_break: !self.always_open,
            replay,
            refuse_duplicates: self.refuse_duplicates,
            spot_fees: fees(self.spot_fees.as_deref(), defaults.spot_fees),
            future_fees: fees(self.future_fees.as_deref(), defaults.future_fees),
            ..defaults
        };
        let scenario = match &self.scenario {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        Ok(Options {
            settings,
            rate_limit: self.rate_limit,
            public_rate_limit: self.public_rate_limit,
            web_socket_rate_limit: self.web_socket_rate_limit,
            tick: Duration::from_millis(self.tick_ms),
            scenario,
        })
    }
}

fn read_series(path: &Path) -> anyhow::Result<Arc<Series>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let series = Series::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let listed: Vec<String> = listings().into_iter().map(|listing| listing.product.id).collect();
    if let Some(product) = series.products().find(|product| !listed.iter().any(|id| id == product)) {
        return Err(anyhow!("{}: there is no product {product}, only {}", path.display(), listed.join(", ")));
    }
    for product in series.products() {
        let gaps = series.gaps(product);
        if gaps > 0 {
            tracing::warn!(product, gaps, "the recording has gaps; the last price holds over them");
        }
    }
    Ok(Arc::new(series))
}

fn fees(given: Option<&[Decimal]>, default: FeeRates) -> FeeRates {
    match given {
        Some(&[maker, taker]) => FeeRates { maker, taker },
        _ => default,
    }
}
