//! `examples/external-kafka` on a bare API server, with the operator's own program and its generated rights, and a real
//! Kafka with TLS, SCRAM and rights beside it: what a person does with a Kafka that others keep, and what they read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod apiserver_support;

use apiserver_support::World;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Instant;
use tidegate_testkit::Kafka;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::secured::{Operation as O, Right, Secured};

const PASSWORD: &str = "hard-to-guess";
const USER: &str = "tidegate";
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/external-kafka");

/// A Kafka that others keep, with the rights of `docs/how-to/external-kafka.md` for the prefix of the example.
fn theirs(authority: &Authority) -> Secured {
    let kafka = Kafka::start_secured(authority, &[(USER, PASSWORD)]).unwrap();
    let topics = [O::Create, O::Describe, O::DescribeConfigs, O::AlterConfigs, O::Read, O::Write, O::Delete];
    kafka.allow(USER, Right::Topics("acme."), &topics).unwrap();
    kafka.allow(USER, Right::Groups("acme."), &[O::Read]).unwrap();
    kafka.allow(USER, Right::TransactionalIds("acme."), &[O::Write, O::Describe]).unwrap();
    kafka
}

/// The example with a person's own servers, without the Secrets: those come from elsewhere.
fn example(folder: &Path, servers: &str) {
    for file in ["namespace.yaml", "platform.yaml", "kustomization.yaml"] {
        let mut text = fs::read_to_string(Path::new(EXAMPLE).join(file)).unwrap();
        let replaced = match file {
            "platform.yaml" => {
                vec![("      - kafka-2.example.com:9093\n", ""), ("kafka-1.example.com:9093", servers)]
            }
            "kustomization.yaml" => vec![("- secrets.yaml\n", "")],
            _ => Vec::new(),
        };
        for (from, to) in replaced {
            assert!(text.contains(from), "{file} has no {from:?} any more");
            text = text.replace(from, to);
        }
        fs::write(folder.join(file), text).unwrap();
    }
}

/// What a test looks at.
struct Here {
    world: World,
    example: String,
}

impl Here {
    fn new(servers: &str) -> Self {
        let world = World { namespace: "acme", ..World::new() };
        let folder = world.folder.path().join("example");
        fs::create_dir(&folder).unwrap();
        example(&folder, servers);
        Self { world, example: folder.display().to_string() }
    }

    fn secret(&self, name: &str, key: &str, text: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "acme"}, "stringData": {key: text}});
        self.world.apply(&object);
    }

    fn patch(&self, object: &str, patch: &Value) {
        self.world.kubectl(&["--namespace=acme", "patch", object, "--type=merge", "-p", &patch.to_string()]);
    }

    /// Waits for a condition, says after how many seconds, and gives its message back.
    fn says(&self, what: &str, object: &str, condition: [&str; 3]) -> String {
        let ([type_, status, reason], began) = (condition, Instant::now());
        let path = |field: &str| format!(".status.conditions[?(@.type=='{type_}')].{field}");
        self.world.wait_until(&format!("{what}: {object} {condition:?}"), || {
            self.world.value(object, &path("status")) == status
                && self.world.value(object, &path("reason")) == reason
        });
        let message = self.world.value(object, &path("message"));
        println!(
            "{what}: {object} {type_}={status} {reason} after {:.1} s: {message}",
            began.elapsed().as_secs_f64()
        );
        message
    }

    fn serves(&self, what: &str) {
        self.says(what, "iotp/acme", ["Ready", "True", "Ready"]);
    }
}

