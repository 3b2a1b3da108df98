//! A bot on paper in virtual time: the program of `arb-bot run` with `execution: Paper`, but its market data comes from a
//! recording and time passes as fast as the machine can.
//!
//! Engine, gate, guards, driver, ledger, books and paper account are those of a running bot, so that over the same
//! recording both decide the same (`bot/tests/lockstep/backtest.rs`).

mod bot;
pub mod series;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::arbbot::Execution;
use arbbot_crds::control::{Duty, Entry, Restriction};
use arbbot_crds::guards::GuardProblem;
use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::bot::{Bot, Market};
use self::series::{Moment, Series, SeriesError};
use crate::books::BooksView;
use crate::exchange::paper::Source;
use crate::exchange::{Link, VenueEvent};
use crate::execution::engine::View;
use crate::ledger::{Books, EquityRecord, LedgerError, OrderRecord};

/// uid of a bot that was never created: its orders begin with the first eight characters.
const UID: &str = "bac47e57-0000-0000-0000-000000000000";
/// A session with an exchange takes a moment to open: the engine has its first turn before it.
const OPENS_AFTER: Duration = Duration::from_millis(1);
/// How long the books are waited for at the end, in virtual time.
const BOOKED_WITHIN: Duration = Duration::from_secs(60);
/// Points of the curve: more than a picture has pixels.
const POINTS: u64 = 2000;
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// What is run.
#[derive(Clone, Debug)]
pub struct Backtest {
    pub bot: ArbBot,
    /// For the ledger and the paper account; nothing is in it.
    pub dir: PathBuf,
    /// How often the engine looks at the time.
    pub tick: Duration,
    /// What comes before is only looked at for its last prices.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// New file for a recording of the session.
    pub record: Option<PathBuf>,
}

/// What the account was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub at: Timestamp,
    /// Profit and loss since the beginning, funding included, in quote currency.
    pub equity_quote: Decimal,
    /// Value of the larger leg.
    pub notional_quote: Decimal,
}

/// What a backtest has shown; the ledger in its directory has the rest.
#[derive(Clone, Debug)]
pub struct Ran {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Moments of the series that were played.
    pub moments: u64,
    /// What was told to account and engine: price levels, trades, best prices, links.
    pub events: u64,
    pub curve: Vec<Point>,
    /// The books, with a last point at the end.
    pub books: Books,
    pub orders: Vec<OrderRecord>,
    /// The engine at the end.
    pub view: View,
    /// What closed entry at the end, or demanded that something be done.
    pub restrictions: Vec<Restriction>,
    /// Time that the machine took.
    pub took: Duration,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    #[error(transparent)]
    Series(#[from] SeriesError),
    #[error(
        "the series has no line of {} or {} between {} and {}",
        .products[0], .products[1], or(*.from, "its beginning"), or(*.to, "its end")
    )]
    Nothing { products: [String; 2], from: Option<Timestamp>, to: Option<Timestamp> },
    #[error(
        "spec.killSwitch is engaged: a bot under it trades nothing; take it out of the file to test what it would do"
    )]
    Killed,
    #[error("{0}; without it the bot would be tested under other guards than those of the file")]
    Guard(GuardProblem),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Start(String),
    #[error("a part of the bot ended by itself; the log says why")]
    Ended,
}

fn or(at: Option<Timestamp>, otherwise: &str) -> String {
    at.map_or_else(|| otherwise.to_owned(), |at| at.to_string())
}

impl Backtest {
    /// Runs it, on the calling thread and in a runtime of its own whose time is virtual: not inside another one.
    ///
    /// # Errors
    /// The series is wrong somewhere, or the bot cannot start.
    pub fn run(mut self, series: Series) -> Result<Ran, BacktestError> {
        if self.bot.spec.kill_switch.engaged {
            return Err(BacktestError::Killed);
        }
        if let Some(problem) = self.bot.spec.risk.guards.unreadable.pop() {
            return Err(BacktestError::Guard(problem));
        }
        // What a live bot would do is tested on paper, too.
        self.bot.spec.execution = Execution::Paper;
        // What an API server gives, and the ids of incidents are made of.
        self.bot.metadata.uid.get_or_insert_with(|| UID.to_owned());
        self.bot.metadata.generation.get_or_insert(1);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| BacktestError::Start(error.to_string()))?;
        let began = std::time::Instant::now();
        let ran = runtime.block_on(self.play(series));
        ran.map(|ran| Ran { took: began.elapsed(), ..ran })
    }

    async fn play(self, mut series: Series) -> Result<Ran, BacktestError> {
        let nothing = || BacktestError::Nothing { products: self.bot.spec.products(), from: self.from, to: self.to };
        let first = series.starts_at().ok_or_else(nothing)?;
        let from = self.from.map_or(first, |from| from.max(first));
        let (mut bot, market) = Bot::start(&self, from).await?;
        let mut player = Player { market, from, origin: Instant::now(), now: from, moments: 0, events: 0 };
        let mut curve = Curve::new(&bot);
        sleep(OPENS_AFTER).await;
        let mut next = player.open(&mut series).await?;
        while let Some(moment) = next.filter(|moment| self.to.is_none_or(|to| moment.at < to)) {
            player.wait(moment.at).await;
            player.tell(moment).await;
            curve.look(&mut bot, player.now);
            if bot.has_ended() {
                return Err(BacktestError::Ended);
            }
            next = series.advance()?;
        }
        if player.moments == 0 {
            return Err(nothing());
        }
        series.has_prices()?;
        // What was told last is acted on.
        sleep(self.tick.max(LEAST_PAUSE)).await;
        let settled = bot.books.wait_for(|books| books.is_read && books.outstanding == 0);
        if !matches!(timeout(BOOKED_WITHIN, settled).await, Ok(Ok(_))) {
            tracing::warn!("not every fill is in the books: the exchange on paper shows another sum than the orders");
        }
        curve.point(&bot, player.now);
        let (view, books) = (bot.view.borrow().clone(), bot.books.borrow().clone());
        let mut restrictions = bot.gate.restrictions();
        restrictions.retain(|by| by.entry != Entry::Active || by.duty != Duty::Hold);
        let last = last(&view, &books, player.now);
        let (mut books, orders) = bot.stop().await?;
        books.equity.extend(last);
        Ok(Ran {
            from,
            to: player.now,
            moments: player.moments,
            events: player.events,
            curve: curve.points,
            books,
            orders,
            view,
            restrictions,
            took: Duration::ZERO,
        })
    }
}

