//! What is not well-formed: one table per packet, each case with the clause that it breaks.

use super::*;

fn check(cases: &[(&str, Version, &[u8], DecodeError)]) {
    for (name, version, bytes, error) in cases {
        let found = decoder(*version).decode(&mut BytesMut::from(*bytes));
        assert_eq!(found, Err(*error), "{name}");
    }
}

const V3: Version = Version::V3;
const V5: Version = Version::V5;

#[test]
fn a_bad_fixed_header_is_refused_from_its_first_bytes() {
    check(&[
        ("type 0", V5, b"\x00", DecodeError::ReservedType),
        ("SUBSCRIBE with flags 0 (MQTT-3.8.1-1)", V5, b"\x80", DecodeError::HeaderFlags),
        ("UNSUBSCRIBE with flags 0 (MQTT-3.10.1-1)", V3, b"\xA0", DecodeError::HeaderFlags),
        ("PUBREL with flags 0 (MQTT-3.6.1-1)", V5, b"\x60", DecodeError::HeaderFlags),
        ("PINGREQ with flags", V3, b"\xC1", DecodeError::HeaderFlags),
        ("PUBACK with flags", V3, b"\x42", DecodeError::HeaderFlags),
        ("PUBLISH with QoS 3 (MQTT-3.3.1-4)", V3, b"\x36", DecodeError::QosThree),
        ("PUBLISH with DUP at QoS 0 (MQTT-3.3.1-2)", V3, b"\x38", DecodeError::DupAtQosZero),
        ("CONNACK from a client", V5, b"\x20", DecodeError::ServerOnly),
        ("SUBACK from a client", V5, b"\x90", DecodeError::ServerOnly),
        ("UNSUBACK from a client", V3, b"\xB0", DecodeError::ServerOnly),
        ("PINGRESP from a client", V3, b"\xD0", DecodeError::ServerOnly),
        ("AUTH in 3.1.1", V3, b"\xF0", DecodeError::AuthInV3),
        ("a second CONNECT (MQTT-3.1.0-2)", V5, b"\x10", DecodeError::SecondConnect),
        ("a length of five bytes", V5, b"\x30\x80\x80\x80\x80\x01", DecodeError::RemainingLength),
        (
            "a length that is not the shortest (MQTT-1.5.5-1)",
            V5,
            b"\xC0\x80\x00",
            DecodeError::RemainingLength,
        ),
        ("larger than the limit", V5, b"\x30\xFF\xFF\x7F", DecodeError::TooLarge(1 << 20)),
    ]);
    assert_eq!(Decoder::new(99).decode(&mut BytesMut::from(&b"\xC0\x00"[..])), Err(DecodeError::NotConnect));
}

#[test]
fn a_large_connect_is_refused_before_it_is_read() {
    let mut buffer = BytesMut::from(&b"\x10\xFF\xFF\x7F"[..]);
    let found = Decoder::new(u32::MAX).decode(&mut buffer);
    assert_eq!(found, Err(DecodeError::TooLarge(CONNECT_MAX_BYTES)));
}

#[test]
fn a_long_length_form_is_accepted_where_3_1_1_does_not_forbid_it() {
    assert_eq!(decode(V3, b"\xC0\x80\x00"), Ok(Packet::PingReq));
}

