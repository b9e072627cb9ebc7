//! `server.properties` of a managed Kafka. Pure.
//!
//! What is the same on every node is here; what differs (node id, roles, listeners) is appended by the start
//! script, so that one ConfigMap serves all and adding a broker changes no other's.

use super::names::VOTERS;
use super::rights::Stage;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Where a pod finds its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The Secret with `node-<id>.pem` and `ca.crt`.
    pub tls: String,
    /// The volume's folder of logs.
    pub data: String,
}

/// What the properties depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    /// Brokers wanted.
    pub brokers: i32,
    /// `host:port` of the controllers' listeners of the first nodes.
    pub controllers: Vec<String>,
    /// In-sync replicas that a topic without its own setting needs.
    pub min_in_sync_replicas: i32,
    /// How whoever has no right is treated.
    pub stage: Stage,
    /// The user's own settings.
    pub config: &'a BTreeMap<String, String>,
}

/// A setting that the user may not make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Tidegate sets it.
    #[error("spec.kafka.managed.config: {0:?} is set by Tidegate itself; remove it{hint}", hint = hint(.0))]
    Ours(String),
    /// No such name can be.
    #[error(
        "spec.kafka.managed.config: {0:?} is no name of a Kafka setting; names are like \"log.retention.hours\""
    )]
    Name(String),
    /// A value of more than one line.
    #[error("spec.kafka.managed.config: the value of {0:?} has a control character; write it on one line")]
    Value(String),
}

/// Settings with a field of their own.
fn hint(name: &str) -> &'static str {
    match name {
        "min.insync.replicas" => " and write spec.topicDefaults.minInSyncReplicas",
        "default.replication.factor" => " and write spec.topicDefaults.replicas",
        "num.partitions" => " and write spec.topicDefaults.partitions",
        _ => "",
    }
}

/// Names, and with a trailing dot beginnings of names, that are ours: the quorum, the listeners and who may
/// speak there, where data lies, what the promise about acknowledged messages rests on.
const OURS: &[&str] = &[
    "advertised.listeners",
    "allow.everyone.if.no.acl.found",
    "authorizer.",
    "auto.create.topics.enable",
    "broker.heartbeat.interval.ms",
    "broker.id",
    "broker.session.timeout.ms",
    "confluent.",
    "controller.",
    "default.replication.factor",
    "early.start.listeners",
    "inter.broker.",
    "listener.",
    "listeners",
    "log.dir",
    "log.dirs",
    "metadata.log.dir",
    "min.insync.replicas",
    "node.id",
    "num.partitions",
    "offsets.topic.num.partitions",
    "offsets.topic.replication.factor",
    "password.encoder.",
    "principal.builder.class",
    "process.roles",
    "sasl.",
    "security.",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "ssl.",
    "super.users",
    "transaction.state.log.min.isr",
    "transaction.state.log.num.partitions",
    "transaction.state.log.replication.factor",
    "unclean.leader.election.enable",
    "zookeeper.",
];

/// Checks the user's settings, all at once.
pub fn check(config: &BTreeMap<String, String>) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (name, value) in config {
        let ours = OURS.iter().any(|ours| name == ours || ours.ends_with('.') && name.starts_with(ours));
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) || name.is_empty()
        {
            errors.push(ConfigError::Name(name.clone()));
        } else if ours {
            errors.push(ConfigError::Ours(name.clone()));
        } else if value.chars().any(char::is_control) {
            errors.push(ConfigError::Value(name.clone()));
        }
    }
    errors
}

