//! From what a server says to bytes.

use super::packet::{Qos, Version};
use super::reason::Reason;
use bytes::{BufMut, BytesMut};

/// The largest remaining length of MQTT 5 §2.1.4, in bytes.
const MAX_REMAINING: usize = 268_435_455;

/// A packet that this server sends.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// CONNACK with Session Present 0: there is no session state yet. The announcement goes with success in 5.
    ConnAck { reason: Reason, announcement: Option<&'a Announcement>, text: &'a str },
    /// PUBLISH.
    Publish(&'a Delivery<'a>),
    /// PUBACK. 3.1.1 knows only success.
    PubAck { packet_id: u16, reason: Reason, text: &'a str },
    /// SUBACK with one code per filter, already in the terms of the version.
    SubAck { packet_id: u16, codes: &'a [u8] },
    /// UNSUBACK. 3.1.1 has no codes in it.
    UnsubAck { packet_id: u16, codes: &'a [u8] },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT. 3.1.1 has none from the server: nothing is written.
    Disconnect { reason: Reason, text: &'a str },
}

/// What a CONNACK of MQTT 5 announces (§3.2.2.3). What never changes is not in here: Maximum QoS 1, Retain
/// Available 0, Session Expiry Interval 0, Shared Subscription Available 0, Topic Alias Maximum 0 (its default).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size, in bytes.
    pub maximum_packet_size: u32,
    /// Assigned Client Identifier, where the client had none.
    pub assigned_client_id: Option<String>,
    /// Server Keep Alive in seconds, where the client's own is not used.
    pub server_keep_alive: Option<u16>,
}

/// A record on its way to a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// 0 or 1.
    pub qos: Qos,
    /// Not 0 with QoS 1; not written with QoS 0.
    pub packet_id: u16,
    /// RETAIN.
    pub retain: bool,
    /// Payload Format Indicator.
    pub text_payload: Option<bool>,
    /// What is left of the Message Expiry Interval, in seconds.
    pub message_expiry: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation: Option<&'a [u8]>,
    /// Subscription Identifiers of the subscriptions that match.
    pub identifiers: &'a [u32],
    /// User Properties.
    pub user: &'a [(String, String)],
}

/// Appends a packet to `out`. Answers whether it did: not if it would be larger than `limit` bytes, the client's
/// Maximum Packet Size (MQTT-3.1.2-24), and not if the version has no such packet. A text that explains a
/// reason is left out where the packet would not fit with it (MQTT-3.14.2-3).
pub fn encode(reply: &Reply<'_>, version: Version, limit: u32, out: &mut BytesMut) -> bool {
    let v5 = version == Version::V5;
    match *reply {
        Reply::ConnAck { reason, announcement, text } => {
            let code = if v5 { Some(reason.code()) } else { reason.connack_v3() };
            let Some(code) = code else { return false };
            if !v5 {
                return put(0x20, &[&[0, code]], limit, out);
            }
            let mut properties = Vec::new();
            if let Some(announcement) = announcement {
                announce(announcement, &mut properties);
            }
            with_text(0x20, &[0, code], properties, text, limit, out)
        }
        Reply::Publish(delivery) => publish(delivery, v5, limit, out),
        Reply::PubAck { packet_id, reason, text } => {
            let id = packet_id.to_be_bytes();
            if !v5 || reason == Reason::Success {
                return (v5 || reason == Reason::Success) && put(0x40, &[&id], limit, out);
            }
            with_text(0x40, &[id[0], id[1], reason.code()], Vec::new(), text, limit, out)
        }
        Reply::SubAck { packet_id, codes } => acks(0x90, packet_id, codes, v5, limit, out),
        Reply::UnsubAck { packet_id, codes } => {
            acks(0xB0, packet_id, if v5 { codes } else { &[] }, v5, limit, out)
        }
        Reply::PingResp => put(0xD0, &[], limit, out),
        Reply::Disconnect { reason, text } => {
            v5 && with_text(0xE0, &[reason.code()], Vec::new(), text, limit, out)
        }
    }
}

fn acks(first: u8, packet_id: u16, codes: &[u8], v5: bool, limit: u32, out: &mut BytesMut) -> bool {
    let properties: &[u8] = if v5 { &[0] } else { &[] };
    put(first, &[&packet_id.to_be_bytes(), properties, codes], limit, out)
}

/// Writes `fixed`, the properties and a Reason String; without the string if it does not fit.
fn with_text(
    first: u8,
    fixed: &[u8],
    mut properties: Vec<u8>,
    text: &str,
    limit: u32,
    out: &mut BytesMut,
) -> bool {
    let bare = properties.len();
    if !text.is_empty() {
        put_text(31, text, &mut properties);
    }
    let mut length = Vec::with_capacity(4);
    put_varint(properties.len(), &mut length);
    if put(first, &[fixed, &length, &properties], limit, out) {
        return true;
    }
    properties.truncate(bare);
    length.clear();
    put_varint(bare, &mut length);
    put(first, &[fixed, &length, &properties], limit, out)
}

fn announce(announcement: &Announcement, properties: &mut Vec<u8>) {
    properties.put_u8(17);
    properties.put_u32(0); // Session Expiry Interval
    properties.put_u8(33);
    properties.put_u16(announcement.receive_maximum);
    properties.put_slice(&[36, 1]); // Maximum QoS
    properties.put_slice(&[37, 0]); // Retain Available
    properties.put_u8(39);
    properties.put_u32(announcement.maximum_packet_size);
    if let Some(id) = &announcement.assigned_client_id {
        put_text(18, id, properties);
    }
    properties.put_slice(&[40, 1, 41, 1, 42, 0]); // wildcards, subscription identifiers, no shared ones
    if let Some(seconds) = announcement.server_keep_alive {
        properties.put_u8(19);
        properties.put_u16(seconds);
    }
}

fn publish(delivery: &Delivery<'_>, v5: bool, limit: u32, out: &mut BytesMut) -> bool {
    let first = 0x30 | (delivery.qos as u8) << 1 | u8::from(delivery.retain);
    let Ok(length) = u16::try_from(delivery.topic.len()) else { return false };
    let topic = delivery.topic.as_bytes();
    let id = delivery.packet_id.to_be_bytes();
    let id: &[u8] = if delivery.qos == Qos::AtMostOnce { &[] } else { &id };
    let (mut properties_length, mut properties) = (Vec::new(), Vec::new());
    if v5 {
        publish_properties(delivery, &mut properties);
        put_varint(properties.len(), &mut properties_length);
    }
    let parts = [&length.to_be_bytes()[..], topic, id, &properties_length, &properties, delivery.payload];
    put(first, &parts, limit, out)
}

/// The record may come from any writer: what MQTT cannot carry (too long, with NUL) is left out.
fn publish_properties(delivery: &Delivery<'_>, properties: &mut Vec<u8>) {
    if let Some(text) = delivery.text_payload {
        properties.put_slice(&[1, u8::from(text)]);
    }
    if let Some(seconds) = delivery.message_expiry {
        properties.put_u8(2);
        properties.put_u32(seconds);
    }
    if let Some(text) = delivery.content_type {
        put_text(3, text, properties);
    }
    if let Some(topic) = delivery.response_topic
        && !topic.is_empty()
        && !topic.contains(['+', '#'])
    {
        put_text(8, topic, properties);
    }
    if let Some(data) = delivery.correlation
        && let Ok(length) = u16::try_from(data.len())
    {
        properties.put_u8(9);
        properties.put_u16(length);
        properties.put_slice(data);
    }
    for &identifier in delivery.identifiers {
        properties.put_u8(11);
        put_varint(identifier as usize, properties);
    }
    for (name, value) in delivery.user {
        if let (Some(_), Some(length)) = (text_length(name), text_length(value)) {
            put_text(38, name, properties);
            properties.put_u16(length);
            properties.put_slice(value.as_bytes());
        }
    }
}

/// The length of a text that MQTT can carry.
fn text_length(text: &str) -> Option<u16> {
    if text.contains('\0') { None } else { u16::try_from(text.len()).ok() }
}

/// A property that is a text, if MQTT can carry it.
fn put_text(identifier: u8, text: &str, properties: &mut Vec<u8>) {
    if let Some(length) = text_length(text) {
        properties.put_u8(identifier);
        properties.put_u16(length);
        properties.put_slice(text.as_bytes());
    }
}

fn put_varint(value: usize, out: &mut impl BufMut) {
    let mut left = value;
    loop {
        let [low, ..] = left.to_le_bytes();
        let byte = low & 0x7F;
        left >>= 7;
        if left == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

/// Writes one packet from its parts, if it is not too large.
fn put(first: u8, parts: &[&[u8]], limit: u32, out: &mut BytesMut) -> bool {
    let remaining: usize = parts.iter().map(|part| part.len()).sum();
    let header = 1 + varint_bytes(remaining);
    if remaining > MAX_REMAINING || header + remaining > limit as usize {
        return false;
    }
    out.reserve(header + remaining);
    out.put_u8(first);
    put_varint(remaining, out);
    for part in parts {
        out.put_slice(part);
    }
    true
}

const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