/// Tells account and engine what the recording says.
struct Player {
    market: Market,
    from: Timestamp,
    origin: Instant,
    /// When the last moment was.
    now: Timestamp,
    moments: u64,
    events: u64,
}

impl Player {
    /// Takes in what was before the beginning, without a turn of the engine for each of it. Returns the first moment after.
    async fn open(&mut self, series: &mut Series) -> Result<Option<Moment>, SeriesError> {
        let Market { paper, recorded, .. } = &self.market;
        let recorded = Arc::clone(recorded);
        paper.use_data(Some(Source::Recording(Arc::clone(&recorded))));
        let mut last = Vec::<VenueEvent>::new();
        let mut next = series.advance()?;
        while let Some(moment) = next.take_if(|moment| moment.at < self.from) {
            moment.products.into_iter().for_each(|product| recorded.show(product));
            moment.market.into_iter().for_each(|event| paper.hear(event));
            for event in moment.events {
                last.retain(|before| !is_about_the_same(before, &event));
                last.push(event);
            }
            next = series.advance()?;
        }
        if let Some(moment) = next.as_mut().filter(|moment| moment.at == self.from) {
            std::mem::take(&mut moment.products).into_iter().for_each(|product| recorded.show(product));
        }
        self.market.exchange.store(Some(Arc::clone(paper)));
        for event in [VenueEvent::Link { link: Link::UserWebSocket, down: None }].into_iter().chain(last) {
            self.market.hears.send(event).await.ok();
        }
        Ok(next)
    }

    async fn wait(&mut self, at: Timestamp) {
        self.now = at;
        let after = Duration::try_from(at.duration_since(self.from)).unwrap_or_default();
        sleep_until(self.origin + after).await;
    }

    async fn tell(&mut self, moment: Moment) {
        self.moments += 1;
        self.events += (moment.market.len() + moment.events.len()) as u64;
        for product in moment.products {
            self.market.recorded.show(product);
        }
        for event in moment.market {
            self.market.paper.hear(event);
        }
        for event in moment.events {
            // The engine ends only with the bot, which is looked at.
            self.market.hears.send(event).await.ok();
        }
    }
}

fn is_about_the_same(before: &VenueEvent, now: &VenueEvent) -> bool {
    match (before, now) {
        (VenueEvent::Touch { product: before, .. }, VenueEvent::Touch { product, .. }) => before == product,
        (VenueEvent::Link { link: before, .. }, VenueEvent::Link { link, .. }) => before == link,
        _ => false,
    }
}

/// Looks at what the account is worth, often enough for a picture and never too often: twice as many points as wanted are
/// thinned out to half.
struct Curve {
    points: Vec<Point>,
    every: Duration,
    next: Timestamp,
}

impl Curve {
    fn new(bot: &Bot) -> Self {
        let mut curve = Self { points: Vec::new(), every: LEAST_PAUSE, next: Timestamp::MIN };
        curve.point(bot, bot.clock.now());
        curve
    }

    fn look(&mut self, bot: &mut Bot, now: Timestamp) {
        if now < self.next {
            return;
        }
        self.point(bot, now);
        if self.points.len() as u64 >= 2 * POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
        self.next = now.checked_add(self.every).unwrap_or(Timestamp::MAX);
    }

    fn point(&mut self, bot: &Bot, at: Timestamp) {
        let (view, books) = (bot.view.borrow(), bot.books.borrow());
        let Some(pnl_quote) = view.pnl_quote.or(view.is_flat.then_some(view.cash_quote)) else { return };
        let equity_quote = pnl_quote + books.funding_quote;
        self.points.push(Point { at, equity_quote, notional_quote: view.notional_quote });
    }
}

/// The point of the books at the end, as they write it every hour.
fn last(view: &View, books: &BooksView, at: Timestamp) -> Option<EquityRecord> {
    let (spot_mid, future_mid) = view.mids?;
    Some(EquityRecord {
        at,
        equity_quote: view.pnl_quote? + books.funding_quote,
        cash_quote: view.cash_quote,
        funding_quote: books.funding_quote,
        fees_quote: view.fees_quote,
        spot_base: view.spot_owned_base,
        spot_mid,
        contracts: view.future_owned_contracts,
        future_mid,
    })
}
