//! Whatever is commanded in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Step {
    owner: bool,
    product: u8,
    buy: bool,
    kind: u8,
    offset: i64,
    size: u32,
    ticks: u8,
    cancel: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (any::<bool>(), 0..4u8, any::<bool>(), 0..6u8, -30..30i64, 1..2000u32, 0..3u8, any::<bool>()).prop_map(
        |(owner, product, buy, kind, offset, size, ticks, cancel)| Step {
            owner,
            product,
            buy,
            kind,
            offset,
            size,
            ticks,
            cancel,
        },
    )
}

fn run(world: &mut World, step: &Step) {
    let owner = if step.owner { ALICE } else { BOB };
    let listed = &world.exchange.markets[usize::from(step.product)];
    let (id, future, tick) = (listed.product.id.clone(), listed.product.is_future(), listed.product.price_increment);
    let price = listed.product.round_price(listed.mark()) + Decimal::from(step.offset) * tick;
    let size = if future { Decimal::from(1 + step.size / 50) } else { Decimal::new(i64::from(step.size), 4) };
    let end = world.now.time.checked_add(SignedDuration::from_millis(150)).unwrap();
    let limit = Limit { base_size: Some(size), limit_price: Some(price) };
    let configuration = match step.kind {
        0 => market(size),
        1 => OrderConfiguration::SorLimitIoc(limit),
        2 => OrderConfiguration::LimitLimitFok(limit),
        3 => OrderConfiguration::LimitLimitGtd(LimitGtd {
            base_size: Some(size),
            limit_price: Some(price),
            end_time: Some(end),
            post_only: false,
        }),
        4 => gtc(size, price, true),
        _ => gtc(size, price, false),
    };
    let side = if step.buy { Side::Buy } else { Side::Sell };
    let placed = world.place(owner, &id, side, configuration);
    world.check();
    if let (true, Ok(id)) = (step.cancel, placed) {
        let _ = world.exchange.request_cancel(world.now, owner, id);
    }
    for _ in 0..step.ticks {
        world.tick();
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn money_is_conserved_and_no_book_is_crossed(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(seed);
        for step in &steps {
            run(&mut world, step);
        }
        // Past a settlement of funding.
        for _ in 0..60 {
            world.pass(3 * 60 * 1000);
            world.tick();
        }
        world.check();
    }

    #[test]
    fn no_size_or_price_makes_a_panic(
        product in prop::sample::select(vec![BTC, BIP]),
        buy in any::<bool>(),
        kind in 0..5u8,
        (size_digits, size_scale) in (any::<u64>(), 0..28u32),
        (price_digits, price_scale) in (any::<u64>(), 0..28u32),
    ) {
        let mut world = World::new(1);
        let decimal = |digits: u64, scale| Decimal::from_i128_with_scale(i128::from(digits), scale);
        let (size, price) = (decimal(size_digits, size_scale), decimal(price_digits, price_scale));
        let limit = Limit { base_size: Some(size), limit_price: Some(price) };
        let configuration = match kind {
            0 => market(size),
            1 => OrderConfiguration::MarketMarketIoc(MarketOrder { quote_size: Some(size), ..Default::default() }),
            2 => OrderConfiguration::SorLimitIoc(limit),
            3 => OrderConfiguration::LimitLimitFok(limit),
            _ => gtc(size, price, false),
        };
        let side = if buy { Side::Buy } else { Side::Sell };
        let _ = world.place(ALICE, product, side, configuration);
        for size in [size, -size, Decimal::MAX, Decimal::MIN] {
            let _ = world.exchange.close_position(world.now, ALICE, size.to_string(), BIP.into(), Some(size));
        }
        world.check();
    }

    #[test]
    fn the_same_seed_and_commands_give_the_same_journal(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..15)) {
        let journal = |()| {
            let mut world = World::new(seed);
            steps.iter().for_each(|s| run(&mut world, s));
            serde_json::to_string(&world.exchange.journal.after(0, None).collect::<Vec<_>>()).unwrap()
        };
        prop_assert_eq!(journal(()), journal(()));
    }
}
