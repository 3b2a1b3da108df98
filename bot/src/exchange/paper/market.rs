//! One real market as a paper account trades on it: the book that the venue shows, less what the account has taken of
//! it, and the account's own orders in the queue behind what was there before them.

use std::collections::BTreeMap;

use exchange_matching::book::{Book, Match, OrderNumber, Quantity, Taken, Taker};
use exchange_matching::product::{FutureTerms, MarginRate, Product as Rules};
use k8s_openapi::jiff::Timestamp;
use rust_decimal::{Decimal, dec};
use uuid::Uuid;

use super::account::matching_side;
use crate::exchange::{Product, Side, Touch};
use crate::market::OrderBook;
use crate::market::book::Level;

/// Whose orders they are: of everybody who was there before, of the account, of somebody who comes along.
const EVERYBODY: Uuid = Uuid::from_u128(1);
const ACCOUNT: Uuid = Uuid::from_u128(2);
const SOMEBODY: Uuid = Uuid::from_u128(3);
/// Number of what was in the queue before an order of the account.
const AHEAD: OrderNumber = 0;
/// Largest order, in the product's unit and in quote currency: what the bot's own limits leave far behind.
const MAX_SIZE: Decimal = dec!(1_000_000_000);

/// One market.
#[derive(Debug, Default)]
pub struct Market {
    /// None until it was read.
    pub product: Option<Product>,
    rules: Option<Rules>,
    shown: OrderBook,
    /// What the account took of a level that is still shown: nobody fills twice from it.
    taken: BTreeMap<(bool, Decimal), Decimal>,
    /// The account's orders, each behind what was at its price when it came.
    queue: Book,
    last_price: Option<Decimal>,
}

impl Market {
    /// Notes the product's rules and state.
    pub fn list(&mut self, product: Product) {
        self.rules = Some(rules(&product));
        self.product = Some(product);
    }

    /// The rules, while the product is known.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Whether the book is known.
    pub fn is_known(&self) -> bool {
        self.shown.is_known()
    }

    /// The book is not known any more. The account's orders keep their place.
    pub fn lose(&mut self) {
        self.shown.clear();
    }

    /// Price that positions are valued at: the middle of the book, or the last price known.
    pub fn mark(&self) -> Option<Decimal> {
        self.shown.touch().map(|touch| touch.mid()).or(self.last_price)
    }

    /// Takes in price levels; returns whether the book can be relied on.
    pub fn set(&mut self, snapshot: bool, levels: Vec<Level>) -> bool {
        let changed: Vec<_> = levels.iter().map(|level| (level.side, level.price)).collect();
        // An error ends the connection, which tells of it.
        let result = if snapshot { self.shown.snapshot(levels) } else { self.shown.update(levels) };
        if result.is_err() {
            return false;
        }
        if snapshot {
            let shown = &self.shown;
            self.taken.retain(|(buy, price), taken| cap(shown, *buy, *price, taken));
        } else {
            for (side, price) in changed {
                let key = (side == Side::Buy, price);
                if let Some(taken) = self.taken.get_mut(&key)
                    && !cap(&self.shown, key.0, price, taken)
                {
                    self.taken.remove(&key);
                }
            }
        }
        if let Some(touch) = self.shown.touch() {
            self.last_price = Some(touch.mid());
        }
        true
    }

    /// What a level still has for the account.
    fn available(&self, side: Side, price: Decimal, shown: Decimal) -> Decimal {
        shown - self.taken.get(&(side == Side::Buy, price)).copied().unwrap_or_default()
    }

    /// The shown book as one to match against: its levels on the side that the taker trades with, as deep as it wants.
    pub fn liquidity(&self, side: Side, size: Decimal) -> Book {
        let mut book = Book::default();
        let mut wanted = size;
        let maker = side.opposite();
        for (price, shown) in self.shown.levels(maker) {
            let available = self.available(maker, price, shown);
            if available > Decimal::ZERO {
                book.add(matching_side(maker), price, AHEAD, EVERYBODY, available);
                wanted -= available;
            }
            if wanted <= Decimal::ZERO {
                break;
            }
        }
        book
    }

    /// Matches an order of the account at once; returns price and size of its fills.
    pub fn take(&mut self, side: Side, limit: Option<Decimal>, size: Decimal) -> Vec<Match> {
        let quantity = Quantity::Base(size);
        let taker = Taker { side: matching_side(side), owner: ACCOUNT, limit, quantity };
        let Taken { matches, .. } = self.liquidity(side, size).take(taker);
        for matched in &matches {
            self.note_taken(side.opposite(), matched.price, matched.size);
        }
        matches
    }

    fn note_taken(&mut self, side: Side, price: Decimal, size: Decimal) {
        *self.taken.entry((side == Side::Buy, price)).or_default() += size;
    }

    /// Whether an order would trade with a resting one of the account itself.
    pub fn meets_own(&self, side: Side, limit: Option<Decimal>) -> bool {
        let best = self.queue.best(matching_side(side.opposite()));
        best.is_some_and(|best| exchange_matching::book::acceptable(matching_side(side), limit, best))
    }

