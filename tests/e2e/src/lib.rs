//! What stories on the local cluster share: kubectl, waiting on conditions, clients that run outside the cluster, and a look
//! into our own logs after each story. Does IO by starting real programs.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "stories are tests")]

pub mod disks;
pub mod field;
pub mod fleet;
pub mod kafka;
pub mod kubectl;
pub mod ledger;
pub mod nodes;
pub mod rollout;
pub mod story;
pub mod wait;

pub use kubectl::Kubectl;
pub use story::{Story, campaign, story, story_in};
pub use tidegate_cluster::client::{self, Client};
pub use tidegate_cluster::credentials::Credentials;
pub use wait::until;
