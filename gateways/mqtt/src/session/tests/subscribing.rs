//! SUBSCRIBE, UNSUBSCRIBE and deliveries.

use super::*;
use crate::testing::property;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as v3, v5_0 as v5};

/// MQTT-3.8.4-1 and -5.
#[test]
fn suback_leaves_only_after_the_start_position_is_fixed() {
    let mut bench = Bench::live(true);
    bench.subscribe(9, &[("a/#", 1), ("b", 0)]);
    let filters = vec![(Filter::parse("a/#").unwrap(), true), (Filter::parse("b").unwrap(), false)];
    assert_eq!(bench.actions(), [Action::Subscribe { filters }]);
    assert_eq!(bench.heard(), []);
    bench.session.subscribed(&[Subscribed::Started; 2], bench.now);
    assert_eq!(bench.heard(), [Heard::SubAck { id: 9, codes: vec![1, 0] }]);
}

#[test]
fn a_client_that_waits_for_suback_is_served_meanwhile_but_one_subscribe_at_a_time() {
    let mut bench = Bench::live(true);
    bench.subscribe(1, &[("a", 1)]);
    bench.send(b"\xC0\x00");
    assert_eq!(bench.heard(), [Heard::PingResp]);
    bench.subscribe(2, &[("b", 1)]);
    assert_eq!(bench.actions().len(), 1);
    assert!(!bench.session.wants_packet());
    bench.session.subscribed(&[Subscribed::Started], bench.now);
    assert_eq!(bench.start_subscriptions(), [(Filter::parse("b").unwrap(), true)]);
    let codes = vec![1];
    assert_eq!(
        bench.heard(),
        [Heard::SubAck { id: 1, codes: codes.clone() }, Heard::SubAck { id: 2, codes }]
    );
}

#[test]
fn qos_2_is_granted_as_1() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.subscribe(1, &[("a", 2)]);
        bench.start_subscriptions();
        assert_eq!(bench.heard(), [Heard::SubAck { id: 1, codes: vec![1] }]);
    }
}

#[test]
fn what_is_not_granted_has_its_code_and_the_rest_is_granted() {
    let long = "x".repeat(513);
    let entries = [("$share/g/a", 1), (long.as_str(), 1), ("no", 1), ("a", 1), ("b", 1), ("c", 1)];
    for (v5, codes) in [(true, [0x9E, 0x8F, 0x87, 1, 1, 0x97]), (false, [0x80, 0x80, 0x80, 1, 1, 0x80])] {
        let mut bench = Bench::live(v5);
        bench.subscribe(1, &entries);
        bench.actions();
        let results = [Subscribed::Denied, Subscribed::Started, Subscribed::Started];
        bench.session.subscribed(&results, bench.now);
        assert_eq!(bench.heard(), [Heard::SubAck { id: 1, codes: codes.to_vec() }]);
        // what was denied takes no place
        bench.subscribe(2, &[("c", 0)]);
        bench.start_subscriptions();
        assert_eq!(bench.heard(), [Heard::SubAck { id: 2, codes: vec![0] }]);
    }
}

/// MQTT-4.7.1-1 and -2.
#[test]
fn a_filter_with_a_misplaced_wildcard_ends_the_connection() {
    for filter in ["a#", "a/#/b", "a+", ""] {
        let mut bench = Bench::live(true);
        bench.subscribe(1, &[(filter, 0)]);
        assert_eq!(bench.ended_with(), 0x8F, "{filter:?}");
        let mut bench = Bench::live(false);
        bench.subscribe(1, &[(filter, 0)]);
        assert_eq!(bench.ended().0, Close::Violation("TopicFilterInvalid"));
    }
}

#[test]
fn a_subscription_that_cannot_start_now_closes_rather_than_refuses() {
    let mut bench = Bench::live(true);
    bench.subscribe(1, &[("a", 1)]);
    bench.actions();
    bench.session.subscribed(&[Subscribed::Failed], bench.now);
    assert_eq!(bench.ended_with(), 0x89);
}

#[test]
fn a_record_goes_to_the_subscription_that_matches() {
    for v5 in [true, false] {
        let mut bench = Bench::live(v5);
        bench.subscribed(&[("a/+", 1), ("b", 0)]);
        for address in ["a/1", "b", "c"] {
            bench.deliver(address);
        }
        assert_eq!(bench.delivered(), [("a/1".to_owned(), 1, 1), ("b".to_owned(), 0, 0)]);
    }
}

