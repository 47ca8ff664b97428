//! The clients behind the seam (`processor_runtime::kafka`) against a real broker: what their contracts promise, one
//! claim a test.

#[path = "kafka_clients/admin.rs"]
mod admin;
#[path = "kafka_clients/changelog.rs"]
mod changelog;
#[path = "kafka_clients/consumer.rs"]
mod consumer;
#[path = "kafka_clients/faults.rs"]
mod faults;
#[path = "kafka_clients/producer.rs"]
mod producer;
#[path = "kafka_clients/support.rs"]
mod support;
