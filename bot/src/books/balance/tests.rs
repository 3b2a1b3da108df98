use rust_decimal::dec;

use super::*;

fn reading(at: &str, quote: Decimal) -> Reading {
    Reading { at: at.parse().unwrap(), quote, base: Decimal::ZERO, contracts: Decimal::ZERO }
}

/// Two readings in a row that show the same.
fn read(balance: &mut Balance, at: &str, quote: Decimal, accrued: Accrued) -> Option<Change> {
    let account = Account::new("BIP");
    balance.read(reading(at, quote), &account, ("BTC-USD", "BIP"), accrued);
    balance.read(reading(at, quote), &account, ("BTC-USD", "BIP"), accrued)
}

const NOTHING: Accrued = Accrued { until: Timestamp::MAX, first: None };

fn accrued(until: &str) -> Accrued {
    Accrued { until: until.parse().unwrap(), first: "2026-11-20T11:00:00Z".parse().ok() }
}

fn opened() -> Balance {
    let mut balance = Balance::default();
    let change = read(&mut balance, "2026-11-20T10:00:00Z", dec!(1000), NOTHING).unwrap();
    assert_eq!(change, Change::Flow { quote: dec!(1000) });
    balance.booked(dec!(1000));
    balance
}

#[test]
fn a_reading_that_shows_another_position_than_the_books_says_nothing() {
    let (mut balance, account) = (opened(), Account::new("BIP"));
    for _ in 0..100 {
        let odd = Reading { contracts: dec!(-1), ..reading("2026-11-20T10:01:00Z", dec!(900)) };
        assert_eq!(balance.read(odd, &account, ("BTC-USD", "BIP"), NOTHING), None);
    }
}

#[test]
fn spot_that_the_books_do_not_explain_holds_a_reading_up_for_some_minutes() {
    let (mut balance, account) = (opened(), Account::new("BIP"));
    let odd = Reading { base: dec!(0.1), ..reading("2026-11-20T10:01:00Z", dec!(900)) };
    let mut read = || balance.read(odd.clone(), &account, ("BTC-USD", "BIP"), NOTHING);
    assert!((0..30).all(|_| read().is_none()), "a fill that is not booked yet");
    assert_eq!(read(), Some(Change::Flow { quote: dec!(-100) }), "somebody bought on the same account");
}

#[test]
fn a_change_is_funding_only_once_funding_is_due_and_its_hours_are_accrued() {
    let mut balance = opened();
    let (before, after) = ("2026-11-20T11:59:00Z", "2026-11-20T12:00:05Z");
    assert_eq!(read(&mut balance, before, dec!(1000), accrued("2026-11-20T11:00:00Z")), None);
    assert_eq!(
        read(&mut balance, after, dec!(1003), accrued("2026-11-20T11:00:00Z")),
        None,
        "the last hour is missing"
    );
    let window_end = "2026-11-20T12:00:00Z".parse().unwrap();
    let settled = Change::Settled { window_end, quote: dec!(3) };
    assert_eq!(read(&mut balance, after, dec!(1003), accrued("2026-11-20T12:00:00Z")), Some(settled));
    let mut balance = opened();
    assert_eq!(read(&mut balance, after, dec!(1003), NOTHING), Some(Change::Flow { quote: dec!(3) }));
}

/// Proven by mutation: with the check of `accrued.until` after that of `is_due` this fails.
#[test]
fn funding_of_a_position_that_is_younger_than_an_hour_waits_for_its_hour() {
    let mut balance = opened();
    let after = "2026-11-20T12:00:05Z";
    let no_hour_yet = Accrued { first: None, ..accrued("2026-11-20T11:00:00Z") };
    assert_eq!(read(&mut balance, after, dec!(1003), no_hour_yet), None);
    let its_hour = Accrued { first: "2026-11-20T12:00:00Z".parse().ok(), ..accrued("2026-11-20T12:00:00Z") };
    let window_end = "2026-11-20T12:00:00Z".parse().unwrap();
    let settled = Change::Settled { window_end, quote: dec!(3) };
    assert_eq!(read(&mut balance, after, dec!(1003), its_hour), Some(settled));
}

#[test]
fn funding_that_is_not_paid_is_booked_as_nothing_after_half_an_hour() {
    let mut balance = opened();
    let due = accrued("2026-11-20T12:00:00Z");
    assert_eq!(read(&mut balance, "2026-11-20T12:29:00Z", dec!(1000), due), None);
    let window_end = "2026-11-20T12:00:00Z".parse().unwrap();
    let change = read(&mut balance, "2026-11-20T12:30:00Z", dec!(1000), due);
    assert_eq!(change, Some(Change::Settled { window_end, quote: Decimal::ZERO }));
}

fn hour(accrued_quote: Decimal) -> FundingRecord {
    let missing =
        FundingRecord::missing("BIP".to_owned(), "2026-11-20T12:00:00Z".parse().unwrap(), dec!(-10), dec!(0.01));
    FundingRecord { quality: Quality::Observed, accrued_quote, ..missing }
}

/// Proven by mutation: without the bound, or with a bound on the sum of hours that cancel each other out, this fails.
#[test]
fn money_that_funding_cannot_be_is_no_funding() {
    let price = dec!(70000);
    let (up, down) = (hour(dec!(2)), hour(dec!(-1.5)));
    let hours = [&up, &down];
    let of = |moved| Payment::of(moved, &hours, price, &[]);
    for moved in [dec!(0.5), dec!(-3), dec!(10.5), dec!(-10.5), dec!(0)] {
        assert_eq!(of(moved), Payment { settled_quote: moved, rest_quote: dec!(0), doubt: None });
    }
    for moved in [dec!(-5000), dec!(10.6)] {
        let payment = of(moved);
        assert_eq!((payment.settled_quote, payment.rest_quote), (dec!(0.5), moved - dec!(0.5)));
        assert_eq!(payment.doubt.unwrap(), "funding of these hours is 10.5 at most");
    }
    // An hour that nobody saw may have been dear: 0.3 % of 7,000.
    let unseen = FundingRecord { quality: Quality::Missing, ..hour(dec!(0)) };
    let of = |moved| Payment::of(moved, &[&unseen], price, &[]).settled_quote;
    assert_eq!((of(dec!(-20)), of(dec!(22))), (dec!(-20), dec!(0)));
}

/// Proven by mutation: with `others` not looked at this fails.
#[test]
fn where_others_hold_futures_the_estimate_is_booked() {
    let hour = hour(dec!(2));
    let payment = Payment::of(dec!(3.5), &[&hour], dec!(70000), &["ETP-20DEC30-CDE"]);
    assert_eq!((payment.settled_quote, payment.rest_quote), (dec!(2), dec!(1.5)));
    assert!(payment.doubt.unwrap().contains("(ETP-20DEC30-CDE)"));
    let unpaid = Payment::of(dec!(0), &[&hour], dec!(70000), &["ETP-20DEC30-CDE"]);
    assert_eq!((unpaid.settled_quote, unpaid.doubt), (dec!(0), None), "nothing came at all");
}
