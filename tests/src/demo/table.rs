//! The table of times.

use comfy_table::{CellAlignment, Table, presets};

use crate::clock::milliseconds;

/// What one patch did. Times are `CLOCK_MONOTONIC` in nanoseconds.
pub struct Act {
    pub sent: u64,
    pub accepted: u64,
    /// By the bot: its gate closed.
    pub stopped: Option<u64>,
    /// By the demo's own watch.
    pub acknowledged: u64,
    /// By the exchange: the last order that raises a leg, after the patch was sent.
    pub last_raising: Option<u64>,
    /// By the exchange: orders that worked when the patch was sent.
    pub orders: u32,
    /// By the exchange.
    pub orders_gone: Option<u64>,
    /// By the exchange; none where the position is kept.
    pub flat: Option<u64>,
    /// By the bot, as the demo's own watch saw it.
    pub claimed_orders_gone: Option<u64>,
    pub claimed_flat: Option<u64>,
}

/// Both acts side by side, in milliseconds since their patch was sent.
pub fn table(kill: &Act, reduce: &Act) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "ms since the patch was sent",
        "kill btc-carry:\nseen from outside",
        "kill btc-carry:\nthe bot's word",
        "ReduceOnly eth-carry by policy:\nseen from outside",
        "ReduceOnly eth-carry:\nthe bot's word",
    ]);
    let mut row = |name: &str, cells: [String; 4]| {
        let [a, b, c, d] = cells;
        table.add_row([name.to_owned(), a, b, c, d]);
    };
    let since =
        |act: &Act, ns: Option<u64>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", milliseconds(act.sent, ns)));
    let none = || String::new();
    row("patch sent", ["0.0".into(), none(), "0.0".into(), none()]);
    row(
        "answer of the API server received",
        [since(kill, Some(kill.accepted)), none(), since(reduce, Some(reduce.accepted)), none()],
    );
    let entry = |act: &Act| match act.last_raising {
        None => "no entry order since".to_owned(),
        Some(_) => format!("last entry order {}", since(act, act.last_raising)),
    };
    row(
        "stopped: the gate is closed",
        [entry(kill), since(kill, kill.stopped), entry(reduce), since(reduce, reduce.stopped)],
    );
    row(
        "acknowledged in status",
        [since(kill, Some(kill.acknowledged)), none(), since(reduce, Some(reduce.acknowledged)), none()],
    );
    let orders = |act: &Act| format!("{} (of {} resting)", since(act, act.orders_gone), act.orders);
    row(
        "orders gone",
        [
            orders(kill),
            since(kill, kill.claimed_orders_gone),
            orders(reduce),
            since(reduce, reduce.claimed_orders_gone),
        ],
    );
    row("flat", [since(kill, kill.flat), since(kill, kill.claimed_flat), "position kept".into(), none()]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{table}\nOrders and positions from outside are the exchange's journal. The bot says Halted once the\nexchange has shown that none of its orders works, and Flat once it has shown twice, 2 s apart, that nothing is left."
    )
}