/// MQTT-3.3.5-1, MQTT-3.3.4-4: once, with the highest QoS and all identifiers.
#[test]
fn overlapping_subscriptions_deliver_once() {
    let mut bench = Bench::live(true);
    for (id, entry) in [(5, ("a/#", 0)), (6, ("a/b", 1)), (7, ("x", 1))] {
        let identifier = vec![property(theirs::SubscriptionIdentifier::new(id).unwrap())];
        bench.send(&testing::subscribe(true, 1, &[entry], identifier));
        bench.start_subscriptions();
    }
    bench.heard();
    bench.deliver("a/b");
    let [Heard::Publish { qos: 1, properties, .. }] = &bench.heard()[..] else { panic!() };
    let mut identifiers: Vec<_> = properties
        .iter()
        .map(|property| match property {
            theirs::Property::SubscriptionIdentifier(id) => id.val(),
            other => panic!("{other}"),
        })
        .collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [5, 6]);
}

/// MQTT-3.8.4-8.
#[test]
fn a_record_written_at_qos_0_is_delivered_at_qos_0() {
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 1)]);
    bench.deliver_with("a", |record| record.qos = Qos::AtMostOnce);
    assert_eq!(bench.delivered(), [("a".to_owned(), 0, 0)]);
}

/// MQTT-3.8.4-3.
#[test]
fn the_same_filter_again_replaces_its_options_without_starting_anew() {
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 1)]);
    bench.subscribe(2, &[("a", 1)]);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.heard(), [Heard::SubAck { id: 2, codes: vec![1] }]);
    bench.subscribe(3, &[("a", 0)]);
    assert_eq!(bench.start_subscriptions(), [(Filter::parse("a").unwrap(), false)]);
    bench.heard();
    bench.deliver("a");
    assert_eq!(bench.delivered(), [("a".to_owned(), 0, 0)]);
}

/// MQTT-3.8.3-3.
#[test]
fn no_local_keeps_a_clients_own_records_from_it() {
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 0b101), ("b", 1)]);
    bench.publish("a", 1, 1);
    let message = bench.message();
    let id = message.id.as_deref();
    assert!(id.is_some());
    bench.deliver_with("a", |record| record.id = id);
    bench.deliver_with("b", |record| record.id = id);
    bench.deliver_with("a", |record| record.id = Some("marked-0"));
    assert_eq!(bench.delivered(), [("b".to_owned(), 1, 1), ("a".to_owned(), 1, 2)]);
}

#[test]
fn no_local_waits_for_own_records_that_carry_no_mark() {
    let mut bench = Bench::live(true);
    bench.publish("a", 1, 1);
    bench.actions();
    bench.subscribe(2, &[("a", 0b101)]);
    assert_eq!(bench.actions(), []);
    bench.session.stored(0, bench.now);
    assert_eq!(bench.start_subscriptions().len(), 1);
    let codes = vec![1];
    assert_eq!(bench.heard(), [Heard::PubAck { id: 1, code: 0 }, Heard::SubAck { id: 2, codes }]);
}

/// MQTT-3.8.3-4.
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut bench = Bench::live(true);
    bench.subscribe(1, &[("$share/g/a", 0b101)]);
    assert_eq!(bench.ended_with(), 0x82);
}

/// MQTT-3.3.1-12 and -13.
#[test]
fn retain_is_delivered_only_where_a_subscription_keeps_it_as_published() {
    for (options, retained) in [(1, false), (0b1001, true)] {
        let mut bench = Bench::live(true);
        bench.subscribed(&[("a", options)]);
        bench.deliver_with("a", |record| record.retain = true);
        assert!(matches!(bench.heard()[..], [Heard::Publish { retain, .. }] if retain == retained));
    }
}

