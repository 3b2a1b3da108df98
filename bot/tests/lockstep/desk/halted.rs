//! The end of a run: the bot is halted, and what it said, its ledger and the exchange are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arb_bot::execution::engine::{Reconciliation, View};
use arb_bot::execution::orders::parse_id;
use arb_bot::ledger::{self, Books, OrderRecord};
use arbbot_crds::arbbot::Mode;
use arbbot_crds::control::Restriction;
use proptest::prelude::*;
use rust_decimal::{Decimal, dec};
use serde_json::json;

use super::{Desk, Shown, Step};
use crate::bot::Machine;
use crate::exchange::{Exchange, FUTURE, SPOT, Truth};
use crate::judge::{nothing_flipped, nothing_was_given_up_too_early, one_order_at_a_time};
use crate::network::Network;

/// A bot that has ended, and what it said last.
pub struct Halted<'a> {
    exchange: &'a Exchange,
    network: &'a Arc<Network>,
    machine: &'a Machine<'a>,
    /// Incidents that people opened and released at the API server.
    incidents: BTreeSet<String>,
    pub view: View,
    pub restarts: u64,
}

/// Stops the faults, halts the bot and compares both sides.
pub async fn finish(desk: Desk<'_>) -> Result<Shown, TestCaseError> {
    halt(desk).await.compare().await
}

