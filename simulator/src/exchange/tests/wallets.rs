//! The spot wallet and the futures wallet.

use super::configurations::frozen;
use super::*;

impl World {
    /// USD of the spot wallet and of the futures wallet.
    fn wallets(&self) -> (Decimal, Decimal) {
        let alice = &self.exchange.portfolios[&ALICE];
        (alice.balance("USD").total - alice.futures_usd, alice.futures_usd)
    }

    fn margin(&self) -> Decimal {
        self.exchange.initial_margin(&self.exchange.portfolios[&ALICE], None)
    }

    fn free_for_spot(&self) -> Decimal {
        self.exchange.available_usd(&self.exchange.portfolios[&ALICE])
    }
}

#[test]
fn margin_comes_out_of_the_spot_wallet_by_itself_and_goes_back_only_by_a_sweep() {
    let mut world = frozen();
    let (spot, futures) = world.wallets();
    assert_eq!(futures, dec!(0));
    world.place(ALICE, BIP, Side::Sell, market(dec!(20))).unwrap();
    let loss = world.exchange.unrealized_pnl(&world.exchange.portfolios[&ALICE]).min(dec!(0));
    assert_eq!(world.wallets().1, world.margin() - loss, "exactly what is needed");
    assert_eq!(world.free_for_spot(), world.wallets().0);

    world.exchange.close_position(world.now, ALICE, "close".into(), BIP.into(), None).unwrap();
    let (stays, in_futures) = world.wallets();
    assert!(in_futures > dec!(1000) && world.margin().is_zero(), "it stays in the futures wallet: {in_futures}");
    assert_eq!(world.free_for_spot(), stays, "spot orders cannot use it");

    world.exchange.schedule_sweep(world.now, ALICE, Some(dec!(500))).unwrap();
    assert!(world.exchange.schedule_sweep(world.now, ALICE, None).is_err(), "one at a time");
    assert_eq!(world.wallets().1, in_futures, "scheduled is not yet made");
    world.pass(24 * 3_600_000);
    world.exchange.advance(world.now);
    assert_eq!(world.wallets(), (stays + dec!(500), in_futures - dec!(500)));
    assert!(world.exchange.pending_sweep(world.now, ALICE).is_none());

    world.exchange.schedule_sweep(world.now, ALICE, None).unwrap();
    world.pass(24 * 3_600_000);
    world.exchange.advance(world.now);
    let (all, rest) = world.wallets();
    assert_eq!(rest, dec!(0));
    assert!(all < spot, "fees and the spread are gone");
    world.check();
}

#[test]
fn a_sweep_takes_no_more_than_margin_leaves_and_can_be_taken_back() {
    let mut world = frozen();
    world.place(ALICE, BIP, Side::Buy, market(dec!(20))).unwrap();
    world.exchange.schedule_sweep(world.now, ALICE, Some(dec!(100000))).unwrap();
    world.pass(24 * 3_600_000);
    world.exchange.advance(world.now);
    let excess = world.exchange.futures_excess(&world.exchange.portfolios[&ALICE]);
    assert!(excess >= dec!(0) && world.wallets().1 >= world.margin(), "{excess}");

    world.exchange.schedule_sweep(world.now, ALICE, None).unwrap();
    assert!(world.exchange.cancel_sweep(world.now, ALICE));
    assert!(!world.exchange.cancel_sweep(world.now, ALICE));
    world.check();
}

#[test]
fn losses_are_topped_up_from_the_spot_wallet() {
    let mut world = frozen();
    world.place(ALICE, BIP, Side::Sell, market(dec!(20))).unwrap();
    let (spot, futures) = world.wallets();
    world.exchange.frozen = false;
    world.exchange.jump_index(0, 1_000);
    (0..50).for_each(|_| world.tick());
    let (less, more) = world.wallets();
    assert!(less < spot && more > futures, "{spot} {futures} → {less} {more}");
    assert!(world.exchange.futures_excess(&world.exchange.portfolios[&ALICE]) >= dec!(-50), "it follows the market");
    world.check();
}
