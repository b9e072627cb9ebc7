//! PUBLISH from the client, and its answer.

use super::*;
use crate::testing::{property, publish3, publish5};

#[test]
fn an_acknowledgement_leaves_only_after_the_record_is_stored() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.publish("a/b", 1, 7);
        assert_eq!(bench.publishes(), [(0, "a/b".to_owned())]);
        assert_eq!(bench.heard(), []);
        bench.session.stored(0, bench.now);
        assert_eq!(bench.heard(), [Heard::PubAck { id: 7, code: 0 }]);
    }
}

#[test]
fn qos_0_takes_the_same_way_and_has_no_answer() {
    let mut bench = Bench::live(true);
    bench.publish("a/b", 0, 0);
    assert_eq!(bench.publishes().len(), 1);
    bench.session.stored(0, bench.now);
    assert_eq!(bench.heard(), []);
}

/// MQTT-4.6.0-2.
#[test]
fn acknowledgements_leave_in_the_order_of_the_publishes() {
    let mut bench = Bench::live(true);
    for id in 1..=3 {
        bench.publish("a", 1, id);
    }
    bench.session.stored(2, bench.now);
    bench.session.stored(1, bench.now);
    assert_eq!(bench.heard(), []);
    bench.session.stored(0, bench.now);
    let ids: Vec<_> = bench.heard().into_iter().map(|heard| format!("{heard:?}")).collect();
    assert_eq!(ids, (1..=3).map(|id| format!("{:?}", Heard::PubAck { id, code: 0 })).collect::<Vec<_>>());
}

/// The ack contract: the client sends again from the failed one, so nothing after it may be acknowledged; and a
/// code of 0x80 or more would make it drop the message (MQTT-4.4.0-2).
#[test]
fn after_a_failure_nothing_is_acknowledged_and_the_connection_closes() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        for id in 1..=3 {
            bench.publish("a", 1, id);
        }
        bench.session.failed(1, bench.now);
        bench.session.stored(2, bench.now);
        assert!(!bench.session.wants_packet(), "what comes now cannot be acknowledged any more");
        assert_eq!(bench.heard(), []);
        bench.actions();
        bench.session.stored(0, bench.now);
        let (close, heard) = bench.ended();
        assert_eq!(close, Close::PublishFailed);
        let mut expected = vec![Heard::PubAck { id: 1, code: 0 }];
        if v5 {
            expected.push(Heard::Disconnect { code: 0x89 });
        }
        assert_eq!(heard, expected);
    }
}

#[test]
fn a_permanent_refusal_is_answered_in_its_turn() {
    for (refusal, code) in [(Refusal::NoTopic, 0x90), (Refusal::Denied, 0x87), (Refusal::TooLarge, 0x97)] {
        let mut bench = Bench::live(true);
        bench.publish("a", 1, 1);
        bench.publish("b", 1, 2);
        bench.session.refused(1, refusal, bench.now);
        assert_eq!(bench.heard(), []);
        bench.session.stored(0, bench.now);
        assert_eq!(bench.heard(), [Heard::PubAck { id: 1, code: 0 }, Heard::PubAck { id: 2, code }]);
        bench.publish("a", 1, 3);
        assert!(!bench.session.is_closed());
    }
}

/// 3.1.1 has no code for it: closing is the only refusal (MQTT-3.3.5-2 of 3.1.1).
#[test]
fn a_permanent_refusal_closes_a_client_of_3_1_1() {
    let mut bench = Bench::live(false);
    bench.publish("a", 1, 1);
    bench.actions();
    bench.session.refused(0, Refusal::NoTopic, bench.now);
    assert_eq!(bench.ended(), (Close::Refused(Refusal::NoTopic), vec![]));
}

#[test]
fn a_refused_qos_0_message_is_dropped_and_counted() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.publish("a", 0, 0);
        bench.actions();
        bench.session.refused(0, Refusal::NoTopic, bench.now);
        assert_eq!(bench.heard(), []);
        assert!(!bench.session.is_closed());
        assert_eq!(bench.session.take_counts().refused, 1);
    }
}

#[test]
fn an_address_that_devices_may_not_use_is_refused_without_asking_kafka() {
    for topic in ["$SYS/x", "a/../b", ".well-known/x"] {
        let mut bench = Bench::live(true);
        bench.publish(topic, 1, 1);
        assert_eq!(bench.publishes(), []);
        assert_eq!(bench.heard(), [Heard::PubAck { id: 1, code: 0x90 }]);
    }
}

#[test]
fn what_the_standard_forbids_ends_the_connection_with_its_code() {
    let alias = vec![property(theirs::TopicAlias::new(1).unwrap())];
    let response = vec![property(theirs::ResponseTopic::new("a/#").unwrap())];
    let cases: [(&str, Vec<u8>, u8); 7] = [
        ("QoS 2 (MQTT-3.2.2-11)", testing::publish(true, "a", b"", 2, 1), 0x9B),
        ("a topic alias (MQTT-3.3.2-9)", publish5("a", b"", 1, 1, alias), 0x94),
        ("a wildcard in the response topic (MQTT-3.3.2-14)", publish5("a", b"", 1, 1, response), 0x82),
        ("RETAIN (MQTT-3.2.2-14)", b"\x31\x04\x00\x01a\x00".to_vec(), 0x9A),
        ("a wildcard in the topic (MQTT-3.3.2-2)", b"\x30\x04\x00\x01+\x00".to_vec(), 0x90),
        ("no topic and no alias", b"\x30\x03\x00\x00\x00".to_vec(), 0x82),
        ("PUBREL without QoS 2", b"\x62\x02\x00\x01".to_vec(), 0x82),
    ];
    for (name, bytes, code) in cases {
        let mut bench = Bench::live(true);
        bench.send(&bytes);
        assert_eq!(bench.ended_with(), code, "{name}");
    }
}

