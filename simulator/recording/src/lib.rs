//! The file in which prices and funding rates are recorded: `arb-bot capture` writes it, the simulator replays it.
//!
//! CSV with the columns of [`HEADER`]; the columns stand in this order, and those at the end may be left out. A line says what holds of one product
//! from its time on, until a later line says otherwise. Lines that begin with `#` are remarks.
//!
//! | column | what |
//! |---|---|
//! | `time` | RFC 3339, or Unix seconds |
//! | `product` | for example BTC-USD |
//! | `price` | in quote currency; empty: as before; `none`: the exchange shows none; `gap`: it was not recorded |
//! | `funding_rate` | per hour, of the hour that ended last, as the product shows it; empty: as before |
//! | `best_bid`, `best_ask` | the best prices; both or neither, and only with a price |
//! | `bid_size`, `ask_size` | what there is at the best prices, in the product's unit; both or neither, and only with them |
//! | `trade_price`, `trade_size` | a trade at that time; both or neither, with or without a price |

mod series;

use std::fmt;

use jiff::Timestamp;
use rust_decimal::Decimal;

pub use series::Series;

/// The first line of a file.
pub const HEADER: &str = "time,product,price,funding_rate,best_bid,best_ask,bid_size,ask_size,trade_price,trade_size";

/// Whether the first line of a file names the columns.
///
/// # Errors
/// They are not those of [`HEADER`], in its order: a column that is called something else would be read as another.
pub fn is_heading(line: &str) -> Result<bool, String> {
    let line = line.trim().to_ascii_lowercase();
    if !line.starts_with("time") {
        return Ok(false);
    }
    let known = HEADER.split(',').map(Some).chain(std::iter::repeat(None));
    match line.split(',').map(str::trim).zip(known).find(|(name, known)| Some(*name) != *known) {
        None => Ok(true),
        Some((name, known)) => Err(format!(
            "the column \"{name}\" stands where {} is expected; the columns are {HEADER}, in this order, and only from the \
             end some may be left out (an empty field says nothing)",
            known.unwrap_or("none")
        )),
    }
}

/// Reads a time: RFC 3339, or Unix seconds.
///
/// # Errors
/// It is neither.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.or_else(|| text.parse().ok()).ok_or_else(|| format!("\"{text}\" is not a time"))
}

/// Highest price, as for orders.
const MAX_PRICE: u64 = 100_000_000;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub time: Timestamp,
    pub product: String,
    pub price: Price,
    /// Rate per hour, of the hour that ended last.
    pub funding_rate: Option<Decimal>,
    /// Price and size of a trade.
    pub trade: Option<(Decimal, Decimal)>,
}

/// What a line says of the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Nothing: it is as before.
    Unchanged,
    Is(Quote),
    /// The exchange shows no price: a side of its book is empty, or the sides cross.
    None,
    /// The recorder heard nothing, so nobody knows.
    Gap,
}

/// A price, and the best prices where they were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    pub price: Decimal,
    /// Best bid and best offer.
    pub touch: Option<(Decimal, Decimal)>,
    /// What there is at the best bid and at the best offer.
    pub sizes: Option<(Decimal, Decimal)>,
}

impl Quote {
    /// The middle of the best prices.
    #[must_use]
    pub fn of_touch(best_bid: Decimal, best_ask: Decimal) -> Self {
        Self { price: (best_bid + best_ask) / Decimal::TWO, touch: Some((best_bid, best_ask)), sizes: None }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},", self.time, self.product)?;
        match self.price {
            Price::Unchanged => {}
            Price::Is(quote) => write!(f, "{}", quote.price.normalize())?,
            Price::None => f.write_str("none")?,
            Price::Gap => f.write_str("gap")?,
        }
        f.write_str(",")?;
        if let Some(rate) = self.funding_rate {
            write!(f, "{rate}")?;
        }
        match self.price {
            Price::Is(Quote { touch: Some((bid, ask)), .. }) => write!(f, ",{bid},{ask}")?,
            _ => f.write_str(",,")?,
        }
        match (self.price, self.trade) {
            (Price::Is(Quote { sizes: Some((bid, ask)), .. }), _) => write!(f, ",{bid},{ask}")?,
            (_, Some(_)) => f.write_str(",,")?,
            (_, None) => {}
        }
        self.trade.map_or(Ok(()), |(price, size)| write!(f, ",{price},{size}"))
    }
}

