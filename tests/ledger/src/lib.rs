//! The ledger: what was acknowledged against what Kafka holds.
//!
//! [`load`] publishes numbered messages from outside the cluster and keeps an fsynced [`log`] of every
//! acknowledgement; [`read`] reads Kafka directly, as a pod with a certificate of its own; [`judge`] compares the
//! two and says what was lost, repeated, out of order or acknowledged too early. [`bench`] measures latency, and
//! [`report`] is the JSON shape that every measurement of this project is written in.

#![warn(missing_docs)]

pub mod bare;
pub mod bench;
pub mod judge;
pub mod kafka;
mod latency;
pub mod load;
pub mod log;
pub mod mqtt;
pub mod payload;
pub mod prober;
mod publisher;
pub mod read;
pub mod report;
pub mod stored;
pub mod verdict;

pub use judge::Judge;
pub use load::{Load, LoadOptions};
pub use payload::{PayloadSize, RunId};
pub use prober::Prober;
pub use report::Report;
pub use verdict::Verdict;
