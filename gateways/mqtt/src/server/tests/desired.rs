//! Desired documents: who gets which, and when.

use super::access::{closed, inside, subscribe};
use super::host::{Client, Host};
use super::*;
use mqtt_protocol_core::mqtt::packet::Property;
use tidegate_contract::Principal;
use tidegate_contract::fleet::{DeviceLimits, FleetEntry};
use tidegate_testkit::rights::{DESIRED, PASSWORD, Verb, configured, device, fleet};

const OWN: &str = ".tidegate/desired/meters/m1";
const RETAIN_AS_PUBLISHED: u8 = 0b1000;

fn open() -> FleetEntry {
    fleet(&["#"], &["#"], DeviceLimits::default())
}

/// A server with the fleets `meters` and `others`, devices `m1` and `m2` each, without a configuration.
async fn host() -> Host {
    let host = closed().await;
    for name in ["meters", "others"] {
        configure(&host, name, None);
        for each in ["m1", "m2"] {
            let principal = Principal::new(name, each).unwrap();
            let entry = device(PASSWORD).unwrap();
            assert!(host.services.directory.roster().put_device(&principal, Some(&entry)));
        }
    }
    host
}

fn configure(host: &Host, name: &str, value: Option<&str>) {
    let entry = value.map_or_else(open, |value| configured(open(), value));
    host.services.directory.roster().put_fleet(name, Some(&entry));
}

async fn meter(host: &Host, is_v5: bool) -> Client {
    inside(host, is_v5, "x", "meters/m1", PASSWORD).await
}

