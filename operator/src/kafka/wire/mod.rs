//! Kafka's own protocol for the few admin calls that librdkafka's safe wrapper lacks: one TLS connection, one call at
//! a time, bounded in size and time. Does network IO; framing and reading answers are pure.
//!
//! The crate `kafka-protocol` is a codec and nothing else. It takes a count of elements at its word, so only a peer
//! whose certificate was checked is listened to. To add a call: implement [`Call`] for its request in
//! [`call`], and write beside [`quorum`] and [`voters`] what its answer means.

pub mod acls;
pub mod call;
mod client;
mod connection;
mod error;
pub mod features;
mod frame;
pub mod quorum;
#[cfg(test)]
mod tests;
mod tls;
pub mod voters;

pub use call::Call;
pub use client::connect;
pub use connection::{Connection, Socket};
pub use error::WireError;
pub use frame::FrameError;
