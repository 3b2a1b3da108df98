//! Strategies: pure functions from the state of the market and the position to the orders they want.

pub mod funding_carry;
