//! New credentials for a real Kafka with mutual TLS, while devices stay connected.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{SOON, address, entry, filter, record, route, until};
use tidegate_contract::GatewayConfig;
use tidegate_contract::config::{KafkaConfig, KafkaSasl, KafkaSaslMechanism, Limits, Listeners, Protocol};
use tidegate_contract::directory::{Key, TopicEntry};
use tidegate_core::{Reliability, Runtime, Services, SessionOptions, TailEvent, TailSession, start_looking};
use tidegate_testkit::Kafka;
use tidegate_testkit::pki::{Authority, Leaf, bundle, client_files, mount};

/// Between two looks at the files: short, so that a test takes seconds.
const LOOK: Duration = Duration::from_millis(200);
const CONNECTIONS: usize = 4;
/// Each connection publishes this often: 400 a second in all.
const EVERY: Duration = Duration::from_millis(10);
/// Records that each connection has confirmed before, between and after changes of the files.
const SOME: usize = 60;

/// A gateway whose credentials are in a folder of the test's.
struct Gateway {
    services: Services,
    runtime: Runtime,
    folder: tempfile::TempDir,
    versions: usize,
}

impl Gateway {
    async fn start(kafka: &Kafka, leaf: &Leaf, trusted: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(folder.path(), "first", leaf, trusted).unwrap();
        Self::start_in(kafka, kafka.tls_config(client_files(folder.path())), folder).await
    }

    async fn start_in(kafka: &Kafka, reach: KafkaConfig, folder: tempfile::TempDir) -> Self {
        kafka.create_topic("tg-directory", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
        kafka.create_topic("t", 4, 1, &[]).unwrap();
        tell(kafka, &entry("t", &["t/#"], 4));
        let config = config(reach);
        let (services, runtime) = start_looking(config, LOOK).await.unwrap();
        tokio::time::timeout(SOON, services.directory.ready()).await.unwrap();
        Self { services, runtime, folder, versions: 0 }
    }

    fn mount(&mut self, leaf: &Leaf, trusted: &str) {
        self.versions += 1;
        mount(self.folder.path(), &self.versions.to_string(), leaf, trusted).unwrap();
    }

    fn says(&self, line: &str) -> bool {
        self.services.telemetry.encode().lines().any(|each| each == line)
    }

    async fn reloaded(&self, times: usize) {
        let line = format!("tidegate_kafka_credentials_reloads_total {times}");
        until(&line, || self.says(&line)).await;
        assert!(self.says("tidegate_kafka_credentials_pending 0"));
    }

    /// A failure that is counted since now, for this reason.
    async fn refused(&self, reason: &str) {
        let start = format!("tidegate_kafka_credentials_failures_total{{reason=\"{reason}\"}} ");
        until(&start, || self.services.telemetry.encode().contains(&start)).await;
        assert!(self.says("tidegate_kafka_credentials_pending 1"));
    }

    async fn subscribe(&self, to: &str) -> TailSession {
        let mut session = self.services.tail.session(SessionOptions::default());
        session.subscribe(filter(to), Reliability::Reliable).await.unwrap();
        session
    }

    /// Everything of a gateway works: publish, live end, stored records, directory.
    async fn works(&self, kafka: &Kafka, name: &str) {
        kafka.create_topic(name, 1, 1, &[]).unwrap();
        tell(kafka, &entry(name, &[&format!("{name}/#")], 1));
        let at = format!("{name}/a");
        let routes = &self.services.directory;
        until("the new topic in the directory", || routes.routes().route(&address(&at)).is_some()).await;
        let mut session = self.subscribe(&at).await;
        let target = route(routes, &at);
        self.services.publisher.publish_once(&target, &record(&at, name)).await.unwrap().unwrap();
        let TailEvent::Delivery(delivery) = tokio::time::timeout(SOON, session.next()).await.unwrap() else {
            panic!("a gap");
        };
        assert_eq!(delivery.record.payload, name);
        let stored = self.services.history.last(&address(&at), 1).await.unwrap();
        assert_eq!(stored.records[0].record.payload, name);
    }
}

fn config(kafka: KafkaConfig) -> GatewayConfig {
    let admin_port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    GatewayConfig {
        namespace: "plant".to_owned(),
        platform: "plant".to_owned(),
        gateway: "mqtt".to_owned(),
        protocol: Protocol::Mqtt(Listeners { listeners: Vec::new() }),
        kafka,
        limits: Limits::default(),
        admin_port,
        drain_ms: 1_000,
    }
}

/// Writes an entry of the directory.
fn tell(kafka: &Kafka, entry: &TopicEntry) {
    let producer: BaseProducer = kafka.client_config().create().unwrap();
    let (key, value) = (Key::Topic(entry.name.clone()).to_string(), serde_json::to_vec(entry).unwrap());
    producer.send(BaseRecord::to("tg-directory").key(&key).payload(&value)).unwrap();
    producer.flush(SOON).unwrap();
}

/// Connections that publish numbers at a rate; none of their records may fail.
struct Load {
    stop: Arc<AtomicBool>,
    confirmed: Arc<std::sync::Mutex<BTreeMap<String, Vec<u64>>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    fn start(services: &Services) -> Self {
        let (stop, confirmed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut load = Self { stop, confirmed, tasks: tokio::task::JoinSet::new() };
        for number in 0..CONNECTIONS {
            let (services, stop, confirmed) =
                (services.clone(), Arc::clone(&load.stop), Arc::clone(&load.confirmed));
            load.tasks.spawn(async move {
                let at = format!("t/{number}");
                let target = route(&services.directory, &at);
                let mut handle = services.publisher.connection();
                let mut ticks = tokio::time::interval(EVERY);
                let (mut next, mut done) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) || handle.in_flight() > 0 {
                    tokio::select! {
                        _ = ticks.tick(), if handle.has_room() && !stop.load(Ordering::Relaxed) => {
                            handle.publish(&target, &record(&at, next.to_string()), next).unwrap();
                            next += 1;
                        }
                        () = handle.completed(&mut done) => {
                            let mut confirmed = confirmed.lock().unwrap();
                            let own: &mut Vec<u64> = confirmed.entry(at.clone()).or_default();
                            for completion in done.drain(..) {
                                completion.result.unwrap();
                                own.push(completion.token);
                            }
                        }
                    }
                }
            });
        }
        load
    }

