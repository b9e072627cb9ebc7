//! A broker's configuration file. Pure.

use std::path::Path;

const JAAS: &str = "listener.name.sasl.plain.sasl.jaas.config=";

/// What the second client port of a broker asks for.
pub(crate) enum Guard {
    /// A certificate, on an encrypted connection.
    Certificates,
    /// A name and a password.
    Password { username: String, password: String },
}

/// The lines of the file, and what goes into its listeners.
pub(crate) struct Properties {
    lines: Vec<String>,
    listeners: Vec<String>,
}

impl Properties {
    /// A broker and controller with a plain client port.
    pub(crate) fn new(
        id: usize,
        count: usize,
        client: u16,
        controller: u16,
        voters: &str,
        dir: &Path,
    ) -> Self {
        let replicas = if count >= 3 { 3 } else { 1 };
        let in_sync = if count >= 3 { 2 } else { 1 };
        let text = format!(
            "process.roles=broker,controller\n\
             node.id={id}\n\
             controller.quorum.voters={voters}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT\n\
             log.dirs={}/data\n\
             auto.create.topics.enable=false\n\
             default.replication.factor={replicas}\n\
             min.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={replicas}\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.num.partitions=1\n\
             transaction.state.log.min.isr={in_sync}\n\
             message.max.bytes=2097152\n\
             replica.fetch.max.bytes=4194304\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=2500\n\
             broker.heartbeat.interval.ms=500\n\
             controller.quorum.fetch.timeout.ms=1000\n\
             controller.quorum.election.timeout.ms=500\n",
            dir.display()
        );
        Self {
            lines: text.lines().map(str::to_owned).collect(),
            listeners: vec![
                format!("PLAINTEXT://127.0.0.1:{client}"),
                format!("CONTROLLER://127.0.0.1:{controller}"),
            ],
        }
    }

    /// Adds a client port that asks who comes.
    pub(crate) fn guard(&mut self, guard: &Guard, port: u16, dir: &Path) {
        let (name, lines) = match guard {
            Guard::Certificates => (
                "TLS",
                vec![
                    "ssl.keystore.type=PEM".to_owned(),
                    format!("ssl.keystore.location={}/broker.pem", dir.display()),
                    "ssl.truststore.type=PEM".to_owned(),
                    format!("ssl.truststore.location={}/trusted.pem", dir.display()),
                    "ssl.client.auth=required".to_owned(),
                ],
            ),
            Guard::Password { username, password } => (
                "SASL",
                vec!["listener.name.sasl.sasl.enabled.mechanisms=PLAIN".to_owned(), jaas(username, password)],
            ),
        };
        self.listeners.push(format!("{name}://127.0.0.1:{port}"));
        self.lines.extend(lines);
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let advertised = self.listeners.iter().filter(|listener| !listener.starts_with("CONTROLLER"));
        let advertised: Vec<_> = advertised.map(String::as_str).collect();
        let mut lines = self.lines.clone();
        lines.push(format!("listeners={}", self.listeners.join(",")));
        lines.push(format!("advertised.listeners={}", advertised.join(",")));
        lines.join("\n") + "\n"
    }
}

fn jaas(username: &str, password: &str) -> String {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    format!("{JAAS}{module} required user_{username}=\"{password}\";")
}

/// The same file with another password.
pub(crate) fn with_password(text: &str, username: &str, password: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(JAAS)).map(str::to_owned);
    lines.chain([jaas(username, password), String::new()]).collect::<Vec<_>>().join("\n")
}