#[test]
fn the_example_on_a_kafka_of_others_from_its_first_secret_to_its_deletion() {
    let authority = Authority::new("their own").unwrap();
    let kafka = theirs(&authority);
    let here = Here::new(&kafka.scram());
    let operator = here.world.operator("external");
    here.world.kubectl(&["apply", "--server-side", "-k", &here.example]);

    secrets_are_taken_as_they_come(&here, &authority);
    too_few_brokers_stop_only_what_needs_more(&here);
    the_gateway_mounts_what_is_referred_to(&here);
    a_younger_platform_in_the_same_place_touches_nothing(&here, &kafka);
    a_changed_secret_is_taken_in_both_directions(&here, &authority);
    let other = theirs(&authority);
    another_kafka_is_noticed(&here, &kafka, &other);

    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    // Also by an operator that has only the status to remember by.
    here.patch("iotp/acme", &servers(&other.scram()));
    let operator = here.world.operator("external-again");
    here.says("another Kafka, after a restart", "iotp/acme", ["Ready", "False", "KafkaClusterChanged"]);
    untouched(&other);
    here.patch("iotp/acme", &json!({"metadata": {"annotations": {"tidegate.io/adopt": "true"}}}));
    here.says("another Kafka, on purpose", "iotp/acme", ["Ready", "True", "Ready"]);
    here.world.wait("iotp/acme", ".status.kafka.clusterId", other.kafka.cluster_id());
    here.says("another Kafka, on purpose", "tgt/telemetry", ["Ready", "True", "Ready"]);
    assert_eq!(other.kafka.leader("acme.telemetry", 0).unwrap(), 0);

    // Nobody on a bare API server ends namespaces.
    let resources = format!("{}/platform.yaml", here.example);
    here.world.kubectl(&["delete", "--wait", "--timeout=60s", "-f", &resources]);
    assert_eq!(here.world.value("iotp/acme", ".metadata.name"), "");
    for topic in ["acme.telemetry", "acme.tg-directory"] {
        assert_eq!(kafka.kafka.leader(topic, 0).unwrap(), 0, "{topic} stays");
    }
    let (clean, again) = operator.stop();
    assert!(clean, "{again}");
    for line in log.lines().chain(again.lines()) {
        assert!(!line.contains("forbidden") && !line.contains("\"ERROR\""), "{line}");
        assert!(!line.contains(PASSWORD) && !line.contains("guessed"), "{line}");
    }
}

/// Nobody touches the platform meanwhile.
fn secrets_are_taken_as_they_come(here: &Here, authority: &Authority) {
    let message = here.says("no Secret", "iotp/acme", ["ResolvedRefs", "False", "SecretNotFound"]);
    for part in [
        "caSecretRef: there is no Secret \"kafka-ca\"",
        "passwordSecretRef: there is no Secret \"kafka-login\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
    here.says("no Secret", "pgw/mqtt", ["Ready", "False", "KafkaNotReady"]);
    here.secret("kafka-ca", "ca.crt", authority.pem());
    here.secret("kafka-login", "pass", PASSWORD);
    let message = here.says("another key", "iotp/acme", ["ResolvedRefs", "False", "SecretUnusable"]);
    assert!(message.contains("has no key \"password\" (it has \"pass\")"), "{message}");
    here.secret("kafka-login", "password", PASSWORD);
    // Ready says the rest: the example wants three copies.
    here.says("the Secrets are there", "iotp/acme", ["Ready", "True", "TooFewBrokers"]);
    assert_eq!(here.world.value("iotp/acme", ".metadata.generation"), "1");
}

fn too_few_brokers_stop_only_what_needs_more(here: &Here) {
    let message = here.says("three copies", "tgt/telemetry", ["Ready", "False", "TooFewBrokers"]);
    assert!(message.contains("at most as many replicas as there are brokers"), "{message}");
    here.says("three copies", "tgt/telemetry", ["Stalled", "True", "TooFewBrokers"]);
    here.patch("tgt/telemetry", &json!({"spec": {"replicas": 1, "minInSyncReplicas": 1}}));
    here.says("one copy", "tgt/telemetry", ["Ready", "True", "Ready"]);
    let defaults = json!({"spec": {"topicDefaults": {"replicas": 1, "minInSyncReplicas": 1}}});
    here.patch("iotp/acme", &defaults);
    here.serves("one copy for new Topics");
    assert_eq!(here.world.value("iotp/acme", ".status.kafka.brokersReady"), "1");
}

fn the_gateway_mounts_what_is_referred_to(here: &Here) {
    let world = &here.world;
    world.wait_until("the gateway's Deployment", || !world.value("deploy/mqtt", ".metadata.uid").is_empty());
    let volumes = world.value("deploy/mqtt", ".spec.template.spec.volumes");
    let volumes: Value = serde_json::from_str(&volumes).unwrap();
    let volumes = volumes.as_array().unwrap();
    let projected = volumes.iter().find_map(|volume| volume["projected"]["sources"].as_array()).unwrap();
    let mounted: Vec<_> = projected.iter().filter_map(|source| source.get("secret")).collect();
    let item = |name: &str, key: &str| json!({"name": name, "items": [{"key": key, "path": format!("kafka/{key}")}]});
    assert_eq!(mounted, [&item("kafka-ca", "ca.crt"), &item("kafka-login", "password")]);
    let map = projected.iter().find_map(|source| source["configMap"]["name"].as_str()).unwrap();
    let file = tidegate_contract::config::CONFIG_FILE.replace('.', "\\.");
    let config = world.value(&format!("cm/{map}"), &format!(".data.{file}"));
    let config: tidegate_contract::GatewayConfig = serde_json::from_str(&config).unwrap();
    assert_eq!(config.kafka.prefix, "acme.");
    let sasl = config.kafka.sasl.unwrap();
    assert_eq!(sasl.username, USER);
    assert!(!format!("{volumes:?}").contains(PASSWORD), "{volumes:?}");
}

fn a_younger_platform_in_the_same_place_touches_nothing(here: &Here, kafka: &Secured) {
    let spec = here.world.value("iotp/acme", ".spec");
    let mut spec: Value = serde_json::from_str(&spec).unwrap();
    let younger = |spec: &Value| {
        here.world.apply(&json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "younger", "namespace": "acme"}, "spec": spec}));
        here.says("the same place", "iotp/younger", ["Ready", "False", "KafkaNameConflict"])
    };
    let message = younger(&spec);
    assert!(message.contains("IoTPlatform acme/acme is older and has prefix \"acme.\""), "{message}");
    // Under another name only Kafka itself can tell.
    spec["kafka"]["external"]["bootstrapServers"] = json!([kafka.scram().replace("127.0.0.1", "localhost")]);
    here.patch("iotp/younger", &json!({"spec": spec}));
    let path = ".status.conditions[?(@.type=='Ready')].message";
    here.world.wait_until("told by the directory", || {
        here.world
            .value("iotp/younger", path)
            .contains("\"acme.tg-directory\" on this Kafka belongs to IoTPlatform acme/acme")
    });
    here.world.kubectl(&["--namespace=acme", "delete", "--wait", "--timeout=60s", "iotp/younger"]);
    here.serves("beside a younger one");
}

