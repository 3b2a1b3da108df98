use proptest::prelude::*;
use rust_decimal::{Decimal, dec};

use super::*;
use crate::exchange::{Liquidity, Side};

const SPOT: &str = "BTC-USD";
const FUTURE: &str = "BIP";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn fill(n: i64, product: &str, side: Side, size: Decimal, price: Decimal) -> FillRecord {
    FillRecord {
        order_id: format!("o-{n}"),
        trade_id: n.to_string(),
        client_order_id: format!("b-1-{n}-Enter"),
        product: product.to_owned(),
        side,
        size,
        unit_base: if product == FUTURE { dec!(0.01) } else { Decimal::ONE },
        price,
        fee_quote: dec!(0.1),
        liquidity: Liquidity::Maker,
        at: at(n),
    }
}

fn account(fills: &[FillRecord]) -> Account {
    let mut account = Account::new(FUTURE);
    fills.iter().for_each(|fill| account.fill(fill));
    account
}

fn hour(end: i64, accrued_quote: Decimal) -> FundingRecord {
    FundingRecord { accrued_quote, ..FundingRecord::missing(FUTURE.to_owned(), at(end), dec!(-10), dec!(0.01)) }
}

#[test]
fn a_carry_earns_the_basis_and_its_funding_less_its_fees() {
    let mut carry = account(&[
        fill(1, SPOT, Side::Buy, dec!(0.1), dec!(70000)),
        fill(2, FUTURE, Side::Sell, dec!(10), dec!(70100)),
    ]);
    carry.funding(&hour(3600, dec!(1.5)));
    assert!(carry.trips().is_empty());
    // Prices fall; the basis is gone.
    carry.fill(&fill(7000, FUTURE, Side::Buy, dec!(10), dec!(65000)));
    carry.fill(&fill(7001, SPOT, Side::Sell, dec!(0.1), dec!(65000)));
    let [trip] = carry.trips() else { panic!("{carry:?}") };
    assert_eq!((trip.opened_at, trip.closed_at, trip.fills), (at(1), at(7001), 4));
    assert_eq!((trip.fees_quote, trip.funding_quote), (dec!(0.4), dec!(1.5)));
    assert_eq!(trip.result_quote, dec!(10) - dec!(0.4) + dec!(1.5));
    assert_eq!(carry.realized_quote(), dec!(10));
    // The rate of the last hour is shown after the end of it.
    carry.funding(&hour(7001, dec!(0.5)));
    assert_eq!(carry.trips()[0].funding_quote, dec!(2));
}

#[test]
fn dust_is_flat_and_its_value_is_nobodys_loss() {
    let flat = account(&[
        fill(1, SPOT, Side::Buy, dec!(0.1), dec!(70000)),
        fill(2, SPOT, Side::Sell, dec!(0.09999), dec!(70000)),
    ]);
    assert!(flat.is_flat());
    assert_eq!(flat.trips()[0].result_quote, dec!(-0.2));
}

#[test]
fn a_first_fill_as_small_as_dust_begins_a_round_trip_and_does_not_end_it() {
    let begun = account(&[
        fill(1, SPOT, Side::Buy, dec!(0.00001), dec!(70000)),
        fill(2, SPOT, Side::Buy, dec!(0.1), dec!(70000)),
    ]);
    assert!(begun.trips().is_empty());
    let ended = account(&[
        fill(1, SPOT, Side::Buy, dec!(0.00001), dec!(70000)),
        fill(2, SPOT, Side::Buy, dec!(0.1), dec!(70000)),
        fill(3, SPOT, Side::Sell, dec!(0.10001), dec!(70000)),
    ]);
    assert_eq!((ended.trips().len(), ended.trips()[0].opened_at), (1, at(1)));
}

#[test]
fn a_daily_settlement_moves_cash_and_no_profit() {
    let mut short = account(&[fill(1, FUTURE, Side::Sell, dec!(10), dec!(70000))]);
    assert_eq!(short.balance_quote(), dec!(-0.1), "an open future has cost only its fee");
    short.variation(&VariationRecord {
        product: FUTURE.to_owned(),
        at: at(2),
        price: dec!(69000),
        contracts: dec!(-10),
    });
    assert_eq!(short.balance_quote(), dec!(99.9), "a short gains while the price falls");
    assert_eq!(short.leg(FUTURE).unwrap().unrealized_quote(dec!(69000)), dec!(100));
    short.fill(&fill(3, FUTURE, Side::Buy, dec!(10), dec!(69500)));
    assert_eq!((short.balance_quote(), short.realized_quote()), (dec!(49.8), dec!(50)));
}

fn any_fill() -> impl Strategy<Value = (bool, bool, i64, i64)> {
    (any::<bool>(), any::<bool>(), 1_i64..20, 50_000_i64..90_000)
}

fn fills(parts: &[(bool, bool, i64, i64)]) -> Vec<FillRecord> {
    let one = |(n, (spot, buy, size, price)): (usize, &(bool, bool, i64, i64))| {
        let (product, size) = if *spot { (SPOT, Decimal::new(*size, 3)) } else { (FUTURE, Decimal::from(*size)) };
        let side = if *buy { Side::Buy } else { Side::Sell };
        // An average that has more digits than the ten that divisions are rounded to.
        fill(i64::try_from(n).unwrap(), product, side, size, Decimal::new(*price * 100_000_003, 8))
    };
    parts.iter().enumerate().map(one).collect()
}

proptest! {
    /// Invariant 8: no rounding creates or destroys money. Shown by mutation: with the last part of a position rounded
    /// like any other (`share` without its first lines) and with `carried` not lowered by a closing fill this fails.
    #[test]
    fn cash_and_entry_values_are_what_was_realised(parts in prop::collection::vec(any_fill(), 0..60), daily in 0_usize..60) {
        let fills = fills(&parts);
        let mut account = Account::new(FUTURE);
        let mut paid = Decimal::ZERO;
        for (n, fill) in fills.iter().enumerate() {
            account.fill(fill);
            if n == daily {
                let before = account.balance_quote();
                account.variation(&VariationRecord { product: FUTURE.to_owned(), at: fill.at, price: dec!(71234.5), contracts: account.held(FUTURE) });
                paid = account.balance_quote() - before;
            }
        }
        let entry: Decimal = account.legs().map(|(_, leg)| leg.entry_quote).sum();
        prop_assert_eq!(account.cash_quote + entry, account.realized_quote());
        for product in [SPOT, FUTURE] {
            let held: Decimal = fills.iter().filter(|fill| fill.product == product).map(FillRecord::signed).sum();
            prop_assert_eq!(account.held(product), held);
        }
        if account.held(FUTURE).is_zero() {
            prop_assert_eq!(account.balance_quote(), account.net_quote(), "what was paid daily ({}) was part of it", paid);
        }
    }

    /// Whatever was booked live is what the ledger gives again.
    #[test]
    fn an_account_made_anew_is_the_same(parts in prop::collection::vec(any_fill(), 0..40)) {
        let books = Books { fills: fills(&parts), ..Books::default() };
        prop_assert_eq!(Account::until(&books, FUTURE, Timestamp::MAX), account(&books.fills));
    }
}
