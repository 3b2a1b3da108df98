//! Since when there is a position, from the orders that led to it. Pure.

use k8s_openapi::jiff::Timestamp;
use rust_decimal::Decimal;

use crate::books::account::DUST_QUOTE;
use crate::ledger::OrderRecord;

/// Creation of the order that opened the position which these orders left, from flat; None: they left none.
///
/// An order counts as filled when it was created, so that an order of before and one of after the bot was flat have to
/// follow each other. Those of the strategy do: it enters once nothing is left to close.
#[must_use]
pub fn entered_at(records: &[OrderRecord], future_product: &str) -> Option<Timestamp> {
    let mut filled: Vec<_> = records.iter().filter(|record| !record.filled.is_zero()).collect();
    // One that was taken over from the exchange is recorded late.
    filled.sort_by_key(|record| record.created_at);
    let (mut contracts, mut spot) = (Decimal::ZERO, Decimal::ZERO);
    let (mut spot_price, mut entered_at) = (None, None);
    for record in filled {
        let size = record.filled * record.side.sign();
        if record.product == future_product {
            contracts += size;
        } else {
            spot += size;
            spot_price = told_price(record).or(spot_price);
        }
        let is_dust = |price: Decimal| (spot * price).abs() < DUST_QUOTE;
        let is_flat = contracts.is_zero() && (spot.is_zero() || spot_price.is_some_and(is_dust));
        entered_at = (!is_flat).then(|| entered_at.unwrap_or(record.created_at));
    }
    entered_at
}

fn told_price(record: &OrderRecord) -> Option<Decimal> {
    Some(record.average_price).filter(|price| !price.is_zero()).or(record.limit_price)
}

#[cfg(test)]
mod tests {
    use rust_decimal::dec;

    use super::*;
    use crate::exchange::{NewOrder, OrderKind, Side};
    use crate::risk::Class;

    const SPOT: &str = "BTC-USD";
    const FUTURE: &str = "BIP-20DEC30-CDE";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn filled(second: i64, product: &str, side: Side, filled: Decimal) -> OrderRecord {
        let order = NewOrder {
            client_order_id: format!("aaaaaaaa-1-{second}-Enter"),
            product: product.into(),
            side,
            size: dec!(10),
            kind: OrderKind::Market,
        };
        let intended = OrderRecord::intended(&order, Class::Enter, 1, at(second));
        OrderRecord { filled, average_price: dec!(60000), ..intended }
    }

    fn round_trip(begin: i64) -> Vec<OrderRecord> {
        vec![
            filled(begin, SPOT, Side::Buy, dec!(0)),
            filled(begin + 1, SPOT, Side::Buy, dec!(0.01)),
            filled(begin + 2, FUTURE, Side::Sell, dec!(1)),
            filled(begin + 3, FUTURE, Side::Buy, dec!(1)),
            // 0.60 USD are left.
            filled(begin + 4, SPOT, Side::Sell, dec!(0.00999)),
        ]
    }

    /// Fails if the first order ever is taken for the entry.
    #[test]
    fn a_position_began_with_the_first_fill_since_the_bot_was_flat_dust_aside() {
        let again = [round_trip(10), round_trip(100), round_trip(1000)].concat();
        assert_eq!(entered_at(&again, FUTURE), None);
        assert_eq!(entered_at(&again[..again.len() - 1], FUTURE), Some(at(1001)));
        assert_eq!(entered_at(&again[..again.len() - 3], FUTURE), Some(at(1001)));
        assert_eq!(entered_at(&again[..again.len() - 4], FUTURE), None, "an order without a fill opens nothing");
    }

    #[test]
    fn an_order_that_was_recorded_late_counts_where_it_was_created() {
        let late = [filled(20, FUTURE, Side::Sell, dec!(1)), filled(10, SPOT, Side::Buy, dec!(0.01))];
        assert_eq!(entered_at(&late, FUTURE), Some(at(10)));
    }
}
