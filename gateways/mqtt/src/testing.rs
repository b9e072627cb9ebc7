//! A client for tests, built on `mqtt-protocol-core`: an opinion on the wire that is not ours.

use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{
    self, Properties, Qos as TheirQos, SubEntry, SubOpts, v3_1_1 as v3, v5_0 as v5,
};

/// A packet from the server, as the other implementation reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    ConnAck { present: bool, code: u8, properties: Properties },
    Publish { topic: String, payload: Vec<u8>, qos: u8, id: u16, retain: bool, properties: Properties },
    PubAck { id: u16, code: u8 },
    SubAck { id: u16, codes: Vec<u8> },
    UnsubAck { id: u16, codes: Vec<u8> },
    PingResp,
    Disconnect { code: u8 },
}

/// Takes one packet from the start of `bytes`, which must be whole where it is there.
pub(crate) fn hear_one(bytes: &mut Vec<u8>, is_v5: bool) -> Option<Heard> {
    let (mut length, mut shift, mut header) = (0_usize, 0, 1);
    loop {
        let byte = *bytes.get(header)?;
        length |= usize::from(byte & 0x7F) << shift;
        (shift, header) = (shift + 7, header + 1);
        if byte & 0x80 == 0 {
            break;
        }
    }
    if bytes.len() < header + length {
        return None;
    }
    let packet: Vec<u8> = bytes.drain(..header + length).collect();
    Some(parse(packet[0], &packet[header..], is_v5))
}

/// All packets in `bytes`.
pub(crate) fn hear(bytes: &[u8], is_v5: bool) -> Vec<Heard> {
    let mut bytes = bytes.to_vec();
    let all = std::iter::from_fn(|| hear_one(&mut bytes, is_v5)).collect();
    assert!(bytes.is_empty(), "bytes that are no packet: {bytes:?}");
    all
}

macro_rules! whole {
    ($parsed:expr, $body:expr) => {{
        let (packet, consumed) = $parsed.expect("the other implementation refuses our packet");
        assert_eq!(consumed, $body.len(), "bytes after the packet's end");
        packet
    }};
}

fn parse(first: u8, body: &[u8], is_v5: bool) -> Heard {
    match (first >> 4, is_v5) {
        (2, true) => {
            let packet = whole!(v5::Connack::parse(body), body);
            let (present, code) = (packet.session_present(), packet.reason_code() as u8);
            Heard::ConnAck { present, code, properties: packet.props().clone() }
        }
        (2, false) => {
            let packet = whole!(v3::Connack::parse(body), body);
            let (present, code) = (packet.session_present(), packet.return_code() as u8);
            Heard::ConnAck { present, code, properties: Properties::new() }
        }
        (3, true) => {
            let packet = whole!(v5::Publish::parse(first & 0xF, Arc::from(body)), body);
            Heard::Publish {
                topic: packet.topic_name().to_owned(),
                payload: packet.payload().as_slice().to_vec(),
                qos: packet.qos() as u8,
                id: packet.packet_id().unwrap_or(0),
                retain: packet.retain(),
                properties: packet.props().clone(),
            }
        }
        (3, false) => {
            let packet = whole!(v3::Publish::parse(first & 0xF, Arc::from(body)), body);
            Heard::Publish {
                topic: packet.topic_name().to_owned(),
                payload: packet.payload().as_slice().to_vec(),
                qos: packet.qos() as u8,
                id: packet.packet_id().unwrap_or(0),
                retain: packet.retain(),
                properties: Properties::new(),
            }
        }
        (4, true) => {
            let packet = whole!(v5::Puback::parse(body), body);
            Heard::PubAck { id: packet.packet_id(), code: packet.reason_code().map_or(0, |code| code as u8) }
        }
        (4, false) => Heard::PubAck { id: whole!(v3::Puback::parse(body), body).packet_id(), code: 0 },
        (9, true) => {
            let packet = whole!(v5::Suback::parse(body), body);
            let codes = packet.reason_codes().into_iter().map(|code| code as u8).collect();
            Heard::SubAck { id: packet.packet_id(), codes }
        }
        (9, false) => {
            let packet = whole!(v3::Suback::parse(body), body);
            let codes = packet.return_codes().into_iter().map(|code| code as u8).collect();
            Heard::SubAck { id: packet.packet_id(), codes }
        }
        (11, true) => {
            let packet = whole!(v5::Unsuback::parse(body), body);
            let codes = packet.reason_codes().into_iter().map(|code| code as u8).collect();
            Heard::UnsubAck { id: packet.packet_id(), codes }
        }
        (11, false) => {
            Heard::UnsubAck { id: whole!(v3::Unsuback::parse(body), body).packet_id(), codes: Vec::new() }
        }
        (13, _) => Heard::PingResp,
        (14, true) => {
            let packet = whole!(v5::Disconnect::parse(body), body);
            Heard::Disconnect { code: packet.reason_code().map_or(0, |code| code as u8) }
        }
        (kind, _) => panic!("a server does not send packet type {kind}"),
    }
}

