//! Our own client of Kafka's protocol, and the start script's end, against the real Kafka: three nodes on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

mod kafka_support;

use kafka_support::{Cluster, Java, survey_until};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::plan::{Desired, Plan};
use tidegate_operator::kafka::survey::Survey;
use tidegate_operator::kafka::surveyor::raise;
use tidegate_operator::kafka::wire::features::{level, name};
use tidegate_operator::kafka::wire::{WireError, connect, quorum};

const LIMIT: Duration = Duration::from_secs(90);

/// Everybody is there, and nobody lags.
fn whole(found: &Survey) -> bool {
    found.brokers.len() == 3
        && found.standing.values().all(|own| own.behind.is_none())
        && found.quorum.voters.values().all(|voter| voter.caught_up)
}

fn terminate(cluster: &Cluster, id: i32) {
    let process = cluster.process(id).unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_are_known_who_may_be_away_is_known_and_all_brokers_end_quickly_together() {
    let mut cluster = Cluster::prepare(3, Java::find());
    fs::write(cluster.path("identity").join("metadata-version"), "4.3").unwrap();
    cluster.start_all();
    let admin = Admin::new(&cluster.access("operator")).unwrap();
    survey_until(&cluster, &admin, LIMIT, "everybody is there and nobody lags", whole).await;

    the_active_controller_is_told_by_any_broker(&cluster).await;
    the_metadatas_version_rises_when_asked_and_never_further_than_kafka_knows(&cluster).await;
    a_stranger_is_not_listened_to(&cluster).await;
    minima_of_every_topic_are_seen(&cluster, &admin).await;
    one_broker_that_ends_hands_over_and_the_others_are_needed_meanwhile(&mut cluster, &admin).await;
    all_brokers_that_end_together_do_so_quickly(&mut cluster);
}

async fn the_active_controller_is_told_by_any_broker(cluster: &Cluster) {
    let mut leaders = Vec::new();
    for broker in cluster.access("operator").bootstrap.split(',') {
        let mut access = cluster.access("operator");
        access.bootstrap = broker.to_owned();
        let mut connection = connect(&access).await.unwrap();
        let found = quorum::describe(&mut connection).await.unwrap();
        assert_eq!(found.voters.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        leaders.push(found.leader);
    }
    leaders.dedup();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
}

async fn the_metadatas_version_rises_when_asked_and_never_further_than_kafka_knows(cluster: &Cluster) {
    let access = cluster.access("operator");
    let first = connect(&access).await.unwrap().features().metadata.unwrap();
    assert_eq!(name(first), "4.3-IV0", "what the disks were formatted with");
    let wanted = level("4.4").unwrap();
    assert_eq!(raise(&access, wanted).await.unwrap(), wanted);
    assert_eq!(raise(&access, first).await.unwrap(), wanted, "never lowered");
    let failure = raise(&access, 99).await.unwrap_err();
    eprintln!("a version that is too new: {}", failure.message());
    assert!(failure.message().contains("metadata.version"), "{}", failure.message());
}

async fn a_stranger_is_not_listened_to(cluster: &Cluster) {
    let mut access = cluster.access("operator");
    let other = Cluster::prepare(1, Java::find()).access("operator");
    access.tls = other.tls;
    match connect(&access).await {
        Err(error @ (WireError::Connect { .. } | WireError::Broken { .. })) => eprintln!("refused: {error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a client of another authority was let in"),
    }
}

async fn minima_of_every_topic_are_seen(cluster: &Cluster, admin: &Admin) {
    let topic = |name: &str, replicas, min: Option<&str>| Desired {
        name: name.to_owned(),
        partitions: 2,
        replicas,
        config: min.map(|min| ("min.insync.replicas".to_owned(), min.to_owned())).into_iter().collect(),
    };
    let create = vec![topic("own", 3, Some("3")), topic("default", 3, None), topic("single", 1, Some("1"))];
    for outcome in admin.execute(&Plan { create, ..Plan::default() }).await.into_values() {
        outcome.unwrap();
    }
    let found = survey_until(cluster, admin, LIMIT, "four topics at their minimum", |found| {
        whole(found) && found.fragile.as_ref().is_some_and(|fragile| fragile.count == 4)
    })
    .await;
    assert!(found.standing.values().all(|own| own.needed.is_none()), "{found:?}");
}

async fn one_broker_that_ends_hands_over_and_the_others_are_needed_meanwhile(
    cluster: &mut Cluster,
    admin: &Admin,
) {
    terminate(cluster, 2);
    let started = Instant::now();
    assert!(cluster.wait_end(2, LIMIT));
    eprintln!("one broker ended after {:.1} s", started.elapsed().as_secs_f64());
    assert!(!cluster.log(2).contains("ends at once"), "it did not hand over");
    let found = survey_until(cluster, admin, LIMIT, "one broker away, the others needed", |found| {
        found.brokers.len() == 2
            && found.standing.values().all(|own| own.needed.is_some())
            && !found.quorum_spares(0)
            && !found.quorum_spares(1)
    })
    .await;
    assert_eq!(found.standing.keys().copied().collect::<Vec<_>>(), [0, 1]);
    cluster.start(2);
    survey_until(cluster, admin, LIMIT, "everybody is there and nobody lags", whole).await;
}

fn all_brokers_that_end_together_do_so_quickly(cluster: &mut Cluster) {
    let started = Instant::now();
    for id in 0..3 {
        terminate(cluster, id);
    }
    let mut ended = BTreeMap::new();
    while ended.len() < 3 && started.elapsed() < LIMIT {
        for id in 0..3 {
            if cluster.wait_end(id, Duration::from_millis(50)) {
                ended.entry(id).or_insert_with(|| format!("{:.1} s", started.elapsed().as_secs_f64()));
            }
        }
    }
    eprintln!("all brokers ended together after {ended:?}");
    assert_eq!(ended.len(), 3);
}
