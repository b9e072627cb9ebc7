//! Failover: nodes that die are noticed in a second and kept out of the way, before Kubernetes itself knows.
//!
//! Every replica of the operator asks every node, all the time. Which nodes are out is written in one record that replicas
//! share, and pulled from there: labels on pods, hosts in MetalLB's announcements, deletions.
//!
//! | module | role | IO |
//! |---|---|---|
//! | [`model`] | the cluster, actions and decisions as values | no |
//! | [`health`] | what one replica has seen of each node | no |
//! | [`record`] | which nodes are out, and the brake | no |
//! | [`decide`] | what to do | no |
//! | [`targets`] | what is asked | no |
//! | [`report`], [`board`], [`metrics`] | what is said about it | no |
//! | [`adverts`] | MetalLB's announcements | reads |
//! | [`probe`] | asks | sockets |
//! | [`watch`] | the cluster as it is | watches |
//! | [`act`] | does it | writes |
//! | [`engine`] | the loop | through the others |

pub mod act;
pub mod adverts;
pub mod board;
pub mod decide;
pub mod engine;
pub mod health;
pub mod metrics;
pub mod model;
pub mod probe;
pub mod record;
pub mod report;
pub mod targets;
pub mod watch;

#[cfg(test)]
mod tests;

pub use board::Board;
pub use engine::{Place, run};
