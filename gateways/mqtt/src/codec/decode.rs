//! From bytes to packets: framing, then one function per packet.

use super::error::DecodeError;
use super::packet::{
    Ack, Connect, Disconnect, Packet, Password, Publish, Qos, RetainHandling, Subscribe, SubscribeEntry,
    Unsubscribe, Version, Will,
};
use super::properties::{Allowed, Properties};
use super::read::{Reader, varint};
use bytes::{Buf, BytesMut};

/// The largest CONNECT, in bytes: a Will, a password and names of ordinary sizes. Nobody has said yet who he is.
pub const CONNECT_MAX_BYTES: u32 = 2 * 65_536 + 8_192;
/// The most filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const MAX_FILTERS: usize = 1_024;

/// Cuts a stream of bytes into packets. It knows the version from the CONNECT on.
#[derive(Debug)]
pub struct Decoder {
    version: Option<Version>,
    max_bytes: u32,
}

impl Decoder {
    /// A decoder that refuses packets larger than `max_bytes`, fixed header included.
    pub const fn new(max_bytes: u32) -> Self {
        Self { version: None, max_bytes }
    }

    /// The version, once CONNECT was read.
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes one packet from the start of `buffer`; nothing as long as its end is missing. A packet that is too
    /// large is refused as soon as its length is known. After an error the stream has no meaning any more.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(&first) = buffer.first() else { return Ok(None) };
        let (kind, flags) = (first >> 4, first & 0x0F);
        check_header(kind, flags)?;
        match (self.version, kind) {
            (None, 1) => {}
            (None, _) => return Err(DecodeError::NotConnect),
            (Some(_), 1) => return Err(DecodeError::SecondConnect),
            (Some(Version::V3), 15) => return Err(DecodeError::AuthInV3),
            _ => {}
        }
        let Some(length) = varint(&buffer[1..])? else { return Ok(None) };
        // 3.1.1 does not ask for the shortest form
        if !length.shortest && self.version != Some(Version::V3) {
            return Err(DecodeError::RemainingLength);
        }
        let limit =
            if self.version.is_none() { CONNECT_MAX_BYTES.min(self.max_bytes) } else { self.max_bytes };
        let header = 1 + length.bytes;
        let total = header + length.value as usize;
        if total > limit as usize {
            return Err(DecodeError::TooLarge(limit));
        }
        if buffer.len() < total {
            return Ok(None);
        }
        let mut packet = buffer.split_to(total).freeze();
        packet.advance(header);
        let mut reader = Reader::new(packet);
        let packet = self.body(kind, flags, &mut reader)?;
        reader.end()?;
        Ok(Some(packet))
    }

    /// The length of the packet at the start of `buffer`, fixed header included, once it is there. Only after
    /// [`Decoder::decode`] found the packet's end missing is it known to be within bounds.
    pub fn announced(buffer: &[u8]) -> Option<usize> {
        let length = varint(buffer.get(1..)?).ok()??;
        Some(1 + length.bytes + length.value as usize)
    }

    fn body(&mut self, kind: u8, flags: u8, reader: &mut Reader) -> Result<Packet, DecodeError> {
        let v5 = self.version == Some(Version::V5);
        Ok(match kind {
            1 => {
                let connect = connect(reader)?;
                self.version = Some(connect.version);
                Packet::Connect(Box::new(connect))
            }
            3 => Packet::Publish(publish(flags, v5, reader)?),
            4 => Packet::PubAck(ack(v5, reader)?),
            5..=7 => Packet::QosTwo(ack(v5, reader)?),
            8 => Packet::Subscribe(subscribe(v5, reader)?),
            10 => Packet::Unsubscribe(unsubscribe(v5, reader)?),
            12 => Packet::PingReq,
            14 => Packet::Disconnect(disconnect(v5, reader)?),
            15 => auth(reader)?,
            _ => return Err(DecodeError::ServerOnly),
        })
    }
}

/// Type, direction and flags (MQTT 5 §2.1.2, §2.1.3), known from the first byte.
const fn check_header(kind: u8, flags: u8) -> Result<(), DecodeError> {
    match (kind, flags) {
        (0, _) => Err(DecodeError::ReservedType),
        (2 | 9 | 11 | 13, _) => Err(DecodeError::ServerOnly),
        (3, _) if flags & 0b0110 == 0b0110 => Err(DecodeError::QosThree),
        (3, _) if flags & 0b1110 == 0b1000 => Err(DecodeError::DupAtQosZero),
        (3, _) | (6 | 8 | 10, 0b0010) => Ok(()),
        (6 | 8 | 10, _) => Err(DecodeError::HeaderFlags),
        (_, 0) => Ok(()),
        _ => Err(DecodeError::HeaderFlags),
    }
}

