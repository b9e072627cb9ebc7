//! The cluster's faults do what they say, and healing undoes them.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::Duration;
use tidegate_cluster::{Cluster, Fault};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::{Kubectl, until};

const NAMESPACE: &str = "faults";
const LIMIT: Duration = Duration::from_secs(60);
/// What every node listens on: its kubelet.
const PORT: u16 = 10250;

/// Whether `from` opens a connection to a node; a lost SYN is sent again only after a second.
fn reaches(cluster: &Cluster, from: &str, to: &str) -> Result<bool> {
    let address = cluster.plan().node(to)?.address();
    let script = format!("exec 3<>/dev/tcp/{address}/{PORT}");
    let mut command = match from {
        "host" => Command::new("env"),
        node => cluster.on_node(node)?,
    };
    Ok(command.args(["timeout", "0.2", "bash", "-c", &script]).output()?.status.success())
}

#[test]
fn faults_of_the_network_hit_the_nodes_they_name_and_are_healed() {
    network().unwrap();
}

fn network() -> Result<()> {
    let cluster = cluster()?;
    let all =
        [("node1", "node2"), ("node2", "node1"), ("node1", "node3"), ("host", "node1"), ("host", "node2")];
    let broken = |expected: &[(&str, &str)]| -> Result<()> {
        for (from, to) in all {
            let hit = expected.contains(&(from, to));
            ensure!(
                reaches(&cluster, from, to)? != hit,
                "{from} → {to}, which should {}",
                if hit { "fail" } else { "work" }
            );
        }
        Ok(())
    };
    let node = |name: &str| name.to_owned();
    broken(&[])?;
    let cut = cluster.inject_for_now(Fault::Cut { node: node("node2"), other: node("node1") })?;
    broken(&[("node1", "node2"), ("node2", "node1")])?;
    cut.heal()?;
    let cut = cluster.inject_for_now(Fault::Cut { node: node("node1"), other: node("host") })?;
    broken(&[("host", "node1")])?;
    cut.heal()?;
    let down = cluster.inject_for_now(Fault::LinkDown { node: node("node1") })?;
    broken(&[("node1", "node2"), ("node2", "node1"), ("node1", "node3"), ("host", "node1")])?;
    down.heal()?;
    until("the link", LIMIT, || broken(&[]))?;

    // a tool that died: somebody else finds the fault and heals it
    let name = cluster.inject(Fault::Loss { node: node("node3"), percent: 50 })?;
    let answered = (0..40).filter(|_| reaches(&cluster, "node1", "node3").unwrap_or(false)).count();
    let healed = Cluster::attach(&tidegate_cluster::Progress::new())?.heal(&[])?;
    ensure!((1..30).contains(&answered), "{answered} of 40 came through, where a quarter should");
    ensure!(healed == [name], "{healed:?}");
    ensure!(cluster.heal(&[])?.is_empty(), "healing again found something");
    broken(&[])
}

#[test]
fn faults_of_pods_and_disks_stop_and_go_on() {
    let kubectl = Kubectl::new(NAMESPACE);
    let result = pods_and_disks(&kubectl);
    let said = kubectl.run(&["get", "pods,pvc,events", "--output=wide"]);
    let healed = cluster().and_then(|cluster| cluster.heal(&[]));
    let gone = kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=60s"]);
    result.with_context(|| said.unwrap_or_default()).unwrap();
    gone.unwrap();
    healed.unwrap();
}

/// A pod that writes a line to its volume ten times a second, and says when it cannot.
fn writer() -> Result<String> {
    let image =
        std::env::var("TIDEGATE_KAFKA_IMAGE").context("TIDEGATE_KAFKA_IMAGE: run cargo xtask test")?;
    Ok(format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: writer}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: writer
    image: {image}
    command: [bash, -c, 'while sleep 0.1; do printf %4096d 0 >> /data/log || echo full; done']
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"
    ))
}

fn pods_and_disks(kubectl: &Kubectl) -> Result<()> {
    let cluster = cluster()?;
    kubectl.apply(&writer()?)?;
    let size = || -> Result<u64> {
        Ok(kubectl.run(&["exec", "writer", "--", "stat", "--format=%s", "/data/log"])?.trim().parse()?)
    };
    let grows = |what: &str| {
        let start = until(what, LIMIT, size)?;
        until(what, LIMIT, || {
            let now = size()?;
            ensure!(now > start, "it stays at {now}");
            Ok(now)
        })
    };
    let stands = |what: &str| -> Result<()> {
        let start = size()?;
        // not a wait for something: it must not happen, in ten times the time that it takes
        std::thread::sleep(Duration::from_secs(1));
        ensure!(size()? == start, "{what}: it goes on writing");
        Ok(())
    };
    grows("the first lines")?;
    let frozen =
        cluster.inject_for_now(Fault::Freeze { namespace: NAMESPACE.into(), pod: "writer".into() })?;
    stands("frozen")?;
    frozen.heal()?;
    let before = grows("lines after the frost")?;

    let node = kubectl.get(&["pod", "writer"])?["spec"]["nodeName"].as_str().context("no node")?.to_owned();
    let full = cluster.inject_for_now(Fault::FullDisk { node })?;
    until("a full disk", LIMIT, || {
        let logs = kubectl.run(&["logs", "writer"])?;
        ensure!(logs.contains("full"), "{logs}");
        Ok(())
    })?;
    ensure!(size()? >= before, "lines were lost on the way to the other disk");
    stands("on a full disk")?;
    full.heal()?;
    let before = grows("lines after the disk was cleared")?;

    cluster.discard_volume(NAMESPACE, "data")?;
    until("an empty volume", LIMIT, || {
        let now = size()?;
        ensure!(now < before, "it has {now}, and had {before}");
        Ok(())
    })?;
    let restarts = || -> Result<u64> {
        let pod = kubectl.get(&["pod", "writer"])?;
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64().context("no count")
    };
    let count = restarts()?;
    cluster.kill(NAMESPACE, "writer")?;
    until("a restart", LIMIT, || {
        ensure!(restarts()? > count, "still {count}");
        Ok(())
    })
}
