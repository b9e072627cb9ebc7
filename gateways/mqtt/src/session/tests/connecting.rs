//! CONNECT and CONNACK.

use super::*;
use crate::testing::property;
use mqtt_protocol_core::mqtt::packet::v5_0 as v5;

/// A client that says nothing but its identifier.
fn unknown(client_id: &str) -> Admit {
    Admit { client_id: client_id.to_owned(), username: None, password: None, will: None }
}

/// MQTT-3.1.4-5, and §3.1.4: a client need not wait for CONNACK before it goes on.
#[test]
fn packets_after_connect_wait_for_connack() {
    let mut bench = Bench::new(true);
    let mut bytes = testing::connect(true);
    bytes.extend(testing::publish(true, "a", b"x", 1, 1));
    bench.send(&bytes);
    assert_eq!(bench.actions(), [Action::Admit(unknown("meter"))]);
    bench.session.admitted(bench.now);
    bench.read();
    assert_eq!(bench.publishes(), [(0, "a".to_owned())]);
}

/// MQTT-3.1.0-1.
#[test]
fn the_first_packet_is_connect_or_the_connection_is_closed_without_a_word() {
    let mut bench = Bench::new(true);
    bench.send(b"\xC0\x00");
    assert_eq!(bench.ended(), (Close::Malformed(DecodeError::NotConnect), vec![]));
}

/// MQTT-3.1.0-2.
#[test]
fn a_second_connect_is_a_protocol_error() {
    let mut bench = Bench::live(true);
    bench.send(&testing::connect(true));
    assert_eq!(bench.ended_with(), 0x82);
}

