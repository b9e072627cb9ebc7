//! `cargo xtask demo`: the whole platform on a cluster, with a device's message going through, and nobody else's.

use crate::local;
use crate::process::{output, root};
use crate::target::{Own, Target, apply};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};
use tidegate_cluster::Progress;
use tidegate_cluster::client::{Answer, Client, curl, host_and_port, mosquitto};
use tidegate_cluster::credentials::Credentials;

/// Shows the whole platform at work: a cluster, Tidegate on it, and a message through it.
#[derive(Args)]
pub struct Demo {
    #[command(flatten)]
    own: Own,
    /// How many nodes the local cluster gets (three, unless there are some already)
    #[arg(long, conflicts_with = "context")]
    nodes: Option<u8>,
    /// How gateways of your own cluster are reached
    #[arg(long, value_enum, default_value_t = Expose::NodePort, requires = "context")]
    expose: Expose,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Expose {
    NodePort,
    LoadBalancer,
}

const NAMESPACE: &str = "plant";
const OBJECTS: [&str; 7] = [
    "iotplatform/plant",
    "topic/telemetry",
    "topic/commands",
    "protocolgateway/mqtt",
    "protocolgateway/http",
    "devicefleet/meters",
    "devicefleet/readers",
];
const TABLE: &str = "iotp,pgw,tgt,dfl";
const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";
/// What the dashboard may read.
const READ: &str = "sites/+/telemetry/#";
/// Images may have to be pulled, and Kafka forms.
const READY: Duration = Duration::from_mins(10);
const ANSWER: Duration = Duration::from_secs(20);

impl Demo {
    pub fn run(&self) -> Result<()> {
        let progress = Progress::new();
        let target = match (&self.own.context, &self.own.registry) {
            (Some(context), Some(registry)) => self.on_own(context, registry, &progress)?,
            _ => self.on_local(&progress)?,
        };
        let people = progress.step("making the devices' Secrets", || People::of(&target))?;
        wait_ready(&target, &progress)?;
        let (mqtt, http) = (endpoint(&target, "mqtt")?, endpoint(&target, "http")?);
        let message = Message::send(&people, &mqtt, &http, &progress)?;
        let nobody = Nobody::tries(&mqtt, &http)?;
        println!("\n{}", output(&mut plant(&target, &["get", TABLE]))?);
        message.tell(&people, &mqtt, &http);
        nobody.tell();
        println!(
            "\na password:    kubectl get secret dashboard -n {NAMESPACE} -o go-template='{{{{.data.password | base64decode}}}}'"
        );
        if let Target::Local(cluster) = &target {
            println!(
                "\nlook around:   export KUBECONFIG={}\nstop it all:   cargo xtask cluster down",
                cluster.kubeconfig().display()
            );
        }
        progress.say("done");
        Ok(())
    }

    fn on_local(&self, progress: &Progress) -> Result<Target> {
        let builds = local::start(progress, &[])?;
        local::compile(progress)?;
        let built = progress.step("building the cluster's parts", || builds.wait())?;
        let ready = built.up(self.nodes, progress)?;
        progress.step("installing the operator", || ready.target.install(&ready.images))?;
        progress.step("applying examples/quickstart", || {
            apply(ready.target.kubectl(), &root().join("examples/quickstart"))
        })?;
        Ok(ready.target)
    }

    fn on_own(&self, context: &str, registry: &str, progress: &Progress) -> Result<Target> {
        for program in ["kubectl", "mosquitto_pub", "mosquitto_sub", "curl"] {
            let found =
                Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?.status.success();
            ensure!(
                found,
                "{program} is missing: install it (Debian: apt-get install mosquitto-clients curl)"
            );
        }
        let target = Target::Own { context: context.to_owned() };
        let images = progress.step("building and pushing images", || self.own.push(registry))?;
        progress.step("installing the operator", || target.install(&images))?;
        let folder = root().join("target/install/quickstart");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("kustomization.yaml"), quickstart_elsewhere(self.expose))?;
        progress.step("applying examples/quickstart", || apply(target.kubectl(), &folder))?;
        Ok(target)
    }
}

