//! A node is switched off under load: devices go on within seconds, nothing acknowledged is lost, and the node is used
//! again by itself.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_cluster::faults::Fault;
use tidegate_e2e::client::{curl, host_and_port};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::newcomer::Newcomers;
use tidegate_e2e::{Kubectl, Story, campaign, story, until};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const TOPIC: &str = "telemetry";
/// Connections of the load, enough for every replica to have some.
const CONNECTIONS: u16 = 12;
const GATEWAYS: [&str; 2] = ["mqtt", "http"];
/// Each replica of the quickstart's gateways.
const REPLICAS: usize = 2;

/// Which node goes.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The one that announces the gateways' addresses.
    LoadBalancer,
    /// One with a gateway's pod that neither announces nor holds the operator's leader.
    Gateway,
    /// The one of the operator's leader.
    Leader,
}

#[test]
fn node_off_devices_go_on_and_the_node_is_used_again() {
    // MetalLB has one controller, and without it the API server takes no change of its objects: 500
    let tolerated = ["Kafka", "kafka", "broker", "leadership", "directory", "failed with status 500"];
    story("node-off", &tolerated, |story| {
        ensure!(cluster()?.plan().size() >= 3, "two nodes have no witness: cargo xtask cluster up --nodes 4");
        let mut report = Report::resume("nodes", &reports());
        let mut cases =
            vec![("load balancer's node off", Victim::LoadBalancer), ("gateway's node off", Victim::Gateway)];
        if campaign() {
            cases.push(("operator leader's node off", Victim::Leader));
        }
        for (name, victim) in cases {
            let row = switch_off(story, name, victim).with_context(|| name.to_owned())?;
            report.replace(row);
            report.write(&reports())?;
        }
        Ok(())
    });
}

fn switch_off(story: &Story, name: &str, victim: Victim) -> Result<Row> {
    let (local, kubectl) = (cluster()?, &story.kubectl);
    well(story)?;
    let start = Pod::start(story)?.offsets(TOPIC)?;
    let node = choose(story, victim)?;
    let enough = if campaign() { 1000 } else { 250 };
    let (load, options) = load(story, |options| options.publishers = CONNECTIONS)?;
    load.wait_acknowledged(enough, Duration::from_secs(120))?;
    let held = holds(story, &node)?;

    let newcomers = Newcomers::start(address(story)?);
    load.mark(name);
    let cut = Instant::now();
    let off = local.inject_for_now(Fault::PowerOff { node: node.clone() })?;
    let mut seen = Seen::default();
    until("replacements", Duration::from_secs(120), || {
        seen.look(kubectl, &node, cut)?;
        ensure!(seen.replaced.is_some(), "{seen:?}");
        Ok(())
    })?;
    load.wait_acknowledged(load.acknowledged() + enough, Duration::from_secs(120))?;
    let gap = newcomers.gap_since(cut);

    off.heal()?;
    let on = Instant::now();
    until("the returned node", Duration::from_secs(180), || used(kubectl, &node))?;
    let used_after = on.elapsed();
    load.stop(Duration::from_secs(60))?;
    well(story)?;

    let verdict = Pod::start(story)?.judge(&options, TOPIC, &start)?;
    let mut row = Row::new(name);
    row.set("node_held", held);
    row.set("connect_after_s", tenths(gap.connect_s));
    row.set("http_after_s", tenths(gap.http_s));
    row.set("served_after_s", verdict.marks.first().and_then(|mark| mark.served_after_s));
    row.set("suspect_after_s", seen.suspect);
    row.set("dead_after_s", seen.dead);
    row.set("replaced_after_s", seen.replaced);
    row.set("used_again_after_s", tenths(used_after.as_secs_f64()));
    row.set("acknowledged", verdict.acknowledged).set("acknowledged_lost", verdict.acknowledged_lost);
    row.set("duplicates", verdict.duplicates).set("disorder", verdict.disorder);
    row.set("stale_repeats", verdict.stale_repeats).set("longest_gap_s", verdict.longest_gap_s);
    ensure!(verdict.is_clean(), "{:?} {row:?}", verdict.faults());
    Ok(row)
}

/// What was seen after the cut, with when.
#[derive(Debug, Default)]
struct Seen {
    suspect: Option<f64>,
    dead: Option<f64>,
    replaced: Option<f64>,
}

impl Seen {
    fn look(&mut self, kubectl: &Kubectl, node: &str, cut: Instant) -> Result<()> {
        let platform = kubectl.get(&["iotp/plant"])?;
        let state = ill(&platform, node).map(|ill| ill["state"].clone());
        let after = Some(tenths(cut.elapsed().as_secs_f64()));
        if state.is_some() && self.suspect.is_none() {
            self.suspect = after;
        }
        if state.is_some_and(|state| state == "Dead") && self.dead.is_none() {
            self.dead = after;
        }
        let pods = pods(kubectl)?;
        let elsewhere = |gateway: &str| {
            let serves = |pod: &&Value| serves(pod, gateway) && pod["spec"]["nodeName"] != node;
            pods.iter().filter(serves).count() >= REPLICAS
        };
        if self.suspect.is_some() && GATEWAYS.into_iter().all(elsewhere) {
            self.replaced = self.replaced.or(after);
        }
        Ok(())
    }
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn ill<'a>(platform: &'a Value, node: &str) -> Option<&'a Value> {
    platform["status"]["nodes"].as_array()?.iter().find(|ill| ill["name"] == node)
}