    /// Waits until every connection has so many more confirmed.
    async fn flows(&self) {
        let count = || {
            let confirmed = self.confirmed.lock().unwrap();
            (0..CONNECTIONS).map(|n| confirmed.get(&format!("t/{n}")).map_or(0, Vec::len)).collect::<Vec<_>>()
        };
        let before = count();
        until("records are confirmed", || {
            count().iter().zip(&before).all(|(now, before)| *now >= before + SOME)
        })
        .await;
    }

    async fn stop(self) -> BTreeMap<String, Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        Arc::try_unwrap(self.confirmed).unwrap().into_inner().unwrap()
    }
}

/// What a subscriber that keeps up is given.
#[derive(Clone, Default)]
struct Seen(Arc<std::sync::Mutex<BTreeMap<String, Vec<u64>>>>);

impl Seen {
    fn by(mut session: TailSession) -> Self {
        let seen = Self::default();
        let own = seen.clone();
        tokio::spawn(async move {
            while let TailEvent::Delivery(delivery) = session.next().await {
                let number = std::str::from_utf8(&delivery.record.payload).unwrap().parse().unwrap();
                let at = delivery.record.address.to_string();
                own.0.lock().unwrap().entry(at).or_default().push(number);
            }
            panic!("a gap");
        });
        seen
    }

