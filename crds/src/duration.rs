//! Durations on the wire: Go strings such as `90s`, `2m` or `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the API server accepts; CEL's `duration()` and Go's `time.ParseDuration` read the same strings.
pub const DURATION_PATTERN: &str = r"^([0-9]{1,6}(ms|s|m|h)){1,4}$";

/// A duration, written as a Go string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationString(pub Duration);

/// Why a string is not a [`DurationString`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{value:?} is not a duration: write whole numbers with the units ms, s, m or h, for example \"90s\" or \"1h30m\""
)]
pub struct DurationError {
    value: String,
}

impl FromStr for DurationString {
    type Err = DurationError;

    fn from_str(value: &str) -> Result<Self, DurationError> {
        let error = || DurationError { value: value.chars().take(40).collect() };
        let mut total = Duration::ZERO;
        let mut rest = value;
        if rest.is_empty() || rest.len() > 32 {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let amount: u64 = rest.get(..digits).unwrap_or_default().parse().map_err(|_| error())?;
            let tail = rest.get(digits..).unwrap_or_default();
            let (unit_ms, unit_len) = match tail.as_bytes() {
                [b'm', b's', ..] => (1, 2),
                [b's', ..] => (1_000, 1),
                [b'm', ..] => (60_000, 1),
                [b'h', ..] => (3_600_000, 1),
                _ => return Err(error()),
            };
            let millis = amount.checked_mul(unit_ms).ok_or_else(error)?;
            total = total.checked_add(Duration::from_millis(millis)).ok_or_else(error)?;
            rest = tail.get(unit_len..).unwrap_or_default();
        }
        Ok(Self(total))
    }
}

impl fmt::Display for DurationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if millis >= unit {
                write!(f, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DurationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for DurationString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl schemars::JsonSchema for DurationString {
    fn schema_name() -> Cow<'static, str> {
        "DurationString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_strings_are_read() {
        assert_eq!("1h30m".parse::<DurationString>().unwrap().0, Duration::from_secs(5400));
        assert_eq!("250ms".parse::<DurationString>().unwrap().0, Duration::from_millis(250));
        for wrong in ["", "5", "s", "-1s", "1d", "1 s", "1.5s"] {
            assert!(wrong.parse::<DurationString>().is_err(), "{wrong:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0u64..10_000_000_000) {
            let duration = DurationString(Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse::<DurationString>().unwrap(), duration);
        }
    }
}
