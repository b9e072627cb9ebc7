//! A record: one message on its way between a device and Kafka. No IO.

use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_contract::Address;

/// One message: in Kafka its key is the address, its value the payload bytes exactly as sent, its headers the
/// metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it belongs.
    pub address: Address,
    /// The bytes as the device sent them.
    pub payload: Bytes,
    /// What travels in headers.
    pub metadata: Metadata,
}

/// What is said about a payload; the headers of [`tidegate_contract::header`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The principal that wrote it, `fleet/device` or `anonymous`; empty when read from a record that no gateway wrote.
    pub device: String,
    /// The protocol that it came over; empty when read from a record that no gateway wrote.
    pub protocol: Cow<'static, str>,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// The device's or the gateway's time, in milliseconds since 1970 UTC.
    pub time_ms: Option<i64>,
    /// When it is of no more use, in milliseconds since 1970 UTC.
    pub expiry_ms: Option<i64>,
    /// Whether the device asked to retain it.
    pub retain: bool,
    /// The address for the answer, as text: what a device wrote need not parse.
    pub response_address: Option<String>,
    /// What the answer repeats; any bytes (base64 in the header).
    pub correlation: Option<Bytes>,
    /// What makes a repeat recognisable.
    pub id: Option<String>,
    /// MQTT 5 user properties, in their order; names may repeat.
    pub user: Vec<(String, String)>,
}

/// Where Kafka holds a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The topic's name in Kafka.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}
