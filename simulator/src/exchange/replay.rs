//! Recorded prices and funding rates, read from CSV, that the markets follow instead of a random walk.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

/// Highest price accepted, as for orders.
const MAX_PRICE: u64 = 100_000_000;

/// What a series says of a product from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Time since the first row of the file.
    pub offset: SignedDuration,
    pub price: Decimal,
    /// Rate per hour; absent where the file has none, and the formula then gives it.
    pub funding_rate: Option<Decimal>,
}

/// Points by product, each rising in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series(BTreeMap<String, Vec<Point>>);

impl Series {
    /// Reads lines of `time,product,price[,funding_rate]`; a first line that begins with `time` is a heading. Times
    /// are RFC 3339 or Unix seconds.
    ///
    /// # Errors
    /// Names the line and what is wrong with it.
    pub fn parse(csv: &str) -> Result<Self, String> {
        let mut series = Self::default();
        let mut first: Option<Timestamp> = None;
        for (number, line) in csv.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || (number == 0 && line.to_ascii_lowercase().starts_with("time")) {
                continue;
            }
            let (time, product, point) = row(line).map_err(|error| format!("line {}: {error}", number + 1))?;
            let start = *first.get_or_insert(time);
            let point = Point { offset: time.duration_since(start), ..point };
            let points = series.0.entry(product.to_owned()).or_default();
            if points.last().is_some_and(|last| last.offset > point.offset) || point.offset.is_negative() {
                return Err(format!("line {}: the times of {product} must rise", number + 1));
            }
            points.push(point);
        }
        if series.0.is_empty() {
            return Err("there is no line time,product,price[,funding_rate]".into());
        }
        Ok(series)
    }

    pub fn products(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What holds for a product so long after the start; the last point holds for ever.
    pub fn at(&self, product: &str, elapsed: SignedDuration) -> Option<Point> {
        let points = self.0.get(product)?;
        let next = points.partition_point(|p| p.offset <= elapsed);
        points.get(next.saturating_sub(1)).copied()
    }
}

fn row(line: &str) -> Result<(Timestamp, &str, Point), String> {
    let mut fields = line.split(',').map(str::trim);
    let (Some(time), Some(product), Some(price)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("it needs time,product,price".into());
    };
    let rate = fields.next().filter(|text| !text.is_empty());
    if fields.next().is_some() {
        return Err("it has more than time,product,price,funding_rate".into());
    }
    let seconds = time.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let time = seconds.or_else(|| time.parse().ok()).ok_or_else(|| format!("\"{time}\" is not a time"))?;
    let decimal = |text: &str| text.parse::<Decimal>().map_err(|_| format!("\"{text}\" is not a decimal"));
    let price = decimal(price)?;
    if price <= Decimal::ZERO || price > Decimal::from(MAX_PRICE) {
        return Err(format!("the price {price} is out of range"));
    }
    let funding_rate = rate.map(decimal).transpose()?;
    if funding_rate.is_some_and(|rate| rate.abs() > Decimal::ONE) {
        return Err("funding_rate must be between -1 and 1 per hour".into());
    }
    Ok((time, product, Point { offset: SignedDuration::ZERO, price, funding_rate }))
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;

    #[test]
    fn a_price_holds_until_the_next() {
        let csv = "time,product,price,funding_rate\n\
                   2026-04-07T10:00:00Z,BTC-USD,70000\n\
                   2026-04-07T10:01:00Z,BTC-USD,70100.5,\n\
                   1775556000,BIP-20DEC30-CDE,70050,-0.00001\n";
        let series = Series::parse(csv).unwrap();
        let at = |seconds| series.at("BTC-USD", SignedDuration::from_secs(seconds)).unwrap().price;
        assert_eq!((at(0), at(59), at(60), at(9_999)), (dec!(70000), dec!(70000), dec!(70100.5), dec!(70100.5)));
        let future = series.at("BIP-20DEC30-CDE", SignedDuration::ZERO).unwrap();
        assert_eq!(future.funding_rate, Some(dec!(-0.00001)));
        assert_eq!(series.at("ETH-USD", SignedDuration::ZERO), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (csv, named) in [
            ("", "no line"),
            ("2026-04-07T10:00:00Z,BTC-USD", "line 1: it needs"),
            ("time,product,price\nnoon,BTC-USD,1", "line 2: \"noon\""),
            ("1,BTC-USD,-1", "line 1: the price"),
            ("1,BTC-USD,1,2", "line 1: funding_rate"),
            ("2,BTC-USD,1\n1,BTC-USD,1", "line 2: the times"),
        ] {
            let error = Series::parse(csv).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
