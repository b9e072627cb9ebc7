//! The server over real sockets, on a Kafka that lives in memory and does what a test says.

mod bad_input;
mod host;

use crate::testing::{self, Heard, connect3, connect5};
use host::{Client, Host, Kafka};
use mqtt_protocol_core::mqtt::packet::{self as theirs, Properties, v5_0 as v5};
use tidegate_contract::config::Limits;

#[tokio::test]
async fn a_publish_is_acknowledged_when_kafka_holds_it_and_not_before() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        host.kafka(Kafka::Hold);
        let mut client = host.client(is_v5).await;
        client.publish("sites/1", 1, 7).await;
        client.send(b"\xC0\x00").await;
        // the answer to the later ping shows that the publish was read
        assert_eq!(client.hear().await, Heard::PingResp);
        assert_eq!(host.stored(), ["sites/1"]);
        host.land_all();
        assert_eq!(client.hear().await, Heard::PubAck { id: 7, code: 0 });
    }
}

#[tokio::test]
async fn a_failed_publish_closes_the_connection_and_acknowledges_nothing() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        let mut client = host.client(is_v5).await;
        host.kafka(Kafka::Fail);
        client.publish("sites/1", 1, 1).await;
        client.publish("sites/1", 1, 2).await;
        let expected = if is_v5 { vec![Heard::Disconnect { code: 0x89 }] } else { vec![] };
        assert_eq!(client.rest().await, expected);
        let line = "mqtt_connections_closed_total{reason=\"PublishFailed\"} 1";
        host.until(|host| host.metrics().contains(line)).await;
    }
}

#[tokio::test]
async fn permanent_refusals_have_their_codes() {
    let host = Host::start(Limits::default()).await;
    let mut client = host.client(true).await;
    client.publish("nowhere", 1, 1).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 1, code: 0x90 });
    client.send(&testing::publish(true, "sites/1", &[0; 2_000], 1, 2)).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 2, code: 0x97 });
    client.publish("sites/1", 1, 3).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 3, code: 0 });
    let mut older = host.client(false).await;
    older.publish("nowhere", 1, 1).await;
    assert_eq!(older.rest().await, []);
    assert!(host.metrics().contains("mqtt_publishes_refused_total{reason=\"NoTopic\"} 2"));
}

#[tokio::test]
async fn a_record_reaches_the_subscriber_whose_filter_matches() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        let mut client = host.client(is_v5).await;
        client.subscribe(&[("sites/+", 1)]).await;
        assert_eq!(host.feed(0).filters(), ["sites/+"]);
        for number in 0..100 {
            host.feed(0).deliver(&format!("sites/{number}"), b"payload");
        }
        for number in 0..100 {
            let Heard::Publish { topic, id, .. } = client.hear().await else { panic!() };
            assert_eq!(topic, format!("sites/{number}"));
            client.send(&[0x40, 2, (id >> 8) as u8, id as u8]).await;
        }
    }
}

/// The window of unacknowledged deliveries holds back the feed, not memory.
#[tokio::test]
async fn a_subscriber_that_acknowledges_nothing_is_given_only_its_window() {
    let host = Host::start(Limits { in_flight: 3, ..Limits::default() }).await;
    let mut client = host.client(true).await;
    client.subscribe(&[("sites/#", 1)]).await;
    for _ in 0..10 {
        host.feed(0).deliver("sites/1", b"payload");
    }
    for _ in 0..3 {
        assert!(matches!(client.hear().await, Heard::Publish { .. }));
    }
    client.send(b"\xC0\x00").await;
    assert_eq!(client.hear().await, Heard::PingResp);
    assert_eq!(host.feed(0).waiting(), 7);
}

