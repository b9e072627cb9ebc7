//! Why bytes are no packet that a client may send.

use super::reason::Reason;

/// Why the connection must be closed: what the client sent breaks the standard or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Packet type 0 (MQTT 5 §2.1.2).
    #[error("packet type 0 is reserved")]
    ReservedType,
    /// The flags beside the packet type (MQTT-2.1.3-1).
    #[error("the flags of the fixed header do not fit the packet type")]
    HeaderFlags,
    /// A length of more than four bytes, or not in its shortest form (MQTT-1.5.5-1).
    #[error("the remaining length is not encoded in its shortest form of at most four bytes")]
    RemainingLength,
    /// Larger than the limit, in bytes (MQTT 5 §3.2.2.3.6).
    #[error("the packet is larger than {0} bytes")]
    TooLarge(u32),
    /// A field runs past the end of its packet.
    #[error("a field runs past the end of the packet")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes follow the last field of the packet")]
    Trailing,
    /// A text is not UTF-8 (MQTT-1.5.4-1).
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A text holds U+0000 (MQTT-1.5.4-2).
    #[error("a text holds the NUL character")]
    Nul,
    /// Packet identifier 0 (MQTT-2.2.1-3).
    #[error("the packet identifier is 0")]
    PacketIdZero,
    /// Both QoS bits are set (MQTT-3.3.1-4).
    #[error("there is no QoS 3")]
    QosThree,
    /// DUP on QoS 0 (MQTT-3.3.1-2).
    #[error("DUP is set on QoS 0")]
    DupAtQosZero,
    /// A packet that only servers send (MQTT 5 §2.1.2).
    #[error("only servers send this packet")]
    ServerOnly,
    /// The first packet is not CONNECT (MQTT-3.1.0-1).
    #[error("the first packet is not CONNECT")]
    NotConnect,
    /// A second CONNECT (MQTT-3.1.0-2).
    #[error("a second CONNECT")]
    SecondConnect,
    /// The protocol name is not `MQTT` (MQTT-3.1.2-1).
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// A protocol level other than 4 and 5 (MQTT-3.1.2-2).
    #[error("the protocol level {0} is neither 4 (3.1.1) nor 5")]
    ProtocolLevel(u8),
    /// CONNECT flags that contradict each other, or the reserved one (MQTT-3.1.2-3, -11, -13, -15, -22).
    #[error("the CONNECT flags contradict each other")]
    ConnectFlags,
    /// AUTH in 3.1.1, where its type is reserved.
    #[error("packet type 15 is reserved in MQTT 3.1.1")]
    AuthInV3,
    /// A property that the standard does not know (MQTT 5 §2.2.2.2).
    #[error("an unknown property")]
    PropertyUnknown,
    /// A property that does not belong into this packet.
    #[error("a property that does not belong into this packet")]
    PropertyMisplaced,
    /// A property that may be there once.
    #[error("a property is there twice")]
    PropertyTwice,
    /// A property's value outside its range.
    #[error("the value of a property is out of range")]
    PropertyValue,
    /// More user properties, or more filters, than this server takes.
    #[error("more user properties or filters in one packet than this server takes")]
    TooMany,
    /// Reserved bits, QoS 3 or retain handling 3 in the options of a subscription (MQTT-3.8.3-5).
    #[error("the options of a subscription are out of range")]
    SubscriptionOptions,
    /// No filter in SUBSCRIBE or UNSUBSCRIBE (MQTT-3.8.3-2, MQTT-3.10.3-2).
    #[error("SUBSCRIBE and UNSUBSCRIBE have at least one filter")]
    NoFilter,
    /// A reason code that a client does not send in this packet.
    #[error("a reason code that does not belong into this packet")]
    ReasonCode,
}

impl DecodeError {
    /// What a DISCONNECT or CONNACK of MQTT 5 says.
    pub const fn code(self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::PacketTooLarge,
            Self::TooMany => Reason::QuotaExceeded,
            Self::ProtocolName | Self::ProtocolLevel(_) => Reason::UnsupportedVersion,
            Self::PacketIdZero
            | Self::DupAtQosZero
            | Self::ServerOnly
            | Self::NotConnect
            | Self::SecondConnect
            | Self::PropertyMisplaced
            | Self::PropertyTwice
            | Self::PropertyValue
            | Self::NoFilter => Reason::ProtocolError,
            Self::ReservedType
            | Self::HeaderFlags
            | Self::RemainingLength
            | Self::Truncated
            | Self::Trailing
            | Self::NotUtf8
            | Self::Nul
            | Self::QosThree
            | Self::ConnectFlags
            | Self::AuthInV3
            | Self::PropertyUnknown
            | Self::SubscriptionOptions
            | Self::ReasonCode => Reason::MalformedPacket,
        }
    }

    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedType => "ReservedType",
            Self::HeaderFlags => "HeaderFlags",
            Self::RemainingLength => "RemainingLength",
            Self::TooLarge(_) => "PacketTooLarge",
            Self::Truncated => "Truncated",
            Self::Trailing => "Trailing",
            Self::NotUtf8 => "NotUtf8",
            Self::Nul => "Nul",
            Self::PacketIdZero => "PacketIdZero",
            Self::QosThree => "QosThree",
            Self::DupAtQosZero => "DupAtQosZero",
            Self::ServerOnly => "ServerOnly",
            Self::NotConnect => "NotConnect",
            Self::SecondConnect => "SecondConnect",
            Self::ProtocolName => "ProtocolName",
            Self::ProtocolLevel(_) => "ProtocolLevel",
            Self::ConnectFlags => "ConnectFlags",
            Self::AuthInV3 => "AuthInV3",
            Self::PropertyUnknown => "PropertyUnknown",
            Self::PropertyMisplaced => "PropertyMisplaced",
            Self::PropertyTwice => "PropertyTwice",
            Self::PropertyValue => "PropertyValue",
            Self::TooMany => "TooMany",
            Self::SubscriptionOptions => "SubscriptionOptions",
            Self::NoFilter => "NoFilter",
            Self::ReasonCode => "ReasonCode",
        }
    }
}
