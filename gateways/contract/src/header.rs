//! The names of record headers in Kafka. All values are UTF-8 text.

/// The principal that wrote the record, `fleet/device`. Always there.
pub const DEVICE: &str = "tg-device";
/// The protocol that the record came over: `mqtt`, `http`, …
pub const PROTOCOL: &str = "tg-protocol";
/// The payload's media type (MQTT 5 §3.3.2.3.9, RFC 9110 §8.3).
pub const CONTENT_TYPE: &str = "content-type";
/// The device's or the gateway's time, in milliseconds since 1970 UTC.
pub const TIME: &str = "tg-time";
/// When the record is of no more use, in milliseconds since 1970 UTC.
pub const EXPIRY: &str = "tg-expiry";
/// `1` where the device asked to retain the message (MQTT 5 §3.3.1.3).
pub const RETAIN: &str = "tg-retain";
/// `0` where the device sent the message at most once (MQTT 5 §4.3.1): it is stored like any other, and delivered
/// no more reliably than it was sent (MQTT-3.8.4-8).
pub const QOS: &str = "tg-qos";
/// `1` where the device says that the payload is UTF-8 text, `0` where it says that it is any bytes
/// (MQTT 5 §3.3.2.3.2).
pub const TEXT: &str = "tg-text";
/// The address for the answer (MQTT 5 §3.3.2.3.5).
pub const RESPONSE_ADDRESS: &str = "tg-response-address";
/// What the answer repeats, base64 (MQTT 5 §3.3.2.3.6: the bytes may be no UTF-8).
pub const CORRELATION: &str = "tg-correlation";
/// What makes a repeat recognisable.
pub const ID: &str = "tg-id";
/// The start of the name of an MQTT 5 user property's header.
pub const USER_PREFIX: &str = "tg-user-";