/// MQTT-3.1.4-3.
#[tokio::test]
async fn the_same_client_again_takes_the_session_over() {
    let host = Host::start(Limits::default()).await;
    let older = host.client(true).await;
    let mut newer = host.connect(true, &testing::connect(true)).await;
    assert!(matches!(newer.hear().await, Heard::ConnAck { code: 0, .. }));
    assert_eq!(older.rest().await, [Heard::Disconnect { code: 0x8E }]);
    newer.send(b"\xC0\x00").await;
    assert_eq!(newer.hear().await, Heard::PingResp);
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_its_will_in_kafka() {
    let host = Host::start(Limits::default()).await;
    let builder = v5::Connect::builder().client_id("meter").unwrap();
    let will = builder.will_message("sites/gone", b"x".to_vec(), theirs::Qos::AtLeastOnce, false).unwrap();
    let mut client = host.connect(true, &will.build().unwrap().to_continuous_buffer()).await;
    assert!(matches!(client.hear().await, Heard::ConnAck { code: 0, .. }));
    drop(client);
    host.until(|host| host.stored() == ["sites/gone"]).await;
    host.until(|host| host.metrics().contains("mqtt_wills_total{reason=\"Stored\"} 1")).await;
}

#[tokio::test]
async fn a_client_that_closes_its_own_side_still_gets_its_acknowledgement() {
    let host = Host::start(Limits::default()).await;
    host.kafka(Kafka::Hold);
    let mut client = host.client(true).await;
    client.publish("sites/1", 1, 1).await;
    client.close_writing().await;
    host.until(|host| host.stored().len() == 1).await;
    host.land_all();
    assert_eq!(client.rest().await, [Heard::PubAck { id: 1, code: 0 }]);
}

#[tokio::test]
async fn shutdown_drains_acknowledgements_says_good_bye_and_returns() {
    let mut host = Host::start(Limits::default()).await;
    host.kafka(Kafka::Hold);
    let mut busy = host.client(true).await;
    let mut idle = host.connect(true, &connect5("idle", Properties::new())).await;
    assert!(matches!(idle.hear().await, Heard::ConnAck { .. }));
    busy.publish("sites/1", 1, 1).await;
    host.until(|host| host.stored().len() == 1).await;
    host.shut_down();
    assert_eq!(idle.rest().await, [Heard::Disconnect { code: 0x8B }]);
    assert!(!host.has_ended());
    host.land_all();
    assert_eq!(busy.rest().await, [Heard::PubAck { id: 1, code: 0 }, Heard::Disconnect { code: 0x8B }]);
    host.ended().await;
}

#[tokio::test]
async fn publishes_beyond_the_budget_wait_and_none_is_lost() {
    let host = Host::start(Limits { in_flight: 2, ..Limits::default() }).await;
    host.kafka(Kafka::Hold);
    let mut client = host.client(false).await;
    let mut bytes = Vec::new();
    for id in 1..=20 {
        bytes.extend(testing::publish(false, &format!("sites/{id}"), b"x", 1, id));
    }
    client.send(&bytes).await;
    for id in 1..=20_usize {
        host.until(|host| host.stored().len() >= id).await;
        assert!(host.stored().len() <= id + 1, "more than two in flight");
        host.land_one();
        assert_eq!(client.hear().await, Heard::PubAck { id: u16::try_from(id).unwrap(), code: 0 });
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once_and_counted() {
    let host = Host::start(Limits { connections: 1, ..Limits::default() }).await;
    let first = host.client(true).await;
    let second = Client::open(host.address, true).await;
    assert_eq!(second.rest().await, []);
    assert!(host.metrics().contains("mqtt_connections_refused_total{reason=\"TooManyConnections\"} 1"));
    drop(first);
    host.until(|host| host.metrics().contains("mqtt_connections 0")).await;
    host.client(true).await;
}

#[tokio::test]
async fn more_connects_than_the_rate_allows_are_closed_and_counted() {
    let host = Host::start(Limits { connect_rate: 1, ..Limits::default() }).await;
    let _first = host.client(true).await;
    let second = Client::open(host.address, true).await;
    assert_eq!(second.rest().await, []);
    assert!(host.metrics().contains("mqtt_connections_refused_total{reason=\"ConnectRate\"} 1"));
}

#[tokio::test]
async fn a_connect_of_3_1_1_with_credentials_comes_in_as_anonymous() {
    let host = Host::start(Limits::default()).await;
    let mut client = host.connect(false, &connect3("x", true, 5)).await;
    assert!(matches!(client.hear().await, Heard::ConnAck { code: 0, .. }));
    client.publish("sites/1", 1, 1).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 1, code: 0 });
    assert_eq!(host.writers(), ["anonymous"]);
}
