//! HTTP for Tidegate: `PUT` or `POST /<address>` writes a record, `GET /<address>` reads the newest one.
//!
//! [`request`] turns method, path, query and headers into what is wanted, [`problem`] says what is wrong with it, and
//! [`reply`] builds answers: all pure. [`framing`] watches the bytes of a connection for ambiguous message lengths.
//! `service` and [`server`] do the IO.

#![warn(missing_docs)]

#[cfg(feature = "server")]
mod body;
#[cfg(feature = "server")]
mod credentials;
pub mod framing;
#[cfg(feature = "server")]
mod metrics;
pub mod problem;
#[cfg(feature = "server")]
pub mod reply;
pub mod request;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod service;
#[cfg(feature = "server")]
mod wire;

#[cfg(feature = "server")]
pub use server::{ServeError, serve};
