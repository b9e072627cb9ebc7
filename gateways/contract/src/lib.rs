//! What operator and gateways agree on: addresses, filters, routing, the configuration file and the
//! directory's records. Pure: no IO, no async, no clock.

#![warn(missing_docs)]

pub mod address;
pub mod config;
pub mod credential;
pub mod desired;
pub mod directory;
pub mod filter;
pub mod fleet;
pub mod header;
pub mod internal;
pub mod permission;
pub mod presence;
pub mod principal;
pub mod routing;
pub mod tree;

pub use address::{Address, AddressError};
pub use config::GatewayConfig;
pub use filter::{Filter, FilterError};
pub use permission::{Permission, PermissionError};
pub use principal::{NameError, Principal};
pub use routing::{Route, Routes};
pub use tree::FilterTree;
