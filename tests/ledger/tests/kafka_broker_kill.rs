//! The first promise on the real parts in one process: an MQTT and an HTTP gateway on a real three-broker Kafka, the
//! broker that leads the load's partition killed under load, and the ledger's verdict. The story on the local cluster
//! says the same over a load balancer; this one says it in seconds.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;
use tidegate_contract::config::{Limits, Listener, Listeners, Protocol};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_contract::{GatewayConfig, internal};
use tidegate_core::{Runtime, Services};
use tidegate_ledger::bench::{self, Plan};
use tidegate_ledger::judge::Rules;
use tidegate_ledger::kafka::KafkaOptions;
use tidegate_ledger::{Judge, Load, LoadOptions, PayloadSize, read};
use tidegate_testkit::Kafka;
use tidegate_testkit::memory::everybody_in_directory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const TOPIC: &str = "telemetry";
const LIMIT: Duration = Duration::from_secs(60);

/// Three brokers for all tests of this file, one test at a time; they end with the process.
static KAFKA: LazyLock<Mutex<Kafka>> = LazyLock::new(|| {
    let kafka = Kafka::start(3).unwrap();
    operator(&kafka);
    Mutex::new(kafka)
});

struct Gateway {
    address: SocketAddr,
    services: Services,
    runtime: Runtime,
    serving: JoinHandle<()>,
}

impl Gateway {
    async fn start(kafka: &Kafka, mqtt: bool) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::plain("test", address.port());
        let listeners = Listeners { listeners: vec![listener.clone()] };
        let admin_port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let config = GatewayConfig {
            namespace: "plant".to_owned(),
            platform: "plant".to_owned(),
            gateway: "test".to_owned(),
            protocol: if mqtt { Protocol::Mqtt(listeners) } else { Protocol::Http(listeners) },
            kafka: kafka.config(),
            limits: Limits::default(),
            admin_port,
            drain_ms: 5_000,
        };
        let (services, runtime) = tidegate_core::start(config).await.unwrap();
        tokio::time::timeout(LIMIT, services.directory.ready()).await.unwrap();
        let (listeners, served) = (vec![(listener, socket)], services.clone());
        let serving = tokio::spawn(async move {
            if mqtt {
                tidegate_mqtt::serve(listeners, served).await.unwrap();
            } else {
                tidegate_http::serve(listeners, served).await.unwrap();
            }
        });
        Self { address, services, runtime, serving }
    }

    async fn end(self) {
        self.services.shutdown.begin();
        tokio::time::timeout(LIMIT, self.serving).await.unwrap().unwrap();
        self.runtime.close().await;
    }
}

