//! MQTT 3.1.1 and 5 for Tidegate: [`codec`] (bytes and packets, no IO), [`session`] (one client as a pure state
//! machine), [`server`] (sockets and Kafka, thin).
//!
//! What a client meets, beyond the standard: everybody is anonymous for now (user name and password are taken
//! and not looked at); QoS 0 and 1; no retained messages, shared subscriptions, topic aliases or sessions that
//! outlive their connection, all of which CONNACK of version 5 says. A client of 3.1.1 is closed on a QoS 2
//! PUBLISH and on a message that is refused for good, is granted QoS 1 where it asks for 2, starts clean even with
//! clean session 0, and what it sends with RETAIN is delivered without.

pub mod codec;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
#[cfg(test)]
mod testing;

#[cfg(feature = "server")]
pub use server::{ServeError, serve};