    /// Rests an order behind everything that is shown at its price.
    pub fn rest(&mut self, side: Side, price: Decimal, number: OrderNumber, size: Decimal) {
        let of = matching_side(side);
        let ahead = self.shown.quantity(side, price);
        if ahead > Decimal::ZERO {
            self.queue.add(of, price, AHEAD, EVERYBODY, ahead);
        }
        self.queue.add(of, price, number, ACCOUNT, size);
    }

    /// Nobody is queued any more.
    pub fn clear_queue(&mut self) {
        self.queue = Book::default();
    }

    /// Takes an order out of the queue, and what was ahead of it where nobody waits behind that any more.
    pub fn remove(&mut self, side: Side, price: Decimal, number: OrderNumber, others_here: bool) {
        self.queue.remove(matching_side(side), price, number);
        if !others_here {
            self.drop_ahead(side, price);
        }
    }

    fn drop_ahead(&mut self, side: Side, price: Decimal) {
        while self.queue.remove(matching_side(side), price, AHEAD).is_some() {}
    }

    /// Fills of the account's resting orders at prices that the other side of the shown book has reached: what rests
    /// there would have traded with them on its way. Their size is what is shown.
    pub fn crossed(&mut self) -> Vec<Match> {
        let mut fills = Vec::new();
        for side in [Side::Buy, Side::Sell] {
            let of = matching_side(side);
            let Some(best) = self.queue.best(of) else { continue };
            let reached: Vec<_> = self
                .shown
                .levels(side.opposite())
                .take_while(|(price, _)| {
                    exchange_matching::book::acceptable(matching_side(side.opposite()), Some(*price), best)
                })
                .collect();
            for (price, shown) in reached {
                let available = self.available(side.opposite(), price, shown);
                if available > Decimal::ZERO {
                    let matches = self.arrive(side.opposite(), price, available, true);
                    self.note_taken(side.opposite(), price, matches.iter().map(|matched| matched.size).sum());
                    fills.extend(matches);
                }
            }
        }
        fills
    }

    /// Fills of the account's resting orders by a trade that was printed: beyond their price at once, at their price
    /// once what was ahead of them has traded.
    pub fn printed(&mut self, price: Decimal, size: Decimal) -> Vec<Match> {
        self.last_price = Some(price);
        let sold = self.arrive(Side::Sell, price, size, false);
        if sold.is_empty() { self.arrive(Side::Buy, price, size, false) } else { sold }
    }

    /// Somebody trades `size` up to `price` with what is queued. What was ahead of an order at a price that is passed,
    /// or at `price` itself where that is `reached`, is gone.
    fn arrive(&mut self, side: Side, price: Decimal, size: Decimal, reached: bool) -> Vec<Match> {
        let of = matching_side(side.opposite());
        let passed: Vec<Decimal> = self
            .queue
            .depth(of, usize::MAX)
            .into_iter()
            .map(|(at, _)| at)
            .filter(|at| if side == Side::Sell { *at > price } else { *at < price } || (reached && *at == price))
            .collect();
        for at in passed {
            self.drop_ahead(side.opposite(), at);
        }
        let quantity = Quantity::Base(size);
        let taker = Taker { side: matching_side(side), owner: SOMEBODY, limit: Some(price), quantity };
        let Taken { matches, .. } = self.queue.take(taker);
        matches.into_iter().filter(|matched| matched.maker != AHEAD).collect()
    }

    /// The best prices with the account's orders among them; as shown where that would cross.
    pub fn with_own(&self, touch: Touch) -> Touch {
        let own = |side| self.queue.best(matching_side(side));
        let best_bid = own(Side::Buy).map_or(touch.best_bid, |own| own.max(touch.best_bid));
        let best_ask = own(Side::Sell).map_or(touch.best_ask, |own| own.min(touch.best_ask));
        if best_bid < best_ask { Touch { best_bid, best_ask } } else { touch }
    }
}

/// Lowers what was taken of a level to what is shown there; false where nothing is.
fn cap(shown: &OrderBook, buy: bool, price: Decimal, taken: &mut Decimal) -> bool {
    let side = if buy { Side::Buy } else { Side::Sell };
    *taken = (*taken).min(shown.quantity(side, price));
    !taken.is_zero()
}

/// The product in the words of the shared crate.
fn rules(product: &Product) -> Rules {
    Rules {
        id: product.id.clone(),
        base: product.base_currency.clone(),
        quote: product.quote_currency.clone(),
        price_increment: product.price_increment,
        base_increment: product.size_increment,
        base_min_size: product.min_size,
        base_max_size: MAX_SIZE,
        quote_min_size: product.min_notional_quote,
        quote_max_size: MAX_SIZE,
        future: product.future.as_ref().map(|future| {
            let margin = MarginRate { long: future.terms.long_margin, short: future.terms.short_margin };
            FutureTerms {
                contract_code: product.base_currency.clone(),
                contract_size: product.unit_base,
                expiry: Timestamp::MAX,
                spot_product: String::new(),
                intraday_margin: margin,
                overnight_margin: margin,
            }
        }),
    }
}