fn pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let pods = kubectl.get(&["pods", "--selector=app.kubernetes.io/component=gateway"])?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}

fn serves(pod: &Value, gateway: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let labels = &pod["metadata"]["labels"];
    ready
        && pod["metadata"]["deletionTimestamp"].is_null()
        && labels["app.kubernetes.io/instance"] == gateway
        && labels["tidegate.io/in-service"] == "true"
}

/// Everything serves, nothing limits failover, and no node is out.
fn well(story: &Story) -> Result<()> {
    let limit = Duration::from_secs(180);
    for object in ["iotp/plant", "pgw/mqtt", "pgw/http"] {
        story.kubectl.condition(object, "Ready", "True", limit)?;
    }
    story.kubectl.condition("iotp/plant", "FailoverLimited", "False", limit)?;
    until("all is well", limit, || {
        let platform = story.kubectl.get(&["iotp/plant"])?;
        let status = &platform["status"];
        ensure!(status["kafka"]["brokersReady"] == 3 && status["nodes"].is_null(), "{status}");
        let pods = pods(&story.kubectl)?;
        for gateway in GATEWAYS {
            let nodes: BTreeSet<_> = pods
                .iter()
                .filter(|pod| serves(pod, gateway))
                .map(|pod| pod["spec"]["nodeName"].to_string())
                .collect();
            ensure!(nodes.len() >= REPLICAS, "{gateway} serves from {nodes:?}");
        }
        Ok(())
    })
}

/// The node is taken back, by the cluster and by us.
fn used(kubectl: &Kubectl, node: &str) -> Result<()> {
    let object = kubectl.get(&["node", node])?;
    ensure!(object["spec"]["taints"].is_null(), "{}", object["spec"]);
    let platform = kubectl.get(&["iotp/plant"])?;
    ensure!(ill(&platform, node).is_none(), "{}", platform["status"]["nodes"]);
    let adverts = Kubectl::new("metallb-system").run(&["get", "l2advertisements", "--output=yaml"])?;
    ensure!(!adverts.contains("NotIn"), "{adverts}");
    Ok(())
}

/// What a node holds, for people.
fn holds(story: &Story, node: &str) -> Result<String> {
    let mut all = Vec::new();
    if announcer(story)? == node {
        all.push("load balancer".to_owned());
    }
    if leader()? == node {
        all.push("operator's leader".to_owned());
    }
    let pods = story.kubectl.get(&["pods", &format!("--field-selector=spec.nodeName={node}")])?;
    let names = pods["items"].as_array().into_iter().flatten();
    let mut names: Vec<_> = names
        .filter_map(|pod| {
            let labels = &pod["metadata"]["labels"];
            let instance = labels["app.kubernetes.io/instance"].as_str()?;
            let component = labels["app.kubernetes.io/component"].as_str()?;
            Some(if component == "gateway" { instance.to_owned() } else { component.to_owned() })
        })
        .collect();
    names.sort();
    all.extend(names);
    Ok(all.join(", "))
}

fn choose(story: &Story, victim: Victim) -> Result<String> {
    match victim {
        Victim::LoadBalancer => announcer(story),
        Victim::Leader => leader(),
        Victim::Gateway => {
            let (announcer, leader) = (announcer(story)?, leader()?);
            let nodes: Vec<_> = pods(&story.kubectl)?
                .iter()
                .filter_map(|pod| Some(pod["spec"]["nodeName"].as_str()?.to_owned()))
                .collect();
            let other = nodes.iter().find(|node| **node != announcer && **node != leader);
            let other = other.or_else(|| nodes.iter().find(|node| **node != announcer));
            other.cloned().context("all gateways' pods are on the load balancer's node")
        }
    }
}

/// Where the HTTP gateway is reached.
fn address(story: &Story) -> Result<SocketAddr> {
    let (host, port) = host_and_port(&story.url("http")?)?;
    let mut found = format!("{host}:{port}").to_socket_addrs()?;
    found.next().context("the HTTP gateway has no address")
}

/// The node that answers for the HTTP gateway's address on the bridge: the one whose Ethernet address it has.
fn announcer(story: &Story) -> Result<String> {
    let address = address(story)?;
    curl(&[&format!("http://{address}/")])?;
    let output = Command::new("ip").args(["neigh", "show", &address.ip().to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match cluster()?.plan().nodes().find(|node| text.contains(&node.mac())) {
        Some(node) => Ok(node.name()),
        None => bail!("no node announces {address}: {text}"),
    }
}

/// The node of the operator's leader.
fn leader() -> Result<String> {
    let kubectl = Kubectl::new("tidegate-system");
    let lease = kubectl.get(&["lease", "tidegate-operator"])?;
    let pod = lease["spec"]["holderIdentity"].as_str().context("nobody leads")?;
    let pod = kubectl.get(&["pod", pod])?;
    Ok(pod["spec"]["nodeName"].as_str().context("a leader without a node")?.to_owned())
}