/// Stops the faults, halts the bot and ends it once nothing of it works.
pub async fn halt(desk: Desk<'_>) -> Halted<'_> {
    let Desk { exchange, network, machine, mut bot, epoch, mut server, .. } = desk;
    network.fail(0.0, 0.0, false);
    network.kill_after(None);
    exchange.fault(json!({"clear": true})).await;
    if let Some(server) = &mut server {
        server.ordered(&Step::Mode(Mode::Halted));
        server.tell(&bot).await;
    } else {
        bot.control(vec![Restriction::mode("spec.mode", Mode::Halted, "the end")]).await;
    }
    let view = bot
        .wait("quiet", |view| {
            let known = view.open_orders == 0 && view.unknown_orders == 0;
            known && view.proof.orders_gone.confirmed && view.reconciliation == Reconciliation::Matches
        })
        .await;
    // What is known is written a little later, and what was paid is looked for.
    let settled = exchange.truth().await.settled_quote;
    bot.books(|books| books.outstanding == 0 && is_near(books.settled_quote(), settled)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bot.kill().await;
    let incidents = server.map(|server| server.incidents).unwrap_or_default();
    Halted { exchange, network, machine, incidents, view, restarts: epoch.unsigned_abs() - 1 }
}

impl Halted<'_> {
    /// The same as [`compare`](Self::compare), and the books know of no money of others: nobody else is on the account.
    pub async fn compare_alone(&self) -> Result<Shown, TestCaseError> {
        let shown = self.compare().await?;
        let books = self.books().await;
        prop_assert_eq!(books.flows.len(), 1, "{:?}", books.flows);
        let recorded = ledger::incidents(&self.machine.dir.join("ledger")).await.unwrap();
        let released = recorded.iter().filter(|(_, released)| released.is_some());
        let released: BTreeSet<_> = released.map(|(incident, _)| incident.id.to_string()).collect();
        prop_assert_eq!((released.len(), &released), (recorded.len(), &self.incidents), "kills, each one released");
        Ok(shown)
    }

    /// What the ledger on disk has booked.
    pub async fn books(&self) -> Books {
        ledger::books(&self.machine.dir.join("ledger")).await.unwrap()
    }

    /// Compares what the bot said last, its ledger and the exchange.
    pub async fn compare(&self) -> Result<Shown, TestCaseError> {
        let Self { exchange, network, machine, view, restarts, .. } = self;
        let truth = exchange.truth().await;
        prop_assert_eq!(view.spot_owned_base, truth.spot, "spot");
        prop_assert_eq!(view.future_owned_contracts, truth.contracts, "contracts");
        prop_assert_eq!(truth.open_orders, 0);
        // What the engine knows are average prices, which have eight decimals, and no order here is of more than a coin.
        let off = (view.cash_quote - truth.cash_quote).abs();
        let orders = Decimal::from(exchange.accepted().await.len());
        prop_assert!(
            off <= orders * dec!(0.00000001),
            "cash is {} and should be {}",
            view.cash_quote,
            truth.cash_quote
        );
        prop_assert_eq!(view.fees_quote, truth.fees_quote, "fees");
        prop_assert!(view.notional_quote <= dec!(11000), "{} for a target of 10000", view.notional_quote);
        let accepted = exchange.accepted().await;
        let twice: Vec<_> = accepted.iter().filter(|(_, count)| **count > 1).collect();
        prop_assert!(twice.is_empty(), "accepted more than once: {:?}", twice);
        let journal = exchange.transcript().await;
        one_order_at_a_time(&journal)?;
        nothing_flipped(&journal)?;
        compare_with_ledger(&self.ledger().await, exchange)?;
        compare_books(machine, exchange, &truth).await?;
        nothing_was_given_up_too_early(&machine.dir.join("ledger")).await?;
        Ok(Shown { orders: accepted.len() as u64, struck: network.struck(), restarts: *restarts })
    }

    /// Every order that the ledger on disk knows.
    pub async fn ledger(&self) -> Vec<OrderRecord> {
        self.machine.ledger().await.unwrap().1.orders
    }
}

/// Fills, fees and positions are equal to the last unit. Funding is read from two wallets, of which the exchange shows
/// eight decimals each, beside a position whose entry value is shared out with ten for each of some hundred fills.
fn is_near(a: Decimal, b: Decimal) -> bool {
    (a - b).abs() <= dec!(0.0000001)
}

/// The books have every fill of the exchange once, and the same money and positions, to the last unit.
async fn compare_books(machine: &Machine<'_>, exchange: &Exchange, truth: &Truth) -> Result<(), TestCaseError> {
    let dir = machine.dir.join("ledger");
    let books = ledger::books(&dir).await.unwrap();
    let booked = books
        .fills
        .iter()
        .map(|fill| (fill.order_id.clone(), fill.trade_id.clone(), fill.size, fill.price, fill.fee_quote));
    let booked: Vec<_> = booked.collect();
    let once: BTreeSet<_> = booked.iter().cloned().collect();
    prop_assert_eq!(booked.len(), once.len());
    prop_assert_eq!(once, exchange.fills());
    prop_assert_eq!(books.position(SPOT), truth.spot);
    prop_assert_eq!(books.position(FUTURE), truth.contracts);
    prop_assert_eq!(books.fees_quote(), truth.fees_quote);
    prop_assert_eq!(books.cash_quote() - books.settled_quote(), truth.cash_quote);
    let (settled, paid) = (books.settled_quote(), truth.settled_quote);
    prop_assert!(is_near(settled, paid), "{} of funding is booked, {} was paid", settled, paid);
    ledger::verify(&dir).await.unwrap();
    Ok(())
}

/// Every order at the exchange is in the ledger under its one id, with the same fills and fees.
fn compare_with_ledger(ledger: &[OrderRecord], exchange: &Exchange) -> Result<(), TestCaseError> {
    let known: BTreeMap<_, _> = ledger.iter().map(|order| (&order.client_order_id, order)).collect();
    for (id, (filled, fees_quote)) in exchange.orders() {
        let Some(order) = known.get(&id) else {
            return Err(TestCaseError::fail(format!("{id} is not in the ledger")));
        };
        prop_assert!(parse_id(&id).is_some() && order.status.is_terminal(), "{:?}", order);
        prop_assert_eq!((order.filled, order.fees_quote), (filled, fees_quote), "{}", id);
    }
    Ok(())
}
