//! MQTT from socket to a real three-broker Kafka and back, while the broker that leads is killed.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

#[allow(dead_code)]
#[path = "../src/testing.rs"]
mod testing;

use mqtt_protocol_core::mqtt::packet::Properties;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use testing::{Heard, connect5, hear_one, publish5, subscribe};
use tidegate_contract::config::{GatewayConfig, Limits, Listener, Listeners, Protocol};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_contract::internal::DIRECTORY;
use tidegate_testkit::Kafka;
use tidegate_testkit::memory::everybody_in_directory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long the whole test may take.
const LONG: Duration = Duration::from_secs(120);
/// Publishes without an answer at a time.
const WINDOW: usize = 16;
/// The broker dies after so many acknowledgements, and the test ends after twice as many.
const HALF: usize = 300;
const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    async fn connect(gateway: SocketAddr, name: &str) -> Self {
        let mut client = Self { stream: TcpStream::connect(gateway).await.unwrap(), input: Vec::new() };
        client.stream.write_all(&connect5(name, Properties::new())).await.unwrap();
        assert!(matches!(client.hear().await, Some(Heard::ConnAck { code: 0, .. })));
        client
    }

    /// The next packet; nothing when the gateway closed.
    async fn hear(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = hear_one(&mut self.input, true) {
                return Some(heard);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

fn topic() -> TopicEntry {
    TopicEntry {
        name: "telemetry".to_owned(),
        kafka_name: "telemetry".to_owned(),
        filters: vec!["sites/+/telemetry/#".to_owned()],
        partitions: 3,
        max_message_bytes: 1_114_112,
    }
}

fn three_brokers() -> Kafka {
    let kafka = Kafka::start(3).unwrap();
    kafka.create_topic("telemetry", 3, 3, &[("min.insync.replicas", "2")]).unwrap();
    kafka.create_topic(DIRECTORY, 1, 3, &[("cleanup.policy", "compact")]).unwrap();
    let producer: BaseProducer = kafka.client_config().create().unwrap();
    let (key, value) =
        (Key::Topic("telemetry".to_owned()).to_string(), serde_json::to_vec(&topic()).unwrap());
    producer.send(BaseRecord::to(DIRECTORY).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    let (key, value) = everybody_in_directory().unwrap();
    producer.send(BaseRecord::to(DIRECTORY).key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    kafka
}

/// Publishes numbers in order, sends again from the first unanswered one on a new connection when the gateway
/// closes, and answers with what was acknowledged. `half` is told when half of it is.
async fn publish(gateway: SocketAddr, half: tokio::sync::oneshot::Sender<()>) -> Vec<usize> {
    let (mut acknowledged, mut half) = (Vec::new(), Some(half));
    while acknowledged.len() < 2 * HALF {
        let mut client = Client::connect(gateway, "publisher").await;
        let mut next = acknowledged.len();
        'connection: loop {
            while next < acknowledged.len() + WINDOW {
                let id = u16::try_from(next % 60_000 + 1).unwrap();
                let bytes = publish5(ADDRESS, next.to_string().as_bytes(), 1, id, Properties::new());
                if client.stream.write_all(&bytes).await.is_err() {
                    break 'connection;
                }
                next += 1;
            }
            match client.hear().await {
                Some(Heard::PubAck { id, code: 0 }) => {
                    assert_eq!(usize::from(id), acknowledged.len() % 60_000 + 1, "acknowledged out of order");
                    acknowledged.push(acknowledged.len());
                    if acknowledged.len() == HALF {
                        half.take().unwrap().send(()).unwrap();
                    }
                    if acknowledged.len() == 2 * HALF {
                        break 'connection;
                    }
                }
                Some(Heard::Disconnect { code: 0x89 }) | None => break 'connection,
                Some(other) => panic!("{other:?}"),
            }
        }
    }
    acknowledged
}

/// Takes records until every number up to the last one came.
async fn subscriber(mut client: Client) {
    let mut missing: HashSet<usize> = (0..2 * HALF).collect();
    while !missing.is_empty() {
        match client.hear().await {
            Some(Heard::Publish { payload, id, topic, .. }) => {
                assert_eq!(topic, ADDRESS);
                missing.remove(&String::from_utf8(payload).unwrap().parse().unwrap());
                client.stream.write_all(&[&[0x40, 2][..], &id.to_be_bytes()].concat()).await.unwrap();
            }
            other => panic!("{other:?} with {} numbers missing", missing.len()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_message_is_lost_when_the_leading_broker_is_killed() {
    let mut kafka = tokio::task::spawn_blocking(three_brokers).await.unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = socket.local_addr().unwrap();
    let listener = Listener::plain("mqtt", gateway.port());
    let config = GatewayConfig {
        namespace: "test".to_owned(),
        platform: "test".to_owned(),
        gateway: "mqtt".to_owned(),
        protocol: Protocol::Mqtt(Listeners { listeners: vec![listener.clone()] }),
        kafka: kafka.config(),
        limits: Limits::default(),
        admin_port: 0,
        drain_ms: 5_000,
    };
    let (services, runtime) = tidegate_core::start(config).await.unwrap();
    services.directory.ready().await;
    let shutdown = services.shutdown.clone();
    let server = tokio::spawn(tidegate_mqtt::serve(vec![(listener, socket)], services));

    let mut client = Client::connect(gateway, "subscriber").await;
    let filter = subscribe(true, 1, &[("sites/+/telemetry/#", 1)], Properties::new());
    client.stream.write_all(&filter).await.unwrap();
    assert_eq!(client.hear().await, Some(Heard::SubAck { id: 1, codes: vec![1] }));
    let subscribing = tokio::spawn(subscriber(client));
    let (half, reached) = tokio::sync::oneshot::channel();
    let publishing = tokio::spawn(publish(gateway, half));
    tokio::time::timeout(LONG, reached).await.unwrap().unwrap();
    let kafka = tokio::task::spawn_blocking(move || {
        let partition = tidegate_core::partition_of(ADDRESS.as_bytes(), 3);
        let leader = kafka.leader("telemetry", partition).unwrap();
        kafka.kill(leader).unwrap();
        kafka
    })
    .await
    .unwrap();

    let acknowledged = tokio::time::timeout(LONG, publishing).await.unwrap().unwrap();
    let held = tokio::task::spawn_blocking(move || kafka.read_all("telemetry").map(|held| (held, kafka)));
    let (held, _kafka) = held.await.unwrap().unwrap();
    let (mut seen, mut first_occurrences) = (HashSet::new(), Vec::new());
    for record in held {
        let number: usize = String::from_utf8(record.value).unwrap().parse().unwrap();
        if seen.insert(number) {
            first_occurrences.push(number);
        }
    }
    let lost: Vec<_> = acknowledged.iter().filter(|number| !seen.contains(number)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(first_occurrences.is_sorted(), "out of order on first occurrences");
    tokio::time::timeout(LONG, subscribing).await.expect("a subscriber gets every record").unwrap();

    shutdown.begin();
    tokio::time::timeout(LONG, server).await.unwrap().unwrap().unwrap();
    runtime.close().await;
}
