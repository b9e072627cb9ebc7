//! What is well-formed, compared with another implementation in both directions.

mod malformed;

use super::*;
use crate::testing::{self, Heard, hear};
use bytes::{Bytes, BytesMut};
use mqtt_protocol_core::mqtt::packet::{
    self as theirs, Properties as TheirProperties, Property, v3_1_1 as v3, v5_0 as v5,
};
use proptest::prelude::*;

/// A decoder that has read a CONNECT.
fn decoder(version: Version) -> Decoder {
    let mut decoder = Decoder::new(1 << 20);
    let mut buffer = BytesMut::from(&testing::connect(version == Version::V5)[..]);
    assert!(matches!(decoder.decode(&mut buffer), Ok(Some(Packet::Connect(_)))));
    decoder
}

fn decode(version: Version, bytes: &[u8]) -> Result<Packet, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let packet = decoder(version).decode(&mut buffer)?.expect("a whole packet");
    assert!(buffer.is_empty());
    Ok(packet)
}

fn decode_first(bytes: &[u8]) -> Result<Connect, DecodeError> {
    match Decoder::new(1 << 20).decode(&mut BytesMut::from(bytes))? {
        Some(Packet::Connect(connect)) => Ok(*connect),
        other => panic!("no CONNECT: {other:?}"),
    }
}

fn encoded(reply: &Reply<'_>, version: Version) -> Vec<u8> {
    let mut out = BytesMut::new();
    assert!(encode(reply, version, u32::MAX, &mut out));
    out.to_vec()
}

#[test]
fn a_connect_of_version_5_is_read_with_everything_in_it() {
    let properties = vec![
        testing::property(theirs::ReceiveMaximum::new(7).unwrap()),
        testing::property(theirs::MaximumPacketSize::new(1000).unwrap()),
        testing::property(theirs::SessionExpiryInterval::new(9).unwrap()),
        testing::property(theirs::RequestProblemInformation::new(0).unwrap()),
    ];
    let will = vec![
        testing::property(theirs::WillDelayInterval::new(5).unwrap()),
        testing::property(theirs::MessageExpiryInterval::new(60).unwrap()),
    ];
    let packet = v5::Connect::builder()
        .client_id("meter-7")
        .unwrap()
        .clean_start(true)
        .keep_alive(42)
        .will_message("a/b", b"gone".to_vec(), theirs::Qos::AtLeastOnce, true)
        .unwrap()
        .user_name("name")
        .unwrap()
        .password(b"secret".to_vec())
        .unwrap()
        .props(properties)
        .will_props(will)
        .build()
        .unwrap();
    let connect = decode_first(&packet.to_continuous_buffer()).unwrap();
    assert_eq!((connect.version, connect.client_id.as_str()), (Version::V5, "meter-7"));
    assert!(connect.clean);
    assert_eq!(connect.keep_alive, 42);
    assert_eq!(connect.properties.receive_maximum, Some(7));
    assert_eq!(connect.properties.maximum_packet_size, Some(1000));
    assert_eq!(connect.properties.session_expiry, Some(9));
    assert_eq!(connect.properties.request_problem, Some(false));
    let will = connect.will.clone().unwrap();
    assert_eq!((will.topic.as_str(), &will.payload[..]), ("a/b", &b"gone"[..]));
    assert_eq!((will.qos, will.retain), (Qos::AtLeastOnce, true));
    assert_eq!((will.properties.will_delay, will.properties.message_expiry), (Some(5), Some(60)));
    assert_eq!(connect.username.as_deref(), Some("name"));
    assert_eq!(connect.password.as_ref().unwrap().0, "secret");
    assert!(!format!("{connect:?}").contains("secret"), "a log would show the password");
}

#[test]
fn a_connect_of_3_1_1_is_read() {
    let packet = v3::Connect::builder().client_id("x").unwrap().clean_session(false).keep_alive(9).build();
    let connect = decode_first(&packet.unwrap().to_continuous_buffer()).unwrap();
    assert_eq!((connect.version, connect.clean, connect.keep_alive), (Version::V3, false, 9));
}

/// MQTT 5 §3.1.2.9: version 5 allows a password without a user name, 3.1.1 does not.
#[test]
fn a_password_needs_a_user_name_only_in_3_1_1() {
    let v5 = b"\x10\x12\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x00\x00\x03abc";
    assert_eq!(decode_first(v5).unwrap().password, Some(Password(Bytes::from_static(b"abc"))));
    let v3 = b"\x10\x11\x00\x04MQTT\x04\x42\x00\x00\x00\x00\x00\x03abc";
    assert_eq!(decode_first(v3), Err(DecodeError::ConnectFlags));
}

