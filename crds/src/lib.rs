//! The four Tidegate resources (API group `tidegate.io`, version `v1alpha1`): types, CEL rules, conditions,
//! the names of labels and annotations. Pure: no client, no IO, no clock.
//!
//! [`schema::all`] gives the definitions as they are applied to a cluster.

#![warn(missing_docs)]

pub mod common;
pub mod conditions;
pub mod duration;
pub mod fleet;
pub mod gateway;
pub mod labels;
pub mod network;
pub mod platform;
pub mod quantity;
pub mod reasons;
pub mod schema;
pub mod topic;

pub use common::{LocalRef, Resources, Retention, SecretKeyRef};
pub use conditions::{CommonStatus, Condition, Conditions, State};
pub use duration::Duration;
pub use fleet::{DeviceFleet, DeviceFleetSpec, DeviceFleetStatus};
pub use gateway::{ProtocolGateway, ProtocolGatewaySpec, ProtocolGatewayStatus};
pub use platform::{IoTPlatform, IoTPlatformSpec, IoTPlatformStatus};
pub use quantity::Quantity;
pub use topic::{Topic, TopicSpec, TopicStatus};

/// The API group of all kinds.
pub const GROUP: &str = "tidegate.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
