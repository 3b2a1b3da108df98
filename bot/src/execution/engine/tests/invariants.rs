//! Invariants of reference/coinbase.md §5 that are about what the engine does, from whatever state it is in
//! (docs/invariants.md).

use arbbot_crds::arbbot::Mode;
use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::execution::orders::parse_id;
use crate::risk::Slot;
use crate::risk::exposure::Leg;
use world::AtVenue;

fn class(at: &AtVenue) -> Class {
    parse_id(&at.order.client_order_id).unwrap().class
}

/// What works of a product: what it may buy and what it may sell.
fn working(world: &World, product: &str) -> (Decimal, Decimal) {
    let of = |side: Side| {
        let orders = world.venue.values().filter(|at| at.order.product == product && at.order.side == side);
        let live = orders.filter(|at| !at.state.status.is_terminal());
        live.map(|at| at.order.size - at.state.filled).sum::<Decimal>()
    };
    (of(Side::Buy), of(Side::Sell))
}

/// Spot over future, in base currency.
fn apart(world: &World) -> Decimal {
    world.position(SPOT) + world.position(FUTURE) * dec!(0.01)
}

/// Somebody trades with whatever rests, while time passes.
fn trade(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 2 {
        world.fill_all();
        world.pass(Duration::from_millis(500));
    }
}