impl std::str::FromStr for Row {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut fields = line.split(',').map(str::trim);
        let (Some(at), Some(product), Some(price)) = (fields.next(), fields.next(), fields.next()) else {
            return Err("it needs time,product,price".into());
        };
        let mut further = || fields.next().filter(|text| !text.is_empty()).map(decimal).transpose();
        let (funding_rate, bid, ask) = (further()?, further()?, further()?);
        let (bid_size, ask_size, trade_price, trade_size) = (further()?, further()?, further()?, further()?);
        if fields.next().is_some() {
            return Err(format!("it has more than {HEADER}"));
        }
        let time = time(at)?;
        if product.is_empty() {
            return Err("it names no product".into());
        }
        let trade = match (trade_price, trade_size) {
            (None, None) => None,
            (Some(price), Some(size)) => Some((in_range("trade_price", price)?, in_range("trade_size", size)?)),
            _ => return Err("trade_price and trade_size stand together".into()),
        };
        let price = match price {
            "" if funding_rate.is_none() && trade.is_none() => {
                return Err("it has neither a price nor a funding_rate nor a trade".into());
            }
            "" => Price::Unchanged,
            "none" => Price::None,
            "gap" => Price::Gap,
            text => Price::Is(Quote { price: in_range("the price", decimal(text)?)?, touch: None, sizes: None }),
        };
        let price = with_sizes(with_touch(price, bid, ask)?, bid_size, ask_size)?;
        if funding_rate.is_some_and(|rate| rate.abs() >= Decimal::ONE) {
            return Err("funding_rate must be above -1 and below 1 per hour".into());
        }
        Ok(Self { time, product: product.to_owned(), price, funding_rate, trade })
    }
}

fn with_touch(price: Price, bid: Option<Decimal>, ask: Option<Decimal>) -> Result<Price, String> {
    match (price, bid, ask) {
        (price, None, None) => Ok(price),
        (Price::Is(quote), Some(bid), Some(ask)) => {
            let (bid, ask) = (in_range("best_bid", bid)?, in_range("best_ask", ask)?);
            if bid >= ask {
                return Err(format!("best_bid {bid} is not below best_ask {ask}"));
            }
            Ok(Price::Is(Quote { touch: Some((bid, ask)), ..quote }))
        }
        _ => Err("best_bid and best_ask stand together, and only with a price".into()),
    }
}

fn with_sizes(price: Price, bid: Option<Decimal>, ask: Option<Decimal>) -> Result<Price, String> {
    match (price, bid, ask) {
        (price, None, None) => Ok(price),
        (Price::Is(quote), Some(bid), Some(ask)) if quote.touch.is_some() => {
            let sizes = Some((in_range("bid_size", bid)?, in_range("ask_size", ask)?));
            Ok(Price::Is(Quote { sizes, ..quote }))
        }
        _ => Err("bid_size and ask_size stand together, and only with best_bid and best_ask".into()),
    }
}

fn decimal(text: &str) -> Result<Decimal, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a decimal"))
}

