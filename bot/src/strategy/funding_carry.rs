//! Funding carry: long spot, short perpetual-style future, delta neutral.
//!
//! Whether it pays is [`edge`]'s question, and what the collateral carries is [`collateral`]'s; here is which orders follow.
//!
//! Both legs rest post-only at the touch, one or two contracts' worth of both at a time up to `targetNotional`. Where one leg
//! gets ahead and stays ahead for `legTimeout`, the other takes from the book.

pub mod collateral;
pub mod edge;

use rust_decimal::Decimal;

use crate::exchange::{Side, Touch};
use crate::execution::grid::{ceil_to, floor_to, slice, smallest};
use crate::risk::Class;
use crate::risk::exposure::Leg;

/// What the strategy looks at.
#[derive(Clone, Copy, Debug)]
pub struct Market<'a> {
    pub spot: &'a Leg,
    pub future: &'a Leg,
    pub spot_touch: Touch,
    pub future_touch: Touch,
    /// Notional of each leg to build up to, in quote currency.
    pub target_notional: Decimal,
    /// Limit on the notional of one leg, in quote currency.
    pub max_position_notional: Decimal,
    /// Largest notional of one order, in quote currency.
    pub max_order_notional: Decimal,
    /// Largest difference between the legs while legging in, in quote currency.
    pub max_leg_imbalance_notional: Decimal,
    /// Furthest limit price from the mid price on the wrong side of it, in basis points.
    pub max_slippage_bps: Decimal,
    /// Collateral of the futures account, in quote currency: the lower of the last two readings.
    pub collateral_quote: Decimal,
    /// The higher of the two: one reading alone takes nothing off.
    pub collateral_at_most_quote: Decimal,
    /// What is left of the last reading once the spot is paid for that it does not show.
    pub collateral_at_least_quote: Decimal,
    /// Largest notional of the futures leg divided by the futures collateral.
    pub max_leverage: Decimal,
    /// Collateral that is to be free with both legs, as a fraction of the futures notional.
    pub min_collateral_ratio: Decimal,
}

impl Market<'_> {
    /// Quote currency in a contract; zero without a price.
    #[must_use]
    pub fn contract_notional(&self) -> Decimal {
        (self.future.product.unit_base * self.future_touch.mid()).max(Decimal::ZERO)
    }

    /// Quote currency in a contract at the dearest price at which an order that raises a leg is measured: taking spot with
    /// all the slippage there is, offering the future at the touch, or the index.
    #[must_use]
    pub fn dearest_contract_notional(&self) -> Decimal {
        let slippage = Decimal::ONE + self.max_slippage_bps / Decimal::from(10_000);
        let dearest = (self.spot_touch.mid() * slippage).max(self.future_touch.best_ask);
        let dearest = dearest.max(self.future.index.unwrap_or_default());
        (self.future.product.unit_base * dearest).max(Decimal::ZERO)
    }

    /// Contracts that are sold.
    #[must_use]
    pub fn short(&self) -> Decimal {
        -self.future.owned
    }

    /// Spot that is held, in contracts.
    #[must_use]
    pub fn long(&self) -> Decimal {
        self.spot.owned * self.spot.product.unit_base / self.future.product.unit_base
    }

    /// Whole contracts that spec and limits aim at, whatever the collateral carries.
    #[must_use]
    pub fn target(&self) -> Decimal {
        let notional = self.target_notional.min(self.max_position_notional);
        notional.checked_div(self.contract_notional()).unwrap_or_default().floor()
    }
}

/// An order that the strategy wants to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub leg: LegName,
    pub side: Side,
    /// In units of the product.
    pub size: Decimal,
    pub class: Class,
    /// How much of it this leg is behind the other: so much takes from the book once it has been so for `legTimeout`.
    pub behind: Decimal,
}

impl Quote {
    /// Whether this leg is behind the other.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind > Decimal::ZERO
    }

    fn new(leg: LegName, side: Side, size: Decimal, class: Class, behind: bool) -> Self {
        Self { leg, side, size, class, behind: if behind { size } else { Decimal::ZERO } }
    }
}

/// One of the two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegName {
    Spot,
    Future,
}

