//! Kafka closed, with a real one of three nodes on loopback: brought over with traffic running, and then who may do what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod closed_support;
mod kafka_support;

use closed_support::{Traffic, is_denial, read, write, write_in_a_transaction};
use kafka_support::{Cluster, Java, survey_until};
use kube::core::DeserializeGuard;
use kube::runtime::{reflector, watcher};
use rdkafka::error::RDKafkaErrorCode as Code;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::IoTPlatform;
use tidegate_crds::platform::Application;
use tidegate_operator::frame::metrics::Metrics;
use tidegate_operator::kafka::access::{Access, ClientCertificate, Tls};
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::hub::{Hub, Key};
use tidegate_operator::kafka::plan::{Desired, Plan};
use tidegate_operator::kafka::rights::acl::{Resource, kind, operation};
use tidegate_operator::kafka::rights::keep::{Keeper as Rights, Look};
use tidegate_operator::kafka::rights::wanted::wanted;
use tidegate_operator::kafka::rights::{Acl, Stage};
use tidegate_operator::kafka::survey::Survey;
use tidegate_operator::kafka::task::{Keeper, Task};
use tidegate_operator::kafka::wire::{acls, connect};
use tidegate_operator::pki::{Authority, LeafSpec, keep_or_issue};
use time::OffsetDateTime;

const LIMIT: Duration = Duration::from_secs(300);
/// Topics of a platform, and one that only Tidegate writes.
const TOPICS: [&str; 4] = ["telemetry", "commands", "tg-presence", "tg-directory"];

fn applications() -> Vec<Application> {
    serde_yaml::from_str("[{name: analytics, read: [telemetry, later]}, {name: backend, write: [commands]}]")
        .unwrap()
}

/// Everybody is there, and nobody lags.
fn whole(found: &Survey) -> bool {
    found.brokers.len() == 3
        && found.standing.values().all(|own| own.behind.is_none())
        && found.quorum.voters.values().all(|voter| voter.caught_up)
}

/// Restarts one node after the other, as the operator does.
async fn roll(cluster: &mut Cluster, admin: &Admin) {
    for id in [2, 1, 0] {
        let process = cluster.process(id).unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
        assert!(cluster.wait_end(id, LIMIT));
        cluster.start(id);
        survey_until(cluster, admin, LIMIT, "everybody is there and nobody lags", whole).await;
    }
}

async fn create(admin: &Admin, names: &[&str]) {
    let topic = |name: &&str| Desired {
        name: (*name).to_owned(),
        partitions: 1,
        replicas: 3,
        config: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
    };
    let plan = Plan { create: names.iter().map(topic).collect(), ..Plan::default() };
    for (name, outcome) in admin.execute(&plan).await {
        outcome.unwrap_or_else(|failure| panic!("{name}: {}", failure.message()));
    }
}