    async fn all(&self, expected: &BTreeMap<String, Vec<u64>>) {
        let count = |all: &BTreeMap<String, Vec<u64>>| all.values().map(Vec::len).sum::<usize>();
        until("the subscriber has them all", || count(&self.0.lock().unwrap()) >= count(expected)).await;
        assert_eq!(*self.0.lock().unwrap(), *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_every_record_is_stored_and_seen_once_in_order() {
    let authority = Authority::new("first").unwrap();
    let kafka = Kafka::start_tls(1, &authority).unwrap();
    let leaf = || authority.leaf("gateway").unwrap();
    let mut gateway = Gateway::start(&kafka, &leaf(), authority.pem()).await;
    let everything = Seen::by(gateway.subscribe("t/#").await);
    let mut one = gateway.subscribe("t/0").await;

    let load = Load::start(&gateway.services);
    load.flows().await;
    for times in 1..=4 {
        gateway.mount(&leaf(), authority.pem());
        gateway.reloaded(times).await;
        load.flows().await;
    }
    // a certificate whose key has not come yet
    let (certificate, key) = (leaf().certificate, leaf().key);
    gateway.mount(&Leaf { certificate: certificate.clone(), key }, authority.pem());
    gateway.refused("unreadable").await;
    load.flows().await;
    // one that Kafka does not know
    let stranger = Authority::new("stranger").unwrap();
    gateway.mount(&stranger.leaf("gateway").unwrap(), authority.pem());
    gateway.refused("refused").await;
    load.flows().await;
    gateway.mount(&leaf(), authority.pem());
    gateway.reloaded(5).await;
    load.flows().await;
    let confirmed = load.stop().await;

    let mut stored: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for held in kafka.read_all("t").unwrap() {
        let number = std::str::from_utf8(&held.value).unwrap().parse().unwrap();
        stored.entry(held.key).or_default().push(number);
    }
    for (at, numbers) in &confirmed {
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{at}: {numbers:?}");
    }
    assert_eq!(stored, confirmed);
    everything.all(&confirmed).await;
    // one that took nothing meanwhile reads what the live end has let go
    for number in &confirmed["t/0"] {
        assert_eq!(support::delivery(&mut one).await.record.payload, number.to_string());
    }
    assert!(gateway.says("tidegate_publish_producer_rebuilt_total 0"));
    gateway.works(&kafka, "after").await;
    gateway.runtime.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_outlives_the_authority_that_signed_its_first_certificate() {
    let (first, second) = (Authority::new("first").unwrap(), Authority::new("second").unwrap());
    let mut kafka = Kafka::start_tls(1, &first).unwrap();
    let leaf = first.leaf("gateway").unwrap();
    let mut gateway = Gateway::start(&kafka, &leaf, first.pem()).await;
    gateway.works(&kafka, "first").await;

    // both are trusted everywhere, then everybody has a certificate of the second, then the first is gone
    gateway.mount(&leaf, &bundle(&[&first, &second]));
    gateway.reloaded(1).await;
    let again = |kafka: &mut Kafka, trusted: &[&Authority]| {
        kafka.certify(&second, &bundle(trusted)).unwrap();
        kafka.kill(0).unwrap();
        kafka.restart(0).unwrap();
    };
    again(&mut kafka, &[&first, &second]);
    until("Kafka is there", || gateway.says("tidegate_kafka_available 1")).await;
    gateway.mount(&second.leaf("gateway").unwrap(), second.pem());
    gateway.reloaded(2).await;
    gateway.works(&kafka, "both").await;
    again(&mut kafka, &[&second]);
    until("Kafka is missed", || gateway.says("tidegate_kafka_available 0")).await;
    until("Kafka is there", || gateway.says("tidegate_kafka_available 1")).await;
    gateway.works(&kafka, "second").await;
    gateway.runtime.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changed_in_kafka_is_used_as_soon_as_the_file_has_it() {
    let mut kafka = Kafka::start_sasl("gateway", "first").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "first\n").unwrap();
    let sasl = KafkaSasl {
        mechanism: KafkaSaslMechanism::Plain,
        username: "gateway".to_owned(),
        password: password.clone(),
    };
    let gateway = Gateway::start_in(&kafka, kafka.sasl_config(sasl), folder).await;
    gateway.works(&kafka, "first").await;

    std::fs::write(&password, "second\n").unwrap();
    gateway.refused("refused").await;
    gateway.works(&kafka, "still").await;
    kafka.set_password("gateway", "second").unwrap();
    kafka.kill(0).unwrap();
    kafka.restart(0).unwrap();
    gateway.reloaded(1).await;
    until("Kafka is there", || gateway.says("tidegate_kafka_available 1")).await;
    gateway.works(&kafka, "second").await;
    gateway.runtime.close().await;
}
