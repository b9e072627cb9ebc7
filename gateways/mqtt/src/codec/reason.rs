//! The reason codes that this server sends (MQTT 5 §2.4).

/// A reason code of MQTT 5 that this server sends. What 3.1.1 can say of it is in [`Reason::connack_v3`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Success, granted QoS 0, normal disconnection.
    Success = 0x00,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// SUBACK of 3.1.1, and what has no better code.
    Unspecified = 0x80,
    /// The packet cannot be parsed.
    MalformedPacket = 0x81,
    /// The packet is not allowed here.
    ProtocolError = 0x82,
    /// The server does not speak this version.
    UnsupportedVersion = 0x84,
    /// The client identifier is not allowed.
    ClientIdentifierNotValid = 0x85,
    /// No such user name with this password.
    BadUserNameOrPassword = 0x86,
    /// No right.
    NotAuthorized = 0x87,
    /// The server cannot go on now: a passing failure.
    ServerBusy = 0x89,
    /// The server shuts down.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported.
    BadAuthenticationMethod = 0x8C,
    /// Nothing was heard for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the client identifier now.
    SessionTakenOver = 0x8E,
    /// The filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// More unacknowledged publishes than Receive Maximum.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias above Topic Alias Maximum.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// A limit of this server.
    QuotaExceeded = 0x97,
    /// Closed by rule: idle, too slow.
    AdministrativeAction = 0x98,
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A,
    /// QoS 2 is not supported.
    QosNotSupported = 0x9B,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// The client tries to connect too often.
    ConnectionRateExceeded = 0x9F,
}

impl Reason {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// A constant name for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::NoSubscriptionExisted => "NoSubscriptionExisted",
            Self::Unspecified => "Unspecified",
            Self::MalformedPacket => "MalformedPacket",
            Self::ProtocolError => "ProtocolError",
            Self::UnsupportedVersion => "UnsupportedVersion",
            Self::ClientIdentifierNotValid => "ClientIdentifierNotValid",
            Self::BadUserNameOrPassword => "BadUserNameOrPassword",
            Self::NotAuthorized => "NotAuthorized",
            Self::ServerBusy => "ServerBusy",
            Self::ServerShuttingDown => "ServerShuttingDown",
            Self::BadAuthenticationMethod => "BadAuthenticationMethod",
            Self::KeepAliveTimeout => "KeepAliveTimeout",
            Self::SessionTakenOver => "SessionTakenOver",
            Self::TopicFilterInvalid => "TopicFilterInvalid",
            Self::TopicNameInvalid => "TopicNameInvalid",
            Self::ReceiveMaximumExceeded => "ReceiveMaximumExceeded",
            Self::TopicAliasInvalid => "TopicAliasInvalid",
            Self::PacketTooLarge => "PacketTooLarge",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::AdministrativeAction => "AdministrativeAction",
            Self::RetainNotSupported => "RetainNotSupported",
            Self::QosNotSupported => "QosNotSupported",
            Self::SharedSubscriptionsNotSupported => "SharedSubscriptionsNotSupported",
            Self::ConnectionRateExceeded => "ConnectionRateExceeded",
        }
    }

    /// The return code of a CONNACK of 3.1.1 (§3.2.2.3); nothing where 3.1.1 only closes.
    pub const fn connack_v3(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerBusy
            | Self::ServerShuttingDown
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }
}
