//! How an exchange matches orders, checks them and books their fills. Pure: no clock, no I/O, no account of its own.
//!
//! The simulator and a bot's paper account share it, so that a fill on paper follows the rules that the simulator is
//! tested with.

pub mod book;
pub mod fees;
pub mod position;
pub mod product;
pub mod rejection;
pub mod rules;
