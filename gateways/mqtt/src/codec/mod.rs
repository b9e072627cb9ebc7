//! MQTT 3.1.1 and 5 on the wire, without IO: bytes to [`Packet`]s that a client may send, and [`Reply`]s that a
//! server may send to bytes.
//!
//! The codec is ours and not a library's, because a server's edge needs what none offered: a bound before every
//! allocation, the standard's reason for every refusal, each `MUST` on flags, reserved bits, NUL characters,
//! trailing bytes and lengths, and payloads that are slices of what was read. `mqtt-protocol-core` is the
//! independent opinion that the tests compare it with, in both directions.

mod decode;
mod encode;
mod error;
mod packet;
mod properties;
mod read;
mod reason;

#[cfg(test)]
mod tests;

pub use decode::{CONNECT_MAX_BYTES, Decoder, MAX_FILTERS};
pub use encode::{Announcement, Delivery, Reply, encode};
pub use error::DecodeError;
pub use packet::{
    Ack, Connect, Disconnect, Packet, Password, Publish, Qos, RetainHandling, Subscribe, SubscribeEntry,
    Unsubscribe, Version, Will,
};
pub use properties::{MAX_USER_PROPERTIES, Properties};
pub use reason::Reason;
