//! The properties of MQTT 5 that a client may send (§2.2.2).

use super::error::DecodeError;
use super::read::Reader;
use bytes::Bytes;

/// The most user properties that one packet may carry.
pub const MAX_USER_PROPERTIES: usize = 128;

/// The properties of one packet. Which of them may be there is checked while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator: whether the payload is UTF-8 text.
    pub text_payload: Option<bool>,
    /// Message Expiry Interval, in seconds.
    pub message_expiry: Option<u32>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation: Option<Bytes>,
    /// Subscription Identifier, never 0.
    pub subscription_identifier: Option<u32>,
    /// Session Expiry Interval, in seconds.
    pub session_expiry: Option<u32>,
    /// Authentication Method.
    pub authentication_method: Option<String>,
    /// Request Problem Information.
    pub request_problem: Option<bool>,
    /// Will Delay Interval, in seconds.
    pub will_delay: Option<u32>,
    /// Receive Maximum, never 0.
    pub receive_maximum: Option<u16>,
    /// Topic Alias Maximum.
    pub topic_alias_maximum: Option<u16>,
    /// Topic Alias, never 0.
    pub topic_alias: Option<u16>,
    /// Maximum Packet Size in bytes, never 0.
    pub maximum_packet_size: Option<u32>,
    /// User Properties in their order.
    pub user: Vec<(String, String)>,
}

/// Which properties a packet may carry: bit n stands for identifier n.
#[derive(Clone, Copy)]
pub(super) struct Allowed(u64);

const fn set(identifiers: &[u8]) -> Allowed {
    let mut bits = 0;
    let mut index = 0;
    while index < identifiers.len() {
        bits |= 1 << identifiers[index];
        index += 1;
    }
    Allowed(bits)
}

/// Every identifier of MQTT 5 §2.2.2.2.
const KNOWN: Allowed = set(&[
    1, 2, 3, 8, 9, 11, 17, 18, 19, 21, 22, 23, 24, 25, 26, 28, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42,
]);

impl Allowed {
    pub(super) const CONNECT: Self = set(&[17, 21, 22, 23, 25, 33, 34, 38, 39]);
    pub(super) const WILL: Self = set(&[1, 2, 3, 8, 9, 24, 38]);
    pub(super) const PUBLISH: Self = set(&[1, 2, 3, 8, 9, 35, 38]);
    pub(super) const ACK: Self = set(&[31, 38]);
    pub(super) const SUBSCRIBE: Self = set(&[11, 38]);
    pub(super) const UNSUBSCRIBE: Self = set(&[38]);
    pub(super) const DISCONNECT: Self = set(&[17, 31, 38]);
    pub(super) const AUTH: Self = set(&[21, 22, 31, 38]);

    const fn has(self, identifier: u32) -> bool {
        identifier < 64 && self.0 & (1 << identifier) != 0
    }
}

const USER: u32 = 38;

impl Properties {
    /// Reads a property length and so many bytes of properties.
    pub(super) fn read(reader: &mut Reader, allowed: Allowed) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let length = reader.varint()? as usize;
        let mut reader = Reader::new(reader.take(length)?);
        let mut seen = 0_u64;
        while !reader.is_empty() {
            let identifier = reader.varint()?;
            if !KNOWN.has(identifier) {
                return Err(DecodeError::PropertyUnknown);
            }
            if !allowed.has(identifier) {
                return Err(DecodeError::PropertyMisplaced);
            }
            if identifier != USER {
                if seen & (1 << identifier) != 0 {
                    return Err(DecodeError::PropertyTwice);
                }
                seen |= 1 << identifier;
            }
            properties.value(identifier, &mut reader)?;
        }
        // MQTT 5 §3.1.2.11.10: data without a method
        if seen & (1 << 22) != 0 && seen & (1 << 21) == 0 {
            return Err(DecodeError::PropertyMisplaced);
        }
        Ok(properties)
    }

    fn value(&mut self, identifier: u32, reader: &mut Reader) -> Result<(), DecodeError> {
        match identifier {
            1 => self.text_payload = Some(reader.bool()?),
            2 => self.message_expiry = Some(reader.u32()?),
            3 => self.content_type = Some(reader.text()?),
            8 => self.response_topic = Some(reader.text()?),
            9 => self.correlation = Some(reader.binary()?),
            11 => self.subscription_identifier = Some(not_zero(reader.varint()?)?),
            17 => self.session_expiry = Some(reader.u32()?),
            21 => self.authentication_method = Some(reader.text()?),
            // nobody asks for the value, but it has to be well-formed
            22 => drop(reader.binary()?),
            23 => self.request_problem = Some(reader.bool()?),
            24 => self.will_delay = Some(reader.u32()?),
            25 => drop(reader.bool()?),
            31 => drop(reader.text()?),
            33 => self.receive_maximum = Some(not_zero(reader.u16()?)?),
            34 => self.topic_alias_maximum = Some(reader.u16()?),
            // 0 is refused where aliases are: this server takes none
            35 => self.topic_alias = Some(reader.u16()?),
            39 => self.maximum_packet_size = Some(not_zero(reader.u32()?)?),
            USER => {
                if self.user.len() == MAX_USER_PROPERTIES {
                    return Err(DecodeError::TooMany);
                }
                self.user.push((reader.text()?, reader.text()?));
            }
            _ => return Err(DecodeError::PropertyMisplaced),
        }
        Ok(())
    }
}

fn not_zero<T: Default + PartialEq>(value: T) -> Result<T, DecodeError> {
    if value == T::default() { Err(DecodeError::PropertyValue) } else { Ok(value) }
}
