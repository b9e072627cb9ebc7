//! Lost disks of Kafka's voters, one after the other, on a real Kafka of three nodes on loopback while a producer runs:
//! voters are exchanged, and nothing that was acknowledged is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod kafka_support;

use kafka_support::writer::{Acknowledged, PARTITIONS, TOPIC, Writer, judge};
use kafka_support::{Cluster, Java, survey_until};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::identity::Uuid;
use tidegate_operator::kafka::plan::{Desired, Plan};
use tidegate_operator::kafka::survey::Survey;
use tidegate_operator::kafka::surveyor::exchange;
use tidegate_operator::kafka::wire::voters::{Exchange, Next};

const LIMIT: Duration = Duration::from_secs(120);
/// Acknowledgements before and after each loss, at least.
const AROUND: usize = 300;

/// A pod that is deleted while Kafka's tool formats its disk leaves one with an id that the tool made up.
fn end_while_it_formats(cluster: &mut Cluster, node: i32) {
    let formats = |cluster: &Cluster| cluster.log(node).matches("formats its disk").count();
    let before = formats(cluster);
    cluster.start(node);
    assert!(kafka_support::wait(LIMIT, || formats(cluster) > before), "{}", cluster.log(node));
    let script = cluster.process(node).unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &script]).status().unwrap().success());
    assert!(cluster.wait_end(node, LIMIT));
}

/// Every broker is there, holds all that it should, and votes with the disk that the identity names.
fn whole(cluster: &Cluster, found: &Survey) -> bool {
    found.brokers.len() == 3
        && found.standing.values().all(|own| own.behind.is_none())
        && found.quorum.voters.len() == 3
        && found.quorum.voters.iter().all(|(id, voter)| {
            voter.caught_up && voter.directory.as_ref() == Some(&cluster.identity.nodes[id].directory)
        })
}

fn directory_on_disk(cluster: &Cluster, node: i32) -> Option<Uuid> {
    let meta = fs::read_to_string(cluster.data(node).join("meta.properties")).unwrap();
    Uuid::parse(meta.lines().find_map(|line| line.strip_prefix("directory.id="))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_disks_are_replaced_voter_by_voter_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::prepare(3, Java::find());
    cluster.start_all();
    let access = cluster.access("operator");
    let admin = Admin::new(&access).unwrap();
    survey_until(&cluster, &admin, LIMIT, "a whole cluster", |found| whole(&cluster, found)).await;
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
    let writer = Writer::start(&access);
    writer.acknowledged.wait(AROUND);

    // First the disk of the active controller, then that of another voter.
    let leader = survey_until(&cluster, &admin, LIMIT, "a leader", |_| true).await.quorum.leader;
    let other = (0..3).find(|node| *node != leader).unwrap();
    for node in [leader, other] {
        replace(&mut cluster, &admin, node, &writer.acknowledged).await;
        writer.acknowledged.wait(AROUND);
    }

    let acknowledged = writer.end();
    judge(&access, &acknowledged);
}

async fn replace(cluster: &mut Cluster, admin: &Admin, node: i32, acknowledged: &Acknowledged) {
    let lost = cluster.identity.nodes[&node].directory.clone();
    cluster.kill(node);
    fs::remove_dir_all(cluster.data(node)).unwrap();
    let away = survey_until(cluster, admin, LIMIT, "one broker away", |found| {
        let lags = found.quorum.voters.iter().all(|(id, voter)| voter.caught_up == (*id != node));
        found.brokers.len() == 2 && lags
    })
    .await;
    assert!(away.only_on.is_empty(), "{away:?}");

    // Nobody said that the empty disk may be formatted, and so it is not.
    cluster.start(node);
    assert!(cluster.wait_end(node, LIMIT));
    assert!(cluster.message(node).starts_with("DiskEmpty: "), "{}", cluster.message(node));
    acknowledged.wait(AROUND);

    let begun = Instant::now();
    cluster.kill(node);
    cluster.identity.replace(node, "asked");
    cluster.write_identity();
    let wanted = Exchange {
        cluster: cluster.identity.cluster.clone(),
        node,
        directory: cluster.identity.nodes[&node].directory.clone(),
        host: "127.0.0.1".to_owned(),
        port: cluster.nodes.iter().find(|each| each.id == node).unwrap().controller,
    };
    let access = cluster.access("operator");
    // Before the new disk reads along nobody's vote is touched.
    assert!(matches!(exchange(&access, &wanted).await, Ok(Next::Wait(why)) if why.contains("read along")));
    end_while_it_formats(cluster, node);
    cluster.start(node);
    let mut waited_for = Vec::new();
    loop {
        assert!(begun.elapsed() < LIMIT, "{waited_for:?}");
        match exchange(&access, &wanted).await {
            Ok(Next::Done) => break,
            other => {
                let text = format!("{other:?}");
                if waited_for.last() != Some(&text) {
                    waited_for.push(text);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let voted = begun.elapsed();
    assert_eq!(directory_on_disk(cluster, node), Some(wanted.directory.clone()));
    assert_ne!(lost, wanted.directory);
    cluster.identity.replaced(node);
    cluster.write_identity();
    survey_until(cluster, admin, LIMIT, "everything on the new disk", |found| whole(cluster, found)).await;
    // Done stays done.
    assert_eq!(exchange(&access, &wanted).await, Ok(Next::Done));
    eprintln!(
        "node {node}: its new disk voted after {:.1} s and had everything after {:.1} s; on the way: {waited_for:#?}",
        voted.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
}
