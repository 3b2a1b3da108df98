//! The simulated crowd: a market maker that quotes around the index, noise that takes from both sides, and a trend
//! follower that takes in the direction of the last minutes. The index walks at random or follows a recording.

use rand::RngExt;
use rust_decimal::Decimal;
use rust_decimal::dec;
use uuid::Uuid;

use super::book::{OrderNumber, Side};
use super::order::{LimitGtc, Market as MarketOrder, OrderConfiguration};
use super::{Exchange, Market, NewOrder, Now};

/// Levels the market maker quotes on each side.
const LEVELS: usize = 10;
/// Distance of the first quote from the mid, and between quotes, as a fraction of price.
const HALF_SPREAD: Decimal = dec!(0.00005);
const LEVEL_GAP: Decimal = dec!(0.0001);
/// The mid may drift this far before the market maker moves its quotes.
const REQUOTE: Decimal = dec!(0.00003);
/// Futures trade this far above the index, which is what makes funding positive.
const FUTURE_PREMIUM: Decimal = dec!(0.0008);
/// Largest step of the index per tick, in millionths.
const STEP_MILLIONTHS: i64 = 25;
/// Chance per tick and product that a taker trades, in percent.
const NOISE_PERCENT: u32 = 30;
/// Chance per tick and product that the trend follower looks at the market, in percent.
const TREND_PERCENT: u32 = 3;
/// Share of the way that its average moves towards the price per tick, and how far the price must be away from it.
const AVERAGE_STEP: Decimal = dec!(0.005);
const TREND: Decimal = dec!(0.0002);

const MARKET_MAKER: Uuid = Uuid::from_u128(1);
const NOISE: Uuid = Uuid::from_u128(2);
const TREND_FOLLOWER: Uuid = Uuid::from_u128(3);

#[derive(Debug)]
pub struct Participants {
    /// By market.
    quotes: Vec<Quotes>,
}

/// The market maker's orders in one market.
#[derive(Debug, Default)]
struct Quotes {
    /// Mid they were placed around.
    mid: Option<Decimal>,
    /// The recorded best prices that they show.
    touch: Option<(Decimal, Decimal)>,
    orders: Vec<OrderNumber>,
    start_index: Decimal,
    /// What the trend follower compares the price with.
    average: Decimal,
}

impl Participants {
    pub fn new(markets: &[Market]) -> Self {
        let quotes =
            markets.iter().map(|m| Quotes { start_index: m.index, average: m.index, ..Quotes::default() }).collect();
        Self { quotes }
    }

    /// Portfolios the participants trade from.
    pub fn portfolios(&self) -> [(Uuid, &'static str); 3] {
        [(MARKET_MAKER, "market-maker"), (NOISE, "noise"), (TREND_FOLLOWER, "trend-follower")]
    }
}

impl Exchange {
    /// Moves the index, then lets every participant act once in every open market.
    pub(super) fn trade_participants(&mut self, now: Now) {
        self.move_indices(now);
        for market in 0..self.markets.len() {
            if self.markets[market].is_closed(now.time) {
                continue;
            }
            self.quote(market, now);
            self.make_noise(market, now);
            self.follow_trend(market, now);
            if self.markets[market].recorded.is_some() {
                // A replay shows the recorded prices, whatever the others took.
                self.quote(market, now);
            }
        }
    }

    /// A random step with a weak pull towards the start, so that a week stays in a plausible range.
    fn move_indices(&mut self, now: Now) {
        for index in 0..self.markets.len() {
            if self.follow_recording(index, now) {
                let market = &mut self.markets[index];
                if let Some(recorded) = market.recorded.filter(|_| !market.product.is_future()) {
                    market.index = recorded.price;
                    continue;
                }
            }
            let spot = match &self.markets[index].product.future {
                Some(terms) => self.market_index(&terms.spot_product),
                None => None,
            };
            if let Some(spot) = spot {
                self.markets[index].index = self.markets[spot].index;
                continue;
            }
            let start = self.participants.quotes[index].start_index;
            let market = &mut self.markets[index];
            let step = Decimal::new(self.rng.random_range(-STEP_MILLIONTHS..=STEP_MILLIONTHS), 6);
            let pull = (start - market.index) * dec!(0.000002);
            market.index = (market.index + market.index * step + pull).round_dp(4).max(dec!(0.01));
        }
    }