/// What the operator does: the topic, and its entry in the directory.
fn operator(kafka: &Kafka) {
    kafka.create_topic(TOPIC, 12, 3, &[("min.insync.replicas", "2")]).unwrap();
    kafka.create_topic(internal::DIRECTORY, 1, 3, &[("cleanup.policy", "compact")]).unwrap();
    let entry = TopicEntry {
        name: TOPIC.to_owned(),
        kafka_name: TOPIC.to_owned(),
        filters: vec!["sites/+/telemetry/#".to_owned()],
        partitions: 12,
        max_message_bytes: 1_114_112,
    };
    let producer: BaseProducer = kafka.client_config().set("acks", "all").create().unwrap();
    let (key, value) = (Key::Topic(TOPIC.to_owned()).to_string(), serde_json::to_string(&entry).unwrap());
    producer.send(BaseRecord::to(internal::DIRECTORY).key(&key).payload(&value)).unwrap();
    let (key, value) = everybody_in_directory().unwrap();
    producer.send(BaseRecord::to(internal::DIRECTORY).key(&key).payload(&value)).unwrap();
    producer.flush(LIMIT).unwrap();
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut response)).await.unwrap().unwrap();
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_costs_nothing_that_was_acknowledged() {
    let mut kafka = KAFKA.lock().await;
    let (mqtt, http) = (Gateway::start(&kafka, true).await, Gateway::start(&kafka, false).await);
    let folder = tempfile::tempdir().unwrap();
    let mut options = LoadOptions::new(&mqtt.address.to_string(), folder.path().join("log"));
    options.rate = 200.0;
    options.payload = "100..1000".parse().unwrap();
    options.http = http.address.to_string();
    (options.writers, options.http_rate) = (3, 60.0);
    (options.subscribers, options.readers, options.probe) = (2, 2, true);
    let bootstrap = kafka.bootstrap().to_owned();
    let address = options.address_of(0);

    let verdict = tokio::task::block_in_place(|| {
        let load = Load::start(options.clone()).unwrap();
        let subscribed = load.wait("subscriptions", LIMIT, |progress| progress.subscribed >= 2);
        load.wait_acknowledged(subscribed.unwrap().acknowledged + 500, LIMIT).unwrap();
        let partition = tidegate_core::partition_of(address.as_bytes(), 12);
        let leader = kafka.leader(TOPIC, partition).unwrap();
        load.mark("leader killed");
        kafka.kill(leader).unwrap();
        load.wait_acknowledged(load.acknowledged() + 500, LIMIT).unwrap();
        load.wait_caught_up(LIMIT).unwrap();
        kafka.restart(leader).unwrap();
        load.stop(LIMIT).unwrap();

        let reader = KafkaOptions { bootstrap, ca: None, certificate: None, key: None };
        let mut stored = Vec::new();
        read::stored(&reader, TOPIC, options.run, None, Some(&options.address), &mut stored).unwrap();
        let mut judge = Judge::read_log(Rules::default(), &*std::fs::read(&options.log).unwrap()).unwrap();
        judge.read_stored(&*stored).unwrap();
        judge.verdict()
    });
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!((verdict.refused, verdict.unanswered), (0, 0));
    assert!(verdict.marks[0].acknowledged_before >= 500 && verdict.marks[0].acknowledged_after >= 500);
    assert!(verdict.marks[0].served_after_s.is_some(), "{verdict:?}");
    assert_eq!(verdict.thin_phases(500), Vec::<String>::new());
    let seen = verdict.watched.clone().unwrap();
    assert!(verdict.acknowledged_http > 100 && seen.delivered > 1_000 && seen.reads > 20, "{verdict:?}");
    assert!(verdict.marks[0].recovered.unwrap().connect_after_s.is_some(), "{verdict:?}");

    let newest = get(http.address, &format!("/{address}")).await;
    assert!(
        newest.starts_with("HTTP/1.1 200") && newest.contains(&format!("{}.0.", options.run)),
        "{newest}"
    );
    let last = get(http.address, &format!("/{address}?last=5")).await;
    assert_eq!(last.matches("\"dataBase64\"").count() + last.matches("\"data\"").count(), 5, "{last}");
    mqtt.end().await;
    http.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_measured_through_a_gateway_to_its_subscriber() {
    let kafka = KAFKA.lock().await;
    let gateway = Gateway::start(&kafka, true).await;
    let plan = Plan {
        rates: vec![100.0],
        samples: 50,
        payload: PayloadSize::fixed(100),
        address: "sites/berlin/telemetry/bench".to_owned(),
        addresses: 10,
    };
    let rows =
        tokio::task::block_in_place(|| bench::latency(&gateway.address.to_string(), None, &plan)).unwrap();
    let figures = &rows[0].figures;
    assert_eq!(
        (&figures["samples"], &figures["unanswered"], &figures["undelivered"]),
        (&200.into(), &0.into(), &0.into())
    );
    for figure in ["ack_p50_ms", "ack_p99_ms", "end_to_end_p50_ms", "end_to_end_p99_ms"] {
        assert!(figures[figure].as_f64().is_some_and(|ms| ms > 0.0), "{figure}");
    }
    gateway.end().await;
}
