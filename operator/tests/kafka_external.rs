//! The sweep over somebody else's Kafka: a real one with TLS, SCRAM and rights, and everything that can be wrong with
//! how a platform reaches it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::config::KafkaSaslMechanism;
use tidegate_contract::directory::OwnerEntry;
use tidegate_crds::{IoTPlatform, Topic};
use tidegate_operator::frame::metrics::Metrics;
use tidegate_operator::kafka::access::{Access, ClientCertificate, Password, Sasl, Tls};
use tidegate_operator::kafka::error::Failure;
use tidegate_operator::kafka::hub::{Hub, Key};
use tidegate_operator::kafka::marks::Owner;
use tidegate_operator::kafka::snapshot::{Health, Outcome, Snapshot};
use tidegate_operator::kafka::task::{Keeper, Task};
use tidegate_operator::pki;
use tidegate_testkit::Kafka;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::secured::{Operation as O, Right, Secured};

const LIMIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "hard-to-guess";
const USER: &str = "tidegate";

/// A platform with its sweep, as the operator runs it.
struct World {
    hub: Arc<Hub>,
    key: Key,
    topics: Writer<DeserializeGuard<Topic>>,
    uid: &'static str,
}

impl World {
    fn new(uid: &'static str) -> Self {
        let hub = Hub::new(&Metrics::default());
        let (platforms, mut platform) = reflector::store::<DeserializeGuard<IoTPlatform>>();
        let object = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "acme", "namespace": "acme", "uid": uid},
            "spec": {"kafka": {"prefix": "acme.", "external": {"bootstrapServers": ["k:1"]}}},
        });
        platform.apply_watcher_event(&watcher::Event::Init);
        platform.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(object).unwrap()));
        platform.apply_watcher_event(&watcher::Event::InitDone);
        hub.add_platforms(platforms);
        let (store, mut topics) = reflector::store::<DeserializeGuard<Topic>>();
        topics.apply_watcher_event(&watcher::Event::Init);
        topics.apply_watcher_event(&watcher::Event::InitDone);
        hub.add_topics(store);
        Self { hub, key: Key::new("acme", "acme"), topics, uid }
    }

    /// Declares a Topic whose sizes are decided.
    fn declare(&mut self, name: &str, replicas: i32, annotations: &Value) {
        let topic = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
            "metadata": {"name": name, "namespace": "acme", "annotations": annotations},
            "spec": {"platformRef": {"name": "acme"}},
            "status": {"effective": {"partitions": 2, "replicas": replicas, "minInSyncReplicas": 1, "retention": {"time": "1h"}}},
        });
        self.topics.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(topic).unwrap()));
        self.hub.nudge(&self.key);
    }

    fn reach(&self, access: &Access) {
        let (namespace, name) = ("acme".to_owned(), "acme".to_owned());
        let entry = OwnerEntry { namespace, name, uid: self.uid.to_owned() };
        let keeper = Keeper::Others(Owner { entry, adopt: false });
        self.hub.keep(&self.key, Task { access: access.clone(), keeper, paused: false });
    }

    async fn until<T>(&self, what: &str, holds: impl Fn(&Snapshot) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let snapshot = self.hub.snapshot(&self.key).unwrap_or_default();
            if let Some(found) = holds(&snapshot) {
                return found;
            }
            assert!(started.elapsed() < LIMIT, "never: {what}; last: {snapshot:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the platform's condition says of a Kafka that cannot be reached like this.
    async fn trouble(access: &Access) -> Failure {
        let world = Self::new("stranger");
        world.reach(access);
        let down = |snapshot: &Snapshot| match &snapshot.health {
            Health::Down(failure) => Some(failure.clone()),
            _ => None,
        };
        let failure = world.until("Kafka is away", down).await;
        world.hub.forget(&world.key);
        failure
    }

    /// Waits for what is not well with the directory to be this.
    async fn lacks(&self, words: &str) {
        let started = Instant::now();
        let says = |snapshot: &Snapshot| {
            let failure = snapshot.directory.as_ref()?;
            (failure.reason() == "KafkaForbidden" && failure.message().contains(words))
                .then(|| failure.message())
        };
        let said = self.until(words, says).await;
        eprintln!("after {:.1} s: {said}", started.elapsed().as_secs_f64());
        assert!(said.contains("User:tidegate"), "{said}");
    }

    async fn topic(&self, name: &str, holds: impl Fn(&Outcome) -> bool) -> Outcome {
        self.until(name, |snapshot| {
            let outcome = &snapshot.topics.get(name)?.outcome;
            holds(outcome).then(|| outcome.clone())
        })
        .await
    }
}

fn access(bootstrap: &str, authority: &Authority) -> Access {
    Access {
        bootstrap: bootstrap.to_owned(),
        prefix: "acme.".to_owned(),
        tls: Some(Tls { authorities: Some(authority.pem().to_owned()), client: None }),
        sasl: Some(login(USER, PASSWORD)),
        external: true,
    }
}

fn login(user: &str, password: &str) -> Sasl {
    let password = Password::new(password.to_owned());
    Sasl { mechanism: KafkaSaslMechanism::ScramSha512, username: user.to_owned(), password }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong_with_an_external_kafka_is_said_and_what_is_right_works() {
    let authority = Authority::new("their own").unwrap();
    let kafka = Kafka::start_secured(&authority, &[(USER, PASSWORD)]).unwrap();
    let good = access(&kafka.scram(), &authority);

    each_trouble_has_a_reason_of_its_own(&kafka, &authority, &good).await;

    kafka.kafka.create_topic("acme.alarms", 3, 1, &[("retention.ms", "5000")]).unwrap();
    let mut world = each_missing_right_is_named(&kafka, &good).await;
    what_others_made_is_left_alone_until_it_is_handed_over(&kafka, &mut world).await;
    more_copies_than_brokers_is_told(&mut world).await;
    another_platform_touches_nothing(&world, &good).await;
    a_changed_password_is_taken(&kafka, &authority, &world).await;
    eprintln!(
        "the broker said: {}",
        kafka.kafka.logs().lines().filter(|line| line.contains("ERROR")).count()
    );
}

async fn each_trouble_has_a_reason_of_its_own(kafka: &Secured, authority: &Authority, good: &Access) {
    let stranger = Authority::new("a stranger").unwrap();
    let tls = |authorities: &Authority, client: Option<ClientCertificate>| {
        Some(Tls { authorities: Some(authorities.pem().to_owned()), client })
    };
    let at = |bootstrap: String| Access { bootstrap, ..good.clone() };
    let leaf = stranger.leaf(USER).unwrap();
    let foreign = ClientCertificate { certificate: leaf.certificate, key: pki::Key::new(leaf.key) };
    let plain_login = Sasl { mechanism: KafkaSaslMechanism::Plain, ..login(USER, PASSWORD) };
    let cases = [
        (
            "wrong password",
            Access { sasl: Some(login(USER, "guessed")), ..good.clone() },
            "KafkaCredentialsRefused",
            "\"tidegate\"",
        ),
        (
            "unknown user",
            Access { sasl: Some(login("nobody", PASSWORD)), ..good.clone() },
            "KafkaCredentialsRefused",
            "\"nobody\"",
        ),
        (
            "a mechanism that is off",
            Access { sasl: Some(plain_login), ..good.clone() },
            "KafkaProtocolMismatch",
            "SASL PLAIN",
        ),
        (
            "wrong authority",
            Access { tls: tls(&stranger, None), ..good.clone() },
            "KafkaCertificateUntrusted",
            "caSecretRef",
        ),
        (
            "a public authority",
            Access { tls: Some(Tls { authorities: None, client: None }), ..good.clone() },
            "KafkaCertificateUntrusted",
            "a public authority",
        ),
        ("another host", at(kafka.elsewhere()), "KafkaHostnameMismatch", "127.0.0.2"),
        (
            "TLS to a plain port",
            at(kafka.kafka.bootstrap().to_owned()),
            "KafkaProtocolMismatch",
            "does not speak TLS",
        ),
        (
            "no TLS to a TLS port",
            Access { tls: None, ..good.clone() },
            "KafkaProtocolMismatch",
            "without TLS",
        ),
        (
            "no client certificate",
            Access { sasl: None, ..at(kafka.mutual()) },
            "KafkaClientCertificateRefused",
            "clientSecretRef",
        ),
        (
            "a foreign client certificate",
            Access { sasl: None, tls: tls(authority, Some(foreign)), ..at(kafka.mutual()) },
            "KafkaClientCertificateRefused",
            "clientSecretRef",
        ),
        ("nobody there", at("127.0.0.1:1".to_owned()), "KafkaUnreachable", "nobody answers at 127.0.0.1:1"),
        ("no such name", at("kafka.invalid:9093".to_owned()), "KafkaUnreachable", "has no address"),
    ];
    let mut wrong = Vec::new();
    for (what, access, reason, words) in cases {
        let started = Instant::now();
        let failure = World::trouble(&access).await;
        let message = failure.message();
        eprintln!("{what}: {} after {:.1} s: {message}", failure.reason(), started.elapsed().as_secs_f64());
        if failure.reason() != reason || !message.contains(words) {
            wrong.push(format!("{what}: {} {message}", failure.reason()));
        }
        assert!(!message.contains(PASSWORD) && !message.contains("guessed"), "{what}: {message}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each look is a sweep's first: what was refused a moment ago is left alone for a while.
async fn each_missing_right_is_named(kafka: &Secured, good: &Access) -> World {
    let begin = || {
        let mut world = World::new("first");
        world.declare("telemetry", 1, &json!({}));
        world.declare("alarms", 1, &json!({}));
        world.reach(good);
        world
    };
    let allow = |right, operations: &[O]| kafka.allow(USER, right, operations).unwrap();
    let topics = Right::Topics("acme.");
    let steps: [(&str, Right, &[O]); 6] = [
        ("create topic \"acme.tg-directory\": allow it operation Create", topics, &[O::Create, O::Describe]),
        ("operation DescribeConfigs on topic \"acme.tg-directory\"", topics, &[O::DescribeConfigs]),
        ("operation Read on group \"acme.tg-operator\"", Right::Groups("acme."), &[O::Read]),
        ("operation Read on topic \"acme.tg-directory\"", topics, &[O::Read]),
        (
            "operations Write and Describe on transactional id \"acme.tg-operator\"",
            Right::TransactionalIds("acme."),
            &[O::Write, O::Describe],
        ),
        ("operation Write on topic \"acme.tg-directory\"", topics, &[O::Write]),
    ];
    for (words, right, operations) in steps {
        let world = begin();
        world.lacks(words).await;
        world.hub.forget(&world.key);
        allow(right, operations);
    }
    let listed = |outcome: &Outcome| matches!(outcome, Outcome::Present { listed: true, .. });
    let world = begin();
    world.topic("telemetry", listed).await;
    // A setting that the platform keeps, and may not put back.
    kafka.kafka.configure_topic("acme.telemetry", &[("retention.ms", "1")]).unwrap();
    let denied = |outcome: &Outcome| {
        matches!(outcome, Outcome::Failed(failure)
            if failure.message().contains("User:tidegate operation AlterConfigs on topic \"acme.telemetry\""))
    };
    world.topic("telemetry", denied).await;
    world.hub.forget(&world.key);
    allow(topics, &[O::AlterConfigs]);
    let world = begin();
    world.topic("telemetry", listed).await;
    let well = |snapshot: &Snapshot| {
        (snapshot.directory_written && snapshot.health == Health::Up).then(|| snapshot.cluster_id.clone())
    };
    let cluster = world.until("all is well", well).await;
    assert_eq!(cluster.as_deref(), Some(kafka.kafka.cluster_id()));
    world
}

async fn what_others_made_is_left_alone_until_it_is_handed_over(kafka: &Secured, world: &mut World) {
    world.topic("alarms", |outcome| *outcome == Outcome::Foreign).await;
    assert_eq!(kafka.kafka.topic_setting("acme.alarms", "retention.ms").unwrap(), "5000");
    let directory = kafka.kafka.read_all("acme.tg-directory").unwrap();
    assert!(directory.iter().all(|record| !record.key.contains("alarms")), "{directory:?}");

    world.declare("alarms", 1, &json!({"tidegate.io/adopt": "true"}));
    let there =
        world.topic("alarms", |outcome| matches!(outcome, Outcome::Present { listed: true, .. })).await;
    assert!(matches!(there, Outcome::Present { topic, .. } if topic.partitions == 3), "its partitions stay");
    assert_eq!(kafka.kafka.topic_setting("acme.alarms", "retention.ms").unwrap(), "3600000");
    let directory = kafka.kafka.read_all("acme.tg-directory").unwrap();
    let marks: Vec<_> = directory.iter().filter(|record| record.key == "made/acme.alarms").collect();
    assert_eq!(String::from_utf8_lossy(&marks[0].value), r#"{"adopted":true}"#);
    // The word was said once.
    world.declare("alarms", 1, &json!({}));
    world.declare("later", 1, &json!({}));
    let listed = |outcome: &Outcome| matches!(outcome, Outcome::Present { listed: true, .. });
    world.topic("later", listed).await;
    world.topic("alarms", listed).await;
}

async fn more_copies_than_brokers_is_told(world: &mut World) {
    world.declare("copies", 3, &json!({}));
    let few = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if failure.reason() == "TooFewBrokers");
    world.topic("copies", few).await;
}

async fn another_platform_touches_nothing(first: &World, good: &Access) {
    let mut second = World::new("second");
    second.declare("telemetry", 1, &json!({}));
    second.reach(good);
    let told = |snapshot: &Snapshot| {
        snapshot.directory.clone().filter(|failure| failure.reason() == "KafkaNameConflict")
    };
    let said = second.until("the conflict", told).await.message();
    assert!(said.contains("IoTPlatform acme/acme (uid first, this one has second)"), "{said}");
    second.hub.forget(&second.key);
    let snapshot = first.hub.snapshot(&first.key).unwrap();
    assert!(snapshot.directory_written, "its writer was not fenced: {snapshot:?}");
}

async fn a_changed_password_is_taken(kafka: &Secured, authority: &Authority, world: &World) {
    kafka.change_password(USER, "new-and-hard").unwrap();
    let old = access(&kafka.scram(), authority);
    assert_eq!(World::trouble(&old).await.reason(), "KafkaCredentialsRefused");
    world.reach(&Access { sasl: Some(login(USER, "new-and-hard")), ..old });
    let listed = |outcome: &Outcome| matches!(outcome, Outcome::Present { listed: true, .. });
    world
        .until("it works again", |snapshot| {
            (snapshot.health == Health::Up && snapshot.directory_written).then_some(())
        })
        .await;
    world.topic("telemetry", listed).await;
    world.hub.forget(&world.key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_is_counted_as_away_and_every_topic_is_served_without_it() {
    let mut kafka = Kafka::start(3).unwrap();
    let plain = Access {
        bootstrap: kafka.bootstrap().to_owned(),
        prefix: "acme.".to_owned(),
        tls: None,
        sasl: None,
        external: true,
    };
    let mut world = World::new("first");
    world.declare("telemetry", 3, &json!({}));
    world.reach(&plain);
    let served = |outcome: &Outcome| matches!(outcome, Outcome::Present { listed: true, .. });
    world.topic("telemetry", served).await;
    world.until("all are there", |s| (s.brokers.len() == 3 && s.away.is_empty()).then_some(())).await;

    kafka.kill(2).unwrap();
    let counted = |s: &Snapshot| (s.brokers == [0, 1].into() && s.away == [2].into()).then(|| s.clone());
    let without = world.until("broker 2 is away", counted).await;
    assert!(without.directory_written && without.short.is_none(), "{without:?}");
    assert!(served(&without.topics["telemetry"].outcome), "{without:?}");
    // Kafka makes topics with three copies all the same, the third for when it is back.
    world.declare("later", 3, &json!({}));
    world.topic("later", served).await;

    kafka.restart(2).unwrap();
    world.until("it is back", |s| (s.brokers.len() == 3 && s.away.is_empty()).then_some(())).await;
    world.hub.forget(&world.key);
}
