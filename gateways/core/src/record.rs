//! A record: one message on its way between a device and Kafka. No IO.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_contract::{Address, header};

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
    /// The principal that wrote it, `fleet/device`; empty when read from a record that no gateway wrote.
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
    /// Whether the device sent it at most once: nobody needs to get it more reliably.
    pub at_most_once: bool,
    /// Whether the device says that the payload is text, or any bytes; nothing where it does not say.
    pub text: Option<bool>,
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
    /// The offset; -1 where Kafka confirmed a repeat that it had already stored and did not tell where.
    pub offset: i64,
}

/// Why a Kafka record is no [`Record`]: something else wrote it. It is passed over and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// No key, or one that is no address.
    #[error("the key is no address")]
    Key,
    /// No value: a deletion in a compacted topic.
    #[error("the record has no value")]
    Tombstone,
}

impl Record {
    /// Reads a Kafka record. Tolerant: headers that nobody knows or that do not parse are left out, so that
    /// records of other applications and of newer gateways can be read.
    pub fn decode<'a>(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, Undecodable> {
        let address = key
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| Address::parse(text).ok())
            .ok_or(Undecodable::Key)?;
        let payload = Bytes::copy_from_slice(value.ok_or(Undecodable::Tombstone)?);
        let mut metadata = Metadata::default();
        for (name, value) in headers {
            if let Some(text) = value.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
                metadata.read(name, text);
            }
        }
        Ok(Self { address, payload, metadata })
    }

    /// What the record takes in Kafka before compression, in bytes: never less than it really does, alone in its batch.
    pub fn stored_bytes(&self) -> usize {
        // a batch has a header of 61 bytes; a record's own lengths, deltas and counts are varints of at most 10
        let mut bytes = 61 + 70 + self.address.as_str().len() + self.payload.len();
        self.metadata.write(|name, value| bytes += 10 + name.len() + value.len());
        bytes
    }

    /// What the record takes in memory, in bytes, roughly: bounds must hold for a record whose metadata is large, too.
    pub(crate) fn memory_bytes(&self) -> usize {
        const FIXED: usize = 256;
        const PAIR: usize = size_of::<(String, String)>();
        let Metadata { device, content_type, response_address, correlation, id, user, .. } = &self.metadata;
        let texts = [Some(device), content_type.as_ref(), response_address.as_ref(), id.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let user: usize = user.iter().map(|(name, value)| PAIR + name.len() + value.len()).sum();
        let correlation = correlation.as_ref().map_or(0, Bytes::len);
        FIXED + self.address.as_str().len() + self.payload.len() + texts + correlation + user
    }
}

impl Metadata {
    /// Calls `header` with each header's name and value.
    pub fn write(&self, mut header: impl FnMut(&str, &[u8])) {
        header(header::DEVICE, self.device.as_bytes());
        if !self.protocol.is_empty() {
            header(header::PROTOCOL, self.protocol.as_bytes());
        }
        if let Some(text) = &self.content_type {
            header(header::CONTENT_TYPE, text.as_bytes());
        }
        if let Some(ms) = self.time_ms {
            header(header::TIME, ms.to_string().as_bytes());
        }
        if let Some(ms) = self.expiry_ms {
            header(header::EXPIRY, ms.to_string().as_bytes());
        }
        if self.retain {
            header(header::RETAIN, b"1");
        }
        if self.at_most_once {
            header(header::QOS, b"0");
        }
        if let Some(text) = self.text {
            header(header::TEXT, if text { b"1" } else { b"0" });
        }
        if let Some(text) = &self.response_address {
            header(header::RESPONSE_ADDRESS, text.as_bytes());
        }
        if let Some(bytes) = &self.correlation {
            header(header::CORRELATION, BASE64.encode(bytes).as_bytes());
        }
        if let Some(text) = &self.id {
            header(header::ID, text.as_bytes());
        }
        for (name, value) in &self.user {
            header(&format!("{}{name}", header::USER_PREFIX), value.as_bytes());
        }
    }

