//! The local cluster gives pods second interfaces on the field network, and measures what they use.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tidegate_e2e::field::Dhcp;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::{Kubectl, until};

const NAMESPACE: &str = "field";
const LIMIT: Duration = Duration::from_secs(90);
/// Nobody listens on it.
const PORT: u16 = 7;

/// Addresses from a range that all nodes share.
const RANGED: &str = r#"{"type": "whereabouts", "range": "172.31.9.0/24", "range_start": "172.31.9.100", "range_end": "172.31.9.120"}"#;
/// Addresses from a DHCP server on the network.
const LEASED: &str = r#"{"type": "dhcp"}"#;

/// Two pods on different nodes with addresses from one range, and a third with one from a DHCP server.
fn objects() -> Result<String> {
    let image =
        std::env::var("TIDEGATE_KAFKA_IMAGE").context("TIDEGATE_KAFKA_IMAGE: run cargo xtask test")?;
    Ok([
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"),
        network("ranged", RANGED),
        network("leased", LEASED),
        pod("one", "node1", "ranged", &image),
        pod("two", "node2", "ranged", &image),
        pod("three", "node3", "leased", &image),
    ]
    .join("---\n"))
}

fn network(name: &str, ipam: &str) -> String {
    format!(
        "apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  config: '{{\"cniVersion\": \"1.0.0\", \"name\": \"{name}\", \"type\": \"macvlan\", \"master\": \"eth1\", \"mode\": \"bridge\", \"ipam\": {ipam}}}'
"
    )
}

fn pod(name: &str, node: &str, network: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{k8s.v1.cni.cncf.io/networks: {network}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: it, image: '{image}', command: [sleep, infinity]}}]
"
    )
}

#[test]
fn second_networks_give_pods_addresses_that_differ_and_reach_each_other() {
    let kubectl = Kubectl::new(NAMESPACE);
    let result = second_networks(&kubectl);
    let said = kubectl.run(&["get", "pods,events", "--output=wide"]);
    let gone = kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=60s"]);
    result.with_context(|| said.unwrap_or_default()).unwrap();
    gone.unwrap();
}

fn second_networks(kubectl: &Kubectl) -> Result<()> {
    let cluster = cluster()?;
    let server = cluster.device("server", Some("172.31.9.1/24"))?;
    let _dhcp = Dhcp::start(&server)?;
    kubectl.apply(&objects()?)?;
    let (one, two, three) = (address(kubectl, "one")?, address(kubectl, "two")?, address(kubectl, "three")?);
    ensure!(one != two, "two pods have {one}");
    for of_range in [&one, &two] {
        let last: u8 = of_range.rsplit('.').next().unwrap_or_default().parse()?;
        ensure!(of_range.starts_with("172.31.9.") && (100..=120).contains(&last), "{of_range}");
    }
    ensure!(three.starts_with("172.31.9.15"), "{three} is no address of the DHCP server");
    // an attempt is answered with a refusal, because nobody listens: the frames came and went
    for (from, to) in [("one", &two), ("two", &three), ("three", &one)] {
        let script = format!("exec 3<>/dev/tcp/{to}/{PORT}");
        let said = kubectl.run(&["exec", from, "--", "timeout", "2", "bash", "-c", &script]);
        let said = said.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(said.contains("refused"), "{from} does not reach {to}: {said}");
    }
    // and so does a device that has no other network
    let said = server.command("bash").args(["-c", &format!("exec 3<>/dev/tcp/{one}/{PORT}")]).output()?;
    ensure!(String::from_utf8_lossy(&said.stderr).contains("refused"), "{said:?}");
    let down = cluster.inject_for_now(tidegate_cluster::Fault::FieldDown { node: "node1".into() })?;
    let script = format!("exec 3<>/dev/tcp/{one}/{PORT}");
    let said = server.command("timeout").args(["1", "bash", "-c", &script]).output()?;
    ensure!(said.status.code() == Some(124), "it answers through a cable that is unplugged: {said:?}");
    down.heal()
}

/// The address of a pod's second interface, as its `network-status` says.
fn address(kubectl: &Kubectl, pod: &str) -> Result<String> {
    until(&format!("the second interface of {pod}"), LIMIT, || {
        let pod = kubectl.get(&["pod", pod])?;
        let text = pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str();
        let status: Value = serde_json::from_str(text.context("no network-status yet")?)?;
        let second = status.as_array().and_then(|all| all.iter().find(|one| one["interface"] == "net1"));
        let ip = second.and_then(|one| one["ips"][0].as_str()).with_context(|| format!("{status}"))?;
        ensure!(second.is_some_and(|one| one["mac"].as_str().is_some_and(|mac| mac.len() == 17)), "{status}");
        Ok(ip.to_owned())
    })
}

#[test]
fn metrics_of_nodes_and_pods_are_there() {
    let kubectl = Kubectl::new("kube-system");
    let nodes = until("kubectl top nodes", LIMIT, || {
        let said = kubectl.run(&["top", "nodes", "--no-headers"])?;
        ensure!(!said.contains("<unknown>"), "{said}");
        Ok(said)
    });
    assert_eq!(nodes.unwrap().lines().count(), usize::from(cluster().unwrap().plan().size()));
    until("kubectl top pods", LIMIT, || {
        let said = kubectl.run(&["top", "pods", "--no-headers"])?;
        ensure!(said.contains("coredns"), "{said}");
        Ok(())
    })
    .unwrap();
}