/// MQTT-3.1.2-2: the answer comes in the version that the client knows.
#[test]
fn an_unacceptable_protocol_level_is_refused_in_the_clients_terms() {
    for (bytes, v5, code) in [
        (&b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00"[..], false, 0x01),
        (&b"\x10\x0C\x00\x04MQTT\x06\x02\x00\x00\x00\x00"[..], true, 0x84),
    ] {
        let mut bench = Bench::new(v5);
        bench.send(bytes);
        assert_eq!(bench.ended_with(), code);
    }
    let mut bench = Bench::new(true);
    bench.send(b"\x10\x0C\x00\x04HTTP\x05\x02\x00\x00\x00\x00");
    assert_eq!(bench.ended(), (Close::Malformed(DecodeError::ProtocolName), vec![]));
}

/// MQTT-3.1.3-6, MQTT-3.2.2-16; MQTT-3.1.3-8 of 3.1.1.
#[test]
fn a_client_without_an_identifier_gets_one_where_it_may() {
    let mut bench = Bench::new(true);
    bench.send(&testing::connect5("", Properties::new()));
    assert_eq!(bench.actions(), [Action::Admit(unknown("tg-assigned"))]);
    bench.session.admitted(bench.now);
    let [Heard::ConnAck { properties, .. }] = &bench.heard()[..] else { panic!() };
    assert!(properties.contains(&property(theirs::AssignedClientIdentifier::new("tg-assigned").unwrap())));

    let mut bench = Bench::new(false);
    bench.enter(&testing::connect3("", true, 0));
    let mut bench = Bench::new(false);
    bench.send(&testing::connect3("", false, 0));
    assert_eq!(bench.ended_with(), 0x02);
}

#[test]
fn an_identifier_beyond_the_bound_is_refused() {
    for (v5, code) in [(true, 0x85), (false, 0x02)] {
        let long = "x".repeat(257);
        let mut bench = Bench::new(v5);
        bench.send(&if v5 {
            testing::connect5(&long, Properties::new())
        } else {
            testing::connect3(&long, true, 0)
        });
        assert_eq!(bench.ended_with(), code);
    }
}

/// 3.1.1 §3.2.2.2: there is no session to come back to, and CONNACK says so.
#[test]
fn a_client_of_3_1_1_that_wants_its_session_back_starts_clean() {
    let mut bench = Bench::new(false);
    bench.enter(&testing::connect3("meter", false, 0));
}

/// MQTT-3.1.2-21 and MQTT-3.2.2-21.
#[test]
fn a_keep_alive_that_is_long_or_missing_is_replaced_in_version_5() {
    for (asked, kept) in [(0, Some(30)), (31, Some(30)), (30, None), (5, None)] {
        let mut bench = Bench::new(true);
        let packet = v5::Connect::builder().client_id("x").unwrap().keep_alive(asked).build().unwrap();
        bench.send(&packet.to_continuous_buffer());
        bench.session.admitted(bench.now);
        let [Heard::ConnAck { properties, .. }] = &bench.heard()[..] else { panic!() };
        let found = properties.iter().find_map(|property| match property {
            theirs::Property::ServerKeepAlive(seconds) => Some(seconds.val()),
            _ => None,
        });
        assert_eq!(found, kept, "asked for {asked} s");
    }
}

/// MQTT-4.12.0-1.
#[test]
fn an_authentication_method_is_refused() {
    let mut bench = Bench::new(true);
    let method = property(theirs::AuthenticationMethod::new("SCRAM-SHA-1").unwrap());
    bench.send(&testing::connect5("x", vec![method]));
    assert_eq!(bench.ended_with(), 0x8C);
}

/// MQTT-3.2.2-12, MQTT-3.2.2-13, MQTT-3.1.3-11.
#[test]
fn a_will_that_cannot_be_kept_is_refused_at_once() {
    for (topic, qos, retain, code) in [
        ("a", theirs::Qos::ExactlyOnce, false, 0x9B),
        ("a", theirs::Qos::AtLeastOnce, true, 0x9A),
        ("a/+", theirs::Qos::AtLeastOnce, false, 0x90),
        ("$SYS/x", theirs::Qos::AtLeastOnce, false, 0x90),
    ] {
        let builder = v5::Connect::builder().client_id("x").unwrap();
        let packet = builder.will_message(topic, b"gone".to_vec(), qos, retain).unwrap().build().unwrap();
        let mut bench = Bench::new(true);
        bench.send(&packet.to_continuous_buffer());
        assert_eq!(bench.ended_with(), code, "{topic} {qos:?} {retain}");
    }
}

#[test]
fn a_client_that_may_not_come_in_hears_why_and_leaves_no_will() {
    let builder = v5::Connect::builder().client_id("x").unwrap();
    let packet = builder.will_message("a", b"gone".to_vec(), theirs::Qos::AtLeastOnce, false).unwrap();
    let mut bench = Bench::new(true);
    bench.send(&packet.build().unwrap().to_continuous_buffer());
    bench.actions();
    bench.session.turned_away(Reason::ServerBusy, "later", bench.now);
    assert_eq!(bench.actions(), [Action::Close(Close::TurnedAway("ServerBusy"))]);
    assert!(matches!(bench.heard()[..], [Heard::ConnAck { code: 0x89, .. }]));
}

/// MQTT-3.1.4-1.
#[test]
fn connect_has_to_come_in_time_and_part_of_it_buys_none() {
    let mut bench = Bench::new(true);
    bench.send(&testing::connect(true)[..5]);
    bench.wait(9_999);
    assert_eq!(bench.actions(), []);
    bench.wait(1);
    assert_eq!(bench.ended(), (Close::ConnectTimeout, vec![]));
}

#[test]
fn whoever_decides_gets_user_name_password_and_where_the_will_goes() {
    let mut bench = Bench::new(true);
    let builder = v5::Connect::builder().client_id("meter").unwrap().user_name("meters/1").unwrap();
    let builder = builder.password(b"secret".to_vec()).unwrap();
    let will = builder.will_message("sites/gone", b"x".to_vec(), theirs::Qos::AtMostOnce, false).unwrap();
    bench.send(&will.build().unwrap().to_continuous_buffer());
    let actions = bench.actions();
    assert!(!format!("{actions:?}").contains("secret"));
    let expected = Admit {
        username: Some("meters/1".to_owned()),
        password: Some(crate::codec::Password(b"secret".as_slice().into())),
        will: Some(Address::parse("sites/gone").unwrap()),
        ..unknown("meter")
    };
    assert_eq!(actions, [Action::Admit(expected)]);
}

/// MQTT 5 §3.2.2.2, MQTT 3.1.1 §3.2.2.3: 3.1.1 has a code for each of these.
#[test]
fn a_client_that_is_turned_away_is_told_why_in_its_own_version() {
    for (reason, v5, v3) in [
        (Reason::BadUserNameOrPassword, 0x86, 4),
        (Reason::NotAuthorized, 0x87, 5),
        (Reason::ConnectionRateExceeded, 0x9F, 3),
        (Reason::QuotaExceeded, 0x97, 3),
        (Reason::ServerBusy, 0x89, 3),
    ] {
        for (is_v5, expected) in [(true, v5), (false, v3)] {
            let mut bench = Bench::new(is_v5);
            bench.send(&testing::connect(is_v5));
            bench.actions();
            bench.session.turned_away(reason, "", bench.now);
            let (close, heard) = bench.ended();
            assert_eq!(close, Close::TurnedAway(reason.name()));
            assert!(matches!(heard[..], [Heard::ConnAck { code, .. }] if code == expected), "{heard:?}");
        }
    }
}

/// MQTT 5 §3.14.2.1; 3.1.1 has no such packet.
#[test]
fn a_device_that_may_not_stay_is_told_and_its_will_is_left() {
    for is_v5 in [true, false] {
        let mut bench = Bench::live(is_v5);
        bench.session.revoked(bench.now);
        let expected = if is_v5 { vec![Heard::Disconnect { code: 0x87 }] } else { vec![] };
        assert_eq!(bench.ended(), (Close::Revoked, expected));
    }
}
