//! The Tidegate operator: controllers for platforms, gateways, topics and fleets.

pub mod frame;
pub mod kafka;
pub mod pki;
