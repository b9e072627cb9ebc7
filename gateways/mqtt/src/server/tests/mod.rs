//! The server over real sockets; publisher and tail are the real ones, Kafka is in memory and does what a test says.

mod access;
mod bad_input;
mod desired;
mod host;
mod memory;
mod tls;

use crate::testing::{self, Heard, connect5};
use host::{Client, Host};
use mqtt_protocol_core::mqtt::packet::{self as theirs, Properties, v5_0 as v5};
use tidegate_contract::config::Limits;
use tidegate_core::PublishFailure;
use tidegate_testkit::compliance::{self, Answer, Device};

const PING: &[u8] = b"\xC0\x00";

/// A client of either version as the platform's own checks see a device.
struct AnyDevice {
    client: Client,
    next_id: u16,
}

impl Device for AnyDevice {
    async fn publish(&mut self, address: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.next_id += 1;
        self.client.publish_payload(address, payload, 1, self.next_id).await;
        Ok(())
    }

    async fn answer(&mut self) -> Answer {
        match self.client.next().await {
            Some(Heard::PubAck { code: 0, .. }) => Answer::Acknowledged,
            Some(Heard::Disconnect { code: 0x89 }) => Answer::Unavailable,
            None => Answer::Closed,
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn mqtt_keeps_the_platforms_promise_to_devices() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        let mut device = AnyDevice { client: host.client(is_v5).await, next_id: 0 };
        compliance::acks_only_after_delivery(&host.kafka, &mut device, "sites/1").await.unwrap();
        compliance::nothing_is_acknowledged_after_a_failure(&host.kafka, &mut device, "sites/2", 10)
            .await
            .unwrap();
        host.metric("connections_closed_total{reason=\"PublishFailed\"} 1").await;
    }
}

#[tokio::test]
async fn a_client_is_served_while_its_publish_waits_for_kafka() {
    let host = Host::start(Limits::default()).await;
    host.kafka.hold();
    let mut client = host.client(true).await;
    client.publish("sites/1", 1, 7).await;
    client.send(PING).await;
    assert_eq!(client.hear().await, Heard::PingResp);
    host.held(1).await;
    host.kafka.release(1);
    assert_eq!(client.hear().await, Heard::PubAck { id: 7, code: 0 });
}

#[tokio::test]
async fn a_failed_publish_closes_with_server_busy_and_without_an_acknowledgement() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        host.kafka.hold();
        let mut client = host.client(is_v5).await;
        client.publish("sites/1", 1, 1).await;
        host.held(1).await;
        host.kafka.fail(PublishFailure::TimedOut, false);
        let expected = if is_v5 { vec![Heard::Disconnect { code: 0x89 }] } else { vec![] };
        assert_eq!(client.rest().await, expected);
    }
}

#[tokio::test]
async fn permanent_refusals_have_their_codes() {
    let host = Host::start(Limits { packet_bytes: 2 << 20, ..Limits::default() }).await;
    let mut client = host.client(true).await;
    client.publish("nowhere", 1, 1).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 1, code: 0x90 });
    client.publish_payload("sites/1", &vec![0; 1_200_000], 1, 2).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 2, code: 0x97 });
    client.publish("sites/1", 1, 3).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 3, code: 0 });
    let mut older = host.client(false).await;
    older.publish("nowhere", 1, 1).await;
    assert_eq!(older.rest().await, []);
    host.metric("publishes_refused_total{reason=\"NoTopic\"} 2").await;
    host.metric("publishes_refused_total{reason=\"TooLarge\"} 1").await;
}

#[tokio::test]
async fn what_one_client_publishes_another_one_gets() {
    for is_v5 in [true, false] {
        let host = Host::start(Limits::default()).await;
        let mut subscriber = host.connect(true, &connect5("subscriber", Properties::new())).await;
        assert!(matches!(subscriber.hear().await, Heard::ConnAck { code: 0, .. }));
        subscriber.subscribe(&[("sites/+/power", 1)]).await;
        let mut publisher = host.client(is_v5).await;
        for id in 1..=100_u16 {
            publisher.publish("sites/1/power", 1, id).await;
            publisher.publish("sites/1/other", 0, 0).await;
            assert_eq!(publisher.hear().await, Heard::PubAck { id, code: 0 });
        }
        for _ in 0..100 {
            let Heard::Publish { topic, payload, qos: 1, id, .. } = subscriber.hear().await else { panic!() };
            assert_eq!((topic.as_str(), &payload[..]), ("sites/1/power", &b"payload"[..]));
            subscriber.send(&[&[0x40, 2][..], &id.to_be_bytes()].concat()).await;
        }
    }
}

/// The window of unacknowledged deliveries holds back the tail, not memory.
#[tokio::test]
async fn a_subscriber_that_acknowledges_nothing_is_given_only_its_window() {
    let host = Host::start(Limits { in_flight: 3, ..Limits::default() }).await;
    let mut client = host.client(true).await;
    client.subscribe(&[("sites/#", 1)]).await;
    for _ in 0..10 {
        host.kafka.append("sites/1", b"payload").unwrap();
    }
    let mut first = 0;
    for _ in 0..3 {
        let Heard::Publish { id, .. } = client.hear().await else { panic!() };
        first = if first == 0 { id } else { first };
    }
    client.send(PING).await;
    assert_eq!(client.hear().await, Heard::PingResp);
    client.send(&[&[0x40, 2][..], &first.to_be_bytes()].concat()).await;
    assert!(matches!(client.hear().await, Heard::Publish { .. }));
    client.send(PING).await;
    assert_eq!(client.hear().await, Heard::PingResp);
}

