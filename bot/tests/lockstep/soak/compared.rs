//! Ledger and exchange at the end: what the books on disk hold, held against the exchange's own figures.

use std::collections::BTreeSet;

use arb_bot::ledger::Books;
use rust_decimal::{Decimal, dec};

use crate::exchange::{CONTRACT, Exchange, FUTURE, SPOT, Truth};
use crate::judge::accepted::Sample;

/// Funding is read from two wallets, of which the exchange shows eight decimals each.
const FUNDING_TOLERANCE: Decimal = dec!(0.0000001);

/// The same quantity at the exchange and in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub what: &'static str,
    pub exchange: Decimal,
    pub ledger: Decimal,
    /// What a difference of one unit is worth, in quote currency.
    pub unit_quote: Decimal,
    /// A difference up to this is none.
    pub tolerance: Decimal,
}

impl Compared {
    pub fn difference(&self) -> Decimal {
        let difference = self.ledger - self.exchange;
        if difference.abs() <= self.tolerance { Decimal::ZERO } else { difference.normalize() }
    }
}

/// Every figure that the books have in common with the exchange. Sums that fit hide no single fill that does not.
pub fn compared(books: &Books, exchange: &Exchange, truth: &Truth, prices: Sample) -> Vec<Compared> {
    let (none, one) = (Decimal::ZERO, Decimal::ONE);
    let of = |what, exchange, ledger, unit_quote| Compared { what, exchange, ledger, unit_quote, tolerance: none };
    let paid = of("funding paid, quote", truth.settled_quote, books.settled_quote(), one);
    let cash_quote = books.cash_quote() - books.settled_quote();
    let of_others = books.flows.iter().skip(1).map(|flow| flow.quote.abs()).sum();
    vec![
        of("spot, base", truth.spot, books.position(SPOT), prices.spot.mid),
        of("contracts", truth.contracts, books.position(FUTURE), CONTRACT * prices.future.mid),
        of("fees, quote", truth.fees_quote, books.fees_quote(), one),
        of("cash without funding, quote", truth.cash_quote, cash_quote, one),
        Compared { tolerance: FUNDING_TOLERANCE, ..paid },
        // Each counts as one unit of quote currency.
        of("fills that one side lacks, has otherwise or has twice", none, unmatched_fills(books, exchange).into(), one),
        of("money of others, quote", none, of_others, one),
    ]
}

fn unmatched_fills(books: &Books, exchange: &Exchange) -> usize {
    let booked = books
        .fills
        .iter()
        .map(|fill| (fill.order_id.clone(), fill.trade_id.clone(), fill.size, fill.price, fill.fee_quote));
    let (once, there): (BTreeSet<_>, _) = (booked.collect(), exchange.fills());
    books.fills.len() - once.len() + once.symmetric_difference(&there).count()
}

mod tests {
    use super::*;

    /// Fails when a difference of funding within the exchange's own decimals counts, or one beyond them does not.
    #[test]
    fn a_difference_counts_beyond_what_the_exchange_can_show() {
        let of = |ledger| {
            let (exchange, unit_quote, tolerance) = (dec!(1.5), dec!(1), FUNDING_TOLERANCE);
            Compared { what: "", exchange, ledger, unit_quote, tolerance }.difference()
        };
        assert_eq!((of(dec!(1.5000001)), of(dec!(1.4999999))), (dec!(0), dec!(0)));
        assert_eq!((of(dec!(1.50000011)), of(dec!(1.4))), (dec!(0.00000011), dec!(-0.1)));
    }
}