#[test]
fn a_qos_2_publish_closes_a_client_of_3_1_1() {
    let mut bench = Bench::live(false);
    bench.publish("a", 2, 1);
    assert_eq!(bench.ended(), (Close::Violation("QosNotSupported"), vec![]));
}

#[test]
fn what_a_client_of_3_1_1_retains_is_stored_with_that_wish() {
    let mut bench = Bench::live(false);
    bench.send(&publish3("a", b"x", 1, 1, true));
    assert!(bench.message().retain);
}

/// MQTT-3.3.4-9.
#[test]
fn a_client_of_version_5_that_ignores_receive_maximum_is_closed() {
    let mut bench = Bench::live(true);
    for id in 1..=5 {
        bench.publish("a", 1, id);
    }
    assert_eq!(bench.ended_with(), 0x93);
}

#[test]
fn a_client_of_3_1_1_is_read_no_faster_than_kafka_takes_it() {
    let mut bench = Bench::live(false);
    for id in 1..=6 {
        bench.publish("a", 1, id);
    }
    assert_eq!(bench.publishes().len(), 4);
    bench.session.stored(0, bench.now);
    bench.read();
    assert_eq!(bench.publishes(), [(4, "a".to_owned())]);
}

#[test]
fn qos_0_is_read_no_faster_than_kafka_takes_it() {
    let mut bench = Bench::live(true);
    for _ in 0..6 {
        bench.publish("a", 0, 0);
    }
    assert_eq!(bench.publishes().len(), 4);
    assert!(!bench.session.wants_packet());
}

/// The keep-alive's clock stands still while the server does not read.
#[test]
fn a_full_process_stops_reading_and_does_not_blame_the_client() {
    let mut bench = Bench::live(true);
    bench.session.set_room(false, bench.now);
    assert!(!bench.session.wants_packet());
    bench.wait(100_000);
    bench.session.set_room(true, bench.now);
    bench.wait(29_000);
    assert!(bench.session.wants_packet());
    bench.wait(1_000);
    assert_eq!(bench.ended_with(), 0x8D);
}

/// MQTT-2.2.1-3: an answer would not tell which of the two it means.
#[test]
fn a_refusal_says_what_to_do() {
    for (refusal, advice) in [
        (Refusal::NoTopic, "create a Topic whose filters match it"),
        (Refusal::TooLarge, "raise maxMessageBytes of the Topic"),
    ] {
        let mut bench = Bench::live(true);
        bench.send(&testing::publish(true, "a", b"x", 1, 1));
        let [Action::Publish { token, .. }] = bench.actions()[..] else { panic!() };
        bench.session.refused(token, refusal, bench.now);
        assert!(String::from_utf8_lossy(bench.session.output()).contains(advice));
    }
}

#[test]
fn a_packet_identifier_in_use_ends_the_connection() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.publish("a", 1, 1);
        bench.publish("b", 1, 1);
        assert_eq!(bench.ended().0, Close::Violation("ProtocolError"));
    }
}

#[test]
fn a_client_of_3_1_1_that_sends_again_while_it_waits_is_acknowledged_once() {
    let mut bench = Bench::live(false);
    let mut again = publish3("a", b"payload", 1, 1, false);
    bench.send(&again);
    again[0] |= 0b1000;
    bench.send(&again);
    assert_eq!(bench.publishes().len(), 1);
    bench.session.stored(0, bench.now);
    assert_eq!(bench.heard(), [Heard::PubAck { id: 1, code: 0 }]);
}

#[test]
fn everything_that_a_message_says_reaches_the_record() {
    let properties = vec![
        property(theirs::PayloadFormatIndicator::new(theirs::PayloadFormat::String).unwrap()),
        property(theirs::MessageExpiryInterval::new(60).unwrap()),
        property(theirs::ContentType::new("text/plain").unwrap()),
        property(theirs::ResponseTopic::new("answers").unwrap()),
        property(theirs::CorrelationData::new(b"\xFF\x00".to_vec()).unwrap()),
        property(theirs::UserProperty::new("n", "1").unwrap()),
        property(theirs::UserProperty::new("n", "2").unwrap()),
    ];
    let mut bench = Bench::live(true);
    bench.send(&publish5("a/b", b"x", 1, 1, properties));
    let message = bench.message();
    assert_eq!((message.address.as_str(), &message.payload[..]), ("a/b", &b"x"[..]));
    assert_eq!(message.text_payload, Some(true));
    assert_eq!(message.expiry_ms, Some(1_700_000_060_000));
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
    assert_eq!(message.response_topic.as_deref(), Some("answers"));
    assert_eq!(message.correlation.as_deref(), Some(&b"\xFF\x00"[..]));
    let user = [("n".to_owned(), "1".to_owned()), ("n".to_owned(), "2".to_owned())];
    assert_eq!(message.user, user);
}
