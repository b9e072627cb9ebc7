//! Platforms: a managed Kafka with its certificates, identity and volumes, or somebody else's with its credentials;
//! load-balancer addresses; how it all is.

pub mod attached;
pub mod claims;
mod closing;
pub mod controller;
pub mod credentials;
pub mod expiry;
pub mod external;
pub mod judge;
pub mod managed;
pub mod memory;
pub mod pods;
pub mod pool;
pub mod published;
pub mod replace;
#[cfg(test)]
mod replace_tests;
pub mod rival;
pub mod roll;
pub mod rollout;
#[cfg(test)]
mod rollout_tests;
pub mod rotation;
#[cfg(test)]
mod samples;
pub mod secrets;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_external;
pub mod validate;
pub mod watch;

pub use controller::PlatformController;
