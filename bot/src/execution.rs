//! Execution: the orders of the bot, what it does with them under the control in force, and the kill saga.
//!
//! [`engine`] decides and does no I/O; [`driver`] carries its commands out and feeds the answers back.

pub mod clock_check;
pub mod drain;
pub mod driver;
pub mod engine;
pub mod grid;
pub mod kill;
pub mod ladder;
pub mod orders;
pub mod proof;
pub mod repair;
