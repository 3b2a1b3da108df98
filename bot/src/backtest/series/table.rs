//! A table (CSV) of prices, rates and trades, in the form of `market-recording`.
//!
//! The rules of a product are in a remark, as `arb-bot capture` writes it: `# TIME: PRODUCT {…}` with the fields of the
//! exchange's `GET /products/{id}`. Between two lines what was told still holds: once a second the prices are told again,
//! as a live connection's heartbeat does.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use market_recording::{Price, Quote, Row, is_heading};
use rust_decimal::{Decimal, dec};
use serde_json::{Value, json};

use super::{Lines, Moment, SeriesError};
use crate::exchange::venue::market_data::read_product;
use crate::exchange::{FutureDetails, Link, MarketEvent, Product, Side, Touch, VenueEvent};
use crate::market::book::Level;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const HOUR_SECONDS: i64 = 3600;
/// How far before its line a funding rate may have been fixed.
const LATE: SignedDuration = SignedDuration::from_hours(2);
/// How long after the end of an hour its rate may be written; after that the last one counts for it, too, as tables write
/// changes only. A rate is kept as it was first shown for an hour, so the one before is not to be shown too early.
const RATE_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// How often a product is told again for its price alone.
const MARK_EVERY: SignedDuration = SignedDuration::from_secs(5);
const GAP: &str = "the recording has a gap";
const BPS: Decimal = dec!(10_000);

/// What holds where a table does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Value of what there is at each best price, in quote currency.
    pub depth_quote: Decimal,
    /// Difference of the best prices around a single price, in basis points; None: a single price is refused.
    pub spread_bps: Option<Decimal>,
}

/// A table that is being read.
pub struct Table {
    lines: Lines,
    assumed: Assumed,
    tracks: BTreeMap<String, Track>,
    /// The line that was read last, when it counts, as long as something is to be told before it.
    pending: Option<(Row, Timestamp)>,
    /// Of the last line.
    now: Option<Timestamp>,
    heartbeat: Timestamp,
    /// Whether the connection is up; None before the first line.
    up: Option<bool>,
}

/// One product.
#[derive(Default)]
struct Track {
    /// As the remark says.
    product: Option<Product>,
    /// With the end of the hour that it is of.
    rate: Option<(Decimal, Timestamp)>,
    /// What is shown: price and size of the best bid and of the best offer.
    shown: Option<[(Decimal, Decimal); 2]>,
    /// Whether the book was lost since the last price.
    lost: bool,
    last_mid: Option<Decimal>,
    /// What was last told of the product, and when.
    told: Option<(Timestamp, Product)>,
}

impl Table {
    pub fn new(lines: Lines, products: &[String; 2], assumed: Assumed) -> Self {
        let tracks =
            products.iter().map(|product| (product.clone(), Track { lost: true, ..Track::default() })).collect();
        Self { lines, assumed, tracks, pending: None, now: None, heartbeat: Timestamp::MIN, up: None }
    }

