//! A real Kafka, fault injection, independent oracles, the demo and the benchmarks.

pub mod broker;
pub mod client;
pub mod crash;
pub mod disk;
pub mod http;
pub mod in_process;
pub mod lab;
pub mod late;
pub mod log_file;
pub mod oracle;
pub mod proxy;
pub mod scene;
pub mod simulation;
pub mod tokens;
pub mod worker;
