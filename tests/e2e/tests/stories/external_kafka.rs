//! A Kafka that others keep, outside the cluster, with TLS, a password and rights for a prefix: devices write and read
//! through it, and a wrong password is told and corrected in the Secret alone.

use anyhow::{Result, ensure};
use std::time::{Duration, Instant, SystemTime};
use tidegate_cluster::plan::HOST_ADDRESS;
use tidegate_e2e::{Client, Story, story_in};
use tidegate_testkit::Kafka;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::secured::{Operation as O, Right, Secured};

const NAMESPACE: &str = "outside";
const USER: &str = "tidegate";
const PASSWORD: &str = "hard-to-guess";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn external_kafka_outside_the_cluster_serves_devices_and_a_wrong_password_is_told_and_corrected() {
    story_in(NAMESPACE, "external-kafka", &[], |story| {
        let (began, started) = (Instant::now(), SystemTime::now());
        let delete = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"];
        // Another run's, which was on another Kafka.
        story.kubectl.run(&delete)?;
        let authority = Authority::new("their own")?;
        let kafka = theirs(&authority)?;
        let step = |what: &str| println!("{what} after {:.1} s", began.elapsed().as_secs_f64());
        step("Kafka runs");
        story.kubectl.apply(&platform(&kafka, &authority))?;
        story.kubectl.apply(&secret(PASSWORD))?;
        for object in ["iotp/outside", "tgt/telemetry", "pgw/mqtt"] {
            story.kubectl.condition(object, "Ready", "True", LIMIT)?;
        }
        step("all is Ready");

        let (tester, url) = (story.let_in("outside")?, story.url("mqtt")?);
        let subscriber = Client::start(
            tester.mosquitto("mosquitto_sub", &url)?.args(["-d", "-v", "-q", "1", "-t", "sites/#"]),
        )?;
        subscriber.line_with("Subscribed", LIMIT)?;
        publish(story, &subscriber, "first")?;
        let held = kafka.kafka.read_all("outside.telemetry")?;
        let (key, value) = ("sites/berlin/telemetry/outside", b"first".as_slice());
        ensure!(held.len() == 1 && held[0].key == key && held[0].value == value, "{held:?}");
        step("a message went round");

        story.kubectl.apply(&secret("guessed"))?;
        let condition = story.kubectl.condition("iotp/outside", "Ready", "False", LIMIT)?;
        ensure!(condition["reason"] == "KafkaCredentialsRefused", "{condition}");
        step("a wrong password is told");
        publish(story, &subscriber, "meanwhile")?;
        story.kubectl.apply(&secret(PASSWORD))?;
        story.kubectl.condition("iotp/outside", "Ready", "True", LIMIT)?;
        publish(story, &subscriber, "again")?;
        step("it goes on");
        ensure!(kafka.kafka.read_all("outside.telemetry")?.len() == 3, "not every message is there once");
        drop(subscriber);
        // Its gateways' logs go with the namespace.
        story.scan_logs(started, &[])?;
        story.kubectl.run(&delete)?;
        step("all is gone from the cluster");
        ensure!(kafka.kafka.read_all("outside.telemetry")?.len() == 3, "the records stay");
        Ok(())
    });
}

/// A Kafka on the host's side of the bridge, which pods reach and where the prefix `outside.` is the platform's.
fn theirs(authority: &Authority) -> Result<Secured> {
    let kafka = Kafka::start_secured_at(HOST_ADDRESS, authority, &[(USER, PASSWORD)])?;
    let topics = [O::Create, O::Describe, O::DescribeConfigs, O::AlterConfigs, O::Read, O::Write];
    kafka.allow(USER, Right::Topics("outside."), &topics)?;
    kafka.allow(USER, Right::Groups("outside."), &[O::Read])?;
    kafka.allow(USER, Right::TransactionalIds("outside."), &[O::Write, O::Describe])?;
    Ok(kafka)
}

fn secret(password: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: kafka-login}}
stringData: {{password: {password}}}
"
    )
}

fn platform(kafka: &Secured, authority: &Authority) -> String {
    let (server, authority) = (kafka.scram(), authority.pem().replace('\n', "\n    "));
    format!(
        "
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Secret
metadata: {{name: kafka-ca}}
stringData:
  ca.crt: |
    {authority}
---
apiVersion: tidegate.io/v1alpha1
kind: IoTPlatform
metadata: {{name: outside}}
spec:
  kafka:
    prefix: outside.
    external:
      bootstrapServers: ['{server}']
      tls: {{caSecretRef: {{name: kafka-ca, key: ca.crt}}}}
      sasl:
        mechanism: SCRAM-SHA-512
        username: {USER}
        passwordSecretRef: {{name: kafka-login, key: password}}
  loadBalancer: {{poolRef: {{name: devices}}}}
  topicDefaults: {{partitions: 3, replicas: 1, minInSyncReplicas: 1}}
---
apiVersion: tidegate.io/v1alpha1
kind: Topic
metadata: {{name: telemetry}}
spec:
  platformRef: {{name: outside}}
  filters: ['sites/#']
---
apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {{name: mqtt}}
spec:
  platformRef: {{name: outside}}
  mqtt: {{listeners: [{{name: mqtt, port: 1883}}]}}
"
    )
}

/// A device writes with QoS 1, is told that it is stored, and the other one gets it.
fn publish(story: &Story, subscriber: &Client, text: &str) -> Result<()> {
    let address = "sites/berlin/telemetry/outside";
    let arguments = ["-d", "-q", "1", "-t", address, "-m", text];
    let publisher =
        Client::start(story.tester()?.mosquitto("mosquitto_pub", &story.url("mqtt")?)?.args(arguments))?;
    publisher.line_with("PUBACK", LIMIT)?;
    subscriber.line_with(&format!("{address} {text}"), LIMIT)?;
    Ok(())
}