#[tokio::test]
async fn what_was_unsubscribed_comes_no_more() {
    let host = Host::start(Limits::default()).await;
    let mut client = host.client(true).await;
    client.subscribe(&[("sites/1", 0), ("sites/2", 0)]).await;
    let packet = v5::Unsubscribe::builder().packet_id(2).entries(vec!["sites/1"]).unwrap().build().unwrap();
    client.send(&packet.to_continuous_buffer()).await;
    assert_eq!(client.hear().await, Heard::UnsubAck { id: 2, codes: vec![0] });
    host.kafka.append("sites/1", b"x").unwrap();
    host.kafka.append("sites/2", b"x").unwrap();
    assert!(matches!(client.hear().await, Heard::Publish { topic, .. } if topic == "sites/2"));
}

/// The first answer that does not come is enough: the time that it may take is not spent for each filter.
#[tokio::test]
async fn many_filters_that_cannot_be_started_close_as_soon_as_one() {
    let host = Host::start(Limits::default()).await;
    let mut client = host.client(true).await;
    host.kafka.away(true);
    let filters: Vec<_> = (0..50).map(|n| format!("sites/{n}/#")).collect();
    let entries: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    client.send(&testing::subscribe(true, 1, &entries, Properties::new())).await;
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x89 }]);
}

/// MQTT-3.1.4-3.
#[tokio::test]
async fn the_same_client_again_takes_the_session_over() {
    let host = Host::start(Limits::default()).await;
    let older = host.client(true).await;
    let mut newer = host.connect(true, &testing::connect(true)).await;
    assert!(matches!(newer.hear().await, Heard::ConnAck { code: 0, .. }));
    assert_eq!(older.rest().await, [Heard::Disconnect { code: 0x8E }]);
    newer.send(PING).await;
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
    host.metric("wills_total{reason=\"Stored\"} 1").await;
    assert_eq!(host.kafka.stored("sites/gone"), ["x"]);
}

#[tokio::test]
async fn a_client_that_closes_its_own_side_still_gets_its_acknowledgement() {
    let host = Host::start(Limits::default()).await;
    host.kafka.hold();
    let mut client = host.client(true).await;
    client.publish("sites/1", 1, 1).await;
    client.close_writing().await;
    host.held(1).await;
    host.kafka.release(1);
    assert_eq!(client.rest().await, [Heard::PubAck { id: 1, code: 0 }]);
}

#[tokio::test]
async fn shutdown_drains_acknowledgements_says_good_bye_and_returns() {
    let mut host = Host::start(Limits::default()).await;
    host.kafka.hold();
    let mut busy = host.client(true).await;
    let mut idle = host.connect(true, &connect5("idle", Properties::new())).await;
    assert!(matches!(idle.hear().await, Heard::ConnAck { .. }));
    busy.publish("sites/1", 1, 1).await;
    host.held(1).await;
    host.shut_down();
    assert_eq!(idle.rest().await, [Heard::Disconnect { code: 0x8B }]);
    assert!(!host.has_ended());
    host.kafka.release(1);
    assert_eq!(busy.rest().await, [Heard::PubAck { id: 1, code: 0 }, Heard::Disconnect { code: 0x8B }]);
    host.ended().await;
}

/// `drain_ms` of the services is 5 s.
#[tokio::test]
async fn shutdown_ends_without_kafka_when_the_time_to_drain_is_over() {
    let mut host = Host::start(Limits::default()).await;
    host.kafka.hold();
    let mut client = host.client(true).await;
    client.publish("sites/1", 1, 1).await;
    host.held(1).await;
    host.shut_down();
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x8B }]);
    host.ended().await;
}

#[tokio::test]
async fn publishes_beyond_the_budget_wait_and_none_is_lost() {
    let host = Host::start(Limits { in_flight: 2, ..Limits::default() }).await;
    host.kafka.hold();
    let mut client = host.client(false).await;
    let mut bytes = Vec::new();
    for id in 1..=20 {
        bytes.extend(testing::publish(false, &format!("sites/{id}"), b"x", 1, id));
    }
    client.send(&bytes).await;
    for id in 1..=20 {
        host.held(1).await;
        assert!(host.kafka.held() <= 2, "more than two in flight");
        host.kafka.release(1);
        assert_eq!(client.hear().await, Heard::PubAck { id, code: 0 });
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once_and_counted() {
    let host = Host::start(Limits { connections: 1, ..Limits::default() }).await;
    let first = host.client(true).await;
    assert_eq!(Client::open(host.address, true).await.rest().await, []);
    host.metric("connections_refused_total{reason=\"TooManyConnections\"} 1").await;
    drop(first);
    host.metric("connections 0").await;
    host.client(true).await;
}

#[tokio::test]
async fn more_connects_than_the_rate_allows_are_closed_and_counted() {
    let host = Host::start(Limits { connect_rate: 1, ..Limits::default() }).await;
    let _first = host.client(true).await;
    assert_eq!(Client::open(host.address, true).await.rest().await, []);
    host.metric("connections_refused_total{reason=\"ConnectRate\"} 1").await;
}
