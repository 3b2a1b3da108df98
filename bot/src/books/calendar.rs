//! When the futures exchange pays: funding twice a day, gains and losses once. Pure.

use k8s_openapi::jiff::civil::time;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// One hour.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Hours of the UTC day at which funding is paid (?): reference/coinbase.md §4 says "twice daily".
const FUNDING_PAID_EVERY: SignedDuration = SignedDuration::from_hours(12);
/// The law's rule for Eastern time since 2007. A rule instead of a database: the same on every machine.
const EASTERN: &str = "EST5EDT,M3.2.0,M11.1.0";

/// The last end of an hour that is not after a moment.
#[must_use]
pub fn last_hour(at: Timestamp) -> Timestamp {
    floor(at, HOUR)
}

/// The last time that is not after a moment at which funding was due to be paid.
#[must_use]
pub fn last_funding_payment(at: Timestamp) -> Timestamp {
    floor(at, FUNDING_PAID_EVERY)
}

/// The last daily settlement, 17:00 in New York, that is not after a moment.
#[must_use]
pub fn last_daily_settlement(at: Timestamp) -> Timestamp {
    let zone = TimeZone::posix(EASTERN).unwrap_or(TimeZone::UTC);
    let today = at.to_zoned(zone);
    let settlement = |day: Option<k8s_openapi::jiff::Zoned>| {
        day.and_then(|day| day.with().time(time(17, 0, 0, 0)).build().ok()).map(|zoned| zoned.timestamp())
    };
    let days = [Some(today.clone()), today.yesterday().ok()];
    days.into_iter().filter_map(settlement).find(|settled| *settled <= at).unwrap_or(Timestamp::MIN)
}

fn floor(at: Timestamp, step: SignedDuration) -> Timestamp {
    let step = step.as_secs();
    Timestamp::from_second(at.as_second().div_euclid(step) * step).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn positions_are_settled_at_five_in_new_york_in_summer_and_winter() {
        for (now, settled) in [
            ("2026-07-16T20:59:59Z", "2026-07-15T21:00:00Z"),
            ("2026-07-16T21:00:00Z", "2026-07-16T21:00:00Z"),
            ("2026-11-20T21:59:59Z", "2026-11-19T22:00:00Z"),
            ("2026-11-21T03:00:00Z", "2026-11-20T22:00:00Z"),
            // The clocks go back on Sunday 1 November 2026.
            ("2026-11-01T21:30:00Z", "2026-10-31T21:00:00Z"),
        ] {
            assert_eq!(last_daily_settlement(at(now)), at(settled), "{now}");
        }
    }

    #[test]
    fn funding_is_paid_at_midnight_and_noon() {
        assert_eq!(last_funding_payment(at("2026-11-20T11:59:59.9Z")), at("2026-11-20T00:00:00Z"));
        assert_eq!(last_funding_payment(at("2026-11-20T12:00:00Z")), at("2026-11-20T12:00:00Z"));
        assert_eq!(last_hour(at("2026-11-20T12:59:59Z")), at("2026-11-20T12:00:00Z"));
    }
}