/// Looks until Kafka has these rights and no others.
async fn grant(access: &Access, want: &BTreeSet<Acl>) {
    let (mut rights, began) = (Rights::default(), Instant::now());
    loop {
        match rights.look(access, want, true).await {
            Ok(Look::Whole) => return,
            other => assert!(began.elapsed() < LIMIT, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_runs_open_is_closed_and_traffic_never_hears_of_it() {
    let mut cluster = Cluster::prepare(3, Java::find());
    cluster.configure_open();
    cluster.start_all();
    let operator = cluster.access("operator");
    let admin = Admin::new(&operator).unwrap();
    survey_until(&cluster, &admin, LIMIT, "everybody is there and nobody lags", whole).await;
    create(&admin, &TOPICS).await;
    write(&cluster.access("whoever"), "tg-directory").unwrap();
    let off = Rights::default().look(&operator, &wanted("", &[]), true).await.unwrap_err();
    assert_eq!(off.code, Code::SecurityDisabled, "{}", off.message());

    let traffic = Traffic::start(&cluster.access("gateway"), "telemetry");
    cluster.configure(Stage::Granting);
    roll(&mut cluster, &admin).await;
    let between = traffic.acknowledged();
    grant(&operator, &wanted("", &applications())).await;
    cluster.configure(Stage::Closed);
    roll(&mut cluster, &admin).await;
    let closed = traffic.acknowledged();
    assert!(between > 0 && closed > between, "{between} then {closed}");
    let (acknowledged, seen, denied) = traffic.end();
    assert_eq!(denied, Vec::<String>::new());
    assert_eq!(acknowledged, seen);
    eprintln!("{acknowledged} records were acknowledged and read while Kafka was closed; nobody was denied");
    // And closed it is.
    assert!(write(&cluster.access("whoever"), "telemetry").is_err_and(is_denial));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_is_made_is_closed_from_its_first_day_and_everybody_has_their_rights_only() {
    let mut cluster = Cluster::prepare(3, Java::find());
    cluster.start_all();
    let operator = cluster.access("operator");
    let admin = Admin::new(&operator).unwrap();
    survey_until(&cluster, &admin, LIMIT, "everybody is there and nobody lags", whole).await;
    create(&admin, &TOPICS).await;
    assert!(
        write(&cluster.access("gateway"), "telemetry").is_err_and(is_denial),
        "before its rights are there"
    );
    write(&operator, "tg-directory").unwrap();
    grant(&operator, &wanted("", &applications())).await;

    gateways_do_their_work_and_nothing_else(&cluster, &admin).await;
    applications_reach_their_topics_and_no_others(&cluster);
    nobody_gets_in_without_a_certificate_of_kafkas_own_authority(&cluster).await;
    rights_that_others_change_are_put_back_and_a_removed_application_has_none(&cluster, &admin).await;
}

async fn gateways_do_their_work_and_nothing_else(cluster: &Cluster, operator: &Admin) {
    let gateway = cluster.access("gateway");
    for topic in ["telemetry", "commands", "tg-presence"] {
        write(&gateway, topic).unwrap();
    }
    read(&gateway, "tg-presence", "tg-presence").unwrap();
    read(&gateway, "tg-directory", "tg-directory").unwrap();
    assert_eq!(write(&gateway, "tg-directory"), Err(Code::TopicAuthorizationFailed));
    assert_eq!(read(&gateway, "analytics", "telemetry"), Err(Code::GroupAuthorizationFailed));
    assert!(read(&gateway, "tg-x", "__consumer_offsets").is_err());
    let denied = write_in_a_transaction(&gateway, "telemetry", "tg-operator");
    assert_eq!(
        denied,
        Err(Code::TransactionalIdAuthorizationFailed),
        "it would fence the directory's writer"
    );

    let admin = Admin::new(&gateway).unwrap();
    let create = Desired { name: "own".to_owned(), partitions: 1, replicas: 3, config: BTreeMap::new() };
    let settings = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    for plan in [
        Plan { create: vec![create], ..Plan::default() },
        Plan { delete: vec!["telemetry".to_owned()], ..Plan::default() },
    ] {
        for (name, outcome) in admin.execute(&plan).await {
            let failure = outcome.unwrap_err();
            assert!(is_denial(failure.code), "{name}: {}", failure.message());
        }
    }
    // The client library does not tell what Kafka says to this.
    admin.execute(&Plan { configure: vec![("telemetry".to_owned(), settings)], ..Plan::default() }).await;
    let seen = operator.observe(&["telemetry".to_owned()]).await.unwrap();
    assert_eq!(seen.topics["telemetry"].config.as_ref().unwrap().get("retention.ms"), None);

    let mut connection = connect(&gateway).await.unwrap();
    let right = Acl::allow("gateway", operation::ALL, Resource::beginning(kind::TOPIC, ""));
    for refused in [
        acls::create(&mut connection, std::slice::from_ref(&right)).await,
        acls::delete(&mut connection, &[right]).await,
        acls::describe(&mut connection).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().failure("").code, Code::ClusterAuthorizationFailed);
    }
}

fn applications_reach_their_topics_and_no_others(cluster: &Cluster) {
    let (analytics, backend) = (cluster.access("app-analytics"), cluster.access("app-backend"));
    read(&analytics, "analytics", "telemetry").unwrap();
    read(&analytics, "analytics.hourly", "telemetry").unwrap();
    write(&backend, "commands").unwrap();
    write_in_a_transaction(&backend, "commands", "backend.sink-0").unwrap();

    for topic in ["commands", "tg-directory", "tg-presence", "__consumer_offsets"] {
        assert_eq!(read(&analytics, "analytics", topic), Err(Code::TopicAuthorizationFailed), "{topic}");
    }
    for group in ["backend", "analytics2", "tg-presence"] {
        assert_eq!(read(&analytics, group, "telemetry"), Err(Code::GroupAuthorizationFailed), "{group}");
    }
    for (who, topic) in [
        (&analytics, "telemetry"),
        (&analytics, "commands"),
        (&backend, "telemetry"),
        (&backend, "tg-directory"),
    ] {
        assert!(write(who, topic).is_err_and(is_denial), "{topic}");
    }
    // Who only writes has no group either.
    assert!(read(&backend, "backend", "commands").is_err_and(is_denial));
    let fenced = write_in_a_transaction(&backend, "commands", "tg-operator");
    assert_eq!(fenced, Err(Code::TransactionalIdAuthorizationFailed));
    // Signed by Kafka's authority, and nobody whom the platform declares.
    let stranger = cluster.access("stranger");
    assert!(read(&stranger, "stranger", "telemetry").is_err());
    assert!(write(&stranger, "telemetry").is_err_and(is_denial));
}

async fn nobody_gets_in_without_a_certificate_of_kafkas_own_authority(cluster: &Cluster) {
    let now = OffsetDateTime::now_utc();
    let devices = Authority::keep_or_make(None, "plant devices", now).unwrap();
    let client = |spec: &LeafSpec| {
        let (issued, _) = keep_or_issue(None, spec, &devices, now).unwrap();
        Some(ClientCertificate { certificate: issued.certificate, key: issued.key })
    };
    let listener = LeafSpec::server("mqtt", ["127.0.0.1".to_owned()].into());
    let good = cluster.access("operator");
    for (what, client) in [
        ("none", None),
        ("a device's", client(&LeafSpec::client("meters/meter-7"))),
        ("a device's that is called as the operator is", client(&LeafSpec::client("operator"))),
        ("a listener's", client(&listener)),
    ] {
        let authorities = good.tls.as_ref().unwrap().authorities.clone();
        let access = Access { tls: Some(Tls { authorities, client }), external: true, ..good.clone() };
        let failure = Admin::new(&access).unwrap().observe(&[]).await.unwrap_err();
        eprintln!("{what}: {}", failure.message());
        assert_eq!(failure.reason(), "KafkaClientCertificateRefused", "{what}: {}", failure.message());
    }
}

async fn rights_that_others_change_are_put_back_and_a_removed_application_has_none(
    cluster: &Cluster,
    admin: &Admin,
) {
    let (hub, key) = (Hub::new(&Metrics::default()), Key::new("plant", "plant"));
    let (platforms, mut writer) = reflector::store::<DeserializeGuard<IoTPlatform>>();
    let platform = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
        "metadata": {"name": "plant", "namespace": "plant"}, "spec": {"kafka": {"managed": {}}},
    });
    writer.apply_watcher_event(&watcher::Event::Init);
    writer.apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(platform).unwrap()));
    writer.apply_watcher_event(&watcher::Event::InitDone);
    hub.add_platforms(platforms);
    let access = cluster.access("operator");
    let keeper = Keeper::Tidegate { brokers: 3 };
    hub.keep(&key, Task { access: access.clone(), keeper, paused: false });
    let declared = wanted("", &applications());
    hub.want_rights(&key, Some(declared.clone()));
    until("all rights are seen", || hub.snapshot(&key).is_some_and(|found| found.rights.are(&declared)))
        .await;
    assert!(notices(&hub, &key).is_empty(), "nobody changed anything");

    // Somebody takes gateways' right to write, and lets everybody read everything.
    let mut connection = connect(&access).await.unwrap();
    let write_all = Acl::allow("gateway", operation::WRITE, Resource::beginning(kind::TOPIC, ""));
    let for_all = Acl::allow("*", operation::READ, Resource::beginning(kind::TOPIC, ""));
    assert!(declared.contains(&write_all));
    let began = Instant::now();
    acls::create(&mut connection, std::slice::from_ref(&for_all)).await.unwrap();
    acls::delete(&mut connection, &[write_all]).await.unwrap();
    while acls::describe(&mut connection).await.unwrap() != declared {
        assert!(began.elapsed() < LIMIT, "nobody put rights back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("rights were as declared again after {} ms", began.elapsed().as_millis());
    let mut told = Vec::new();
    until("it is told", || {
        told.extend(notices(&hub, &key));
        told.iter().any(|text: &String| text.contains("User:gateway may write topics of any name"))
    })
    .await;
    assert!(told.iter().any(|text| text.contains("User:* may read topics of any name")), "{told:?}");
    write(&cluster.access("gateway"), "telemetry").unwrap();

    // A name that was not there yet: its right waits for it.
    create(admin, &["later"]).await;
    write(&cluster.access("gateway"), "later").unwrap();
    read(&cluster.access("app-analytics"), "analytics", "later").unwrap();

    let left: Vec<_> = applications().into_iter().filter(|one| one.name == "backend").collect();
    hub.want_rights(&key, Some(wanted("", &left)));
    let began = Instant::now();
    let analytics = cluster.access("app-analytics");
    until("a removed application is refused", || {
        read(&analytics, "analytics", "telemetry").is_err_and(is_denial)
    })
    .await;
    eprintln!("a removed application was refused after {} ms", began.elapsed().as_millis());
    write(&cluster.access("app-backend"), "commands").unwrap();
    assert!(notices(&hub, &key).is_empty(), "a changed declaration is no repair");
    hub.forget(&key);
}

fn notices(hub: &Arc<Hub>, key: &Key) -> Vec<String> {
    let all = hub.take_notices(key, tidegate_contract::internal::DIRECTORY);
    all.into_iter().filter(|one| one.reason == "RightsRepaired").map(|one| one.text).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