    fn quote(&mut self, market: usize, now: Now) {
        let mid = self.fair_price(market);
        let touch = self.markets[market].recorded.and_then(|recorded| recorded.touch);
        let quotes = &self.participants.quotes[market];
        let stands = |number: &OrderNumber| self.orders.contains_key(number);
        let (moved, worn) = match touch {
            // Both best prices must be there.
            Some(_) => (quotes.touch != touch, quotes.orders.iter().take(2).filter(|n| stands(n)).count() < 2),
            None => (
                quotes.mid.is_none_or(|old| (mid - old).abs() > old * REQUOTE),
                quotes.orders.iter().filter(|n| stands(n)).count() < LEVELS * 2 - 2,
            ),
        };
        if !moved && !worn {
            return;
        }
        for number in std::mem::take(&mut self.participants.quotes[market].orders) {
            self.close(now, number, super::order::Status::Cancelled, "");
        }
        let (bid, ask) = touch.unwrap_or((mid - mid * HALF_SPREAD, mid + mid * HALF_SPREAD));
        for level in 0..LEVELS {
            let deeper = mid * LEVEL_GAP * Decimal::from(level);
            self.place_quote(market, now, Side::Buy, bid - deeper, level);
            self.place_quote(market, now, Side::Sell, ask + deeper, level);
        }
        let quotes = &mut self.participants.quotes[market];
        (quotes.mid, quotes.touch) = (Some(mid), touch);
    }

    fn place_quote(&mut self, market: usize, now: Now, side: Side, price: Decimal, level: usize) {
        let product = &self.markets[market].product;
        let down = product.round_price(price);
        let price = if side == Side::Buy || down == price { down } else { down + product.price_increment };
        // Small at the touch, so that takers work through it and reach whoever queued behind.
        let value = dec!(4000) * Decimal::from(1 + 4 * level as u64);
        let value = value * Decimal::from(self.rng.random_range(70u32..=130)) / dec!(100);
        let per_unit = product.value(Decimal::ONE, price);
        let size = product.round_size(value.checked_div(per_unit).unwrap_or_default()).max(product.base_min_size);
        let number = self.next_number;
        let configuration = OrderConfiguration::LimitLimitGtc(LimitGtc {
            base_size: Some(size),
            limit_price: Some(price),
            post_only: false,
        });
        if self.place_as(now, MARKET_MAKER, market, side, configuration) {
            self.participants.quotes[market].orders.push(number);
        }
    }

    fn make_noise(&mut self, market: usize, now: Now) {
        if self.rng.random_range(0..100u32) < NOISE_PERCENT {
            let side = if self.rng.random_bool(0.5) { Side::Buy } else { Side::Sell };
            let value = self.rng.random_range(500u32..=9_000);
            self.take(market, now, NOISE, side, value);
        }
    }

    fn follow_trend(&mut self, market: usize, now: Now) {
        let price = self.markets[market].last_price;
        let average = &mut self.participants.quotes[market].average;
        *average = (*average + (price - *average) * AVERAGE_STEP).round_dp(6);
        let distance = (price - *average).checked_div(*average).unwrap_or_default();
        if self.rng.random_range(0..100u32) < TREND_PERCENT && distance.abs() > TREND {
            let side = if distance.is_sign_positive() { Side::Buy } else { Side::Sell };
            let value = self.rng.random_range(500u32..=4_000);
            self.take(market, now, TREND_FOLLOWER, side, value);
        }
    }

    /// A market order worth about `value` USD.
    fn take(&mut self, market: usize, now: Now, owner: Uuid, side: Side, value: u32) {
        let product = &self.markets[market].product;
        let per_unit = product.value(Decimal::ONE, self.markets[market].last_price);
        let size = Decimal::from(value).checked_div(per_unit).unwrap_or_default();
        let size = product.round_size(size).max(product.base_min_size);
        let configuration =
            OrderConfiguration::MarketMarketIoc(MarketOrder { base_size: Some(size), ..Default::default() });
        self.place_as(now, owner, market, side, configuration);
    }

    fn place_as(
        &mut self,
        now: Now,
        portfolio: Uuid,
        market: usize,
        side: Side,
        configuration: OrderConfiguration,
    ) -> bool {
        let new = NewOrder {
            client_order_id: String::new(),
            product_id: self.markets[market].product.id.clone(),
            side,
            configuration,
            closing: false,
        };
        // A refusal (an empty side after a sweep) only means this participant sits out one tick.
        self.place(now, portfolio, new).is_ok()
    }

    /// Where the market maker centres its quotes.
    fn fair_price(&self, market: usize) -> Decimal {
        let market = &self.markets[market];
        if let Some(recorded) = market.recorded {
            return recorded.price;
        }
        if market.product.is_future() { market.index * (Decimal::ONE + FUTURE_PREMIUM) } else { market.index }
    }
}