fn a_changed_secret_is_taken_in_both_directions(here: &Here, authority: &Authority) {
    let generation = here.world.value("iotp/acme", ".metadata.generation");
    here.secret("kafka-login", "password", "guessed");
    let message = here.says("a wrong password", "iotp/acme", ["Ready", "False", "KafkaCredentialsRefused"]);
    assert!(!message.contains("guessed"), "{message}");
    here.secret("kafka-login", "password", PASSWORD);
    here.serves("the right password");
    let stranger = Authority::new("a stranger").unwrap();
    here.secret("kafka-ca", "ca.crt", stranger.pem());
    here.says("a wrong authority", "iotp/acme", ["Ready", "False", "KafkaCertificateUntrusted"]);
    here.secret("kafka-ca", "ca.crt", authority.pem());
    here.serves("the right authority");
    here.says("the right authority", "tgt/telemetry", ["Ready", "True", "Ready"]);
    assert_eq!(here.world.value("iotp/acme", ".metadata.generation"), generation);
}

fn servers(scram: &str) -> Value {
    json!({"spec": {"kafka": {"external": {"bootstrapServers": [scram]}}}})
}

fn another_kafka_is_noticed(here: &Here, kafka: &Secured, other: &Secured) {
    here.patch("iotp/acme", &servers(&other.scram()));
    let message = here.says("another Kafka", "iotp/acme", ["Ready", "False", "KafkaClusterChanged"]);
    for id in [kafka.kafka.cluster_id(), other.kafka.cluster_id()] {
        assert!(message.contains(id), "{message}");
    }
    here.says("another Kafka", "iotp/acme", ["Stalled", "True", "KafkaClusterChanged"]);
    assert_eq!(here.world.value("iotp/acme", ".status.kafka.clusterId"), kafka.kafka.cluster_id());
    assert_eq!(here.world.value("iotp/acme", ".status.kafka.bootstrap"), kafka.scram(), "gateways stay");
    untouched(other);
    here.patch("iotp/acme", &servers(&kafka.scram()));
    here.serves("the first Kafka");
}

fn untouched(other: &Secured) {
    for topic in ["acme.telemetry", "acme.tg-directory"] {
        assert!(other.kafka.leader(topic, 0).is_err(), "{topic} was made on another Kafka");
    }
}
