//! How sessions end, and Wills.

use super::*;
use crate::testing::property;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as v3, v5_0 as v5};

fn with_will(v5: bool) -> Bench {
    let qos = theirs::Qos::AtLeastOnce;
    let bytes = if v5 {
        let properties = vec![
            property(theirs::WillDelayInterval::new(600).unwrap()),
            property(theirs::MessageExpiryInterval::new(60).unwrap()),
        ];
        let builder =
            v5::Connect::builder().client_id("meter").unwrap().keep_alive(20).will_props(properties);
        builder
            .will_message("gone", b"x".to_vec(), qos, false)
            .unwrap()
            .build()
            .unwrap()
            .to_continuous_buffer()
    } else {
        let builder = v3::Connect::builder().client_id("meter").unwrap().keep_alive(20);
        builder
            .will_message("gone", b"x".to_vec(), qos, true)
            .unwrap()
            .build()
            .unwrap()
            .to_continuous_buffer()
    };
    let mut bench = Bench::new(v5);
    bench.enter(&bytes);
    bench
}

fn left_will(bench: &mut Bench) -> bool {
    let actions = bench.actions();
    assert!(matches!(actions.last(), Some(Action::Close(_))), "{actions:?}");
    actions.iter().any(|action| matches!(action, Action::Will(message) if message.address.as_str() == "gone"))
}

/// MQTT-3.1.2-10 and MQTT-3.14.4-3.
#[test]
fn a_normal_disconnect_deletes_the_will() {
    for v5 in [true, false] {
        let mut bench = with_will(v5);
        bench.send(b"\xE0\x00");
        assert!(!left_will(&mut bench));
    }
}

/// MQTT-3.1.2-8: every other end publishes it.
#[test]
fn every_other_end_publishes_the_will() {
    type End = fn(&mut Bench);
    let ends: [(&str, End); 8] = [
        ("DISCONNECT with Will", |bench| bench.send(b"\xE0\x01\x04")),
        ("DISCONNECT with an error", |bench| bench.send(b"\xE0\x01\x80")),
        ("a closed socket", |bench| bench.session.lost(bench.now)),
        ("a broken socket", |bench| bench.session.abort(bench.now)),
        ("keep-alive", |bench| bench.wait(30_000)),
        ("a malformed packet", |bench| bench.send(b"\x00")),
        ("taken over", |bench| bench.session.taken_over(bench.now)),
        ("shutdown", |bench| bench.session.shut_down(bench.now)),
    ];
    for (name, end) in ends {
        let mut bench = with_will(true);
        end(&mut bench);
        assert!(left_will(&mut bench), "{name}");
    }
}

/// The session ends with its connection, so the Will Delay Interval is over at once (MQTT-3.1.3-9); the message's
/// own time starts when it is published.
#[test]
fn a_will_goes_out_at_once_and_its_expiry_counts_from_then() {
    let mut bench = with_will(true);
    bench.wait(5_000);
    bench.session.abort(bench.now);
    let actions = bench.actions();
    let [Action::Will(will), Action::Close(Close::Lost)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(will.expiry_ms, Some(1_700_000_065_000));
}

/// MQTT-3.1.2-22.
#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.wait(29_999);
        bench.send(b"\xC0\x00");
        assert_eq!(bench.heard(), [Heard::PingResp]);
        bench.wait(29_999);
        assert!(!bench.session.is_closed());
        bench.wait(1);
        let (close, heard) = bench.ended();
        assert_eq!(close, Close::KeepAlive);
        assert_eq!(heard, if v5 { vec![Heard::Disconnect { code: 0x8D }] } else { vec![] });
    }
}

#[test]
fn without_a_keep_alive_the_idle_time_holds() {
    let mut bench = Bench::new(false);
    bench.enter(&testing::connect3("meter", true, 0));
    bench.wait(299_999);
    assert!(!bench.session.is_closed());
    bench.wait(1);
    assert_eq!(bench.ended().0, Close::Idle);
}

/// MQTT-3.1.4-3.
#[test]
fn an_older_connection_of_the_same_client_is_told_that_it_was_taken_over() {
    let mut bench = Bench::live(true);
    bench.session.taken_over(bench.now);
    assert_eq!(bench.ended_with(), 0x8E);
}

#[test]
fn shutdown_answers_what_is_on_its_way_then_says_good_bye() {
    let mut bench = Bench::live(true);
    bench.publish("a", 1, 1);
    bench.actions();
    bench.session.shut_down(bench.now);
    assert!(!bench.session.wants_packet() && !bench.session.wants_record());
    assert_eq!((bench.actions(), bench.heard()), (vec![], vec![]));
    bench.session.stored(0, bench.now);
    let (close, heard) = bench.ended();
    assert_eq!(close, Close::Shutdown);
    assert_eq!(heard, [Heard::PubAck { id: 1, code: 0 }, Heard::Disconnect { code: 0x8B }]);
}

#[test]
fn a_client_that_closed_its_own_side_still_gets_its_answers() {
    let mut bench = Bench::live(true);
    bench.publish("a", 1, 1);
    bench.actions();
    bench.session.lost(bench.now);
    assert!(!bench.session.is_closed());
    bench.session.stored(0, bench.now);
    assert_eq!(bench.ended(), (Close::Lost, vec![Heard::PubAck { id: 1, code: 0 }]));
}

#[test]
fn what_is_answered_after_the_end_is_not_sent() {
    let mut bench = Bench::live(true);
    bench.publish("a", 1, 1);
    bench.session.abort(bench.now);
    bench.session.stored(0, bench.now);
    bench.session.shut_down(bench.now);
    bench.session.taken_over(bench.now);
    assert_eq!(bench.ended(), (Close::Lost, vec![]));
}

/// MQTT-3.14.2-2.
#[test]
fn a_disconnect_cannot_ask_for_a_session_that_connect_did_not_ask_for() {
    let expiry = b"\xE0\x07\x00\x05\x11\x00\x00\x00\x09";
    let mut bench = Bench::live(true);
    bench.send(expiry);
    assert_eq!(bench.ended_with(), 0x82);
    let asked = vec![property(theirs::SessionExpiryInterval::new(60).unwrap())];
    let mut bench = Bench::live5(asked);
    bench.send(expiry);
    assert_eq!(bench.ended(), (Close::Disconnect, vec![]));
}

#[test]
fn bytes_that_are_no_packet_end_the_connection_with_the_standards_reason() {
    for (bytes, code) in [(&b"\x00"[..], 0x81), (b"\x20", 0x82), (b"\x30\xFF\x7F", 0x95), (b"\xF0\x00", 0x82)]
    {
        let mut bench = Bench::live(true);
        bench.send(bytes);
        assert_eq!(bench.ended_with(), code);
    }
}