#[test]
fn a_stream_is_cut_into_packets_wherever_it_is_torn() {
    let mut stream = testing::connect(true);
    stream.extend(testing::publish(true, "a/b", b"payload", 1, 5));
    stream.extend(b"\xC0\x00\xE0\x00");
    for size in 1..stream.len() {
        let (mut decoder, mut buffer, mut kinds) = (Decoder::new(1000), BytesMut::new(), String::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(packet) = decoder.decode(&mut buffer).unwrap() {
                kinds.push(match packet {
                    Packet::Connect(_) => 'c',
                    Packet::Publish(_) => 'p',
                    Packet::PingReq => '?',
                    Packet::Disconnect(_) => 'd',
                    other => panic!("{other:?}"),
                });
            }
        }
        assert_eq!(kinds, "cp?d", "torn every {size} bytes");
    }
}

#[test]
fn acknowledgements_of_version_5_may_be_short() {
    let ack = |packet_id, code| Packet::PubAck(Ack { packet_id, code });
    assert_eq!(decode(Version::V5, b"\x40\x02\x00\x01"), Ok(ack(1, 0)));
    assert_eq!(decode(Version::V5, b"\x40\x03\x00\x01\x10"), Ok(ack(1, 0x10)));
    assert_eq!(decode(Version::V5, b"\x40\x04\x00\x01\x80\x00"), Ok(ack(1, 0x80)));
    let normal = Packet::Disconnect(Disconnect { code: 0, session_expiry: None });
    assert_eq!(decode(Version::V5, b"\xE0\x00"), Ok(normal));
    let with_will = Packet::Disconnect(Disconnect { code: 4, session_expiry: None });
    assert_eq!(decode(Version::V5, b"\xE0\x01\x04"), Ok(with_will));
}

#[test]
fn connack_announces_what_this_server_offers() {
    let announcement = Announcement {
        receive_maximum: 64,
        maximum_packet_size: 1000,
        assigned_client_id: Some("tg-1".to_owned()),
        server_keep_alive: Some(30),
    };
    let reply = Reply::ConnAck { reason: Reason::Success, announcement: Some(&announcement), text: "" };
    let heard = hear(&encoded(&reply, Version::V5), true);
    let [Heard::ConnAck { present: false, code: 0, properties }] = &heard[..] else { panic!("{heard:?}") };
    let expected: TheirProperties = vec![
        testing::property(theirs::SessionExpiryInterval::new(0).unwrap()),
        testing::property(theirs::ReceiveMaximum::new(64).unwrap()),
        testing::property(theirs::MaximumQos::new(1).unwrap()),
        testing::property(theirs::RetainAvailable::new(0).unwrap()),
        testing::property(theirs::MaximumPacketSize::new(1000).unwrap()),
        testing::property(theirs::AssignedClientIdentifier::new("tg-1").unwrap()),
        testing::property(theirs::WildcardSubscriptionAvailable::new(1).unwrap()),
        testing::property(theirs::SubscriptionIdentifierAvailable::new(1).unwrap()),
        testing::property(theirs::SharedSubscriptionAvailable::new(0).unwrap()),
        testing::property(theirs::ServerKeepAlive::new(30).unwrap()),
    ];
    assert_eq!(properties, &expected);
    assert_eq!(encoded(&reply, Version::V3), b"\x20\x02\x00\x00");
}

#[test]
fn a_reason_that_3_1_1_cannot_say_is_not_written() {
    let mut out = BytesMut::new();
    let replies = [
        Reply::ConnAck { reason: Reason::BadAuthenticationMethod, announcement: None, text: "" },
        Reply::PubAck { packet_id: 1, reason: Reason::TopicNameInvalid, text: "" },
        Reply::Disconnect { reason: Reason::ServerBusy, text: "" },
    ];
    for reply in replies {
        assert!(!encode(&reply, Version::V3, u32::MAX, &mut out));
    }
    assert!(out.is_empty());
}

/// MQTT-3.1.2-24 and MQTT-3.14.2-3.
#[test]
fn the_clients_maximum_packet_size_holds_and_explanations_give_way_first() {
    let reply = Reply::Disconnect { reason: Reason::ServerBusy, text: "a long explanation" };
    let mut out = BytesMut::new();
    assert!(encode(&reply, Version::V5, 4, &mut out));
    assert_eq!(&out[..], b"\xE0\x02\x89\x00");
    assert!(!encode(&reply, Version::V5, 3, &mut out));
    assert_eq!(out.len(), 4);
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,20}"
}

