//! The files: a recording in the simulator's format, and a transcript of all that came.

use std::collections::BTreeMap;
use std::io::{self, Write};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use market_recording::{HEADER, Price, Quote, Row};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::cli::output::Rows;
use crate::exchange::venue::market_data::{Facts, Meaning, Told};

/// A recording under way.
pub struct Recording<W> {
    out: W,
    began: Timestamp,
    tracks: BTreeMap<String, Track>,
}

/// What was written of one product.
struct Track {
    price: Price,
    /// Time of the last line with a price.
    at: Timestamp,
    first: Option<Quote>,
    last: Option<Quote>,
    prices: u64,
    rate: Option<(Decimal, Timestamp)>,
    rules: Value,
    gaps: u64,
    gap_since: Option<Timestamp>,
    in_gaps: SignedDuration,
}

impl<W: Write> Recording<W> {
    /// Writes the heading.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(mut out: W, products: &[String], exchange: &str, at: Timestamp) -> io::Result<Self> {
        writeln!(out, "{HEADER}")?;
        writeln!(out, "# {at}: recorded by arb-bot {} from {exchange}", env!("CARGO_PKG_VERSION"))?;
        let track = || Track {
            price: Price::Unchanged,
            at,
            first: None,
            last: None,
            prices: 0,
            rate: None,
            rules: Value::Null,
            gaps: 0,
            gap_since: None,
            in_gaps: SignedDuration::ZERO,
        };
        let tracks = products.iter().map(|product| (product.clone(), track())).collect();
        Ok(Self { out, began: at, tracks })
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take(&mut self, told: &Told) -> io::Result<()> {
        for meaning in &told.meanings {
            match meaning {
                Meaning::Touch { product, touch } => {
                    let quote = touch.map(|touch| Price::Is(Quote::of_touch(touch.best_bid, touch.best_ask)));
                    self.price(product, told.at, quote.unwrap_or(Price::None))?;
                }
                Meaning::Unknown { since } => {
                    let products: Vec<String> = self.tracks.keys().cloned().collect();
                    for product in products {
                        self.price(&product, *since, Price::Gap)?;
                    }
                }
                Meaning::Facts(facts) => self.facts(told.at, facts)?,
            }
        }
        Ok(())
    }

    fn price(&mut self, product: &str, at: Timestamp, price: Price) -> io::Result<()> {
        let Some(track) = self.tracks.get_mut(product).filter(|track| track.price != price) else { return Ok(()) };
        let time = at.max(track.at);
        if let Some(since) = track.gap_since.take() {
            track.in_gaps += time.duration_since(since);
        }
        match price {
            Price::Is(quote) => {
                track.first = track.first.or(Some(quote));
                track.last = Some(quote);
                track.prices += 1;
            }
            Price::Gap => {
                track.gaps += 1;
                track.gap_since = Some(time);
            }
            Price::None | Price::Unchanged => {}
        }
        (track.price, track.at) = (price, time);
        self.row(Row { time, product: product.to_owned(), price, funding_rate: None, trade: None })
    }

    /// The rate counts from when it was fixed, which is a little before we asked.
    fn facts(&mut self, at: Timestamp, facts: &Facts) -> io::Result<()> {
        let Some(track) = self.tracks.get_mut(&facts.product) else { return Ok(()) };
        if track.rules != facts.rules {
            track.rules = facts.rules.clone();
            writeln!(self.out, "# {at}: {} {}", facts.product, facts.rules)?;
        }
        let Some((rate, fixed_at)) = facts.funding else { return Ok(()) };
        if track.rate.is_some_and(|(last, _)| last == rate) {
            return Ok(());
        }
        let earliest = track.rate.map_or(self.began, |(_, at)| at);
        let time = fixed_at.unwrap_or(at).clamp(earliest, at.max(earliest));
        track.rate = Some((rate, time));
        let product = facts.product.clone();
        self.row(Row { time, product, price: Price::Unchanged, funding_rate: Some(rate), trade: None })
    }

    fn row(&mut self, row: Row) -> io::Result<()> {
        writeln!(self.out, "{row}")
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Where it stands, in a line for people.
    pub fn progress(&self) -> String {
        let of = |(product, track): (&String, &Track)| {
            let price = match track.price {
                Price::Is(quote) => quote.price.normalize().to_string(),
                Price::None => "no price".to_owned(),
                Price::Unchanged | Price::Gap => "not heard".to_owned(),
            };
            let gaps = if track.gaps > 0 { format!(", {} gaps", track.gaps) } else { String::new() };
            format!("{product} {price} ({} prices{gaps})", track.prices)
        };
        self.tracks.iter().map(of).collect::<Vec<_>>().join("  ")
    }

    /// Writes the last line, by which a reader knows that the file is whole. Returns the summary and the number of prices.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, at: Timestamp) -> io::Result<(W, Rows, u64)> {
        let mut rows =
            Rows::new(&["product", "prices", "first", "last", "funding_rate", "gaps", "gap_seconds", "from", "to"]);
        for (product, track) in &self.tracks {
            let open = track.gap_since.map_or(SignedDuration::ZERO, |since| at.duration_since(since));
            let text = |quote: Option<Quote>| quote.map(|q| q.price.normalize().to_string()).unwrap_or_default();
            rows.push([
                product.clone(),
                track.prices.to_string(),
                text(track.first),
                text(track.last),
                track.rate.map(|(rate, _)| rate.to_string()).unwrap_or_default(),
                track.gaps.to_string(),
                format!("{:.1}", (track.in_gaps + open).as_secs_f64()),
                self.began.to_string(),
                at.to_string(),
            ]);
        }
        let gaps: u64 = self.tracks.values().map(|track| track.gaps).sum();
        let prices: u64 = self.tracks.values().map(|track| track.prices).sum();
        writeln!(self.out, "# {at}: complete, {prices} prices, {gaps} gaps")?;
        Ok((self.out, rows, prices))
    }
}

/// Everything as it came: JSON lines with `at`, the time of receipt, and the fields of
/// [`Raw`](crate::exchange::venue::market_data::Raw).
pub struct Transcript<W>(W);

impl<W: Write> Transcript<W> {
    #[must_use]
    pub fn new(out: W) -> Self {
        Self(out)
    }

    fn line(told: &Told) -> Value {
        // It has no map whose keys are not strings, so it is always JSON.
        let mut line = serde_json::to_value(&told.raw).unwrap_or_default();
        line["at"] = json!(told.at.to_string());
        line
    }

    /// Writes a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take(&mut self, told: &Told) -> io::Result<()> {
        writeln!(self.0, "{}", Self::line(told))
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    #[must_use]
    pub fn into_inner(self) -> W {
        self.0
    }
}