/// The next packet has to be a document: its value, empty for none, and RETAIN.
async fn document(client: &mut Client, is_v5: bool) -> (String, bool) {
    let Heard::Publish { topic, payload, qos, id, retain, properties } = client.hear().await else {
        panic!("no PUBLISH")
    };
    assert_eq!((topic.as_str(), qos), (OWN, 1));
    client.send(&[0x40, 2, u8::try_from(id >> 8).unwrap(), u8::try_from(id & 0xFF).unwrap()]).await;
    let content_type = properties.iter().find_map(|property| match property {
        Property::ContentType(content_type) => Some(content_type.val()),
        _ => None,
    });
    assert_eq!(content_type, (is_v5 && !payload.is_empty()).then_some("application/json"));
    let json = String::from_utf8(payload).unwrap();
    let value = json.strip_prefix(r#"{"v":""#).map_or("", |rest| rest.strip_suffix(r#""}"#).unwrap());
    assert_eq!(value.is_empty(), json.is_empty(), "{json}");
    (value.to_owned(), retain)
}

/// Nothing else came before.
async fn is_silent(client: &mut Client) {
    client.send(PING).await;
    assert_eq!(client.hear().await, Heard::PingResp);
}

fn retained(value: &str) -> (String, bool) {
    (value.to_owned(), true)
}

fn changed(value: &str) -> (String, bool) {
    (value.to_owned(), false)
}

#[tokio::test]
async fn a_device_reads_its_own_document_and_nobody_elses() {
    for is_v5 in [true, false] {
        let host = host().await;
        for name in ["meters", "others"] {
            configure(&host, name, Some("first"));
        }
        let mut client = meter(&host, is_v5).await;
        for &(verb, target, allowed) in DESIRED {
            let what = format!("{verb:?} {target}, version 5: {is_v5}");
            if verb == Verb::Publish {
                client.publish(target, 1, 7).await;
                let answer = client.next().await;
                assert_eq!(answer, is_v5.then_some(Heard::PubAck { id: 7, code: 0x87 }), "{what}");
                if answer.is_none() {
                    client = meter(&host, is_v5).await;
                }
                continue;
            }
            let refused = if is_v5 { 0x87 } else { 0x80 };
            let code = subscribe(&mut client, is_v5, target).await;
            assert_eq!(code, if allowed { 1 } else { refused }, "{what}");
            if allowed {
                assert_eq!(document(&mut client, is_v5).await, retained("first"), "{what}");
            }
        }
        // 3.1.1 was closed in between, so its subscription is gone
        assert_eq!(subscribe(&mut client, is_v5, OWN).await, 1);
        assert_eq!(document(&mut client, is_v5).await, retained("first"));
        configure(&host, "others", Some("second"));
        is_silent(&mut client).await;
    }
}

#[tokio::test]
async fn a_document_comes_at_once_and_each_other_one_when_it_changes() {
    for is_v5 in [true, false] {
        let host = host().await;
        let mut client = meter(&host, is_v5).await;
        client.subscribe(&[(OWN, 1)]).await;
        is_silent(&mut client).await;
        configure(&host, "meters", Some("first"));
        assert_eq!(document(&mut client, is_v5).await, changed("first"));
        // the same again, or something else of the fleet, is no news
        configure(&host, "meters", Some("first"));
        is_silent(&mut client).await;
        configure(&host, "meters", Some("second"));
        assert_eq!(document(&mut client, is_v5).await, changed("second"));
        configure(&host, "meters", None);
        assert_eq!(document(&mut client, is_v5).await, changed(""));
        configure(&host, "meters", Some("third"));
        assert_eq!(document(&mut client, is_v5).await, changed("third"));
        // once more, as a client of 3.1.1 asks for what is retained
        client.subscribe(&[(OWN, 1)]).await;
        assert_eq!(document(&mut client, is_v5).await, retained("third"));
        // another connection is another subscriber
        let mut second = inside(&host, is_v5, "y", "meters/m1", PASSWORD).await;
        second.subscribe(&[(OWN, 1), ("a/b", 1)]).await;
        assert_eq!(document(&mut second, is_v5).await, retained("third"));
        configure(&host, "meters", Some("fourth"));
        for client in [&mut client, &mut second] {
            assert_eq!(document(client, is_v5).await, changed("fourth"));
            is_silent(client).await;
        }
        client.send(&unsubscribe(is_v5)).await;
        assert!(matches!(client.hear().await, Heard::UnsubAck { .. }));
        configure(&host, "meters", Some("fifth"));
        assert_eq!(document(&mut second, is_v5).await, changed("fifth"));
        is_silent(&mut client).await;
    }
}

fn unsubscribe(is_v5: bool) -> Vec<u8> {
    use mqtt_protocol_core::mqtt::packet::v3_1_1 as v3;
    if is_v5 {
        let builder = v5::Unsubscribe::builder().packet_id(9).entries(vec![OWN]).unwrap();
        builder.build().unwrap().to_continuous_buffer()
    } else {
        let builder = v3::Unsubscribe::builder().packet_id(9).entries(vec![OWN]).unwrap();
        builder.build().unwrap().to_continuous_buffer()
    }
}

/// MQTT 5 §3.8.3.1.
#[tokio::test]
async fn retain_handling_and_retain_as_published_are_the_clients_choice() {
    let host = host().await;
    configure(&host, "meters", Some("first"));
    // what a first SUBSCRIBE and a second one are answered with
    for (handling, first, second) in [(0, true, true), (1, true, false), (2, false, false)] {
        let mut client = meter(&host, true).await;
        for comes in [first, second] {
            client.subscribe(&[(OWN, 1 | handling << 4)]).await;
            if comes {
                assert_eq!(document(&mut client, true).await, retained("first"), "{handling}");
            }
            is_silent(&mut client).await;
        }
        configure(&host, "meters", Some("second"));
        assert_eq!(document(&mut client, true).await, changed("second"), "{handling}");
        configure(&host, "meters", Some("first"));
        assert_eq!(document(&mut client, true).await, changed("first"), "{handling}");
    }
    let mut client = meter(&host, true).await;
    client.subscribe(&[(OWN, 1 | RETAIN_AS_PUBLISHED)]).await;
    assert_eq!(document(&mut client, true).await, retained("first"));
    configure(&host, "meters", Some("second"));
    assert_eq!(document(&mut client, true).await, retained("second"));
    configure(&host, "meters", None);
    assert_eq!(document(&mut client, true).await, retained(""));
}

#[tokio::test]
async fn no_wildcard_matches_a_document_and_it_matches_only_its_own_subscription() {
    for is_v5 in [true, false] {
        let host = host().await;
        configure(&host, "meters", Some("first"));
        let mut client = meter(&host, is_v5).await;
        client.subscribe(&[("#", 0), ("+/desired/meters/m1", 0), ("+/#", 0)]).await;
        configure(&host, "meters", Some("second"));
        is_silent(&mut client).await;
        client.subscribe(&[(OWN, 1)]).await;
        // with QoS 1, and once
        assert_eq!(document(&mut client, is_v5).await, retained("second"));
        is_silent(&mut client).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_gets_the_newest_document_when_it_does() {
    let host = host().await;
    configure(&host, "meters", Some("0"));
    let properties = vec![testing::property(theirs::ReceiveMaximum::new(1).unwrap())];
    let connect = v5::Connect::builder().client_id("x").unwrap().user_name("meters/m1").unwrap();
    let connect = connect.password(PASSWORD.as_bytes().to_vec()).unwrap().props(properties);
    let mut client = host.connect(true, &connect.build().unwrap().to_continuous_buffer()).await;
    assert!(matches!(client.hear().await, Heard::ConnAck { code: 0, .. }));
    client.subscribe(&[(OWN, 1)]).await;
    let Heard::Publish { id, retain: true, .. } = client.hear().await else { panic!() };
    for value in ["1", "2", "3"] {
        configure(&host, "meters", Some(value));
        is_silent(&mut client).await;
    }
    client.send(&[0x40, 2, 0, u8::try_from(id).unwrap()]).await;
    assert_eq!(document(&mut client, true).await, changed("3"));
    is_silent(&mut client).await;
}

#[tokio::test]
async fn a_document_is_served_while_kafka_is_away() {
    for is_v5 in [true, false] {
        let host = host().await;
        configure(&host, "meters", Some("first"));
        host.kafka.away(true);
        let mut client = meter(&host, is_v5).await;
        client.subscribe(&[(OWN, 1)]).await;
        assert_eq!(document(&mut client, is_v5).await, retained("first"));
        configure(&host, "meters", Some("second"));
        assert_eq!(document(&mut client, is_v5).await, changed("second"));
    }
}

#[tokio::test]
async fn who_has_to_go_learns_nothing_more() {
    for is_v5 in [true, false] {
        let host = host().await;
        configure(&host, "meters", Some("first"));
        let mut client = meter(&host, is_v5).await;
        client.subscribe(&[(OWN, 1)]).await;
        assert_eq!(document(&mut client, is_v5).await, retained("first"));
        let mut entry = configured(open(), "second");
        entry.authentication.password = false;
        host.services.directory.roster().put_fleet("meters", Some(&entry));
        let expected = if is_v5 { vec![Heard::Disconnect { code: 0x87 }] } else { vec![] };
        assert_eq!(client.rest().await, expected);
    }
}

#[tokio::test]
async fn the_largest_document_arrives_whole() {
    let host = host().await;
    let value = "x".repeat(tidegate_contract::desired::MAX_BYTES - r#"{"v":""}"#.len());
    configure(&host, "meters", Some(&value));
    for is_v5 in [true, false] {
        let mut client = meter(&host, is_v5).await;
        client.subscribe(&[(OWN, 1)]).await;
        assert_eq!(document(&mut client, is_v5).await, retained(&value));
    }
}
