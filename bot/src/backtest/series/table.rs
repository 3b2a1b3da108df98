//! A table (CSV) of prices, rates and trades, in the form of `market-recording`.
//!
//! The rules of a product are in a remark, as `arb-bot capture` writes it: `# TIME: PRODUCT {…}` with the fields of the
//! exchange's `GET /products/{id}`. Between two lines what was told still holds: once a second the prices are told again,
//! as a live connection's heartbeat does.

mod track;

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use market_recording::{Price, Quote, Row, is_heading};
use rust_decimal::{Decimal, dec};
use serde_json::{Value, json};

use self::track::Track;
use super::{Lines, Moment, SeriesError};
use crate::exchange::venue::market_data::read_product;
use crate::exchange::{ExchangeError, Link, MarketEvent, Product, Touch, VenueEvent};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const HOUR_SECONDS: i64 = 3600;
/// How far before its line a funding rate may have been fixed.
const LATE: SignedDuration = SignedDuration::from_hours(2);
/// How long after the end of an hour, or of a gap, its rate may be written; after that the last one counts for it, too, as
/// tables write changes only. A rate is kept as it was first shown for an hour, so the one before is not to be shown too early.
const RATE_WITHIN: SignedDuration = SignedDuration::from_secs(60);
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
    /// Rules that were read, in the order of the times from which they hold.
    rules: VecDeque<(Timestamp, Product)>,
    /// Of the last line.
    now: Option<Timestamp>,
    heartbeat: Timestamp,
    connection: Connection,
}

/// The recorder's connection, as its prices show it.
enum Connection {
    NotYet,
    UpSince(Timestamp),
    Down,
}

impl Table {
    pub fn new(lines: Lines, products: &[String; 2], assumed: Assumed) -> Self {
        let tracks = products.iter().map(|product| (product.clone(), Track::new())).collect();
        Self {
            lines,
            assumed,
            tracks,
            pending: None,
            rules: VecDeque::new(),
            now: None,
            heartbeat: Timestamp::MIN,
            connection: Connection::NotYet,
        }
    }

