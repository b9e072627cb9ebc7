//! The packets that a client sends.

use super::properties::Properties;
use bytes::Bytes;
use std::fmt;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5, protocol level 5.
    V5,
}

impl Version {
    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// Quality of service (MQTT 5 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the two bits on the wire; nothing for 3.
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet that a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT.
    Connect(Box<Connect>),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    PubAck(Ack),
    /// PUBREC, PUBREL or PUBCOMP: packets of QoS 2, which this server does not offer.
    QosTwo(Ack),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect(Disconnect),
    /// AUTH.
    Auth,
}

/// CONNECT (MQTT 5 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The version that the client speaks.
    pub version: Version,
    /// The client identifier; empty: the server chooses one.
    pub client_id: String,
    /// Clean Session of 3.1.1, Clean Start of 5.
    pub clean: bool,
    /// Keep Alive in seconds; 0: none.
    pub keep_alive: u16,
    /// The Will.
    pub will: Option<Will>,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Password>,
    /// The properties (5 only).
    pub properties: Properties,
}

/// A password. It shows itself in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Bytes);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The Will of a CONNECT (MQTT 5 §3.1.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The topic name, not yet checked.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// The QoS.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// The properties (5 only).
    pub properties: Properties,
}

/// PUBLISH (MQTT 5 §3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The topic name, not yet checked.
    pub topic: String,
    /// The QoS.
    pub qos: Qos,
    /// DUP.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// The packet identifier; 0 for QoS 0, never otherwise.
    pub packet_id: u16,
    /// The payload, a slice of what was read.
    pub payload: Bytes,
    /// The properties (5 only); nothing where there are none.
    pub properties: Option<Box<Properties>>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5 §3.4 to §3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The packet identifier.
    pub packet_id: u16,
    /// The reason code, as it was sent.
    pub code: u8,
}

/// SUBSCRIBE (MQTT 5 §3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The packet identifier.
    pub packet_id: u16,
    /// The Subscription Identifier (5 only).
    pub identifier: Option<u32>,
    /// At least one.
    pub entries: Vec<SubscribeEntry>,
}

/// One subscription in a SUBSCRIBE (MQTT 5 §3.8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeEntry {
    /// The filter, not yet checked.
    pub filter: String,
    /// The highest QoS that the client wants.
    pub qos: Qos,
    /// Not what this client publishes itself.
    pub no_local: bool,
    /// Keep RETAIN as the publisher set it.
    pub retain_as_published: bool,
    /// Which retained messages to send.
    pub retain_handling: RetainHandling,
}

/// Whether a subscription is answered with retained messages (MQTT 5 §3.8.3.1); with 3.1.1 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    Always,
    /// Only where there was no such subscription.
    IfNew,
    /// Never.
    Never,
}

/// UNSUBSCRIBE (MQTT 5 §3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The packet identifier.
    pub packet_id: u16,
    /// At least one, not yet checked.
    pub filters: Vec<String>,
}

/// DISCONNECT (MQTT 5 §3.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason code, as it was sent.
    pub code: u8,
    /// The Session Expiry Interval in seconds, where the client sets it anew.
    pub session_expiry: Option<u32>,
}

impl Disconnect {
    /// Whether the Will is deleted (MQTT-3.14.4-3).
    pub const fn is_normal(&self) -> bool {
        self.code == 0
    }
}
