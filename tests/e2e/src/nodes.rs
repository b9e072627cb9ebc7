//! Who does what on which node: gateways, brokers, leaders, load balancers; and whether all of it is well. Looks only.

use crate::client::host_and_port;
use crate::kubectl::cluster;
use crate::{Kubectl, Story, until};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::Command;
use std::time::Duration;

/// The quickstart's gateways.
pub const GATEWAYS: [&str; 2] = ["mqtt", "http"];
/// Each replica of them.
pub const REPLICAS: usize = 2;
/// Where the operator is.
const SYSTEM: &str = "tidegate-system";
const OPERATOR: &str = "deployment/tidegate-operator";
const PATIENCE: Duration = Duration::from_secs(180);
/// What a broker's log says when it becomes the active controller.
const ELECTED: &str = "Becoming the active controller at epoch ";

/// Which node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// One that announces gateways' addresses.
    LoadBalancer,
    /// One with gateways' pods.
    Gateway,
    /// One with a broker.
    Broker,
    /// The one of Kafka's active controller.
    Controller,
    /// The one of the operator's leader.
    Leader,
}

/// Who does what.
#[derive(Debug, Default)]
pub struct Roles {
    nodes: Vec<String>,
    announcers: BTreeSet<String>,
    leader: String,
    controller: String,
    /// Gateways' pods and brokers, by node.
    pods: BTreeMap<String, Vec<String>>,
}

impl Roles {
    /// As it is now.
    pub fn look(story: &Story) -> Result<Self> {
        let announcers = GATEWAYS.into_iter().map(|gateway| announcer(story, gateway));
        let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pod in gateways(&story.kubectl)? {
            pods.entry(node_of(&pod)?).or_default().push(instance(&pod));
        }
        for pod in brokers(&story.kubectl)? {
            pods.entry(node_of(&pod)?).or_default().push("broker".to_owned());
        }
        Ok(Self {
            nodes: cluster()?.plan().nodes().map(tidegate_cluster::plan::NodePlan::name).collect(),
            announcers: announcers.collect::<Result<_>>()?,
            leader: leader()?,
            controller: controller(story)?,
            pods,
        })
    }

    /// The node that fits best: it has the role, and of all others as few as may be. None of `not`.
    pub fn choose(&self, victim: Victim, not: Option<&str>) -> Result<String> {
        let fits = self.nodes.iter().filter(|node| not != Some(node.as_str()) && self.has(node, victim));
        // A load balancer costs every connection, so it blurs every other role the most.
        let others = [
            (Victim::LoadBalancer, 8),
            (Victim::Leader, 4),
            (Victim::Controller, 2),
            (Victim::Gateway, 1),
            (Victim::Broker, 1),
        ];
        let blurred = |node: &&String| -> u32 {
            let there = others.iter().filter(|(other, _)| *other != victim && self.has(node, *other));
            there.map(|(_, weight)| weight).sum()
        };
        fits.min_by_key(blurred).cloned().with_context(|| format!("no node for {victim:?}: {self:?}"))
    }

    fn has(&self, node: &str, role: Victim) -> bool {
        let runs = |what: &dyn Fn(&str) -> bool| {
            self.pods.get(node).is_some_and(|pods| pods.iter().any(|pod| what(pod)))
        };
        match role {
            Victim::LoadBalancer => self.announcers.contains(node),
            Victim::Gateway => runs(&|pod| GATEWAYS.contains(&pod)),
            Victim::Broker => runs(&|pod| pod == "broker"),
            Victim::Controller => self.controller == node,
            Victim::Leader => self.leader == node,
        }
    }

    /// What a node holds, for people.
    pub fn holds(&self, node: &str) -> String {
        let roles = [
            (Victim::LoadBalancer, "load balancer"),
            (Victim::Leader, "operator's leader"),
            (Victim::Controller, "active controller"),
        ];
        let roles = roles.into_iter().filter(|(role, _)| self.has(node, *role));
        let mut all: Vec<_> = roles.map(|(_, text)| text.to_owned()).collect();
        let mut pods = self.pods.get(node).cloned().unwrap_or_default();
        pods.sort();
        all.extend(pods);
        all.join(", ")
    }

