//! What a session is told, and what it asks for.

use crate::codec::{DecodeError, Password, Qos};
use bytes::Bytes;
use tidegate_contract::{Address, AddressError, Filter};

/// Both clocks at one moment. The session never reads one itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that only goes forward.
    pub steady_ms: u64,
    /// Milliseconds since 1970 UTC.
    pub wall_ms: i64,
}

/// The bounds of one session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Maximum Packet Size, in bytes.
    pub packet_bytes: u32,
    /// Receive Maximum, and the most deliveries without a PUBACK.
    pub in_flight: u16,
    /// Subscriptions at a time.
    pub subscriptions: usize,
    /// A client that says nothing for so long is closed, in milliseconds.
    pub idle_ms: u64,
    /// CONNECT has to be complete after so long, in milliseconds.
    pub connect_ms: u64,
    /// A client that takes nothing of what waits for it for so long is closed, in milliseconds.
    pub stalled_ms: u64,
    /// The longest Keep Alive that a client of MQTT 5 keeps, in seconds; a longer one is replaced.
    pub keep_alive_max: u16,
    /// Above so many unsent bytes nothing more is read or delivered.
    pub output_high: usize,
    /// The identifier for a client that brings none; unique.
    pub assigned_client_id: String,
    /// What marks this connection's own records; unique.
    pub mark: String,
}

/// A message of a client on its way to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it belongs.
    pub address: Address,
    /// The bytes as sent.
    pub payload: Bytes,
    /// The QoS that the client chose.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// Payload Format Indicator.
    pub text_payload: Option<bool>,
    /// When it is of no more use, in milliseconds since 1970 UTC.
    pub expiry_ms: Option<i64>,
    /// Content Type.
    pub content_type: Option<String>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    pub correlation: Option<Bytes>,
    /// What makes this very record recognisable, where this session needs that itself.
    pub id: Option<String>,
    /// User Properties.
    pub user: Vec<(String, String)>,
}

/// A record from Kafka on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Where it belongs.
    pub address: &'a Address,
    /// The bytes as they were sent.
    pub payload: &'a [u8],
    /// The QoS that its writer chose; 1 where the writer has none.
    pub qos: Qos,
    /// Whether its writer asked to retain it.
    pub retain: bool,
    /// Whether it is sent because of a new subscription, as a retained message is ([`Action::Retained`]).
    pub retained: bool,
    /// Payload Format Indicator.
    pub text_payload: Option<bool>,
    /// When it is of no more use, in milliseconds since 1970 UTC.
    pub expiry_ms: Option<i64>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation: Option<&'a [u8]>,
    /// What makes the record recognisable.
    pub id: Option<&'a str>,
    /// User Properties.
    pub user: &'a [(String, String)],
}

/// What the session asks of whoever drives it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out who it is, make this connection the owner of the client identifier, end an older one, then call
    /// [`super::Session::admitted`] or [`super::Session::turned_away`].
    Admit(Admit),
    /// Write a record, then call [`super::Session::stored`], [`super::Session::failed`] or
    /// [`super::Session::refused`] with the token, once.
    Publish {
        /// Names this publish in the answer; they count up.
        token: u64,
        /// The record.
        message: Box<Message>,
    },
    /// Fix the start position of these filters, then call [`super::Session::subscribed`].
    Subscribe {
        /// The filters, each with whether records must not be lost (QoS 1).
        filters: Vec<(Filter, bool)>,
    },
    /// Deliver what is retained at the one address of this filter, which the platform keeps, before anything newer
    /// there; whenever the session takes a record.
    Retained(Filter),
    /// Read no more for this filter.
    Unsubscribe(Filter),
    /// Write the Will; nobody waits for the answer.
    Will(Box<Message>),
    /// Write what is still in the output, then close the connection. Nothing follows.
    Close(Close),
}

/// Who wants to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admit {
    /// The identifier, assigned where the client had none.
    pub client_id: String,
    /// The user name, if there was one.
    pub username: Option<String>,
    /// The password, if there was one. MQTT 5 allows it without a user name (§3.1.2.9).
    pub password: Option<Password>,
    /// Where the Will goes, if there is one.
    pub will: Option<Address>,
}

/// Why a publish is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The text is no address.
    Address(AddressError),
    /// No topic holds the address.
    NoTopic,
    /// The device has no right.
    Denied,
    /// The topic takes no payload so large.
    TooLarge,
}

impl Refusal {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Address(error) => error.reason(),
            Self::NoTopic => "NoTopic",
            Self::Denied => "Denied",
            Self::TooLarge => "TooLarge",
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// DISCONNECT from the client.
    Disconnect,
    /// The client closed the connection, or it broke.
    Lost,
    /// Bytes that are no packet which the client may send here.
    Malformed(DecodeError),
    /// A well-formed packet that breaks the protocol, named by the reason code's name.
    Violation(&'static str),
    /// No CONNECT in time.
    ConnectTimeout,
    /// Nothing was heard for 1.5 times the keep-alive.
    KeepAlive,
    /// Nothing was heard for the idle time.
    Idle,
    /// The client takes nothing of what waits for it.
    Stalled,
    /// The process had no memory for a large packet in time.
    NoMemory,
    /// A large packet took too long to come.
    SlowPacket,
    /// Another connection uses the client identifier.
    TakenOver,
    /// A record could not be stored now.
    PublishFailed,
    /// A record of a 3.1.1 client is refused for good, which 3.1.1 cannot say.
    Refused(Refusal),
    /// Subscriptions cannot be started now.
    SubscribeFailed,
    /// The device may not be here any more.
    Revoked,
    /// CONNECT was refused.
    TurnedAway(&'static str),
    /// The process ends.
    Shutdown,
}

impl Close {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Disconnect => "Disconnect",
            Self::Lost => "Lost",
            Self::Malformed(error) => error.reason(),
            Self::Violation(name) | Self::TurnedAway(name) => name,
            Self::ConnectTimeout => "ConnectTimeout",
            Self::KeepAlive => "KeepAliveTimeout",
            Self::Idle => "Idle",
            Self::Stalled => "Stalled",
            Self::NoMemory => "NoMemory",
            Self::SlowPacket => "SlowPacket",
            Self::TakenOver => "TakenOver",
            Self::PublishFailed => "PublishFailed",
            Self::Refused(refusal) => refusal.reason(),
            Self::SubscribeFailed => "SubscribeFailed",
            Self::Revoked => "Revoked",
            Self::Shutdown => "Shutdown",
        }
    }
}

/// What became of a filter in a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// Its start position is fixed.
    Started,
    /// The device has no right.
    Denied,
    /// It cannot be started now.
    Failed,
}

/// What the session did that is worth counting and is visible nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// PUBLISH packets taken, by QoS 0 and 1.
    pub received: [u64; 2],
    /// PUBACKs with success.
    pub acknowledged: u64,
    /// Publishes refused for good, QoS 0 included.
    pub refused: u64,
    /// PUBLISH packets sent, by QoS 0 and 1.
    pub delivered: [u64; 2],
    /// Records not delivered because their time was over.
    pub expired: u64,
    /// Records not delivered because they exceed the client's Maximum Packet Size.
    pub too_large: u64,
}
