//! What happens to the engine, and what it wants done.

use std::time::Duration;

use arbbot_crds::ArbBot;
use arbbot_crds::incident::uid8;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::exchange::{ExchangeError, FeeRates, Holdings, OrderState, Placed, Product, VenueEvent};
use crate::execution::drain::{Demand, Terms};
use crate::risk::Permit;
use crate::strategy::funding_carry::edge::Terms as CarryTerms;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boot: Duration,
    /// Wall clock.
    pub wall: Timestamp,
}

/// What of the spec the engine needs; hot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    pub target_notional: Decimal,
    pub leg_timeout: Duration,
    pub max_rest: Duration,
    pub kill_slippage_bps: Decimal,
    pub kill_deadline: Duration,
    pub drain: Terms,
    pub carry: CarryTerms,
}

/// A change of control, after it is in force at the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlChange {
    /// metadata.generation that is in force.
    pub generation: Option<i64>,
    pub params: Params,
    /// Counts the incidents that ever began: a new one demands a new proof.
    pub incidents: u64,
    /// Counts the incidents that were released: after one, positions are compared before entry opens.
    pub releases: u64,
    /// Since when a kill closes the position, on the wall clock: its deadline counts from there, across restarts. None: no
    /// incident does, or all that do have finished.
    pub kill_began: Option<Timestamp>,
    /// Who demands a drain, also where something stronger is in force.
    pub drain: Option<Demand>,
}

/// All orders, holdings and products, as the venue showed them between `started` and now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub started: Now,
    pub orders: Vec<OrderState>,
    pub holdings: Holdings,
    pub spot: Product,
    pub future: Product,
}

/// What happens to the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Time passes.
    Tick,
    Control(ControlChange),
    /// This process is the trader, under this epoch.
    Lease {
        epoch: i64,
    },
    Venue(VenueEvent),
    /// Outcome of a placement that was sent.
    Placed {
        client_order_id: String,
        result: Result<Placed, ExchangeError>,
    },
    /// The placement was not sent: the gate had closed, or the intent could not be made durable.
    NotSent {
        client_order_id: String,
    },
    Snapshot(Box<Result<Snapshot, ExchangeError>>),
    /// One order, asked for by its id.
    Order(Result<OrderState, ExchangeError>),
    /// What fills cost.
    Fees(Result<FeeRates, ExchangeError>),
}

/// What the engine wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Make the intent durable, clear it at the gate, send it.
    Place { permit: Permit, epoch: i64 },
    /// Cancel orders by the venue's ids.
    Cancel(Vec<String>),
    /// Read one order by the venue's id.
    Query(String),
    /// Take a full snapshot; orders from this time on (None: all).
    Snapshot { since: Option<Timestamp> },
    /// Write what is known of the order to the ledger.
    Record(String),
    /// Ask what fills cost.
    Fees,
    /// Remember the funding rate of an hour.
    Funding { hour: Timestamp, rate: Decimal },
}

/// Identity of the bot at the venue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// First 8 characters of the ArbBot's uid: every client order id starts with it.
    pub uid8: String,
    pub spot_product: String,
    pub future_product: String,
}

impl Identity {
    /// The identity of a bot.
    #[must_use]
    pub fn of(bot: &ArbBot) -> Self {
        let [spot_product, future_product] = bot.spec.products();
        Self { uid8: uid8(&bot.uid().unwrap_or_default()), spot_product, future_product }
    }
}