    fn read(&mut self, name: &str, text: &str) {
        match name {
            header::DEVICE => text.clone_into(&mut self.device),
            header::PROTOCOL => self.protocol = known_protocol(text),
            header::CONTENT_TYPE => self.content_type = Some(text.to_owned()),
            header::TIME => self.time_ms = text.parse().ok(),
            header::EXPIRY => self.expiry_ms = text.parse().ok(),
            header::RETAIN => self.retain = text == "1",
            header::QOS => self.at_most_once = text == "0",
            header::TEXT => {
                self.text = match text {
                    "0" => Some(false),
                    "1" => Some(true),
                    _ => None,
                }
            }
            header::RESPONSE_ADDRESS => self.response_address = Some(text.to_owned()),
            header::CORRELATION => self.correlation = BASE64.decode(text).ok().map(Bytes::from),
            header::ID => self.id = Some(text.to_owned()),
            _ => {
                if let Some(name) = name.strip_prefix(header::USER_PREFIX) {
                    self.user.push((name.to_owned(), text.to_owned()));
                }
            }
        }
    }
}

/// Most records name one of these: no allocation for them.
fn known_protocol(text: &str) -> Cow<'static, str> {
    match text {
        "mqtt" => Cow::Borrowed("mqtt"),
        "http" => Cow::Borrowed("http"),
        other => Cow::Owned(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through_kafka(record: &Record) -> Record {
        let mut headers = Vec::new();
        record.metadata.write(|name, value| headers.push((name.to_owned(), value.to_vec())));
        let headers = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
        Record::decode(Some(record.address.as_str().as_bytes()), Some(&record.payload), headers).unwrap()
    }

    #[test]
    fn what_is_no_record_of_ours_is_told_apart() {
        let none = || std::iter::empty();
        assert_eq!(Record::decode(None, Some(b"x"), none()), Err(Undecodable::Key));
        assert_eq!(Record::decode(Some(b"a/#"), Some(b"x"), none()), Err(Undecodable::Key));
        assert_eq!(Record::decode(Some(b"\xff"), Some(b"x"), none()), Err(Undecodable::Key));
        assert_eq!(Record::decode(Some(b"a"), None, none()), Err(Undecodable::Tombstone));
    }

    #[test]
    fn another_applications_headers_do_no_harm() {
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("traceparent", Some(b"00-1")),
            ("tg-time", Some(b"yesterday")),
            ("tg-correlation", Some(b"%%%")),
            ("tg-device", Some(b"\xff")),
            ("tg-id", None),
        ];
        let record = Record::decode(Some(b"a/b"), Some(b""), headers.into_iter()).unwrap();
        assert_eq!(record.metadata, Metadata::default());
        assert!(record.payload.is_empty());
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let text = || "\\PC{0,12}";
        (
            (
                text(),
                text(),
                prop::option::of(text()),
                prop::option::of(any::<i64>()),
                prop::option::of(any::<i64>()),
            ),
            (
                any::<(bool, bool, Option<bool>)>(),
                prop::option::of(text()),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            ),
            (prop::option::of(text()), prop::collection::vec((text(), text()), 0..4)),
        )
            .prop_map(
                |(
                    (device, protocol, content_type, time_ms, expiry_ms),
                    ((retain, at_most_once, text), response, correlation),
                    (id, user),
                )| {
                    Metadata {
                        device,
                        protocol: protocol.into(),
                        content_type,
                        time_ms,
                        expiry_ms,
                        retain,
                        at_most_once,
                        text,
                        response_address: response,
                        correlation: correlation.map(Bytes::from),
                        id,
                        user,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_kafka_as_it_went(
            payload in prop::collection::vec(any::<u8>(), 0..64), metadata in metadata(),
        ) {
            let record = Record { address: Address::parse("sites/berlin").unwrap(), payload: payload.into(), metadata };
            prop_assert_eq!(through_kafka(&record), record);
        }
    }
}