/// The quickstart for a cluster that has no MetalLB pool named `devices`.
fn quickstart_elsewhere(expose: Expose) -> String {
    let expose = if expose == Expose::NodePort { "NodePort" } else { "LoadBalancer" };
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../../examples/quickstart]
patches:
- target: {{kind: IoTPlatform}}
  patch: '[{{\"op\": \"remove\", \"path\": \"/spec/loadBalancer\"}}]'
- target: {{kind: ProtocolGateway}}
  patch: '[{{\"op\": \"replace\", \"path\": \"/spec/expose/type\", \"value\": \"{expose}\"}}]'
"
    )
}

fn plant(target: &Target, arguments: &[&str]) -> Command {
    let mut command = target.kubectl();
    command.args(["--namespace", NAMESPACE]).args(arguments);
    command
}

fn get(target: &Target, object: &str) -> Result<Value> {
    Ok(serde_json::from_str(&output(&mut plant(target, &["get", object, "--output=json"]))?)?)
}

/// Waits until everything of the quickstart is Ready, saying each change on the way.
fn wait_ready(target: &Target, progress: &Progress) -> Result<()> {
    let started = Instant::now();
    let mut said = vec![String::new(); OBJECTS.len()];
    loop {
        let mut waiting = 0;
        for (object, said) in OBJECTS.iter().zip(&mut said) {
            let (ready, text) = readiness(&get(target, object)?);
            if *said != text {
                progress.say(format_args!("{object}: {text}"));
                *said = text;
            }
            waiting += usize::from(!ready);
        }
        if waiting == 0 {
            return Ok(());
        }
        if started.elapsed() > READY {
            bail!(
                "not everything is Ready after {} s. Look at: kubectl describe {TABLE} -n {NAMESPACE}",
                READY.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Whether an object is Ready at its present generation, and what its condition says.
fn readiness(object: &Value) -> (bool, String) {
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    let Some(ready) = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready")) else {
        return (false, "not seen by the operator yet".to_owned());
    };
    if ready["observedGeneration"] != *generation {
        return (false, "not seen by the operator yet".to_owned());
    }
    if ready["status"] == "True" {
        return (true, "Ready".to_owned());
    }
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    (false, format!("{}: {}", text("reason"), text("message")))
}

/// The URL of a gateway's first endpoint.
fn endpoint(target: &Target, gateway: &str) -> Result<String> {
    let object = get(target, &format!("protocolgateway/{gateway}"))?;
    let url =
        object["status"]["endpoints"][0]["url"].as_str().context("a Ready gateway without an endpoint")?;
    // a NodePort is served by every node
    if url.contains("<node>") {
        Ok(url.replace("<node>", &node_address(target)?))
    } else {
        Ok(url.to_owned())
    }
}

/// The address of one node, an external one if it has any.
fn node_address(target: &Target) -> Result<String> {
    let nodes = get(target, "nodes")?;
    let addresses =
        nodes["items"][0]["status"]["addresses"].as_array().context("the cluster has no nodes")?;
    let of =
        |kind: &str| addresses.iter().find(|one| one["type"] == kind).and_then(|one| one["address"].as_str());
    of("ExternalIP").or_else(|| of("InternalIP")).map(str::to_owned).context("a node without an address")
}

/// Who takes part: a device that measures, and one that looks. Their passwords are made on the cluster, once, and are in no
/// file of the checkout.
struct People {
    meter: Credentials,
    dashboard: Credentials,
}

impl People {
    fn of(target: &Target) -> Result<Self> {
        let kubectl = |arguments: &[&str]| Ok(plant(target, arguments));
        Ok(Self {
            meter: Credentials::kept(&kubectl, "meters", "meter-7")?,
            dashboard: Credentials::kept(&kubectl, "readers", "dashboard")?,
        })
    }
}

/// Somebody without credentials, who is turned away.
struct Nobody {
    mqtt: String,
    http: Answer,
}

impl Nobody {
    fn tries(mqtt: &str, http: &str) -> Result<Self> {
        let publish = ["-d", "-q", "1", "-t", ADDRESS, "-m", "nobody's"];
        let publisher = Client::start(mosquitto("mosquitto_pub", mqtt)?.args(publish))?;
        let (_, mqtt) = publisher.line_with("received CONNACK", ANSWER)?;
        ensure!(!mqtt.contains("CONNACK (0)"), "somebody without credentials was let in over MQTT");
        let (host, port) = host_and_port(http)?;
        let http = curl(&[&format!("http://{host}:{port}/{ADDRESS}")])?;
        ensure!(http.status == 401, "somebody without credentials got this over HTTP: {http:?}");
        Ok(Self { mqtt, http })
    }

    fn tell(&self) {
        let code = self.mqtt.rsplit_once("received ").map_or(self.mqtt.as_str(), |(_, code)| code);
        println!("nobody         is refused: {code} over MQTT, {} over HTTP", self.http.status);
    }
}

/// The message, and how it came through.
struct Message {
    payload: String,
    acknowledged_after: Duration,
    received: String,
    delivered_after: Duration,
    answer: Answer,
}

impl Message {
    fn send(people: &People, mqtt: &str, http: &str, progress: &Progress) -> Result<Self> {
        let payload = format!("1350 W at {} s", progress.elapsed().as_secs());
        let subscriber = Client::start(
            people.dashboard.mosquitto("mosquitto_sub", mqtt)?.args(["-d", "-q", "1", "-v", "-t", READ]),
        )?;
        subscriber.line_with("Subscribed", ANSWER)?;
        let publish = ["-d", "-q", "1", "-t", ADDRESS, "-m", payload.as_str()];
        let publisher = Client::start(people.meter.mosquitto("mosquitto_pub", mqtt)?.args(publish))?;
        let (sent, _) = publisher.line_with("sending PUBLISH", ANSWER)?;
        let (acknowledged, _) = publisher.line_with("received PUBACK", ANSWER)?;
        let (delivered, received) = subscriber.line_with(&payload, ANSWER)?;
        let (host, port) = host_and_port(http)?;
        let answer = people.dashboard.curl(&[&format!("http://{host}:{port}/{ADDRESS}")])?;
        ensure!(
            answer.status == 200 && answer.body == payload,
            "the HTTP reader got something else: {answer:?}"
        );
        Ok(Self {
            payload,
            acknowledged_after: acknowledged.saturating_duration_since(sent),
            received,
            delivered_after: delivered.saturating_duration_since(sent),
            answer,
        })
    }

    fn tell(&self, people: &People, mqtt: &str, http: &str) {
        let header = |name: &str| self.answer.header(name).unwrap_or("?").to_owned();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("MQTT  {mqtt}\nHTTP  {http}");
        println!(
            "\npublished      {ADDRESS} = {:?} ({}, mosquitto_pub, QoS 1)",
            self.payload, people.meter.username
        );
        println!(
            "acknowledged   after {:.1} ms, when Kafka had it: topic {}, partition {}, offset {}",
            milliseconds(self.acknowledged_after),
            header("tidegate-topic"),
            header("tidegate-partition"),
            header("tidegate-offset")
        );
        println!(
            "subscriber     got {:?} after {:.1} ms ({}, mosquitto_sub)",
            self.received,
            milliseconds(self.delivered_after),
            people.dashboard.username
        );
        println!(
            "HTTP reader    got {:?} ({}, curl {http}/{ADDRESS})",
            self.answer.body, people.dashboard.username
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_counts_only_for_the_present_generation() {
        let object = |observed: i64, status: &str| {
            json!({"metadata": {"generation": 2}, "status": {"conditions": [
                {"type": "Ready", "status": status, "observedGeneration": observed, "reason": "R", "message": "m"}]}})
        };
        assert_eq!(readiness(&object(2, "True")), (true, "Ready".to_owned()));
        assert!(!readiness(&object(1, "True")).0);
        assert_eq!(readiness(&object(2, "False")), (false, "R: m".to_owned()));
        assert!(!readiness(&json!({})).0);
    }
}
