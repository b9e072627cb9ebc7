//! Fakes and compliance checks that every protocol crate runs: a real Kafka on loopback, Kafka in memory whose
//! acknowledgements a test holds back, librdkafka's mock cluster. IO: processes and sockets on loopback.

#![warn(missing_docs)]

pub mod certificates;
pub mod compliance;
mod java;
pub mod kafka;
pub mod memory;
mod memory_reader;
pub mod mock;
pub mod pki;
mod properties;
pub mod request;
pub mod rights;
pub mod secured;
pub mod statistics;
pub mod tls;
mod topics;

pub use kafka::Kafka;
pub use memory::MemoryKafka;
pub use mock::MockKafka;
pub use topics::Held;