/// The orders that the strategy wants to have now: at most one per leg.
#[must_use]
pub fn decide(market: &Market<'_>) -> Vec<Quote> {
    let contract_notional = market.contract_notional();
    let session_open = market.future.product.future.as_ref().is_some_and(|details| details.session_open);
    if contract_notional <= Decimal::ZERO || !session_open {
        // One leg alone never moves for the sake of the target.
        return Vec::new();
    }
    let (short, long) = (market.short(), market.long());
    let carries = collateral::carries(market, long);
    if short > carries.keeps {
        return reduce(market, short, long, carries.raises.floor());
    }
    let ratio = market.target_notional / contract_notional;
    let target = ratio.floor();
    // A whole contract above, so that a price that crosses a contract's edge does not trade to and fro.
    if short >= ratio + Decimal::ONE || long >= ratio + Decimal::TWO {
        return reduce(market, short, long, target);
    }
    let ceiling = market.target().min(carries.raises.floor()).min(collateral::leveraged(market, long).floor());
    enter(market, short, long, ceiling, clip(market))
}

/// Contracts that are added at a time: no more than one order may have, nor than the legs may be apart while only one of
/// the two fills.
fn clip(market: &Market<'_>) -> Decimal {
    let most = market.max_order_notional.min(market.max_leg_imbalance_notional);
    let contracts = most.checked_div(market.dearest_contract_notional()).unwrap_or_default();
    contracts.floor().max(Decimal::ONE).min(Decimal::TWO)
}

/// Both legs up to the next level: the next clip where they are even, else what completes the entry under way.
fn enter(market: &Market<'_>, short: Decimal, long: Decimal, ceiling: Decimal, clip: Decimal) -> Vec<Quote> {
    let apart = (long - short).abs();
    if apart >= Decimal::ONE && long.ceil().max(short) > ceiling {
        // There is no room to complete the entry: the larger leg comes down to the smaller.
        return even_out(market, short, long, apart.floor());
    }
    let even = long == short;
    let level = if even { (short + clip).min(ceiling) } else { long.ceil().max(short) };
    let spot_behind = long < short;
    let future_behind = long >= short + Decimal::ONE;
    // Where spot is ahead already, no more of it before the future has followed.
    let spot_size = spot_units(market, level.min(short + clip) - long);
    let class = |behind| if behind { Class::Hedge } else { Class::Enter };
    // Completing an entry is a hedge even above the ceiling; starting one is not.
    let wanted = [
        Quote::new(LegName::Spot, Side::Buy, spot_size, class(spot_behind), spot_behind),
        Quote::new(LegName::Future, Side::Sell, level - short, class(future_behind), future_behind),
    ];
    wanted.into_iter().filter(|quote| quote.size > Decimal::ZERO && (level <= ceiling || quote.is_behind())).collect()
}

/// The larger leg down by so many contracts.
fn even_out(market: &Market<'_>, short: Decimal, long: Decimal, contracts: Decimal) -> Vec<Quote> {
    let contracts = contracts.min(Decimal::TWO);
    if long > short {
        let size = spot_units(market, contracts);
        return vec![Quote::new(LegName::Spot, Side::Sell, size, Class::Reduce, true)];
    }
    vec![Quote::new(LegName::Future, Side::Buy, contracts, Class::Reduce, true)]
}

/// Both legs down to the target: neither further than two contracts below the other as it stands.
fn reduce(market: &Market<'_>, short: Decimal, long: Decimal, target: Decimal) -> Vec<Quote> {
    let future_target = target.max(long.ceil() - Decimal::TWO);
    let spot_target = target.max(short - Decimal::TWO);
    let (future_size, spot_size) = ((short - future_target).min(Decimal::TWO), (long - spot_target).min(Decimal::TWO));
    let (future_behind, spot_behind) = (short > long + Decimal::ONE, long > short + Decimal::ONE);
    let quotes = [
        Quote::new(LegName::Future, Side::Buy, future_size, Class::Reduce, future_behind),
        Quote::new(LegName::Spot, Side::Sell, spot_units(market, spot_size), Class::Reduce, spot_behind),
    ];
    quotes.into_iter().filter(|quote| quote.size > Decimal::ZERO).collect()
}

