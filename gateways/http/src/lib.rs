//! HTTP for Tidegate: `PUT` or `POST /<address>` writes a record, `GET /<address>` reads the newest one.
//!
//! [`request`] turns method, path, query and headers into what is wanted, [`problem`] says what is wrong with it, and
//! [`reply`] builds answers: all pure. [`framing`] watches the bytes of a connection for ambiguous message lengths.
//! `service` and [`server`] do the IO.

#![warn(missing_docs)]

mod body;
pub mod framing;
mod metrics;
pub mod problem;
pub mod reply;
pub mod request;
pub mod server;
mod service;
mod wire;

pub use server::{ServeError, serve};