/// MQTT-3.3.2-5 and -6.
#[test]
fn a_record_is_delivered_with_the_time_it_has_left_and_not_at_all_without() {
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 0)]);
    let wall = bench.now.wall_ms;
    bench.deliver_with("a", |record| record.expiry_ms = Some(wall + 1_001));
    let [Heard::Publish { properties, .. }] = &bench.heard()[..] else { panic!() };
    assert_eq!(properties, &vec![property(theirs::MessageExpiryInterval::new(2).unwrap())]);
    bench.deliver_with("a", |record| record.expiry_ms = Some(wall));
    assert_eq!(bench.heard(), []);
    assert_eq!(bench.session.take_counts().expired, 1);
}

/// MQTT-3.3.4-7: the client's Receive Maximum, and this server's own bound.
#[test]
fn unacknowledged_deliveries_are_bounded_by_both_sides() {
    for (theirs_max, window) in [(2, 2), (100, 4)] {
        let mut bench = Bench::live5(vec![property(theirs::ReceiveMaximum::new(theirs_max).unwrap())]);
        bench.subscribed(&[("a", 1)]);
        let mut sent = 0;
        while bench.session.wants_record() {
            bench.deliver("a");
            sent += 1;
        }
        assert_eq!(sent, window);
        bench.send(b"\x40\x02\x00\x01");
        assert!(bench.session.wants_record());
        // an acknowledgement of nothing makes no room
        bench.deliver("a");
        bench.send(b"\x40\x02\x00\x01");
        assert!(!bench.session.wants_record());
    }
}

#[test]
fn a_client_that_does_not_read_is_given_no_more_and_closed_in_the_end() {
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 0)]);
    while bench.session.wants_record() {
        bench.deliver("a");
    }
    assert!(bench.session.output().len() < 4_096 + 64);
    assert!(!bench.session.wants_packet());
    bench.wait(29_000);
    bench.session.sent(1, bench.now);
    bench.wait(29_999);
    assert!(!bench.session.is_closed());
    bench.wait(1);
    assert!(matches!(bench.actions()[..], [Action::Close(Close::Stalled)]));
}

/// MQTT-3.1.2-24 and -25.
#[test]
fn a_record_that_is_too_large_for_the_client_counts_as_delivered() {
    let mut bench = Bench::live5(vec![property(theirs::MaximumPacketSize::new(40).unwrap())]);
    bench.subscribed(&[("a", 1)]);
    for _ in 0..10 {
        bench.deliver_with("a", |record| record.payload = &[0; 100]);
    }
    assert_eq!(bench.heard(), []);
    assert!(bench.session.wants_record());
    assert_eq!(bench.session.take_counts().too_large, 10);
}

/// MQTT-3.10.4-1, -4 and -5.
#[test]
fn unsubscribe_says_for_each_filter_whether_there_was_one() {
    let packet = v5::Unsubscribe::builder().packet_id(4).entries(vec!["a", "b"]).unwrap().build().unwrap();
    let mut bench = Bench::live(true);
    bench.subscribed(&[("a", 1)]);
    bench.send(&packet.to_continuous_buffer());
    assert_eq!(bench.actions(), [Action::Unsubscribe(Filter::parse("a").unwrap())]);
    assert_eq!(bench.heard(), [Heard::UnsubAck { id: 4, codes: vec![0, 0x11] }]);
    bench.deliver("a");
    assert_eq!(bench.heard(), []);

    let packet = v3::Unsubscribe::builder().packet_id(4).entries(vec!["a", "b"]).unwrap().build().unwrap();
    let mut bench = Bench::live(false);
    bench.send(&packet.to_continuous_buffer());
    assert_eq!(bench.heard(), [Heard::UnsubAck { id: 4, codes: vec![] }]);
}

#[test]
fn a_filter_that_is_none_is_told_why() {
    for (filter, why) in
        [("", "a filter"), ("a+/b", "\"+\" stands alone in its level"), ("#/a", "in the last level")]
    {
        let mut bench = Bench::live(true);
        let mut bytes = vec![0x82, u8::try_from(6 + filter.len()).unwrap(), 0, 1, 0, 0];
        bytes.push(u8::try_from(filter.len()).unwrap());
        bytes.extend(filter.as_bytes());
        bytes.push(0);
        bench.send(&bytes);
        let said = String::from_utf8_lossy(bench.session.output()).into_owned();
        assert!(said.contains(why), "{filter}: {said}");
        assert!(!filter.is_empty() || !said.contains("wildcard"), "{said}");
    }
}