pub(crate) fn connect5(client_id: &str, properties: Properties) -> Vec<u8> {
    let builder = v5::Connect::builder().client_id(client_id).unwrap().clean_start(true).keep_alive(20);
    builder.props(properties).build().unwrap().to_continuous_buffer()
}

pub(crate) fn connect3(client_id: &str, clean: bool, keep_alive: u16) -> Vec<u8> {
    let builder = v3::Connect::builder().client_id(client_id).unwrap().clean_session(clean);
    builder.keep_alive(keep_alive).build().unwrap().to_continuous_buffer()
}

pub(crate) fn connect(is_v5: bool) -> Vec<u8> {
    if is_v5 { connect5("meter", Properties::new()) } else { connect3("meter", true, 20) }
}

const fn qos_of(qos: u8) -> TheirQos {
    match qos {
        0 => TheirQos::AtMostOnce,
        1 => TheirQos::AtLeastOnce,
        _ => TheirQos::ExactlyOnce,
    }
}

pub(crate) fn publish5(topic: &str, payload: &[u8], qos: u8, id: u16, properties: Properties) -> Vec<u8> {
    let builder = v5::Publish::builder().topic_name(topic).unwrap().qos(qos_of(qos)).props(properties);
    let builder = if qos == 0 { builder } else { builder.packet_id(id) };
    builder.payload(payload.to_vec()).build().unwrap().to_continuous_buffer()
}

pub(crate) fn publish3(topic: &str, payload: &[u8], qos: u8, id: u16, retain: bool) -> Vec<u8> {
    let builder = v3::Publish::builder().topic_name(topic).unwrap().qos(qos_of(qos)).retain(retain);
    let builder = if qos == 0 { builder } else { builder.packet_id(id) };
    builder.payload(payload.to_vec()).build().unwrap().to_continuous_buffer()
}

pub(crate) fn publish(is_v5: bool, topic: &str, payload: &[u8], qos: u8, id: u16) -> Vec<u8> {
    if is_v5 {
        publish5(topic, payload, qos, id, Properties::new())
    } else {
        publish3(topic, payload, qos, id, false)
    }
}

/// A SUBSCRIBE whose options are the bytes on the wire.
pub(crate) fn subscribe(is_v5: bool, id: u16, entries: &[(&str, u8)], properties: Properties) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(filter, options)| SubEntry::new(*filter, SubOpts::from_u8(*options).unwrap()).unwrap())
        .collect();
    if is_v5 {
        let builder = v5::Subscribe::builder().packet_id(id).entries(entries);
        builder.props(properties).build().unwrap().to_continuous_buffer()
    } else {
        v3::Subscribe::builder().packet_id(id).entries(entries).build().unwrap().to_continuous_buffer()
    }
}

pub(crate) fn property(property: impl Into<packet::Property>) -> packet::Property {
    property.into()
}