fn in_range(name: &str, price: Decimal) -> Result<Decimal, String> {
    if price <= Decimal::ZERO || price > Decimal::from(MAX_PRICE) {
        return Err(format!("{name} {price} is out of range"));
    }
    Ok(price)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use proptest::prelude::*;
    use rust_decimal::dec;

    use super::*;

    fn sizes() -> impl Strategy<Value = Decimal> {
        (1..1_000_000i64, 0..9u32).prop_map(|(digits, scale)| Decimal::new(digits, scale))
    }

    fn price() -> impl Strategy<Value = Price> {
        let decimal = || (1..10_000_000_000i64, 0..9u32).prop_map(|(digits, scale)| Decimal::new(digits, scale));
        prop_oneof![
            Just(Price::Unchanged),
            Just(Price::None),
            Just(Price::Gap),
            decimal().prop_filter("in range", |price| *price <= MAX_PRICE.into()).prop_map(|price| Price::Is(Quote {
                price,
                touch: None,
                sizes: None
            })),
            (decimal(), decimal(), prop::option::of((sizes(), sizes()))).prop_filter_map(
                "a touch",
                |(bid, spread, sizes)| {
                    let ask = bid + spread;
                    (ask <= MAX_PRICE.into()).then(|| Price::Is(Quote { sizes, ..Quote::of_touch(bid, ask) }))
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            seconds in 0..4_000_000_000i64, nanos in 0..1_000_000_000i32, price in price(),
            rate in prop::option::of((-999_999_999i64..=999_999_999).prop_map(|digits| Decimal::new(digits, 9))),
            trade in prop::option::of((sizes(), sizes())),
        ) {
            let needs_rate = price == Price::Unchanged;
            let funding_rate = if needs_rate { Some(rate.unwrap_or_default()) } else { rate };
            let time = Timestamp::new(seconds, nanos).unwrap();
            let row = Row { time, product: "BTC-USD".to_owned(), price, funding_rate, trade };
            prop_assert_eq!(row.to_string().parse::<Row>(), Ok(row));
        }

        #[test]
        fn no_text_panics(text in "[ -~]{0,60}") {
            let _ = text.parse::<Row>();
        }
    }

    #[test]
    fn what_a_line_cannot_say_is_refused() {
        for (line, named) in [
            ("1,BTC-USD", "it needs"),
            ("noon,BTC-USD,1", "\"noon\""),
            ("1,,1", "no product"),
            ("1,BTC-USD,", "neither"),
            ("1,BTC-USD,-1", "the price"),
            ("1,BTC-USD,1,2", "funding_rate"),
            ("1,BTC-USD,1,-1", "funding_rate"),
            ("1,BTC-USD,1,,1,", "stand together"),
            ("1,BTC-USD,gap,,1,2", "stand together"),
            ("1,BTC-USD,1,,2,1", "is not below"),
            ("1,BTC-USD,1,,1,2,3", "bid_size and ask_size stand"),
            ("1,BTC-USD,1,,,,3,4", "only with best_bid"),
            ("1,BTC-USD,1,,1,2,3,-4", "ask_size -4 is out of range"),
            ("1,BTC-USD,1,,1,2,3,4,5", "trade_price and trade_size stand"),
            ("1,BTC-USD,1,,1,2,3,4,5,0", "trade_size 0"),
            ("1,BTC-USD,1,,1,2,3,4,5,6,7", "more than"),
        ] {
            let error = line.parse::<Row>().unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn the_short_form_has_no_more_than_a_price() {
        let row: Row = "1775556000, BTC-USD, 70050".parse().unwrap();
        assert_eq!(row.price, Price::Is(Quote { price: dec!(70050), touch: None, sizes: None }));
        assert_eq!(row.funding_rate, None);
    }

    /// Fails if the first line is skipped whatever it says.
    #[test]
    fn a_heading_names_the_columns_in_their_order() {
        assert_eq!(is_heading(HEADER), Ok(true));
        assert_eq!(is_heading("Time, product, price"), Ok(true));
        assert_eq!(is_heading("1774000000,BTC-USD,60000"), Ok(false));
        for (line, name, expected) in [
            ("time,product,price,fundingrate", "fundingrate", "funding_rate"),
            ("time,product,price,best_bid,best_ask", "best_bid", "funding_rate"),
        ] {
            let error = is_heading(line).unwrap_err();
            assert!(error.contains(&format!("\"{name}\" stands where {expected} is expected")), "{error}");
        }
        assert!(is_heading(&format!("{HEADER},more")).is_err());
    }
}
