//! What tests on the real API server stand on: a [`Desk`] with a control plane, a process node, the operator and an
//! exchange; [`Room`]s, one namespace for each scenario; and [`Bot`]s in them.

mod bot;
mod desk;
mod node_desk;
mod room;
mod scenario;

pub use bot::{Bot, Patched, condition_is, incidents, stopped};
pub use desk::{Desk, MANIFESTS, OPERATOR, OPERATOR_NAMESPACE, Setup, config, install};
pub use node_desk::{NODE_NAMESPACES, NodeDesk};
pub use room::Room;
pub use scenario::{Scenario, run, run_in_turn};

use std::time::Duration;

/// Long enough for a bot to start, enter and rest orders on a machine that compiles at the same time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long an order that had passed the gate may still be on its way to the exchange, in nanoseconds: six scenarios and
/// what they started share two cores, and no test of order is one of speed (`make bench-kill` measures that).
pub const ON_THE_WAY_NS: u64 = 500_000_000;
