//! The ledger: what was acknowledged against what Kafka holds.
//!
//! [`load`] publishes numbered messages over MQTT and HTTP from outside the cluster, subscribes to them, reads them and
//! connects anew all the time, and keeps an fsynced [`log`] of all that; [`read`] reads Kafka directly, as a pod with a certificate of its own; [`judge`] compares the
//! two and says what was lost, repeated, out of order or acknowledged too early. [`bench`] measures latency, and
//! [`report`] is the JSON shape that every measurement of this project is written in.

#![warn(missing_docs)]

pub mod bare;
pub mod bench;
mod crew;
pub mod device;
pub mod entry;
pub mod http;
pub mod judge;
pub mod kafka;
mod latency;
pub mod load;
pub mod log;
pub mod login;
pub mod mqtt;
mod observer;
pub mod payload;
pub mod probe;
mod publisher;
pub mod read;
mod recovery;
pub mod report;
pub mod stored;
pub mod verdict;
mod watch;
mod writer;

pub use judge::Judge;
pub use load::{Load, LoadOptions};
pub use login::Login;
pub use payload::{PayloadSize, RunId};
pub use report::Report;
pub use verdict::Verdict;
