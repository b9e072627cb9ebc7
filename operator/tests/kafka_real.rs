//! The operator's files and clients against the real Kafka, three nodes on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod kafka_support;

use kafka_support::{Cluster, Java, wait};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};
use tidegate_contract::directory::TopicEntry;
use tidegate_crds::{IoTPlatform, Topic};
use tidegate_operator::frame::metrics::Metrics;
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::directory::{Contents, Writer, wanted};
use tidegate_operator::kafka::hub::{Hub, Key};
use tidegate_operator::kafka::plan::{Desired, Finding, Observed, findings, plan};
use tidegate_operator::kafka::snapshot::Outcome;
use tidegate_operator::kafka::task::{Keeper, Task};

const LIMIT: Duration = Duration::from_secs(90);

/// Sweeps until the observation is as wanted.
async fn observe_until(admin: &Admin, names: &[String], holds: impl Fn(&Observed) -> bool) -> Observed {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < LIMIT {
        match admin.observe(names).await {
            Ok(seen) if holds(&seen) => return seen,
            other => last = Some(other),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never seen; last: {last:?}");
}

fn desired(name: &str) -> Desired {
    let config = [("retention.ms", "604800000"), ("min.insync.replicas", "2"), ("cleanup.policy", "delete")];
    Desired {
        name: name.to_owned(),
        partitions: 4,
        replicas: 3,
        config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    }
}

async fn reconcile(admin: &Admin, want: &[Desired]) -> Observed {
    let names: Vec<_> = want.iter().map(|each| each.name.clone()).collect();
    let seen = admin.observe(&names).await.unwrap();
    for (name, outcome) in admin.execute(&plan(want, &BTreeSet::new(), &seen)).await {
        outcome.unwrap_or_else(|failure| panic!("{name}: {}", failure.message()));
    }
    observe_until(admin, &names, |seen| {
        plan(want, &BTreeSet::new(), seen).is_empty()
            && want.iter().all(|want| seen.topics.get(&want.name).is_some_and(|have| have.in_sync == 3))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_over_mtls_and_keep_topics_directory_and_disks_as_promised() {
    let mut cluster = Cluster::prepare(3, Java::find());
    let started = Instant::now();
    cluster.start_all();
    let admin = Admin::new(&cluster.access("operator")).unwrap();
    observe_until(&admin, &[], |seen| seen.brokers.len() == 3).await;
    eprintln!("formed in {:.1} s", started.elapsed().as_secs_f64());

    topics_are_created_put_back_and_created_again(&admin).await;
    the_directory_has_one_writer(&cluster, &admin).await;
    the_sweep_keeps_a_topic_that_somebody_deletes(&cluster, &admin).await;
    a_stranger_gets_no_answer(&cluster).await;
    an_empty_disk_in_a_formed_cluster_is_not_formatted(&mut cluster, &admin).await;
}

async fn topics_are_created_put_back_and_created_again(admin: &Admin) {
    let mut want = vec![desired("telemetry"), desired("events")];
    let started = Instant::now();
    reconcile(admin, &want).await;
    eprintln!("two topics created and in sync after {} ms", started.elapsed().as_millis());

    // A declared setting changes, and what somebody else set on the topic is removed, but for a throttle.
    let throttle = "leader.replication.throttled.replicas";
    let mut strange = desired("telemetry");
    strange.config.insert("compression.type".to_owned(), "zstd".to_owned());
    strange.config.insert(throttle.to_owned(), "*".to_owned());
    reconcile(admin, &[strange]).await;
    want[0].config.insert("retention.ms".to_owned(), "3600000".to_owned());
    let seen = reconcile(admin, &want).await;
    let config = seen.topics["telemetry"].config.as_ref().unwrap();
    assert_eq!(config["retention.ms"], "3600000");
    assert_eq!((config.get("compression.type"), config[throttle].as_str()), (None, "*"));

    // A declared size that differs from Kafka's is reported and changes nothing.
    let small = Desired { partitions: 2, ..want[0].clone() };
    assert_eq!(findings(&small, &seen.topics["telemetry"]), [Finding::MorePartitions(4)]);
    assert!(plan(&[small], &BTreeSet::new(), &seen).is_empty());

    let gone = plan(&[], &BTreeSet::from(["events".to_owned()]), &seen);
    admin.execute(&gone).await.remove("events").unwrap().unwrap();
    observe_until(admin, &[], |seen| !seen.topics.contains_key("events")).await;
    reconcile(admin, &want).await;

    let refused = Desired { replicas: 9, ..desired("too-many") };
    let seen = admin.observe(&[]).await.unwrap();
    let outcome = admin.execute(&plan(&[refused], &BTreeSet::new(), &seen)).await;
    let failure = outcome["too-many"].as_ref().unwrap_err();
    assert_eq!(failure.reason(), "TooFewBrokers", "{failure}");
}

async fn the_directory_has_one_writer(cluster: &Cluster, admin: &Admin) {
    let directory = Desired {
        partitions: 1,
        config: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        ..desired("tg-directory")
    };
    reconcile(admin, &[directory]).await;
    let entry = |name: &str| TopicEntry {
        name: name.to_owned(),
        kafka_name: name.to_owned(),
        filters: vec![format!("{name}/#")],
        partitions: 4,
        max_message_bytes: 1_114_112,
    };
    let access = cluster.access("operator");
    let work = tokio::task::spawn_blocking(move || {
        let mut first = Writer::open(&access, None).unwrap();
        let both = Contents::from(wanted(&[entry("a"), entry("b")]));
        assert_eq!(first.write(&both).unwrap(), 2);
        assert_eq!(first.write(&both).unwrap(), 0);
        let only = Contents::from(wanted(&[entry("b")]));
        let started = Instant::now();
        assert_eq!(first.write(&only).unwrap(), 1);
        eprintln!("one directory transaction took {} ms", started.elapsed().as_millis());

        // The next leader reads what the first one committed, and the first one can write no more.
        let mut second = Writer::open(&access, None).unwrap();
        assert_eq!(second.held(), &only);
        let failure = first.write(&both).unwrap_err();
        eprintln!("the fenced writer says: {}", failure.message());
        assert_eq!(second.write(&both).unwrap(), 1);
        assert_eq!(Writer::open(&access, None).unwrap().held(), &both);
    });
    work.await.unwrap();
}

/// A store as a controller's watch would fill it.
fn store<K>(json: serde_json::Value) -> Store<DeserializeGuard<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + 'static,
    DeserializeGuard<K>: Resource<DynamicType = ()> + DeserializeOwned,
{
    let (store, mut writer) = reflector::store::<DeserializeGuard<K>>();
    writer.apply_watcher_event(&watcher::Event::Init);
    writer.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(json).unwrap()));
    writer.apply_watcher_event(&watcher::Event::InitDone);
    store
}

async fn the_sweep_keeps_a_topic_that_somebody_deletes(cluster: &Cluster, admin: &Admin) {
    let hub = Hub::new(&Metrics::default());
    let key = Key::new("plant", "plant");
    hub.add_platforms(store::<IoTPlatform>(json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
        "metadata": {"name": "plant", "namespace": "plant"}, "spec": {"kafka": {"managed": {}}},
    })));
    hub.add_topics(store::<Topic>(json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
        "metadata": {"name": "alarms", "namespace": "plant"}, "spec": {"platformRef": {"name": "plant"}},
        "status": {"effective": {"partitions": 2, "replicas": 3, "minInSyncReplicas": 2, "retention": {"time": "1h"}}},
    })));
    let task =
        Task { access: cluster.access("operator"), keeper: Keeper::Tidegate { brokers: 3 }, paused: false };
    hub.keep(&key, task);
    let listed = || {
        let snapshot = hub.snapshot(&key)?;
        let state = snapshot.topics.get("alarms")?.clone();
        (snapshot.directory_written
            && matches!(state.outcome, Outcome::Present { listed: true, ref topic } if topic.partitions == 2))
        .then_some(snapshot)
    };
    let until_listed = async || {
        let started = Instant::now();
        while listed().is_none() {
            assert!(started.elapsed() < LIMIT, "{:?}", hub.snapshot(&key));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let started = Instant::now();
    until_listed().await;
    eprintln!("a topic was in Kafka and in the directory after {} ms", started.elapsed().as_millis());
    assert!(hub.take_notices(&key, "alarms").is_empty());

    let seen = admin.observe(&[]).await.unwrap();
    let deleted = admin.execute(&plan(&[], &BTreeSet::from(["alarms".to_owned()]), &seen)).await;
    assert_eq!(deleted["alarms"], Ok(()));
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < LIMIT, "nobody noticed: {:?}", hub.snapshot(&key));
        if let Some(notice) = hub.take_notices(&key, "alarms").pop() {
            assert_eq!((notice.reason, notice.warning), ("TopicRecreated", true));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("a deleted topic was there again after {} ms", started.elapsed().as_millis());
    observe_until(admin, &[], |seen| seen.topics.contains_key("alarms")).await;
    // the sweep that made it again may be under way
    until_listed().await;
    hub.forget(&key);
}

async fn a_stranger_gets_no_answer(cluster: &Cluster) {
    let mut plain = cluster.access("operator");
    plain.tls = None;
    let failure = Admin::new(&plain).unwrap().observe(&[]).await.unwrap_err();
    assert_eq!(failure.reason(), "KafkaUnreachable");
    let strangers = Cluster::prepare(3, Java::default()).access("operator");
    let other = tidegate_operator::kafka::access::Access {
        bootstrap: cluster.access("operator").bootstrap,
        ..strangers
    };
    Admin::new(&other).unwrap().observe(&[]).await.unwrap_err();
}

async fn an_empty_disk_in_a_formed_cluster_is_not_formatted(cluster: &mut Cluster, admin: &Admin) {
    assert!(cluster.identity.formed(&[0, 1, 2]));
    cluster.write_identity();
    cluster.kill(2);
    observe_until(admin, &[], |seen| seen.brokers.len() == 2).await;
    let kept = cluster.path("kept");
    fs::rename(cluster.data(2), &kept).unwrap();
    cluster.start(2);
    assert!(cluster.wait_end(2, LIMIT));
    assert!(cluster.message(2).starts_with("DiskEmpty: "), "{}", cluster.message(2));
    assert!(!cluster.data(2).join("meta.properties").exists());

    // Another node's disk is not taken for this one's.
    cluster.kill(2);
    fs::create_dir_all(cluster.data(2)).unwrap();
    fs::copy(cluster.data(1).join("meta.properties"), cluster.data(2).join("meta.properties")).unwrap();
    cluster.start(2);
    assert!(cluster.wait_end(2, LIMIT));
    assert!(cluster.message(2).starts_with("WrongDisk: "), "{}", cluster.message(2));

    cluster.kill(2);
    fs::remove_dir_all(cluster.data(2)).unwrap();
    fs::rename(&kept, cluster.data(2)).unwrap();
    cluster.start(2);
    let seen = observe_until(admin, &[], |seen| {
        seen.brokers.len() == 3 && seen.topics.values().all(|topic| topic.in_sync >= 3)
    })
    .await;
    assert!(seen.topics.contains_key("telemetry"));
}

#[test]
fn without_kafkas_jars_these_tests_fail_and_name_the_command_that_gets_them() {
    let missing = Java::look(None, || anyhow::bail!("mvn is not there")).unwrap_err();
    let wrong = Java::look(Some("/nowhere/at/all".into()), || anyhow::bail!("not asked")).unwrap_err();
    for error in [missing, wrong] {
        assert!(format!("{error:#}").contains("cargo xtask cluster up"), "{error:#}");
    }
}

#[test]
fn a_node_waits_for_an_identity_that_is_not_there_yet() {
    let mut cluster = Cluster::prepare(1, Java::find());
    let entry = cluster.path("identity").join("node-0");
    let text = fs::read_to_string(&entry).unwrap();
    fs::remove_file(&entry).unwrap();
    cluster.start(0);
    assert!(wait(LIMIT, || cluster.log(0).contains("waits for its identity")));
    assert!(!cluster.data(0).exists());
    fs::write(&entry, text).unwrap();
    assert!(wait(LIMIT, || cluster.data(0).join("meta.properties").exists()));
    let meta = fs::read_to_string(cluster.data(0).join("meta.properties")).unwrap();
    let fields: BTreeMap<_, _> = meta.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(fields["cluster.id"], cluster.identity.cluster.as_str());
    assert_eq!(fields["directory.id"], cluster.identity.nodes[&0].directory.as_str());
}
