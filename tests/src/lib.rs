//! The test harness: a real Kubernetes for tests and demos.

pub mod api_proxy;
pub mod api_server_metrics;
pub mod audit;
pub mod bench_kill;
pub mod bench_operator;
pub mod child;
pub mod clock;
pub mod cluster;
pub mod crds;
pub mod demo;
pub mod exchange;
pub mod harness;
pub mod helm;
pub mod images;
pub mod kstatus;
pub mod kubectl;
pub mod measure;
pub mod objects;
pub mod operator_process;
pub mod process_node;
pub mod programs;
pub mod progress;
pub mod rbac;
pub mod snapshot;
pub mod terms;
pub mod witness;
