//! Decimals on the wire: strings with at most nine decimals, never floats.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits before and after the point that the API server accepts.
pub const DECIMAL_PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,9})?$";

/// A non-negative decimal, written as a string such as `"1500"` or `"0.60"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecimalString(pub Decimal);

/// Why a string is not a [`DecimalString`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is not a decimal: write up to 15 digits and up to 9 decimals as a string, for example \"1500.50\"")]
pub struct DecimalError {
    value: String,
}

impl FromStr for DecimalString {
    type Err = DecimalError;

    fn from_str(value: &str) -> Result<Self, DecimalError> {
        let error = || DecimalError { value: value.chars().take(40).collect() };
        let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
        let digits = |s: &str, max: usize| (1..=max).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 15) || !digits(fraction, 9) {
            return Err(error());
        }
        Decimal::from_str_exact(value).map(Self).map_err(|_| error())
    }
}

impl From<u32> for DecimalString {
    fn from(value: u32) -> Self {
        Self(Decimal::from(value))
    }
}

impl fmt::Display for DecimalString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DecimalString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl Serialize for DecimalString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DecimalString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl schemars::JsonSchema for DecimalString {
    fn schema_name() -> Cow<'static, str> {
        "DecimalString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": 25})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_its_exact_value() {
        assert_eq!("0.000013".parse::<DecimalString>().unwrap().0, Decimal::new(13, 6));
        assert_eq!(serde_json::to_string(&"1.60".parse::<DecimalString>().unwrap()).unwrap(), "\"1.60\"");
    }

    #[test]
    fn what_the_api_server_refuses_is_refused_here_too() {
        for wrong in ["", "-1", "1e3", "1.", ".5", "0.1234567890", "1 000", "NaN", "+1", "1234567890123456"] {
            assert!(wrong.parse::<DecimalString>().is_err(), "{wrong:?} was accepted");
        }
        assert!(serde_json::from_str::<DecimalString>("1.5").is_err(), "a JSON number was accepted");
    }
}