    /// The next moment at which something is told.
    pub fn next(&mut self) -> Result<Option<Moment>, SeriesError> {
        loop {
            let moment = if let Some((row, at)) = self.pending.take() {
                self.until(row, at)?
            } else if let Some(text) = self.lines.next()? {
                self.line(text.trim())?;
                None
            } else if let Some((from, _)) = self.rules.front().filter(|_| self.now.is_some()) {
                self.before(*from)?
            } else {
                return Ok(None);
            };
            if let Some(moment) = moment.filter(|moment| !moment.is_empty()) {
                return Ok(Some(moment));
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<(), SeriesError> {
        let begins = self.now.is_none() && self.pending.is_none();
        let heading = begins && is_heading(line).map_err(|cause| self.lines.wrong(cause))?;
        if line.is_empty() || heading {
            return Ok(());
        }
        if let Some(remark) = line.strip_prefix('#') {
            return self.remark(remark);
        }
        let row: Row = line.parse().map_err(|cause| self.lines.wrong(cause))?;
        if self.tracks.contains_key(&row.product) {
            let at = self.time_of(&row)?;
            self.pending = Some((row, at));
        }
        Ok(())
    }

    /// What comes first: a heartbeat, rules, or the line.
    fn until(&mut self, row: Row, at: Timestamp) -> Result<Option<Moment>, SeriesError> {
        if self.now.is_none() {
            self.begin(at);
        }
        if let Some(moment) = self.before(at)? {
            self.pending = Some((row, at));
            return Ok(Some(moment));
        }
        self.now = Some(at);
        self.row(&row, at).map(Some)
    }

    /// Nothing is told before the first line: the last rules from before it hold.
    fn begin(&mut self, at: Timestamp) {
        self.heartbeat = at;
        while let Some((_, product)) = self.rules_by(at).and_then(|_| self.rules.pop_front()) {
            self.hold(product);
        }
    }

    /// The next heartbeat before a moment, or the next rules that hold by then.
    fn before(&mut self, at: Timestamp) -> Result<Option<Moment>, SeriesError> {
        let rules = self.rules_by(at);
        let beat = self.heartbeat.checked_add(SECOND).unwrap_or(Timestamp::MAX);
        if beat < rules.unwrap_or(at) {
            self.heartbeat = beat;
            return Ok(Some(self.beat(beat)));
        }
        let Some((from, product)) = rules.and_then(|_| self.rules.pop_front()) else { return Ok(None) };
        let (id, mut moment) = (product.id.clone(), Moment::new(from));
        self.hold(product);
        self.show(&id, &mut moment)?;
        Ok(Some(moment))
    }

    /// From when the next rules hold, if that is not after a moment.
    fn rules_by(&self, at: Timestamp) -> Option<Timestamp> {
        self.rules.front().map(|(from, _)| *from).filter(|from| *from <= at)
    }

    fn hold(&mut self, product: Product) {
        if let Some(track) = self.tracks.get_mut(&product.id) {
            track.product = Some(product);
        }
    }

    /// Reads the rules of a product; other remarks are for people. They hold from the remark's own time on: the line before
    /// it may be of hours ago. A line after it may be older, as a gap is dated by the last thing that was heard.
    fn remark(&mut self, remark: &str) -> Result<(), SeriesError> {
        let Some((head, rules)) = remark.split_once('{') else { return Ok(()) };
        let (mut words, wrong) = (head.split_whitespace(), |cause| self.lines.wrong(cause));
        let (time, id) = (words.clone().next().unwrap_or_default(), words.next_back().unwrap_or_default());
        let Some(track) = self.tracks.get(id) else { return Ok(()) };
        let rules: Value = serde_json::from_str(&format!("{{{rules}")).map_err(|error| wrong(error.to_string()))?;
        let time = market_recording::time(time.trim_end_matches(':')).map_err(wrong)?;
        let from = self.rules.back().map(|(from, _)| *from).max(self.now).max(Some(time)).unwrap_or(time);
        let unreadable = |cause: &dyn std::fmt::Display| wrong(format!("the rules of {id} cannot be read: {cause}"));
        let is_session_open = &rules["fcm_trading_session_details"]["is_session_open"];
        if rules["future_product_details"].is_object() && !is_session_open.is_boolean() {
            return Err(wrong(format!(
                "the rules of {id} have no fcm_trading_session_details.is_session_open: its session would count as closed, \
                 and nothing would be traded"
            )));
        }
        let product = match read_product(&with_currencies(rules, id).to_string(), from) {
            Err(ExchangeError::Unreadable { cause, .. }) => return Err(unreadable(&cause)),
            product => product.map_err(|error| unreadable(&error))?,
        };
        // Without any rules a product cannot be shown: the first ones hold from the beginning.
        if self.now.is_none() && track.product.is_none() {
            self.hold(product);
        } else {
            self.rules.push_back((from, product));
        }
        Ok(())
    }

    fn row(&mut self, row: &Row, at: Timestamp) -> Result<Moment, SeriesError> {
        let mut moment = Moment::new(at);
        let id = &row.product;
        if let (Some(rate), Some(track)) = (row.funding_rate, self.tracks.get_mut(id)) {
            track.see_rate(rate, hour_of(row.time));
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

    /// What is told between two lines: the prices again, and a future when an hour has ended and no rate of it was written.
    fn beat(&mut self, at: Timestamp) -> Moment {
        let mut moment = Moment::new(at);
        if matches!(self.connection, Connection::UpSince(_)) {
            let known = self.tracks.iter().filter_map(|(id, track)| Some((id, track.touch()?)));
            let touch = |(id, touch): (&String, Touch)| VenueEvent::Touch { product: id.clone(), touch: Some(touch) };
            moment.events.extend(known.map(touch));
        }
        if let Some(hour) = self.unchanged_until(at) {
            let kept = |track: &mut Track| track.keep_rate(hour).then(|| track.tell(at)).flatten();
            moment.products.extend(self.tracks.values_mut().filter_map(kept));
        }
        moment
    }

    /// The end of the last hour of which a new rate would have been written by now. In a gap nobody knows that there was
    /// none, and after it the recorder has to look again.
    fn unchanged_until(&self, at: Timestamp) -> Option<Timestamp> {
        let Connection::UpSince(since) = self.connection else { return None };
        let written_by = at.checked_sub(RATE_WITHIN).ok().filter(|written_by| since <= *written_by)?;
        Some(hour_of(written_by))
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
        if !matches!(self.connection, Connection::UpSince(_)) {
            self.connection = Connection::UpSince(moment.at);
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
        if gap && !matches!(self.connection, Connection::Down) {
            self.connection = Connection::Down;
            let down = Some(GAP.to_owned());
            moment.events.push(VenueEvent::Link { link: Link::MarketWebSocket, down });
        }
    }

    fn show(&mut self, id: &str, moment: &mut Moment) -> Result<(), SeriesError> {
        let unchanged_until = self.unchanged_until(moment.at);
        let Some(track) = self.tracks.get_mut(id) else { return Ok(()) };
        if track.product.is_none() {
            let cause = format!(
                "the rules of {id} are not said before it: `arb-bot capture` writes them as a remark `# TIME: {id} {{…}}`"
            );
            return Err(self.lines.wrong(cause));
        }
        if let Some(hour) = unchanged_until {
            track.keep_rate(hour);
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