fn connect(reader: &mut Reader) -> Result<Connect, DecodeError> {
    let name = reader.binary()?;
    let level = reader.u8()?;
    let version = match (&name[..], level) {
        (b"MQTT", 4) => Version::V3,
        (b"MQTT", 5) => Version::V5,
        // MQIsdp is MQTT 3.1: its clients understand "unacceptable protocol version"
        (b"MQTT" | b"MQIsdp", _) => return Err(DecodeError::ProtocolLevel(level)),
        _ => return Err(DecodeError::ProtocolName),
    };
    let v5 = version == Version::V5;
    let flags = reader.u8()?;
    let bit = |mask: u8| flags & mask != 0;
    let qos = Qos::from_bits(flags >> 3 & 0b11).ok_or(DecodeError::ConnectFlags)?;
    let (has_name, has_password, has_will) = (bit(0x80), bit(0x40), bit(0x04));
    let will_bits_without_will = !has_will && flags & 0b0011_1000 != 0;
    // only 3.1.1 wants a user name with a password (MQTT-3.1.2-22 there)
    let password_alone = !v5 && has_password && !has_name;
    if bit(0x01) || will_bits_without_will || password_alone {
        return Err(DecodeError::ConnectFlags);
    }
    let keep_alive = reader.u16()?;
    let properties = read_properties(v5, reader, Allowed::CONNECT)?;
    let client_id = reader.text()?;
    let will = if has_will {
        let properties = read_properties(v5, reader, Allowed::WILL)?;
        let (topic, payload) = (reader.text()?, reader.binary()?);
        Some(Will { topic, payload, qos, retain: bit(0x20), properties })
    } else {
        None
    };
    let username = if has_name { Some(reader.text()?) } else { None };
    let password = if has_password { Some(Password(reader.binary()?)) } else { None };
    Ok(Connect { version, client_id, clean: bit(0x02), keep_alive, will, username, password, properties })
}

fn read_properties(v5: bool, reader: &mut Reader, allowed: Allowed) -> Result<Properties, DecodeError> {
    if v5 { Properties::read(reader, allowed) } else { Ok(Properties::default()) }
}

fn publish(flags: u8, v5: bool, reader: &mut Reader) -> Result<Publish, DecodeError> {
    let qos = Qos::from_bits(flags >> 1 & 0b11).ok_or(DecodeError::QosThree)?;
    let topic = reader.text()?;
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
    let properties = read_properties(v5, reader, Allowed::PUBLISH)?;
    let properties = if properties == Properties::default() { None } else { Some(Box::new(properties)) };
    let payload = reader.rest();
    Ok(Publish {
        topic,
        qos,
        dup: flags & 0b1000 != 0,
        retain: flags & 1 != 0,
        packet_id,
        payload,
        properties,
    })
}

/// PUBACK and its kin: in 5, reason code and properties may be left out from the end.
fn ack(v5: bool, reader: &mut Reader) -> Result<Ack, DecodeError> {
    let packet_id = reader.packet_id()?;
    let code = if v5 && !reader.is_empty() { reader.u8()? } else { 0 };
    if !matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90..=0x92 | 0x97 | 0x99) {
        return Err(DecodeError::ReasonCode);
    }
    if v5 && !reader.is_empty() {
        Properties::read(reader, Allowed::ACK)?;
    }
    Ok(Ack { packet_id, code })
}

fn subscribe(v5: bool, reader: &mut Reader) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let properties = read_properties(v5, reader, Allowed::SUBSCRIBE)?;
    let mut entries = Vec::new();
    while !reader.is_empty() {
        if entries.len() == MAX_FILTERS {
            return Err(DecodeError::TooMany);
        }
        let filter = reader.text()?;
        let options = reader.u8()?;
        let qos = Qos::from_bits(options & 0b11).ok_or(DecodeError::SubscriptionOptions)?;
        let reserved = if v5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(DecodeError::SubscriptionOptions);
        }
        let retain_handling = match options >> 4 & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(DecodeError::SubscriptionOptions),
        };
        let (no_local, retain_as_published) = (options & 0b100 != 0, options & 0b1000 != 0);
        entries.push(SubscribeEntry { filter, qos, no_local, retain_as_published, retain_handling });
    }
    if entries.is_empty() {
        return Err(DecodeError::NoFilter);
    }
    Ok(Subscribe { packet_id, identifier: properties.subscription_identifier, entries })
}

fn unsubscribe(v5: bool, reader: &mut Reader) -> Result<Unsubscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    read_properties(v5, reader, Allowed::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        if filters.len() == MAX_FILTERS {
            return Err(DecodeError::TooMany);
        }
        filters.push(reader.text()?);
    }
    if filters.is_empty() {
        return Err(DecodeError::NoFilter);
    }
    Ok(Unsubscribe { packet_id, filters })
}

fn disconnect(v5: bool, reader: &mut Reader) -> Result<Disconnect, DecodeError> {
    let code = if v5 && !reader.is_empty() { reader.u8()? } else { 0 };
    // the codes that the table of MQTT 5 §3.14.2.1 gives to clients
    if !matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(DecodeError::ReasonCode);
    }
    let session_expiry = if v5 && !reader.is_empty() {
        Properties::read(reader, Allowed::DISCONNECT)?.session_expiry
    } else {
        None
    };
    Ok(Disconnect { code, session_expiry })
}

fn auth(reader: &mut Reader) -> Result<Packet, DecodeError> {
    if !reader.is_empty() {
        if !matches!(reader.u8()?, 0x00 | 0x18 | 0x19) {
            return Err(DecodeError::ReasonCode);
        }
        if !reader.is_empty() {
            Properties::read(reader, Allowed::AUTH)?;
        }
    }
    Ok(Packet::Auth)
}