#[test]
fn a_bad_connect_is_refused() {
    let cases: &[(&str, &[u8], DecodeError)] = &[
        (
            "a protocol that is not MQTT",
            b"\x10\x0C\x00\x04HTTP\x05\x02\x00\x00\x00\x00",
            DecodeError::ProtocolName,
        ),
        ("MQTT 3.1", b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00", DecodeError::ProtocolLevel(3)),
        ("level 6", b"\x10\x0C\x00\x04MQTT\x06\x02\x00\x00\x00\x00", DecodeError::ProtocolLevel(6)),
        (
            "the reserved flag (MQTT-3.1.2-3)",
            b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x00\x00\x00",
            DecodeError::ConnectFlags,
        ),
        (
            "Will QoS without Will (MQTT-3.1.2-11)",
            b"\x10\x0C\x00\x04MQTT\x04\x0A\x00\x00\x00\x00",
            DecodeError::ConnectFlags,
        ),
        (
            "Will Retain without Will (MQTT-3.1.2-13)",
            b"\x10\x0C\x00\x04MQTT\x04\x22\x00\x00\x00\x00",
            DecodeError::ConnectFlags,
        ),
        (
            "Will QoS 3 (MQTT-3.1.2-12)",
            b"\x10\x0C\x00\x04MQTT\x04\x1E\x00\x00\x00\x00",
            DecodeError::ConnectFlags,
        ),
        ("no room for the keep-alive", b"\x10\x09\x00\x04MQTT\x04\x02\x00", DecodeError::Truncated),
        (
            "an identifier that runs past the end",
            b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x02a",
            DecodeError::Truncated,
        ),
        (
            "an identifier that is not UTF-8 (MQTT-1.5.4-1)",
            b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xFF",
            DecodeError::NotUtf8,
        ),
        (
            "a surrogate (MQTT-1.5.4-1)",
            b"\x10\x0F\x00\x04MQTT\x04\x02\x00\x00\x00\x03\xED\xA0\x80",
            DecodeError::NotUtf8,
        ),
        (
            "NUL in the identifier (MQTT-1.5.4-2)",
            b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00",
            DecodeError::Nul,
        ),
        ("bytes after the end", b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x00x", DecodeError::Trailing),
        (
            "a property twice",
            b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x06\x21\x00\x01\x21\x00\x01\x00\x00",
            DecodeError::PropertyTwice,
        ),
        (
            "Receive Maximum 0",
            b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x00",
            DecodeError::PropertyValue,
        ),
        (
            "Request Problem Information 2",
            b"\x10\x0F\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x02\x00\x00",
            DecodeError::PropertyValue,
        ),
        (
            "a property of PUBLISH",
            b"\x10\x0F\x00\x04MQTT\x05\x02\x00\x00\x02\x01\x00\x00\x00",
            DecodeError::PropertyMisplaced,
        ),
        (
            "a property that only servers send",
            b"\x10\x0F\x00\x04MQTT\x05\x02\x00\x00\x02\x24\x00\x00\x00",
            DecodeError::PropertyMisplaced,
        ),
        (
            "an unknown property",
            b"\x10\x0F\x00\x04MQTT\x05\x02\x00\x00\x02\x63\x00\x00\x00",
            DecodeError::PropertyUnknown,
        ),
        (
            "data without a method",
            b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x03\x16\x00\x00\x00\x00",
            DecodeError::PropertyMisplaced,
        ),
        (
            "a property length beyond the packet",
            b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x7F\x00\x00",
            DecodeError::Truncated,
        ),
    ];
    for (name, bytes, error) in cases {
        assert_eq!(decode_first(bytes), Err(*error), "{name}");
    }
}

#[test]
fn a_bad_publish_is_refused() {
    check(&[
        ("packet identifier 0 (MQTT-2.2.1-3)", V3, b"\x32\x05\x00\x01a\x00\x00", DecodeError::PacketIdZero),
        ("no packet identifier", V3, b"\x32\x03\x00\x01a", DecodeError::Truncated),
        ("no property length in version 5", V5, b"\x30\x03\x00\x01a", DecodeError::Truncated),
        ("a topic that runs past the end", V3, b"\x30\x03\x00\x05a", DecodeError::Truncated),
        ("a topic with NUL", V3, b"\x30\x03\x00\x01\x00", DecodeError::Nul),
        (
            "a Subscription Identifier from a client (MQTT-3.3.4-6)",
            V5,
            b"\x30\x06\x00\x01a\x02\x0B\x01",
            DecodeError::PropertyMisplaced,
        ),
        ("Payload Format Indicator 2", V5, b"\x30\x06\x00\x01a\x02\x01\x02", DecodeError::PropertyValue),
        ("a user property without value", V5, b"\x30\x08\x00\x01a\x04\x26\x00\x01n", DecodeError::Truncated),
        (
            "a property identifier in a longer form",
            V5,
            b"\x30\x07\x00\x01a\x03\x81\x00\x00",
            DecodeError::RemainingLength,
        ),
    ]);
}

#[test]
fn more_user_properties_than_this_server_takes_are_refused() {
    // a length in two bytes
    let length = |length: usize| {
        let [high, low] = u16::try_from(length << 1).unwrap().to_be_bytes();
        [low >> 1 | 0x80, high]
    };
    let packet = |count: usize| {
        let mut body = b"\x00\x01a".to_vec();
        body.extend(length(count * 5));
        (0..count).for_each(|_| body.extend(b"\x26\x00\x00\x00\x00"));
        [&[0x30][..], &length(body.len()), &body].concat()
    };
    assert!(decode(V5, &packet(MAX_USER_PROPERTIES)).is_ok());
    assert_eq!(decode(V5, &packet(MAX_USER_PROPERTIES + 1)), Err(DecodeError::TooMany));
}

#[test]
fn bad_subscriptions_are_refused() {
    check(&[
        ("no filter (MQTT-3.8.3-2)", V3, b"\x82\x02\x00\x01", DecodeError::NoFilter),
        ("packet identifier 0", V3, b"\x82\x06\x00\x00\x00\x01a\x00", DecodeError::PacketIdZero),
        (
            "QoS 3 (MQTT-3.8.3-4 of 3.1.1)",
            V3,
            b"\x82\x06\x00\x01\x00\x01a\x03",
            DecodeError::SubscriptionOptions,
        ),
        (
            "options of version 5 in 3.1.1",
            V3,
            b"\x82\x06\x00\x01\x00\x01a\x04",
            DecodeError::SubscriptionOptions,
        ),
        (
            "reserved bits (MQTT-3.8.3-5)",
            V5,
            b"\x82\x07\x00\x01\x00\x00\x01a\x40",
            DecodeError::SubscriptionOptions,
        ),
        ("retain handling 3", V5, b"\x82\x07\x00\x01\x00\x00\x01a\x30", DecodeError::SubscriptionOptions),
        ("no options", V5, b"\x82\x06\x00\x01\x00\x00\x01a", DecodeError::Truncated),
        (
            "Subscription Identifier 0",
            V5,
            b"\x82\x09\x00\x01\x02\x0B\x00\x00\x01a\x00",
            DecodeError::PropertyValue,
        ),
        (
            "two Subscription Identifiers",
            V5,
            b"\x82\x0B\x00\x01\x04\x0B\x01\x0B\x02\x00\x01a\x00",
            DecodeError::PropertyTwice,
        ),
        ("UNSUBSCRIBE without filter (MQTT-3.10.3-2)", V5, b"\xA2\x03\x00\x01\x00", DecodeError::NoFilter),
        ("UNSUBSCRIBE that is cut", V3, b"\xA2\x04\x00\x01\x00\x05", DecodeError::Truncated),
    ]);
}

#[test]
fn other_bad_packets_are_refused() {
    check(&[
        ("PINGREQ with a body", V3, b"\xC0\x01x", DecodeError::Trailing),
        ("DISCONNECT of 3.1.1 with a body", V3, b"\xE0\x01\x00", DecodeError::Trailing),
        ("DISCONNECT with a code that only servers send", V5, b"\xE0\x01\x8D", DecodeError::ReasonCode),
        (
            "DISCONNECT with a server's property",
            V5,
            b"\xE0\x05\x00\x03\x1C\x00\x00",
            DecodeError::PropertyMisplaced,
        ),
        ("PUBACK with an unknown code", V5, b"\x40\x03\x00\x01\x01", DecodeError::ReasonCode),
        ("PUBACK of 3.1.1 with a code", V3, b"\x40\x03\x00\x01\x00", DecodeError::Trailing),
        ("PUBACK that is cut", V3, b"\x40\x01\x00", DecodeError::Truncated),
        ("AUTH with an unknown code", V5, b"\xF0\x01\x01", DecodeError::ReasonCode),
    ]);
}
