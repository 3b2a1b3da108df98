//! A transcript of `arb-bot capture --raw`: every frame and reply as it came, understood by the code that hears the
//! exchange live.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::{Lines, Moment, SeriesError};
use crate::exchange::venue::market_data::{Raw, read_product};
use crate::exchange::venue::websocket::Channels;
use crate::exchange::{Link, MarketEvent};

#[derive(Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(flatten)]
    raw: Raw,
}

/// A transcript that is being read.
pub struct Transcript {
    lines: Lines,
    products: [String; 2],
    /// Of the connection that is open; None: it is lost.
    channels: Option<Channels>,
    last: Timestamp,
}

impl Transcript {
    pub fn new(lines: Lines, products: &[String; 2]) -> Self {
        Self { lines, products: products.clone(), channels: None, last: Timestamp::MIN }
    }

    /// The next moment at which something is told.
    pub fn next(&mut self) -> Result<Option<Moment>, SeriesError> {
        while let Some(text) = self.lines.next()? {
            if text.trim().is_empty() {
                continue;
            }
            // Without the line end the writer was killed in the middle of it.
            if !text.ends_with('\n') {
                return Ok(None);
            }
            let line: Line =
                serde_json::from_str(&text).map_err(|error| self.lines.wrong(unreadable(&text, &error)))?;
            if line.at < self.last {
                return Err(self.lines.wrong(format!("{} is before the line before it", line.at)));
            }
            self.last = line.at;
            let moment = self.moment(line)?;
            if !moment.is_empty() {
                return Ok(Some(moment));
            }
        }
        Ok(None)
    }

    fn moment(&mut self, line: Line) -> Result<Moment, SeriesError> {
        let mut moment = Moment::new(line.at);
        match line.raw {
            Raw::Connected => {
                self.channels = Some(Channels::new(Link::MarketWebSocket, &self.products).with_tape());
            }
            Raw::Frame { text } => {
                if let Some(channels) = &mut self.channels {
                    match channels.hear(&text) {
                        Ok(heard) => (moment.market, moment.events) = (heard.market, heard.events),
                        Err(cause) => self.lose(&cause, &mut moment),
                    }
                }
            }
            Raw::Lost { cause, .. } => self.lose(&cause, &mut moment),
            Raw::Reply { product, text } => {
                if self.products.contains(&product) {
                    let product = read_product(&text, line.at).map_err(|error| self.lines.wrong(error.to_string()))?;
                    moment.products.push(product);
                }
            }
            Raw::Unanswered { .. } => {}
        }
        Ok(moment)
    }

    fn lose(&mut self, cause: &str, moment: &mut Moment) {
        if let Some(channels) = self.channels.take() {
            moment.market.push(MarketEvent::Lost);
            moment.events.extend(channels.down(cause));
        }
    }
}

fn unreadable(line: &str, error: &serde_json::Error) -> String {
    if line.contains(crate::recording::FORMAT) {
        return "it is the recording of a session, not of a market: `arb-bot replay` plays it".to_owned();
    }
    error.to_string()
}
