//! Bytes of a client through the MQTT decoder.
//!
//! Holds: no panic; packets do not depend on how the stream was torn; nothing is larger than what was sent; what
//! was read as a PUBLISH is written and read back the same.

use bytes::BytesMut;
use tidegate_mqtt::codec::{
    Connect, DecodeError, Decoder, Delivery, Packet, Publish, Qos, Reply, Version, encode,
};

const MAX_BYTES: u32 = 4_096;
const CONNECT_V3: &[u8] = b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
const CONNECT_V5: &[u8] = b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00";

/// The first byte says where the stream starts (a new connection, after CONNECT of 3.1.1 or of 5) and how it is
/// torn; the rest is the stream.
///
/// # Panics
/// Where the codec breaks what it holds: that is the finding.
pub fn run(data: &[u8]) {
    let Some((&mode, stream)) = data.split_first() else { return };
    let prefix: &[u8] = match mode % 3 {
        0 => &[],
        1 => CONNECT_V3,
        _ => CONNECT_V5,
    };
    let whole = decode(prefix, stream, stream.len().max(1));
    let torn = decode(prefix, stream, usize::from(mode / 3 % 7) + 1);
    assert_eq!(whole, torn, "packets depend on how the stream was torn");
    let version = whole.version;
    for packet in &whole.packets {
        check(packet, version, stream.len());
    }
}

#[derive(Debug, PartialEq)]
struct Decoded {
    version: Option<Version>,
    packets: Vec<Packet>,
    error: Option<DecodeError>,
}

fn decode(prefix: &[u8], stream: &[u8], piece: usize) -> Decoded {
    let mut decoder = Decoder::new(MAX_BYTES);
    let mut buffer = BytesMut::from(prefix);
    if !prefix.is_empty() {
        assert!(matches!(decoder.decode(&mut buffer), Ok(Some(Packet::Connect(_)))));
    }
    let mut packets = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return Decoded { version: decoder.version(), packets, error: Some(error) },
            }
        }
        assert!(buffer.len() <= MAX_BYTES as usize, "an incomplete packet beyond the limit is waited for");
    }
    Decoded { version: decoder.version(), packets, error: None }
}

fn check(packet: &Packet, version: Option<Version>, sent: usize) {
    let size = match packet {
        Packet::Connect(connect) => connect_size(connect),
        Packet::Publish(publish) => {
            read_back(publish, version);
            publish.topic.len() + publish.payload.len()
        }
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.packet_id != 0 && !subscribe.entries.is_empty());
            subscribe.entries.iter().map(|entry| entry.filter.len()).sum()
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.packet_id != 0 && !unsubscribe.filters.is_empty());
            unsubscribe.filters.iter().map(String::len).sum()
        }
        Packet::PubAck(ack) | Packet::QosTwo(ack) => {
            assert!(ack.packet_id != 0);
            0
        }
        Packet::PingReq | Packet::Disconnect(_) | Packet::Auth => 0,
    };
    assert!(size <= sent, "more came out than went in");
}

fn connect_size(connect: &Connect) -> usize {
    let will = connect.will.as_ref().map_or(0, |will| will.topic.len() + will.payload.len());
    connect.client_id.len() + will + connect.username.as_ref().map_or(0, String::len)
}

fn read_back(publish: &Publish, version: Option<Version>) {
    assert_eq!(publish.packet_id == 0, publish.qos == Qos::AtMostOnce);
    assert!(!publish.topic.contains('\0'));
    let Some(version) = version else { panic!("a PUBLISH before CONNECT") };
    let properties = publish.properties.as_deref().cloned().unwrap_or_default();
    // what a server never sends on
    if properties.topic_alias.is_some() || properties.response_topic.as_ref().is_some_and(|t| !is_name(t)) {
        return;
    }
    let delivery = Delivery {
        topic: &publish.topic,
        payload: &publish.payload,
        qos: publish.qos,
        packet_id: publish.packet_id,
        retain: publish.retain,
        text_payload: properties.text_payload,
        message_expiry: properties.message_expiry,
        content_type: properties.content_type.as_deref(),
        response_topic: properties.response_topic.as_deref(),
        correlation: properties.correlation.as_deref(),
        identifiers: &[],
        user: &properties.user,
    };
    let prefix = if version == Version::V5 { CONNECT_V5 } else { CONNECT_V3 };
    let mut out = BytesMut::new();
    assert!(encode(&Reply::Publish(&delivery), version, MAX_BYTES, &mut out));
    let again = decode(prefix, &out, out.len());
    let expected = Publish { dup: false, ..publish.clone() };
    assert_eq!((again.packets, again.error), (vec![Packet::Publish(expected)], None));
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_committed_input_holds() {
        crate::corpus::replay("mqtt_codec", super::run);
    }
}