/// Invariant 10: with any one of these nothing is accepted that raises a leg, and once it has ended something is. (What
/// was entered on a rate that has grown old since is hedged; on none of the others is it.) Proven by mutation: prices of any age; a book that is told to be unknown kept;
/// funding never old; a closed session open for restrictions and strategy.
#[test]
fn nothing_raises_a_leg_on_stale_data() {
    type Change = fn(&mut World);
    fn empty(world: &mut World, product: &'static str) {
        world.untold.push(product);
        world.give(Event::Venue(VenueEvent::Touch { product: product.into(), touch: None }));
    }
    fn link(world: &mut World, down: Option<&str>) {
        let down = down.map(str::to_owned);
        world.give(Event::Venue(VenueEvent::Link { link: Link::MarketWebSocket, down }));
    }
    let told: Change = |world| world.untold.clear();
    let cases: [(&str, Change, Change); 7] = [
        ("the spot book is old", |world| world.untold = vec![SPOT], told),
        ("the futures book is old", |world| world.untold = vec![FUTURE], told),
        ("a side of the spot book is empty", |world| empty(world, SPOT), told),
        ("a side of the futures book is empty", |world| empty(world, FUTURE), told),
        (
            // As the client tells of it: the connection ends, and with it every book.
            "a gap in the sequence",
            |world| {
                link(world, Some("number 9 came after 7"));
                [SPOT, FUTURE].into_iter().for_each(|product| empty(world, product));
            },
            |world| {
                world.untold.clear();
                link(world, None);
            },
        ),
        (
            "funding is older than two intervals",
            |world| {
                world.clock.advance(Duration::from_secs(2 * 3600));
                world.gate.in_contact(world.clock.boottime());
            },
            |world| {
                let next = world.future_terms.funding_time.unwrap().checked_add(SignedDuration::from_hours(1));
                world.future_terms.funding_time = next.ok();
            },
        ),
        ("the session is closed", |world| world.session_open = false, |world| world.session_open = true),
    ];
    for (case, begin, end) in cases {
        let mut world = World::with_position();
        // There is always more to enter.
        world.params.target_notional = dec!(600000);
        world.limits = RiskLimits { max_position_notional: 600_000.into(), ..RiskLimits::default() };
        world.control(Vec::new());
        begin(&mut world);
        // Until the last price, or the last snapshot, has grown old; what works by then may fill.
        trade(&mut world, 11);
        let (before, position) = (world.accepted.len(), world.position(FUTURE));
        trade(&mut world, 20);
        let raised: Vec<_> = world.accepted[before..].iter().filter(|at| class(at).raises()).collect();
        assert!(raised.is_empty(), "{case}: {raised:?}");
        assert!(world.position(FUTURE) >= position, "{case}");
        end(&mut world);
        trade(&mut world, 12);
        assert!(world.accepted[before..].iter().any(|at| class(at).raises()), "{case}: nothing was at stake");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 1: once entry is closed and the cancels have arrived, no subset of the fills that are still possible
    /// raises a leg or flips it. Proven by mutation: no cancels in Halted, and none of what raises.
    #[test]
    fn what_works_after_entry_has_closed_can_raise_nothing_whatever_fills(
        steps in prop::collection::vec(step(), 1..40),
        mode in prop::sample::select(vec![Mode::ReduceOnly, Mode::Halted, Mode::Stopped]),
        killed in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in &steps {
            apply(&mut world, step);
        }
        world.faulty = false;
        if killed { world.kill(KillAction::CancelOrders) } else { world.mode(mode) }
        // Orders whose answer was lost are found by the next listing.
        world.pass(Duration::from_secs(12));
        for product in [SPOT, FUTURE] {
            let (position, (buys, sells)) = (world.position(product), working(&world, product));
            let (lowest, highest) = (position - sells, position + buys);
            let stays = if position >= dec!(0) { lowest >= dec!(0) && buys.is_zero() } else { highest <= dec!(0) && sells.is_zero() };
            prop_assert!(stays, "{} is {}, and may become {} or {}", product, position, lowest, highest);
        }
    }

    /// Invariant 7: once entry is closed, an imbalance beyond `maxDeltaNotional` is repaired by what lowers the larger
    /// leg, and no such order takes the legs further apart. Proven by mutation: no repair; the smaller leg trimmed.
    #[test]
    fn once_entry_is_closed_the_legs_come_together(steps in prop::collection::vec(step(), 1..30), spot in any::<bool>()) {
        let mut world = World::with_orders_of(1300);
        world.limits = RiskLimits { max_delta_notional: 700.into(), ..RiskLimits::default() };
        for step in &steps {
            apply(&mut world, step);
        }
        (world.faulty, world.session_open, world.liquidity) = (false, true, 100);
        world.mode(Mode::Active);
        world.pass(Duration::from_secs(12));
        // One leg gets ahead.
        world.fill_product(if spot { SPOT } else { FUTURE });
        let is_beyond = |world: &World| apart(world).abs() * world.touch.mid() > dec!(700);
        prop_assume!(is_beyond(&world));
        world.mode(Mode::ReduceOnly);
        let before = world.accepted.len();
        world.pass(Duration::from_secs(60));
        prop_assert!(!is_beyond(&world), "{} apart: {:?}", apart(&world), world.view());
        for (at, apart) in world.accepted.iter().zip(&world.apart).skip(before) {
            let unit = if at.order.product == SPOT { dec!(1) } else { dec!(0.01) };
            let then = *apart + at.order.size * unit * at.order.side.sign();
            prop_assert!(class(at) != Class::Trim || then.abs() <= apart.abs(), "from {} to {}: {:?}", apart, then, at);
        }
    }

    /// Invariant 15: what the exchange holds beyond what the bot owns, and what it does not hold of it, is never
    /// touched: not by a kill either. What is proven ours is closed. Proven by mutation: no deficit; the exchange's contracts
    /// taken for ours; contracts not compared.
    #[test]
    fn what_is_not_proven_ours_is_never_touched(more in -3i64..4, more_spot in -3i64..4, killed in any::<bool>()) {
        let mut world = World::with_position();
        world.mode(Mode::ReduceOnly);
        // Long enough for what is not the bot's to be known.
        world.pass(Duration::from_secs(45));
        let (spot, future) = (world.position(SPOT), world.position(FUTURE));
        let (others_spot, others) = (Decimal::new(more_spot, 2), Decimal::from(-more));
        let differs = !others.is_zero() || !others_spot.is_zero();
        world.others = (others_spot, others);
        world.pass(Duration::from_secs(25));
        let matches = world.view().reconciliation == Reconciliation::Matches;
        prop_assert_eq!(matches, !differs);
        let before = world.accepted.len();
        if killed { world.kill(KillAction::Flatten) } else { world.mode(Mode::Active) }
        trade(&mut world, 40);
        if differs {
            prop_assert!(world.accepted[before..].iter().all(|at| !class(at).raises()), "{:?}", world.accepted);
        }
        if killed {
            // At least what the exchange does not show stays, and all that is not ours.
            let held = |owned: Decimal, others: Decimal| {
                let shown = owned + others;
                let same_sign = if (owned * shown).is_sign_positive() { shown.abs() } else { dec!(0) };
                owned.abs() - owned.abs().min(same_sign)
            };
            prop_assert_eq!(world.position(FUTURE).abs(), held(future, others));
            let left = world.position(SPOT);
            // What spot hedges of the contracts that are not shown stays with them.
            prop_assert!(left >= held(spot, others_spot), "{} BTC is left of {}", left, spot);
        }
    }

    /// Invariant 18: while entry is halted the bot names every order that may still work, and in the end none does. Proven
    /// by mutation: no cancels in Halted; orders without an answer not named.
    #[test]
    fn a_halt_ends_with_nothing_at_work_and_names_what_is_until_then(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            apply(&mut world, step);
        }
        // As the program stops: nothing is cancelled, and nothing answers, not what was just sent either.
        world.mode(Mode::Active);
        world.faulty = true;
        world.fill_all();
        world.pass(Duration::from_secs(1));
        world.gate.set(Slot::Process, vec![arbbot_crds::control::Restriction::entry("shutdown", Entry::Halted, "test")]);
        world.pass(Duration::from_secs(3));
        let named: Vec<String> = world.view().remaining.into_iter().map(|order| order.client_order_id).collect();
        for (id, _) in world.venue.iter().filter(|(_, at)| !at.state.status.is_terminal()) {
            prop_assert!(named.contains(id), "{} works and is not among {:?}", id, named);
        }
        world.faulty = false;
        world.pass(Duration::from_secs(60));
        prop_assert_eq!((world.working(), world.view().remaining), (0, Vec::new()));
    }
}

/// The worst of a leg is over all that works: used by every limit (invariant 6).
#[test]
fn an_order_without_an_answer_is_in_the_exposure() {
    let mut world = World::new();
    world.faulty = true;
    world.fill_all();
    world.pass(Duration::from_secs(1));
    assert!(world.view().unknown_orders > 0);
    let exposure = world.engine.exposure(world.now()).unwrap();
    let open = |leg: &Leg| leg.buys + leg.sells;
    let works = |product| working(&world, product).0 + working(&world, product).1;
    assert!(open(&exposure.spot) >= works(SPOT) && open(&exposure.future) >= works(FUTURE), "{exposure:?}");
    assert!(exposure.spot.worst() > dec!(0) || exposure.future.worst() > dec!(0));
}