/// The orders that close the position: both legs down to nothing, never further apart than one order.
///
/// Sizes are of what the venue shows as well ([`Leg::held`]). While the futures session is closed, spot comes off only
/// down to the hedge of the contracts that are left.
#[must_use]
pub fn drain(market: &Market<'_>) -> Vec<Quote> {
    let Market { spot, future, max_order_notional, .. } = *market;
    let (spot_mid, future_mid) = (market.spot_touch.mid(), market.future_touch.mid());
    let unit_base = future.product.unit_base;
    if unit_base * future_mid <= Decimal::ZERO || spot_mid <= Decimal::ZERO {
        return Vec::new();
    }
    let spot_unit = spot.product.unit_base / unit_base;
    let (short, long) = (-future.held(), spot.held() * spot_unit);
    let dust = smallest(&spot.product, spot_mid) * spot_unit;
    let session_open = future.product.future.as_ref().is_some_and(|details| details.session_open);
    let at_a_time = (max_order_notional / (unit_base * future_mid)).floor().max(Decimal::ONE);
    // Each leg comes down until it is one order below the other as it stands.
    let (future_target, spot_target) =
        if session_open { ((long - dust).ceil() - at_a_time, short - at_a_time) } else { (short, short) };
    let sliced = |leg: &Leg, size: Decimal, mid| slice(&leg.product, size, mid, max_order_notional);
    let future_size = (short - future_target.max(Decimal::ZERO)).min(at_a_time);
    let future_size = sliced(future, future_size, future_mid).unwrap_or_default();
    let spot_size = (long - spot_target.max(Decimal::ZERO)).min(at_a_time) / spot_unit;
    let spot_size = sliced(spot, spot_size, spot_mid).unwrap_or_default();
    // Less than a contract apart is as even as a future can be, unless there is no contract left.
    let apart = |size: Decimal| if size >= Decimal::ONE || short.is_zero() { size } else { Decimal::ZERO };
    let future_behind = apart(short - long).floor().clamp(Decimal::ZERO, future_size);
    let spot_behind = (apart(long - short) / spot_unit).clamp(Decimal::ZERO, spot_size);
    let quotes = [
        Quote { leg: LegName::Future, side: Side::Buy, size: future_size, class: Class::Reduce, behind: future_behind },
        Quote { leg: LegName::Spot, side: Side::Sell, size: spot_size, class: Class::Reduce, behind: spot_behind },
    ];
    quotes.into_iter().filter(|quote| quote.size > Decimal::ZERO).collect()
}

/// Spot size of so many contracts, on the product's grid.
fn spot_units(market: &Market<'_>, contracts: Decimal) -> Decimal {
    let product = &market.spot.product;
    let size = contracts * market.future.product.unit_base / product.unit_base;
    // A remainder that the venue is too coarse for is rounded up to its smallest order, so that a leg can be completed.
    let smallest = smallest(product, market.spot_touch.mid());
    if size <= Decimal::ZERO { Decimal::ZERO } else { floor_to(size, product.size_increment).max(smallest) }
}

/// Whether a resting price is still close enough to the touch to keep its place in the queue.
#[must_use]
pub fn still_good(limit_price: Decimal, touch_price: Decimal, price_increment: Decimal) -> bool {
    let tolerance = ceil_to(touch_price * Decimal::new(5, 4), price_increment);
    (limit_price - touch_price).abs() <= tolerance
}

