//! The Tidegate operator: controllers for platforms, gateways, topics and fleets.

pub mod alerts;
pub mod controllers;
pub mod failover;
pub mod finalizer;
pub mod fleet;
pub mod frame;
pub mod gateway;
pub mod kafka;
pub mod manifests;
pub mod network;
pub mod pki;
pub mod platform;
pub mod rbac;
pub mod reference;
pub mod topic;
