//! A whole recording, by time since its first line.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use crate::{Price, Quote, Row, is_heading};

/// What was recorded of each product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series(BTreeMap<String, Track>);

/// One product. Both lists rise in time, which counts from the first line of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Track {
    prices: Vec<(SignedDuration, Price)>,
    funding_rates: Vec<(SignedDuration, Decimal)>,
}

impl Series {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the line and what is wrong with it.
    pub fn parse(csv: &str) -> Result<Self, String> {
        let mut series = Self::default();
        let mut first: Option<Timestamp> = None;
        for (number, line) in csv.lines().enumerate() {
            let line = line.trim();
            let heading = number == 0 && is_heading(line).map_err(|error| format!("line 1: {error}"))?;
            if line.is_empty() || line.starts_with('#') || heading {
                continue;
            }
            let wrong = |error: String| format!("line {}: {error}", number + 1);
            let row: Row = line.parse().map_err(wrong)?;
            let offset = row.time.duration_since(*first.get_or_insert(row.time));
            if offset.is_negative() {
                return Err(wrong("it is before the first line".into()));
            }
            series.0.entry(row.product.clone()).or_default().add(offset, &row).map_err(wrong)?;
        }
        if series.0.is_empty() {
            return Err("there is no line time,product,price[,funding_rate[,best_bid,best_ask]]".into());
        }
        Ok(series)
    }

    pub fn products(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The price so long after the start. One that nobody recorded is the last one before it; the first holds from the
    /// start, and the last for ever.
    #[must_use]
    pub fn quote(&self, product: &str, elapsed: SignedDuration) -> Option<Quote> {
        let prices = &self.0.get(product)?.prices;
        let quote = |(_, price): &(SignedDuration, Price)| match price {
            Price::Is(quote) => Some(*quote),
            _ => None,
        };
        let (past, future) = prices.split_at(prices.partition_point(|(offset, _)| *offset <= elapsed));
        past.iter().rev().find_map(quote).or_else(|| future.iter().find_map(quote))
    }

    /// The funding rate that the product shows so long after the start: that of the hour that ended last. The first
    /// holds from the start, and the last for ever.
    #[must_use]
    pub fn funding_rate(&self, product: &str, elapsed: SignedDuration) -> Option<Decimal> {
        let rates = &self.0.get(product)?.funding_rates;
        let next = rates.partition_point(|(offset, _)| *offset <= elapsed);
        rates.get(next.saturating_sub(1)).map(|(_, rate)| *rate)
    }

    /// How often the recorder did not hear of a product.
    #[must_use]
    pub fn gaps(&self, product: &str) -> usize {
        let gaps = self.0.get(product).map(|track| track.prices.iter().filter(|(_, price)| *price == Price::Gap));
        gaps.map_or(0, Iterator::count)
    }

    /// Time from the first line to the last.
    #[must_use]
    pub fn length(&self) -> SignedDuration {
        let last = |track: &Track| {
            let (price, rate) = (track.prices.last().map(|(at, _)| *at), track.funding_rates.last().map(|(at, _)| *at));
            price.max(rate)
        };
        self.0.values().filter_map(last).max().unwrap_or_default()
    }
}

impl Track {
    fn add(&mut self, offset: SignedDuration, row: &Row) -> Result<(), String> {
        let rises = |last: Option<SignedDuration>, what: &str| match last {
            Some(last) if last > offset => Err(format!("the times of {}'s {what} must rise", row.product)),
            _ => Ok(()),
        };
        if row.price != Price::Unchanged {
            rises(self.prices.last().map(|(at, _)| *at), "prices")?;
            self.prices.push((offset, row.price));
        }
        if let Some(rate) = row.funding_rate {
            rises(self.funding_rates.last().map(|(at, _)| *at), "funding rates")?;
            self.funding_rates.push((offset, rate));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use rust_decimal::dec;

    use super::*;

    fn after(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_price_holds_until_the_next() {
        let csv = "time,product,price,funding_rate\n\
                   2026-04-07T10:00:00Z,BTC-USD,70000\n\
                   2026-04-07T10:01:00Z,BTC-USD,70100.5,\n\
                   1775556000,BIP-20DEC30-CDE,70050,-0.00001\n";
        let series = Series::parse(csv).unwrap();
        let at = |seconds| series.quote("BTC-USD", after(seconds)).unwrap().price;
        assert_eq!((at(0), at(59), at(60), at(9_999)), (dec!(70000), dec!(70000), dec!(70100.5), dec!(70100.5)));
        assert_eq!(series.funding_rate("BIP-20DEC30-CDE", after(0)), Some(dec!(-0.00001)));
        assert_eq!(series.funding_rate("BTC-USD", after(0)), None);
        assert_eq!(series.quote("ETH-USD", after(0)), None);
        assert_eq!(series.length(), after(60));
    }

    #[test]
    fn the_last_price_holds_over_a_gap_and_where_the_exchange_showed_none() {
        let csv = "# a remark\n0,BTC-USD,gap\n5,BTC-USD,1\n10,BTC-USD,gap\n12,BTC-USD,none\n20,BTC-USD,3,,2,4\n";
        let series = Series::parse(csv).unwrap();
        let at = |seconds| series.quote("BTC-USD", after(seconds)).unwrap();
        assert_eq!([0, 6, 11, 19].map(|seconds| at(seconds).price), [Decimal::ONE; 4]);
        assert_eq!(at(20), Quote { touch: Some((dec!(2), dec!(4))), ..Quote::of_touch(dec!(2), dec!(4)) });
        assert_eq!(series.gaps("BTC-USD"), 2);
    }

    #[test]
    fn a_rate_may_be_written_after_prices_that_are_later() {
        let csv = "0,BIP,1\n3605,BIP,2\n3600,BIP,,0.0001\n3606,BIP,3\n";
        let series = Series::parse(csv).unwrap();
        assert_eq!(series.funding_rate("BIP", after(3_600)), Some(dec!(0.0001)));
        assert_eq!(series.quote("BIP", after(3_605)).map(|quote| quote.price), Some(dec!(2)));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (csv, named) in [
            ("", "no line"),
            ("# nothing", "no line"),
            ("2026-04-07T10:00:00Z,BTC-USD", "line 1: it needs"),
            ("time,product,price\nnoon,BTC-USD,1", "line 2: \"noon\""),
            ("2,BTC-USD,1\n1,ETH-USD,1", "line 2: it is before"),
            ("1,BTC-USD,1\n3,BTC-USD,1\n2,BTC-USD,1", "line 3: the times"),
        ] {
            let error = Series::parse(csv).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
