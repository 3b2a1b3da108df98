//! The futures exchange's clock on the wall in New York: the weekly break, margin windows and the daily settlement.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned, civil::time};

/// The law's rule for Eastern time since 2007. A rule instead of a database: the same on every machine.
const EASTERN: &str = "EST5EDT,M3.2.0,M11.1.0";
/// Friday's maintenance.
const BREAK: (Time, Time) = (time(17, 0, 0, 0), time(18, 0, 0, 0));
/// Lower margin on weekdays between these.
const INTRADAY: (Time, Time) = (time(8, 0, 0, 0), time(16, 0, 0, 0));
/// When positions are marked to market.
const SETTLEMENT: Time = time(17, 0, 0, 0);

/// A stretch of time, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Span {
    pub fn contains(&self, now: Timestamp) -> bool {
        self.start <= now && now < self.end
    }
}

/// Which margin applies, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarginWindow {
    pub overnight: bool,
    pub end: Timestamp,
}

/// What the calendar says at a moment; computed again only when it changes.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    /// The break that is on, or the next one.
    pub weekly_break: Span,
    pub window: MarginWindow,
    pub next_settlement: Timestamp,
}

impl Calendar {
    pub fn new(now: Timestamp) -> Self {
        let zone = TimeZone::posix(EASTERN).unwrap_or(TimeZone::UTC);
        let weekly_break = next_break(&zone, now);
        let window = margin_window(&zone, now);
        let next_settlement = next_at(&zone, now, SETTLEMENT);
        Self { zone, weekly_break, window, next_settlement }
    }

    /// Brings the break and the margin window up to date.
    pub fn advance(&mut self, now: Timestamp) {
        if now >= self.weekly_break.end {
            self.weekly_break = next_break(&self.zone, now);
        }
        if now >= self.window.end {
            self.window = margin_window(&self.zone, now);
        }
    }

    /// The settlement that is due, if any; the next one is a day later.
    pub fn take_settlement(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due = self.next_settlement;
        if now < due {
            return None;
        }
        self.next_settlement = next_at(&self.zone, now, SETTLEMENT);
        Some(due)
    }
}

/// The break that contains `now`, or the one after it.
fn next_break(zone: &TimeZone, now: Timestamp) -> Span {
    let local = now.to_zoned(zone.clone());
    let days = (0..8).filter_map(|n| local.checked_add(n.days()).ok());
    let fridays = days.filter(|day| day.weekday() == Weekday::Friday);
    let spans = fridays.map(|day| Span { start: at(&day, BREAK.0), end: at(&day, BREAK.1) });
    spans.into_iter().find(|span| now < span.end).unwrap_or(Span { start: Timestamp::MAX, end: Timestamp::MAX })
}

fn margin_window(zone: &TimeZone, now: Timestamp) -> MarginWindow {
    let local = now.to_zoned(zone.clone());
    let weekend = |day: &Zoned| matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
    let overnight = weekend(&local) || local.time() < INTRADAY.0 || local.time() >= INTRADAY.1;
    if !overnight {
        return MarginWindow { overnight, end: at(&local, INTRADAY.1) };
    }
    let days = (0..8).filter_map(|n| local.checked_add(n.days()).ok()).filter(|day| !weekend(day));
    let opens = days.map(|day| at(&day, INTRADAY.0)).find(|opens| *opens > now);
    MarginWindow { overnight, end: opens.unwrap_or(Timestamp::MAX) }
}

/// The next time after `now` that clocks in the zone show `time`.
fn next_at(zone: &TimeZone, now: Timestamp, time: Time) -> Timestamp {
    let local = now.to_zoned(zone.clone());
    let days = (0..3).filter_map(|n| local.checked_add(n.days()).ok());
    days.map(|day| at(&day, time)).find(|t| *t > now).unwrap_or(Timestamp::MAX)
}

fn at(day: &Zoned, time: Time) -> Timestamp {
    day.with().time(time).build().map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(now: &str) -> (Calendar, Timestamp) {
        let now = now.parse().unwrap();
        (Calendar::new(now), now)
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_break_is_fridays_from_five_to_six_in_new_york_in_summer_and_winter() {
        for (now, start) in [
            ("2026-07-16T12:00:00Z", "2026-07-17T21:00:00Z"),
            ("2026-11-20T21:59:59Z", "2026-11-20T22:00:00Z"),
            ("2026-11-20T23:00:00Z", "2026-11-27T22:00:00Z"),
            // The clocks go back on Sunday 1 November 2026.
            ("2026-10-30T22:00:00Z", "2026-11-06T22:00:00Z"),
        ] {
            assert_eq!(calendar(now).0.weekly_break.start, time(start), "{now}");
        }
        let (calendar, now) = calendar("2026-11-20T22:30:00Z");
        assert!(calendar.weekly_break.contains(now));
    }

    #[test]
    fn margin_is_lower_on_weekdays_from_eight_to_four() {
        for (now, overnight, end) in [
            ("2026-11-19T12:59:59Z", true, "2026-11-19T13:00:00Z"),
            ("2026-11-19T13:00:00Z", false, "2026-11-19T21:00:00Z"),
            ("2026-11-20T21:00:00Z", true, "2026-11-23T13:00:00Z"),
            ("2026-11-21T15:00:00Z", true, "2026-11-23T13:00:00Z"),
            ("2026-07-15T12:00:00Z", false, "2026-07-15T20:00:00Z"),
        ] {
            let (mut calendar, now) = calendar(now);
            assert_eq!(calendar.window, MarginWindow { overnight, end: time(end) }, "{now}");
            calendar.advance(time(end));
            assert_ne!(calendar.window.overnight, overnight);
        }
    }

    #[test]
    fn a_day_is_settled_once() {
        let (mut calendar, now) = calendar("2026-11-20T21:59:00Z");
        assert_eq!(calendar.take_settlement(now), None);
        assert_eq!(calendar.take_settlement(time("2026-11-20T22:00:00Z")), Some(time("2026-11-20T22:00:00Z")));
        assert_eq!(calendar.take_settlement(time("2026-11-20T22:00:01Z")), None);
        assert_eq!(calendar.next_settlement, time("2026-11-21T22:00:00Z"));
    }
}
