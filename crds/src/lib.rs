//! The API of the ArbBot Operator: `ArbBot` and `ArbPolicy` (group `arbbot.io`), and the pure function that turns a
//! bot's spec, its policies and its open incidents into the control it obeys. The operator and the bot share exactly
//! this crate. It does no I/O.

pub mod arbbot;
pub mod arbpolicy;
pub mod conditions;
pub mod control;
pub mod decimal;
pub mod decode;
pub mod duration;
pub mod guards;
pub mod incident;
pub mod limits;
pub mod loosen;
pub mod manifest;
pub mod names;
pub mod status;

pub use arbbot::{ArbBot, ArbBotSpec};
pub use arbpolicy::{ArbPolicy, ArbPolicySpec, ArbPolicyStatus};
pub use status::ArbBotStatus;