#[cfg(test)]
mod admitted;
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rust_decimal::dec;

    use super::*;
    use crate::testing::{future_leg, market, spot_leg};

    fn decided(spot: Decimal, contracts: Decimal, target: Decimal) -> Vec<(LegName, Side, Decimal, Class)> {
        let (spot, future) = (spot_leg(spot), future_leg(contracts));
        decide(&Market { target_notional: target, ..market(&spot, &future) })
            .into_iter()
            .map(|quote| (quote.leg, quote.side, quote.size, quote.class))
            .collect()
    }

    /// Future and spot: wanted size, and how much of it is behind.
    fn drained(spot: Decimal, contracts: Decimal, max_order: Decimal, open: bool) -> [(Decimal, Decimal); 2] {
        let (spot, mut future) = (spot_leg(spot), future_leg(contracts));
        Arc::make_mut(&mut future.product).future.as_mut().unwrap().session_open = open;
        let quotes = drain(&Market { max_order_notional: max_order, ..market(&spot, &future) });
        [LegName::Future, LegName::Spot].map(|leg| {
            let quote = quotes.iter().find(|quote| quote.leg == leg);
            quote.map_or_else(Default::default, |quote| (quote.size, quote.behind))
        })
    }

    #[test]
    fn a_drain_takes_both_legs_down_together_one_slice_at_a_time() {
        let even = (dec!(0), dec!(0));
        assert_eq!(drained(dec!(0.1), dec!(-10), dec!(700), true), [(dec!(1), dec!(0)), (dec!(0.01), dec!(0))]);
        assert_eq!(drained(dec!(0.1), dec!(-10), dec!(1300), true), [(dec!(2), dec!(0)), (dec!(0.02), dec!(0))]);
        let half = drained(dec!(0.095), dec!(-10), dec!(1300), true);
        assert_eq!(half, [(dec!(2), dec!(0)), (dec!(0.015), dec!(0))], "what rests stays as it is");
        assert_eq!(drained(dec!(0.09), dec!(-10), dec!(700), true), [(dec!(1), dec!(1)), even]);
        assert_eq!(drained(dec!(0.1), dec!(-9), dec!(700), true), [even, (dec!(0.01), dec!(0.01))]);
    }

    #[test]
    fn a_drain_ends_at_exactly_nothing_but_dust() {
        assert_eq!(drained(dec!(0.00000123), dec!(0), dec!(700), true), [(dec!(0), dec!(0)); 2]);
        assert_eq!(drained(dec!(0.01000123), dec!(-1), dec!(1300), true)[1], (dec!(0.01000123), dec!(0)));
        assert_eq!(
            drained(dec!(0.005), dec!(0), dec!(700), true)[1],
            (dec!(0.005), dec!(0.005)),
            "a lone rest is taken"
        );
        assert_eq!(drained(dec!(0), dec!(-3), dec!(700), true)[0], (dec!(1), dec!(1)));
    }

    #[test]
    fn a_closed_session_keeps_the_hedge_of_the_contracts_that_are_left() {
        assert_eq!(drained(dec!(0.1), dec!(-10), dec!(700), false), [(dec!(0), dec!(0)); 2]);
        assert_eq!(drained(dec!(0.12), dec!(-10), dec!(6000), false)[1], (dec!(0.02), dec!(0.02)));
        assert_eq!(drained(dec!(0.01), dec!(0), dec!(700), false)[1].0, dec!(0.01));
    }

    #[test]
    fn from_flat_both_legs_rest_for_one_contract() {
        assert_eq!(
            decided(dec!(0), dec!(0), dec!(6000)),
            [
                (LegName::Spot, Side::Buy, dec!(0.01), Class::Enter),
                (LegName::Future, Side::Sell, dec!(1), Class::Enter)
            ]
        );
    }

    #[test]
    fn a_leg_that_is_behind_is_completed_as_a_hedge() {
        assert_eq!(decided(dec!(0.01), dec!(0), dec!(6000)), [(LegName::Future, Side::Sell, dec!(1), Class::Hedge)]);
        assert_eq!(decided(dec!(0), dec!(-1), dec!(6000)), [(LegName::Spot, Side::Buy, dec!(0.01), Class::Hedge)]);
        let partly = decided(dec!(0.004), dec!(0), dec!(6000));
        assert_eq!(partly[0], (LegName::Spot, Side::Buy, dec!(0.006), Class::Enter));
    }

    #[test]
    fn at_the_target_nothing_is_wanted_and_below_it_both_legs_come_off() {
        assert_eq!(decided(dec!(0.1), dec!(-10), dec!(6000)), []);
        let lowered = decided(dec!(0.1), dec!(-10), dec!(3000));
        assert_eq!(lowered[0], (LegName::Future, Side::Buy, dec!(2), Class::Reduce));
        assert_eq!(lowered[1], (LegName::Spot, Side::Sell, dec!(0.02), Class::Reduce));
    }

    proptest! {
        /// Invariant 7 and SAFETY §5: whatever fills in whatever order, a drain lowers both legs to nothing, and takes
        /// them no further apart than they were or than one order.
        #[test]
        fn a_drain_ends_flat_and_keeps_the_legs_together(
            contracts in 0i64..40, spot in 0u64..40_000_000, max_order in 1u32..3000,
            fills in prop::collection::vec((any::<bool>(), 1u32..=100), 400),
        ) {
            let (mut spot, mut contracts) = (Decimal::new(spot.cast_signed(), 8), Decimal::from(-contracts));
            let max_order = Decimal::from(max_order);
            let mut apart = (spot + contracts * dec!(0.01)).abs();
            for (future_first, percent) in fills {
                let (spot_leg, future_leg) = (spot_leg(spot), future_leg(contracts));
                let quotes = drain(&Market { max_order_notional: max_order, ..market(&spot_leg, &future_leg) });
                let wanted = if future_first { quotes.first() } else { quotes.last() };
                let Some(quote) = wanted else {
                    prop_assert!(contracts.is_zero() && spot < dec!(0.00002), "stuck at {} and {}", spot, contracts);
                    return Ok(());
                };
                let part = quote.size * Decimal::from(percent) / dec!(100);
                if quote.leg == LegName::Future {
                    contracts += part.ceil();
                } else {
                    spot -= ceil_to(part, dec!(0.00000001)).min(quote.size);
                }
                prop_assert!(spot >= dec!(0) && contracts <= dec!(0), "flipped: {} and {}", spot, contracts);
                let now_apart = (spot + contracts * dec!(0.01)).abs();
                let one_order = (max_order / dec!(60000)).max(dec!(0.01));
                prop_assert!(now_apart <= apart.max(one_order + dec!(0.00002)), "{} apart after {}", now_apart, apart);
                apart = now_apart;
            }
        }

        /// Invariant 7: from wherever the legs are, whatever fills of both quotes in whatever order, the legs are taken no
        /// further apart than they were or than one clip. Proven by mutation: clips four times as large; both legs
        /// reduced by two contracts however far they are apart.
        #[test]
        fn filling_any_of_the_quotes_keeps_the_legs_within_a_clip(
            contracts in 0i64..30, spot_ahead in -300i64..=300, target in 0u32..20_000, max_order in 100u32..3000,
            collateral in 0u32..50_000, fills in prop::collection::vec((any::<bool>(), 0u32..=100, 0u32..=100), 60),
        ) {
            let mut contracts = Decimal::from(-contracts);
            let mut spot = (Decimal::new(spot_ahead, 4) - contracts * dec!(0.01)).max(dec!(0));
            let mut apart = (spot + contracts * dec!(0.01)).abs();
            for (spot_first, first, second) in fills {
                let (spot_leg, future_leg) = (spot_leg(spot), future_leg(contracts));
                let mut quotes = decide(&Market {
                    target_notional: target.into(),
                    max_order_notional: max_order.into(),
                    collateral_quote: collateral.into(),
                    collateral_at_most_quote: collateral.into(),
                    ..market(&spot_leg, &future_leg)
                });
                quotes.sort_by_key(|quote| (quote.leg == LegName::Spot) != spot_first);
                for (quote, percent) in quotes.iter().zip([first, second]) {
                    let part = quote.size * Decimal::from(percent) / dec!(100);
                    if quote.leg == LegName::Future {
                        contracts += part.ceil() * quote.side.sign();
                    } else {
                        // Nothing is admitted that could flip a leg.
                        spot = (spot + part * quote.side.sign()).max(dec!(0));
                    }
                    prop_assert!(contracts <= dec!(0), "flipped: {}", contracts);
                    let now_apart = (spot + contracts * dec!(0.01)).abs();
                    prop_assert!(now_apart <= apart.max(dec!(0.02002)), "{} apart after {}: {:?}", now_apart, apart, quotes);
                    apart = now_apart;
                }
            }
        }
    }
}
