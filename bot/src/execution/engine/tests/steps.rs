//! What a property does to the world, one step after the other.

use std::time::Duration;

use arbbot_crds::arbbot::Mode;
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::world::World;
use crate::exchange::Touch;

#[derive(Clone, Debug)]
pub enum Step {
    Pass(u64),
    Fill {
        pick: usize,
        percent: u32,
        told: bool,
    },
    Mode(Mode),
    Faulty(bool),
    Liquidity(u32),
    Session(bool),
    /// The prices of both products move by so many ticks of the future.
    Price(i64),
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..30).prop_map(Step::Pass),
        4 => (0usize..8, 1u32..=100, any::<bool>()).prop_map(|(pick, percent, told)| Step::Fill { pick, percent, told }),
        1 => prop::sample::select(vec![Mode::Active, Mode::ReduceOnly, Mode::Halted, Mode::Stopped]).prop_map(Step::Mode),
        1 => any::<bool>().prop_map(Step::Faulty),
        1 => (0u32..=100).prop_map(Step::Liquidity),
        1 => any::<bool>().prop_map(Step::Session),
        1 => (-80i64..80).prop_map(Step::Price),
    ]
}

pub fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Pass(tenths) => world.pass(Duration::from_millis(tenths * 100)),
        Step::Fill { pick, percent, told } => world.fill(*pick, *percent, *told),
        Step::Mode(mode) => world.mode(*mode),
        Step::Faulty(faulty) => world.faulty = *faulty,
        Step::Liquidity(percent) => world.liquidity = *percent,
        Step::Session(open) => world.session_open = *open,
        Step::Price(ticks) => {
            let moved = |price: Decimal| price + Decimal::from(ticks * 5);
            let Touch { best_bid, best_ask } = world.touch;
            world.touch = Touch { best_bid: moved(best_bid), best_ask: moved(best_ask) };
            world.tell();
        }
    }
}
