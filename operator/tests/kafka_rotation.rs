//! Kafka's authority gives way to its successor on a real Kafka of three nodes on loopback while a producer runs: brokers
//! restart one at a time in each step, the minimum of in-sync replicas is always there, and nothing acknowledged is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod kafka_support;

use kafka_support::writer::{PARTITIONS, TOPIC, Writer, judge};
use kafka_support::{Cluster, Java, broker, survey_until};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::access::Access;
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::plan::{Desired, Plan};
use tidegate_operator::kafka::survey::Survey;
use tidegate_operator::pki::{Ask, Outside, Pace, Seen, Step, keep_or_issue};
use time::OffsetDateTime;

const LIMIT: Duration = Duration::from_secs(120);
/// Acknowledgements after each restart, at least.
const AROUND: usize = 100;
/// Nobody has to be waited for but those whom this test sees.
const PACE: Pace =
    Pace { renew_before: time::Duration::days(1), inside: time::Duration::ZERO, outside: Outside::Nobody };

/// Every broker is there and holds all that it should.
fn whole(found: &Survey) -> bool {
    found.brokers.len() == 3
        && found.standing.values().all(|own| own.behind.is_none())
        && found.quorum.voters.values().all(|voter| voter.caught_up)
}

/// What the operator writes into the brokers' Secret.
fn deliver(cluster: &Cluster) {
    let folder = cluster.path("tls");
    let trusted = fs::read_to_string(folder.join("ca.crt")).unwrap();
    for node in &cluster.nodes {
        let path = folder.join(format!("node-{}.pem", node.id));
        let store = fs::read_to_string(&path).unwrap();
        let parts = (store.as_str(), store.as_str(), trusted.as_str());
        let now = OffsetDateTime::now_utc();
        let (leaf, why) = keep_or_issue(Some(parts), &broker(node.id), &cluster.authority, now).unwrap();
        if why.is_some() {
            fs::write(&path, leaf.key_store()).unwrap();
        }
    }
    fs::write(folder.join("ca.crt"), cluster.authority.bundle()).unwrap();
}

/// Restarts each broker as a deleted pod ends, when everything is in sync.
async fn roll(cluster: &mut Cluster, admin: &Admin, writer: &Writer) {
    for node in 0..3 {
        survey_until(cluster, admin, LIMIT, "a broker that can be spared", |found| {
            whole(found) && found.standing.get(&node).is_none_or(|own| own.needed.is_none())
        })
        .await;
        let script = cluster.process(node).unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &script]).status().unwrap().success());
        assert!(cluster.wait_end(node, LIMIT), "node {node} does not end");
        cluster.start(node);
        writer.acknowledged.wait(AROUND);
    }
    survey_until(cluster, admin, LIMIT, "a whole cluster", whole).await;
}

fn is_let_in(access: &Access) -> bool {
    let consumer: BaseConsumer = access.config().set("group.id", "probe").create().unwrap();
    consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(5)).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_gives_way_under_load_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::prepare(3, Java::find());
    cluster.start_all();
    let old = cluster.access("operator");
    let mut admin = Admin::new(&old).unwrap();
    survey_until(&cluster, &admin, LIMIT, "a whole cluster", whole).await;
    assert!(cluster.identity.formed(&[0, 1, 2]));
    cluster.write_identity();
    let topic = Desired {
        name: TOPIC.to_owned(),
        partitions: PARTITIONS,
        replicas: 3,
        config: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
    };
    for outcome in admin.execute(&Plan { create: vec![topic], ..Plan::default() }).await.into_values() {
        outcome.unwrap();
    }
    let writer = Writer::start(&old);
    writer.acknowledged.wait(AROUND);

    let mut held = Vec::new();
    let seen =
        Seen { asked: Some(("kafka-authority/1", Some(Ask::Successor))), delivered: true, rolled: true };
    for step in [Step::TrustBoth, Step::NewLeaves, Step::DropOld] {
        let begun = Instant::now();
        cluster.authority.turn("plant Kafka", &seen, &PACE, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(cluster.authority.life().step, step);
        deliver(&cluster);
        // The operator is the first to use what it wrote, before any broker restarts.
        let access = cluster.access("operator");
        admin = Admin::new(&access).unwrap();
        writer.switch(&access);
        roll(&mut cluster, &admin, &writer).await;
        eprintln!("{}: {:.1} s", step.as_str(), begun.elapsed().as_secs_f64());
        // Each of them missed the steps that came after it was made.
        let patient = held.first().unwrap_or(&access).clone();
        assert_eq!(is_let_in(&old), step == Step::TrustBoth, "{step:?}");
        assert_eq!(is_let_in(&patient), step != Step::DropOld, "{step:?}");
        assert!(is_let_in(&access));
        held.push(access);
    }
    let access = cluster.access("operator");
    judge(&access, &writer.end());
}
