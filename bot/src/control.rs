//! Control: how spec, policies and latches reach the gate, and how status proves it.

pub mod contact;
pub mod file;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod kubernetes;
pub mod latch;
pub mod lease;
pub mod ledger;
pub mod observed;
pub mod report;
pub mod task;
pub mod writer;
