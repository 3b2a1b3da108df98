use proptest::prelude::*;
use rust_decimal::dec;

use super::*;

const ME: Uuid = Uuid::from_u128(1);
const YOU: Uuid = Uuid::from_u128(2);

/// A book as a plain list, oldest first; slow and obviously right.
#[derive(Default)]
struct Naive(Vec<(OrderNumber, Uuid, Side, Decimal, Decimal)>);

impl Naive {
    fn take(&mut self, taker: Taker) -> Vec<Match> {
        let Quantity::Base(mut wanted) = taker.quantity else { panic!("only base sizes here") };
        let mut matches = Vec::new();
        while !wanted.is_zero() {
            let candidates = self.0.iter_mut().filter(|o| o.2 == taker.side.opposite());
            // `min_by` keeps the first of equals, which is the oldest.
            let best = candidates
                .filter(|o| acceptable(taker.side, taker.limit, o.3))
                .min_by(|a, b| if taker.side == Side::Buy { a.3.cmp(&b.3) } else { b.3.cmp(&a.3) });
            let Some(best) = best.filter(|o| o.1 != taker.owner) else { break };
            let size = wanted.min(best.4);
            best.4 -= size;
            wanted -= size;
            matches.push(Match { maker: best.0, price: best.3, size });
            self.0.retain(|o| !o.4.is_zero());
        }
        matches
    }
}

#[derive(Debug, Clone)]
enum Action {
    Limit { owner: u8, buy: bool, price: i64, size: i64 },
    Cancel { which: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..3u8, any::<bool>(), 90..110i64, 1..20i64)
            .prop_map(|(owner, buy, price, size)| Action::Limit { owner, buy, price, size }),
        1 => (0..40usize).prop_map(|which| Action::Cancel { which }),
    ]
}

proptest! {
    #[test]
    fn matches_as_price_time_priority_says_and_is_never_crossed(actions in prop::collection::vec(action(), 1..120)) {
        let (mut book, mut naive) = (Book::default(), Naive::default());
        for (number, action) in (0u64..).zip(actions) {
            match action {
                Action::Limit { owner, buy, price, size } => {
                    let owner = Uuid::from_u128(u128::from(owner));
                    let side = if buy { Side::Buy } else { Side::Sell };
                    let (price, size) = (Decimal::from(price), Decimal::from(size));
                    let taker = Taker { side, owner, limit: Some(price), quantity: Quantity::Base(size) };
                    let previewed: Decimal = book.preview(taker).iter().map(|(_, s)| s).sum();
                    let taken = book.take(taker);
                    prop_assert_eq!(&taken.matches, &naive.take(taker));
                    let filled: Decimal = taken.matches.iter().map(|m| m.size).sum();
                    prop_assert_eq!(filled, previewed);
                    if filled < size && !taken.self_trade {
                        book.add(side, price, number, owner, size - filled);
                        naive.0.push((number, owner, side, price, size - filled));
                    }
                }
                Action::Cancel { which } => {
                    if let Some(&(number, _, side, price, size)) = naive.0.get(which) {
                        prop_assert_eq!(book.remove(side, price, number), Some(size));
                        naive.0.remove(which);
                    }
                }
            }
            if let (Some(bid), Some(ask)) = (book.best(Side::Buy), book.best(Side::Sell)) {
                prop_assert!(bid < ask);
            }
            for side in [Side::Buy, Side::Sell] {
                for (price, total) in book.depth(side, 100) {
                    let expected: Decimal = naive.0.iter().filter(|o| o.2 == side && o.3 == price).map(|o| o.4).sum();
                    prop_assert_eq!(total, expected);
                }
            }
        }
    }

    #[test]
    fn updates_turn_an_old_snapshot_into_the_present_book(actions in prop::collection::vec(action(), 1..80)) {
        let mut book = Book::default();
        let mut view: BTreeMap<(Side, Decimal), Decimal> = BTreeMap::new();
        for (number, action) in (0u64..).zip(actions) {
            let Action::Limit { buy, price, size, .. } = action else { continue };
            let side = if buy { Side::Buy } else { Side::Sell };
            let (price, size) = (Decimal::from(price), Decimal::from(size));
            let owner = Uuid::from_u128(u128::from(number));
            let taken = book.take(Taker { side, owner, limit: Some(price), quantity: Quantity::Base(size) });
            let rest = size - taken.matches.iter().map(|m| m.size).sum::<Decimal>();
            if !rest.is_zero() {
                book.add(side, price, number, owner, rest);
            }
            for (side, price, size) in book.take_changes() {
                if size.is_zero() { view.remove(&(side, price)); } else { view.insert((side, price), size); }
            }
            for side in [Side::Buy, Side::Sell] {
                let mut seen: Vec<_> = view.iter().filter(|(k, _)| k.0 == side).map(|(k, v)| (k.1, *v)).collect();
                if side == Side::Buy { seen.reverse(); }
                prop_assert_eq!(seen, book.depth(side, 1000));
            }
        }
    }
}

#[test]
fn a_quote_budget_is_spent_in_whole_increments() {
    let mut book = Book::default();
    book.add(Side::Sell, dec!(100), 1, YOU, dec!(0.5));
    book.add(Side::Sell, dec!(110), 2, YOU, dec!(5));
    let quantity = Quantity::Quote { budget: dec!(99.99), increment: dec!(0.01) };
    let taken = book.take(Taker { side: Side::Buy, owner: ME, limit: None, quantity });
    let sizes: Vec<_> = taken.matches.iter().map(|m| m.size).collect();
    assert_eq!(sizes, [dec!(0.5), dec!(0.45)]);
}

#[test]
fn an_own_order_stops_the_taker() {
    let mut book = Book::default();
    book.add(Side::Sell, dec!(100), 1, YOU, dec!(1));
    book.add(Side::Sell, dec!(100), 2, ME, dec!(1));
    book.add(Side::Sell, dec!(100), 3, YOU, dec!(1));
    let taken = book.take(Taker { side: Side::Buy, owner: ME, limit: None, quantity: Quantity::Base(dec!(3)) });
    assert_eq!(taken.matches.len(), 1);
    assert!(taken.self_trade);
}
