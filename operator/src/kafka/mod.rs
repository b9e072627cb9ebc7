//! Kafka as the operator sees it: what a managed cluster's objects look like (pure builders), what a cluster
//! holds (observe), what must change (plan, pure) and how (execute).

pub mod access;
pub mod admin;
pub mod bell;
pub mod cluster;
pub mod directory;
pub mod error;
pub mod files;
pub mod fleets;
pub mod heard;
pub mod hub;
pub mod identity;
pub mod jvm;
pub mod marks;
pub mod metrics;
pub mod names;
pub mod objects;
pub mod plan;
pub mod properties;
pub mod refused;
pub mod repairs;
pub mod rights;
pub mod routes;
pub mod snapshot;
pub mod stateful_set;
pub mod summary;
pub mod survey;
pub mod surveyor;
pub mod task;
#[cfg(test)]
mod tests;
pub mod wire;
pub mod worker;
