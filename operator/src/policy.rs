//! One reconcile of an ArbPolicy: what its bots say is counted into its status. The bots obey it without the operator.

pub mod events;
pub mod member;
pub mod status;