    /// The next moment at which something is told.
    pub fn next(&mut self) -> Result<Option<Moment>, SeriesError> {
        loop {
            let moment = match self.pending.take() {
                Some((row, at)) => self.until(row, at)?,
                None => match self.lines.next()? {
                    Some(text) => self.line(text.trim())?,
                    None => return Ok(None),
                },
            };
            if let Some(moment) = moment.filter(|moment| !moment.is_empty()) {
                return Ok(Some(moment));
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<Option<Moment>, SeriesError> {
        let heading = self.lines.number == 1 && is_heading(line).map_err(|cause| self.lines.wrong(cause))?;
        if line.is_empty() || heading {
            return Ok(None);
        }
        if let Some(remark) = line.strip_prefix('#') {
            return self.remark(remark);
        }
        let row: Row = line.parse().map_err(|cause| self.lines.wrong(cause))?;
        if self.tracks.contains_key(&row.product) {
            let at = self.time_of(&row)?;
            self.pending = Some((row, at));
        }
        Ok(None)
    }

    /// What comes first: the next heartbeat, or the line.
    fn until(&mut self, row: Row, at: Timestamp) -> Result<Option<Moment>, SeriesError> {
        if self.now.is_none() {
            self.heartbeat = at;
        }
        let next = self.heartbeat.checked_add(SECOND).unwrap_or(Timestamp::MAX);
        if next < at {
            self.heartbeat = next;
            self.pending = Some((row, at));
            return Ok(Some(self.beat(next)));
        }
        self.now = Some(at);
        self.row(&row, at).map(Some)
    }

    /// Takes in the rules of a product; other remarks are for people. What changes in the middle of a recording counts from
    /// the line before it.
    fn remark(&mut self, remark: &str) -> Result<Option<Moment>, SeriesError> {
        let Some((head, rules)) = remark.split_once('{') else { return Ok(None) };
        let id = head.split_whitespace().next_back().unwrap_or_default().to_owned();
        if !self.tracks.contains_key(&id) {
            return Ok(None);
        }
        let rules = serde_json::from_str(&format!("{{{rules}")).map_err(|error| self.lines.wrong(error.to_string()))?;
        let at = self.now.unwrap_or(Timestamp::UNIX_EPOCH);
        let product = read_product(&with_currencies(rules, &id).to_string(), at);
        let product = product.map_err(|error| self.lines.wrong(error.to_string()))?;
        if let Some(track) = self.tracks.get_mut(&id) {
            track.product = Some(product);
        }
        let Some(now) = self.now else { return Ok(None) };
        let mut moment = Moment::new(now);
        self.show(&id, &mut moment)?;
        Ok(Some(moment))
    }

    fn row(&mut self, row: &Row, at: Timestamp) -> Result<Moment, SeriesError> {
        let mut moment = Moment::new(at);
        let id = &row.product;
        if let (Some(rate), Some(track)) = (row.funding_rate, self.tracks.get_mut(id)) {
            track.rate = Some((rate, hour_of(row.time)));
        }
        match row.price {
            Price::Unchanged => {}
            Price::Is(quote) => self.price(id, quote, &mut moment)?,
            Price::None => self.no_price(id, false, &mut moment),
            Price::Gap => self.no_price(id, true, &mut moment),
        }
        if let Some((price, size)) = row.trade {
            moment.market.push(MarketEvent::Trade { product: id.clone(), price, size, at: Some(at) });
        }
        self.show(id, &mut moment)?;
        Ok(moment)
    }

    /// When a line counts. A rate is written when it is seen, a little after it was fixed: it counts from the line before.
    fn time_of(&self, row: &Row) -> Result<Timestamp, SeriesError> {
        let Some(now) = self.now.filter(|now| row.time < *now) else { return Ok(row.time) };
        let only_a_rate = row.price == Price::Unchanged && row.trade.is_none();
        if only_a_rate && now.duration_since(row.time) <= LATE {
            return Ok(now);
        }
        Err(self.lines.wrong(format!("{} is before the line before it", row.time)))
    }

    /// What is told between two lines: the prices again, and the products when an hour has ended and no
    /// rate of it was written.
    fn beat(&mut self, at: Timestamp) -> Moment {
        let mut moment = Moment::new(at);
        if self.up == Some(true) {
            let known = self.tracks.iter().filter_map(|(id, track)| Some((id, track.touch()?)));
            let touch = |(id, touch): (&String, Touch)| VenueEvent::Touch { product: id.clone(), touch: Some(touch) };
            moment.events.extend(known.map(touch));
        }
        if at.as_second().rem_euclid(HOUR_SECONDS) == RATE_WITHIN.as_secs() {
            moment.products.extend(self.tracks.values_mut().filter_map(|track| track.tell(at)));
        }
        moment
    }

    fn price(&mut self, id: &str, quote: Quote, moment: &mut Moment) -> Result<(), SeriesError> {
        let (bid, ask) = match (quote.touch, self.assumed.spread_bps) {
            (Some(touch), _) => touch,
            (None, Some(bps)) => {
                let half = quote.price * bps / BPS / Decimal::TWO;
                ((quote.price - half).round_dp(8), (quote.price + half).round_dp(8))
            }
            (None, None) => {
                let cause =
                    "it has no best_bid and best_ask: record them, or say with --spread-bps how far they are apart";
                return Err(self.lines.wrong(cause.to_owned()));
            }
        };
        let Some(track) = self.tracks.get_mut(id) else { return Ok(()) };
        let unit_base = track.unit_base();
        let depth = |price: Decimal| (self.assumed.depth_quote / price / unit_base).round_dp(8);
        let (bid_size, ask_size) = quote.sizes.unwrap_or_else(|| (depth(bid), depth(ask)));
        if bid >= ask || bid_size <= Decimal::ZERO || ask_size <= Decimal::ZERO {
            return Err(self.lines.wrong("there is nothing between its best prices or nothing at them".to_owned()));
        }
        if self.up != Some(true) {
            self.up = Some(true);
            for link in [Link::MarketWebSocket, Link::UserWebSocket] {
                moment.events.push(VenueEvent::Link { link, down: None });
            }
        }
        let shown = [(bid, bid_size), (ask, ask_size)];
        let changed = track.show(id, shown);
        moment.market.extend(changed);
        let touch = Some(Touch { best_bid: bid, best_ask: ask });
        moment.events.push(VenueEvent::Touch { product: id.to_owned(), touch });
        track.last_mid = touch.map(|touch| touch.mid());
        Ok(())
    }

    /// The exchange shows no price, or nobody recorded one.
    fn no_price(&mut self, id: &str, gap: bool, moment: &mut Moment) {
        if let Some(track) = self.tracks.get_mut(id) {
            moment.market.extend(track.hide(id));
            track.lost |= gap;
        }
        moment.events.push(VenueEvent::Touch { product: id.to_owned(), touch: None });
        if gap && self.up != Some(false) {
            self.up = Some(false);
            let down = Some(GAP.to_owned());
            moment.events.push(VenueEvent::Link { link: Link::MarketWebSocket, down });
        }
    }

    fn show(&mut self, id: &str, moment: &mut Moment) -> Result<(), SeriesError> {
        let Some(track) = self.tracks.get_mut(id) else { return Ok(()) };
        if track.product.is_none() {
            let cause = format!(
                "the rules of {id} are not said before it: `arb-bot capture` writes them as a remark `# TIME: {id} {{…}}`"
            );
            return Err(self.lines.wrong(cause));
        }
        moment.products.extend(track.tell(moment.at));
        Ok(())
    }
}

/// The end of the hour that ended last.
fn hour_of(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(HOUR_SECONDS) * HOUR_SECONDS).unwrap_or(at)
}

/// Recordings of earlier versions do not say the currencies.
fn with_currencies(mut rules: Value, id: &str) -> Value {
    rules["product_id"] = json!(id);
    let mut parts = id.split('-');
    let named = [("base_currency_id", parts.next()), ("quote_currency_id", parts.next())];
    let is_future = rules["future_product_details"].is_object();
    for (name, part) in named {
        if rules[name].as_str().is_none_or(str::is_empty) {
            rules[name] = if is_future && name == "quote_currency_id" { json!("USD") } else { json!(part) };
        }
    }
    rules
}

impl Track {
    fn touch(&self) -> Option<Touch> {
        let [(best_bid, _), (best_ask, _)] = self.shown?;
        Some(Touch { best_bid, best_ask })
    }

    /// Base currency in one unit of size.
    fn unit_base(&self) -> Decimal {
        self.product.as_ref().map_or(Decimal::ONE, |product| product.unit_base)
    }

    /// The product with its price and with the funding of the last hour whose rate is known, where that is new.
    fn tell(&mut self, at: Timestamp) -> Option<Product> {
        let mut product = self.product.clone()?;
        if let Some(future) = &mut product.future {
            future.mark = self.last_mid;
            if let Some((rate, hour)) = self.rate {
                let unchanged_until = hour_of(at.checked_sub(RATE_WITHIN).unwrap_or(at));
                future.terms.funding_rate = rate;
                future.terms.funding_time = Some(hour.max(unchanged_until));
            }
        }
        if let Some((told_at, told)) = &self.told {
            let only_the_mark = told.future.is_some() && {
                let mut as_told = product.clone();
                as_told.future = as_told
                    .future
                    .map(|future| FutureDetails { mark: told.future.as_ref().and_then(|told| told.mark), ..future });
                as_told == *told
            };
            if *told == product || (only_the_mark && at.duration_since(*told_at) < MARK_EVERY) {
                return None;
            }
        }
        self.told = Some((at, product.clone()));
        Some(product)
    }

    /// The levels that change: a price that is no longer the best is not known to have anything.
    fn show(&mut self, id: &str, shown: [(Decimal, Decimal); 2]) -> Option<MarketEvent> {
        let snapshot = std::mem::take(&mut self.lost);
        let before = self.shown.replace(shown).filter(|_| !snapshot);
        let mut levels = Vec::new();
        for (index, side) in [Side::Buy, Side::Sell].into_iter().enumerate() {
            let (price, quantity) = shown[index];
            let was = before.map(|before| before[index]);
            if was == Some((price, quantity)) {
                continue;
            }
            if let Some((old, _)) = was.filter(|(old, _)| *old != price) {
                levels.push(Level { side, price: old, quantity: Decimal::ZERO });
            }
            levels.push(Level { side, price, quantity });
        }
        (!levels.is_empty()).then(|| MarketEvent::Levels { product: id.to_owned(), snapshot, levels })
    }

    fn hide(&mut self, id: &str) -> Option<MarketEvent> {
        let shown = self.shown.take()?;
        let gone = |(side, (price, _)): (Side, (Decimal, Decimal))| Level { side, price, quantity: Decimal::ZERO };
        let levels = [Side::Buy, Side::Sell].into_iter().zip(shown).map(gone).collect();
        // The next prices are added to what is left: nothing.
        Some(MarketEvent::Levels { product: id.to_owned(), snapshot: false, levels })
    }
}
