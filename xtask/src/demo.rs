//! `cargo xtask demo`: the whole platform on a cluster, with a device's message going through.

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
const OBJECTS: [&str; 4] =
    ["iotplatform/plant", "topic/telemetry", "protocolgateway/mqtt", "protocolgateway/http"];
const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";
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
        wait_ready(&target, &progress)?;
        let (mqtt, http) = (endpoint(&target, "mqtt")?, endpoint(&target, "http")?);
        let message = Message::send(&mqtt, &http, &progress)?;
        println!("\n{}", output(&mut plant(&target, &["get", "iotp,pgw,tgt"]))?);
        message.tell(&mqtt, &http);
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
                "not everything is Ready after {} s. Look at: kubectl describe iotp,pgw,tgt -n {NAMESPACE}",
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

/// The message, and how it came through.
struct Message {
    payload: String,
    acknowledged_after: Duration,
    received: String,
    delivered_after: Duration,
    answer: Answer,
}

impl Message {
    fn send(mqtt: &str, http: &str, progress: &Progress) -> Result<Self> {
        let payload = format!("1350 W at {} s", progress.elapsed().as_secs());
        let subscriber =
            Client::start(mosquitto("mosquitto_sub", mqtt)?.args(["-d", "-q", "1", "-v", "-t", "sites/#"]))?;
        subscriber.line_with("Subscribed", ANSWER)?;
        let publish = ["-d", "-q", "1", "-t", ADDRESS, "-m", payload.as_str()];
        let publisher = Client::start(mosquitto("mosquitto_pub", mqtt)?.args(publish))?;
        let (sent, _) = publisher.line_with("sending PUBLISH", ANSWER)?;
        let (acknowledged, _) = publisher.line_with("received PUBACK", ANSWER)?;
        let (delivered, received) = subscriber.line_with(&payload, ANSWER)?;
        let (host, port) = host_and_port(http)?;
        let answer = curl(&[&format!("http://{host}:{port}/{ADDRESS}")])?;
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

    fn tell(&self, mqtt: &str, http: &str) {
        let header = |name: &str| self.answer.header(name).unwrap_or("?").to_owned();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        println!("MQTT  {mqtt}\nHTTP  {http}");
        println!("\npublished      {ADDRESS} = {:?} (mosquitto_pub, QoS 1)", self.payload);
        println!(
            "acknowledged   after {:.1} ms, when Kafka had it: topic {}, partition {}, offset {}",
            milliseconds(self.acknowledged_after),
            header("tidegate-topic"),
            header("tidegate-partition"),
            header("tidegate-offset")
        );
        println!(
            "subscriber     got {:?} after {:.1} ms (mosquitto_sub)",
            self.received,
            milliseconds(self.delivered_after)
        );
        println!("HTTP reader    got {:?} (curl {http}/{ADDRESS})", self.answer.body);
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