fn user() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((text(), text()), 0..4)
}

proptest! {
    #[test]
    fn what_another_implementation_publishes_is_read_back(
        topic in "[^\0+#]{1,30}", payload in prop::collection::vec(any::<u8>(), 0..300), qos in 0_u8..3, id in 1_u16..,
        expiry in any::<Option<u32>>(), content in prop::option::of(text()), user in user(), is_v5: bool,
    ) {
        let mut properties = TheirProperties::new();
        if let Some(seconds) = expiry {
            properties.push(theirs::MessageExpiryInterval::new(seconds).unwrap().into());
        }
        if let Some(content) = &content {
            properties.push(theirs::ContentType::new(content.as_str()).unwrap().into());
        }
        for (name, value) in &user {
            properties.push(theirs::UserProperty::new(name.as_str(), value.as_str()).unwrap().into());
        }
        let bytes = if is_v5 {
            testing::publish5(&topic, &payload, qos, id, properties)
        } else {
            testing::publish3(&topic, &payload, qos, id, true)
        };
        let version = if is_v5 { Version::V5 } else { Version::V3 };
        let Packet::Publish(publish) = decode(version, &bytes).unwrap() else { panic!() };
        prop_assert_eq!(&publish.topic, &topic);
        prop_assert_eq!(&publish.payload[..], &payload[..]);
        prop_assert_eq!(publish.qos as u8, qos);
        prop_assert_eq!(publish.packet_id, if qos == 0 { 0 } else { id });
        prop_assert_eq!(publish.retain, !is_v5);
        let found = publish.properties.map(|boxed| *boxed).unwrap_or_default();
        if is_v5 {
            prop_assert_eq!(found.message_expiry, expiry);
            prop_assert_eq!(found.content_type, content);
            prop_assert_eq!(found.user, user);
        }
    }

    #[test]
    fn what_we_deliver_another_implementation_reads_back(
        topic in "[^\0+#]{1,30}", payload in prop::collection::vec(any::<u8>(), 0..300), at_least_once: bool, id in 1_u16..,
        expiry in any::<Option<u32>>(), content in prop::option::of(text()), user in user(),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        identifiers in prop::collection::vec(1_u32..268_435_455, 0..3), text_payload: Option<bool>, is_v5: bool,
    ) {
        let qos = if at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce };
        let delivery = Delivery {
            topic: &topic, payload: &payload, qos, packet_id: id, retain: true, text_payload,
            message_expiry: expiry, content_type: content.as_deref(), response_topic: Some("answers/here"),
            correlation: correlation.as_deref(), identifiers: &identifiers, user: &user,
        };
        let version = if is_v5 { Version::V5 } else { Version::V3 };
        let heard = hear(&encoded(&Reply::Publish(&delivery), version), is_v5);
        let mut expected = TheirProperties::new();
        if is_v5 {
            if let Some(text) = text_payload {
                let format = if text { theirs::PayloadFormat::String } else { theirs::PayloadFormat::Binary };
                expected.push(theirs::PayloadFormatIndicator::new(format).unwrap().into());
            }
            expected.extend(expiry.map(|s| Property::from(theirs::MessageExpiryInterval::new(s).unwrap())));
            expected.extend(content.map(|c| Property::from(theirs::ContentType::new(c).unwrap())));
            expected.push(theirs::ResponseTopic::new("answers/here").unwrap().into());
            expected.extend(correlation.map(|c| Property::from(theirs::CorrelationData::new(c).unwrap())));
            for &identifier in &identifiers {
                expected.push(theirs::SubscriptionIdentifier::new(identifier).unwrap().into());
            }
            for (name, value) in &user {
                expected.push(theirs::UserProperty::new(name.as_str(), value.as_str()).unwrap().into());
            }
        }
        let id = if at_least_once { id } else { 0 };
        prop_assert_eq!(heard, [Heard::Publish { topic, payload, qos: qos as u8, id, retain: true, properties: expected }]);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_read_beyond_a_packet(
        bytes in prop::collection::vec(any::<u8>(), 0..200), started: bool, is_v5: bool,
    ) {
        let version = if is_v5 { Version::V5 } else { Version::V3 };
        let mut decoder = if started { decoder(version) } else { Decoder::new(100) };
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }
}