    /// Whether a node has a gateway's pod.
    pub fn has_gateway(&self, node: &str) -> bool {
        self.has(node, Victim::Gateway)
    }
}

/// The gateways' pods.
pub fn gateways(kubectl: &Kubectl) -> Result<Vec<Value>> {
    list(kubectl, "--selector=app.kubernetes.io/component=gateway")
}

fn brokers(kubectl: &Kubectl) -> Result<Vec<Value>> {
    list(kubectl, "--selector=app.kubernetes.io/component=broker")
}

fn list(kubectl: &Kubectl, selector: &str) -> Result<Vec<Value>> {
    let pods = kubectl.get(&["pods", selector])?;
    Ok(pods["items"].as_array().cloned().unwrap_or_default())
}

fn node_of(pod: &Value) -> Result<String> {
    let node = pod["spec"]["nodeName"].as_str();
    node.map(str::to_owned).with_context(|| format!("{} has no node", pod["metadata"]["name"]))
}

fn instance(pod: &Value) -> String {
    pod["metadata"]["labels"]["app.kubernetes.io/instance"].as_str().unwrap_or_default().to_owned()
}

/// Whether a pod serves this gateway.
pub fn serves(pod: &Value, gateway: &str) -> bool {
    is_ready(pod)
        && pod["metadata"]["deletionTimestamp"].is_null()
        && instance(pod) == gateway
        && pod["metadata"]["labels"]["tidegate.io/in-service"] == "true"
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// What the platform says of a node that is not well.
pub fn ill<'a>(platform: &'a Value, node: &str) -> Option<&'a Value> {
    platform["status"]["nodes"].as_array()?.iter().find(|ill| ill["name"] == node)
}

/// Everything serves, no node is out, and failover is as it should be.
pub fn well(story: &Story, failover: bool) -> Result<()> {
    for object in ["iotp/plant", "pgw/mqtt", "pgw/http"] {
        story.kubectl.condition(object, "Ready", "True", PATIENCE)?;
    }
    let limited = if failover { "False" } else { "True" };
    story.kubectl.condition("iotp/plant", "FailoverLimited", limited, PATIENCE)?;
    until("all is well", PATIENCE, || {
        let platform = story.kubectl.get(&["iotp/plant"])?;
        let status = &platform["status"];
        ensure!(status["kafka"]["brokersReady"] == 3 && status["nodes"].is_null(), "{status}");
        let pods = gateways(&story.kubectl)?;
        for gateway in GATEWAYS {
            let on: Result<BTreeSet<_>> =
                pods.iter().filter(|pod| serves(pod, gateway)).map(node_of).collect();
            let on = on?;
            ensure!(on.len() >= REPLICAS, "{gateway} serves from {on:?}");
        }
        let operators = Kubectl::new("tidegate-system").get(&["deployment", "tidegate-operator"])?;
        ensure!(operators["status"]["readyReplicas"] == 2, "{}", operators["status"]);
        all_used(&story.kubectl)
    })
}

/// Declares how many replicas the operator has.
pub fn operators(count: usize) -> Result<()> {
    let replicas = format!("--replicas={count}");
    Kubectl::new(SYSTEM).run(&["scale", OPERATOR, &replicas]).map(drop)
}

/// Takes the operator away, and waits until none of it runs.
pub fn no_operator() -> Result<()> {
    operators(0)?;
    until("no operator", PATIENCE, || {
        let pods = Kubectl::new(SYSTEM).get(&["pods"])?;
        ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "there is one");
        Ok(())
    })
}

/// Gives both replicas of the operator back, and waits until they are ready.
pub fn both_operators() -> Result<()> {
    operators(2)?;
    until("both operators", PATIENCE, || {
        let status = &Kubectl::new(SYSTEM).get(&[OPERATOR])?["status"];
        ensure!(status["readyReplicas"] == 2, "{status}");
        Ok(())
    })
}

