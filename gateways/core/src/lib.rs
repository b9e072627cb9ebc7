//! What every gateway shares: record, publisher, tail, history, directory, access, TLS, limits,
//! telemetry, shutdown.
//!
//! A protocol crate gets [`Services`] and builds on it; it never talks to Kafka itself. IO: Kafka through
//! librdkafka's own threads, one admin socket, TLS on the listeners' sockets, files with credentials.

#![warn(missing_docs)]

pub mod access;
pub mod admin;
pub mod directory;
mod files;
pub mod history;
pub mod kafka;
pub mod limits;
pub mod partition;
pub mod publisher;
pub mod reader;
pub mod record;
pub mod roster;
mod services;
pub mod shutdown;
pub mod tail;
pub mod telemetry;
pub mod tls;

pub use access::{Access, NotAdmitted, Proof, Secret};
pub use directory::Directory;
pub use history::{History, HistoryError, HistoryRead, Stored};
pub use limits::{ConnectionPermit, Limiter, Refused};
pub use partition::partition_of;
pub use publisher::{Completion, PublishError, PublishFailure, PublishHandle, Publisher};
pub use record::{Metadata, Place, Record};
pub use roster::{Action, Admission, Denied, Roster, Target};
pub use services::{Runtime, Services, StartError, start, start_looking};
pub use shutdown::Shutdown;
pub use tail::{
    Delivery, Gap, Reliability, SessionOptions, SubscriptionId, Tail, TailError, TailEvent, TailSession,
};
pub use telemetry::Telemetry;
pub use tidegate_contract::Principal;
pub use tls::DeviceCertificate;
