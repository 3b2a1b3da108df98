//! The test harness: a real Kubernetes for tests and demos.

pub mod cluster;