/// Every node is used, and able to announce addresses: none moves any more because of an earlier fault.
pub fn all_used(kubectl: &Kubectl) -> Result<()> {
    for node in cluster()?.plan().nodes() {
        is_used(kubectl, &node.name())?;
    }
    let speakers = Kubectl::new("metallb-system").get(&["daemonset", "speaker"])?;
    let status = &speakers["status"];
    ensure!(status["numberReady"] == status["desiredNumberScheduled"], "MetalLB's speakers: {status}");
    Ok(())
}

/// The node is taken back, by the cluster and by us.
pub fn is_used(kubectl: &Kubectl, node: &str) -> Result<()> {
    let object = kubectl.get(&["node", node])?;
    ensure!(is_ready(&object) && object["spec"]["taints"].is_null(), "{node}: {}", object["spec"]);
    let mark = &object["metadata"]["labels"]["tidegate.io/in-service"];
    ensure!(mark.is_null(), "{node} is still marked");
    let platform = kubectl.get(&["iotp/plant"])?;
    ensure!(ill(&platform, node).is_none(), "{}", platform["status"]["nodes"]);
    Ok(())
}

/// Where a gateway is reached.
fn address(story: &Story, gateway: &str) -> Result<SocketAddr> {
    let (host, port) = host_and_port(&story.url(gateway)?)?;
    let mut found = format!("{host}:{port}").to_socket_addrs()?;
    found.next().with_context(|| format!("{gateway} has no address"))
}

/// The node that answers for a gateway's address on the bridge: the one whose Ethernet address it has.
fn announcer(story: &Story, gateway: &str) -> Result<String> {
    let address = address(story, gateway)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .context("nobody asks for its Ethernet address")?;
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
    node_of(&kubectl.get(&["pod", pod])?)
}

/// The node of Kafka's active controller: of the brokers' logs, the one with the newest election.
fn controller(story: &Story) -> Result<String> {
    let mut newest: Option<(u64, String)> = None;
    for pod in brokers(&story.kubectl)? {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        let log = story.kubectl.run(&["logs", name, "--tail=-1"])?;
        let epochs = log.lines().filter_map(|line| {
            let digits = line.split_once(ELECTED)?.1.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        });
        if let Some(epoch) = epochs.max()
            && newest.as_ref().is_none_or(|(other, _)| *other < epoch)
        {
            newest = Some((epoch, node_of(&pod)?));
        }
    }
    newest.map(|(_, node)| node).context("no broker's log tells of an election")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles() -> Roles {
        let pods = [("node1", "mqtt"), ("node2", "http"), ("node2", "broker"), ("node3", "broker")];
        let nodes = (1..=4).map(|number| format!("node{number}")).collect();
        let (leader, controller) = ("node1".to_owned(), "node3".to_owned());
        let mut roles = Roles { nodes, leader, controller, ..Roles::default() };
        roles.announcers.insert("node2".to_owned());
        for (node, pod) in pods {
            roles.pods.entry(node.to_owned()).or_default().push(pod.to_owned());
        }
        roles
    }

    #[test]
    fn the_node_is_chosen_that_blurs_the_row_least() {
        let choose = |victim, not| roles().choose(victim, not).unwrap();
        assert_eq!(choose(Victim::Gateway, None), "node1", "a load balancer blurs more than a leader");
        assert_eq!(choose(Victim::Gateway, Some("node1")), "node2");
        assert_eq!(choose(Victim::Broker, None), "node3");
        assert_eq!(choose(Victim::Leader, None), "node1");
        assert!(roles().choose(Victim::Leader, Some("node1")).is_err());
    }

    #[test]
    fn what_a_node_holds_is_told_in_words() {
        assert_eq!(roles().holds("node2"), "load balancer, broker, http");
        assert_eq!(roles().holds("node1"), "operator's leader, mqtt");
        assert_eq!(roles().holds("node4"), "");
        assert!(roles().has_gateway("node1") && !roles().has_gateway("node3"));
    }
}