/// The text that all nodes share. Call [`check`] first; a refused setting is left out.
pub fn render(settings: &Settings<'_>, paths: &Paths) -> String {
    let replicas = settings.brokers.min(VOTERS);
    let internal_min = (replicas - 1).max(1);
    let mut lines: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in settings.config {
        lines.insert(name, value.clone());
    }
    for refused in check(settings.config) {
        let (ConfigError::Ours(name) | ConfigError::Name(name) | ConfigError::Value(name)) = refused;
        lines.remove(name.as_str());
    }
    let mut set = |name, value: String| lines.insert(name, value);
    set("controller.quorum.bootstrap.servers", settings.controllers.join(","));
    // Longer than a lookup that asks a dead DNS until it gives up (1 to 2 s): names are looked up on the thread
    // that votes and fetches.
    set("controller.quorum.fetch.timeout.ms", "2500".to_owned());
    set("controller.listener.names", "CONTROLLER".to_owned());
    set("inter.broker.listener.name", "CLIENT".to_owned());
    set("listener.security.protocol.map", "CLIENT:SSL,CONTROLLER:SSL".to_owned());
    set("ssl.client.auth", "required".to_owned());
    set("ssl.keystore.type", "PEM".to_owned());
    set("ssl.truststore.type", "PEM".to_owned());
    set("ssl.truststore.location", format!("{}/ca.crt", paths.tls));
    // All brokers are one principal, so that adding a broker changes no other's configuration.
    set(
        "ssl.principal.mapping.rules",
        "RULE:^CN=broker-[0-9]+$/broker/,RULE:^CN=([a-zA-Z0-9._-]+)$/$1/,DEFAULT".to_owned(),
    );
    for (name, value) in settings.stage.settings() {
        set(name, value);
    }
    set("broker.session.timeout.ms", "2500".to_owned());
    set("broker.heartbeat.interval.ms", "500".to_owned());
    set("log.dirs", paths.data.clone());
    set("auto.create.topics.enable", "false".to_owned());
    set("unclean.leader.election.enable", "false".to_owned());
    set("default.replication.factor", replicas.to_string());
    set("min.insync.replicas", settings.min_in_sync_replicas.to_string());
    // Few groups and transactional ids: Kafka's 50 partitions each would only slow every start.
    set("offsets.topic.num.partitions", "24".to_owned());
    set("offsets.topic.replication.factor", replicas.to_string());
    set("transaction.state.log.num.partitions", "12".to_owned());
    set("transaction.state.log.replication.factor", replicas.to_string());
    set("transaction.state.log.min.isr", internal_min.to_string());
    set("share.coordinator.state.topic.replication.factor", replicas.to_string());
    set("share.coordinator.state.topic.min.isr", internal_min.to_string());
    let mut text =
        String::from("# Made by the Tidegate operator; the start script appends what differs by node.\n");
    for (name, value) in lines {
        let _ = writeln!(text, "{name}={}", value.replace('\\', "\\\\"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Paths {
        Paths { tls: "/etc/kafka/tls".to_owned(), data: "/var/lib/kafka/data/logs".to_owned() }
    }

    fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_properties_of_three_brokers_with_a_users_setting() {
        let config = config(&[("log.retention.hours", "168"), ("x", r"C:\y")]);
        let controllers = (0..3).map(|n| format!("plant-kafka-{n}.plant-kafka.plant.svc:9093")).collect();
        let settings = Settings {
            brokers: 3,
            controllers,
            min_in_sync_replicas: 2,
            stage: Stage::Closed,
            config: &config,
        };
        insta::assert_snapshot!(render(&settings, &paths()));
    }

    #[test]
    fn what_tidegate_sets_is_refused_by_name_and_never_written() {
        let config = config(&[
            ("ssl.client.auth", "none"),
            ("min.insync.replicas", "1"),
            ("listener.name.client.ssl.client.auth", "none"),
            ("a\nb", "c"),
            ("compression.type", "a\nsuper.users=User:me"),
            ("log.retention.ms", "1"),
        ]);
        let errors = check(&config);
        assert_eq!(errors.len(), 5);
        assert!(
            errors.iter().any(|error| error.to_string().contains("spec.topicDefaults.minInSyncReplicas"))
        );
        let settings = Settings {
            brokers: 1,
            controllers: vec![],
            min_in_sync_replicas: 1,
            stage: Stage::Granting,
            config: &config,
        };
        let text = render(&settings, &paths());
        assert!(text.contains("\nssl.client.auth=required\n"));
        assert!(!text.contains("User:me") && !text.contains("=none"));
        assert!(text.contains("\nsuper.users=User:broker;User:operator;User:gateway\n"));
        assert!(text.contains("\nlog.retention.ms=1\n"));
    }

    #[test]
    fn one_broker_needs_no_second_replica_of_anything() {
        let none = BTreeMap::new();
        let settings = Settings {
            brokers: 1,
            controllers: vec![],
            min_in_sync_replicas: 1,
            stage: Stage::Closed,
            config: &none,
        };
        let text = render(&settings, &paths());
        assert!(text.contains("transaction.state.log.min.isr=1\n"));
        assert!(text.contains("offsets.topic.replication.factor=1\n"));
    }
}
