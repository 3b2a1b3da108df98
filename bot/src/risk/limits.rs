//! Pre-trade checks.
