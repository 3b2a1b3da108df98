//! A bot whose exchange says nonsense goes on.

use std::cell::Cell;
use std::sync::Once;
use std::time::Duration;

use super::bot::Bot;
use super::exchange::Exchange;
use super::network::Network;
use super::{machine, paused};

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the panics of each thread, those inside of tasks too.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(panic);
        }));
    });
}

#[test]
fn a_bot_that_reads_nonsense_never_panics() {
    count_panics();
    let mut struck = 0;
    for seed in 1..=8 {
        paused(async {
            let exchange = Exchange::start(seed, false);
            let network = Network::new(seed);
            let dir = tempfile::tempdir().unwrap();
            let machine = machine(&exchange, &network, seed, dir.path());
            let mut bot = Bot::start(&machine, 1).await;
            bot.wait("the bot begins", |view| view.seen_exchange && view.prices_fresh).await;
            for rate in [0.02, 0.2, 0.6] {
                network.mangle(rate);
                tokio::time::sleep(Duration::from_secs(20)).await;
                network.mangle(0.0);
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            assert!(bot.is_alive(), "seed {seed}");
            assert_eq!(PANICS.with(Cell::get), 0, "seed {seed}");
            bot.kill().await;
            struck += network.struck().values().sum::<u64>();
        });
    }
    assert!(struck > 500, "{struck}");
}
