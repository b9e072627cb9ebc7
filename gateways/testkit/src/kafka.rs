//! A real Kafka on loopback: one or three brokers from the unmodified jars, in a temporary folder. Brokers can
//! be killed and started again. They end with the process that started them, however it ends.

use crate::java::Java;
use crate::pki::Authority;
use crate::properties::{self, Guard, Properties};
use crate::secured::{Doors, Secured};
use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_contract::config::{KafkaConfig, KafkaSasl, KafkaTls};

const LOOPBACK: &str = "127.0.0.1";
const START: Duration = Duration::from_secs(90);

/// Runs Java and ends it when our end of the pipe closes: with us, however we end.
const GUARD: &str = r#"exec 3>&1; "$@" </dev/null >"$LOG" 2>&1 3>&- & echo $! >&3; exec 3>&- >&-; cat >/dev/null; kill -9 $!; wait $! 2>/dev/null; [ -z "$DIR" ] || rm -rf "$DIR""#;

/// A running Kafka.
pub struct Kafka {
    brokers: Vec<Broker>,
    bootstrap: String,
    cluster_id: String,
    java: Java,
    dir: TempDir,
}

struct Broker {
    port: u16,
    /// The port that asks who comes, if there is one.
    guarded_port: Option<u16>,
    dir: PathBuf,
    running: Option<Running>,
}

struct Running {
    guard: Child,
    pid: u32,
}

impl Kafka {
    /// Starts `count` brokers (1 or 3) and waits until all of them serve.
    pub fn start(count: usize) -> Result<Self> {
        Self::start_with(count, None, None)
    }

    /// One broker as [`start_tls`](Self::start_tls) makes it, with ports that also ask for a name and a password, and
    /// with rights: nobody has any but who came through the plain port.
    pub fn start_secured(authority: &Authority, users: &[(&str, &str)]) -> Result<Secured> {
        Self::start_secured_at("127.0.0.1", authority, users)
    }

    /// The same; the port with TLS that asks for a name and a password is at another address of this machine.
    pub fn start_secured_at(host: &str, authority: &Authority, users: &[(&str, &str)]) -> Result<Secured> {
        let (scram, elsewhere) = (free_ports(host, 1)?[0], free_ports(LOOPBACK, 1)?[0]);
        let doors = Doors { host: host.to_owned(), scram, elsewhere };
        let certificates = |dir: &Path| certify(dir, authority, authority.pem(), host);
        let guard = (Guard::Certificates, &certificates as &Prepare<'_>);
        let kafka = Self::start_with(1, Some(&guard), Some((&doors, users)))?;
        Ok(Secured::new(kafka, doors))
    }

    /// The same with a second client port on each broker, which asks for certificates: the brokers' are signed by
    /// `authority`, and it is the one that they trust.
    pub fn start_tls(count: usize, authority: &Authority) -> Result<Self> {
        let kafka = |dir: &Path| certify(dir, authority, authority.pem(), LOOPBACK);
        Self::start_with(count, Some(&(Guard::Certificates, &kafka)), None)
    }

    /// One broker with a second client port, which asks for a name and a password (SASL PLAIN, no encryption).
    pub fn start_sasl(username: &str, password: &str) -> Result<Self> {
        let guard = Guard::Password { username: username.to_owned(), password: password.to_owned() };
        Self::start_with(1, Some(&(guard, &|_| Ok(()))), None)
    }

    fn start_with(
        count: usize,
        guard: Option<&(Guard, &Prepare<'_>)>,
        secured: Option<(&Doors, &[(&str, &str)])>,
    ) -> Result<Self> {
        let java = Java::find()?;
        let dir = tempfile::Builder::new().prefix("tidegate-kafka-").tempdir()?;
        let ports = free_ports(LOOPBACK, count * 3)?;
        let (clients, others) = ports.split_at(count);
        let (controllers, guarded) = others.split_at(count);
        let voters: Vec<_> =
            controllers.iter().enumerate().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let mut brokers = Vec::new();
        for (id, (client, controller)) in clients.iter().zip(controllers).enumerate() {
            let guarded_port = guard.map(|_| guarded[id]);
            let dir = dir.path().join(id.to_string());
            fs::create_dir(&dir)?;
            let mut properties = Properties::new(id, count, *client, *controller, &voters.join(","), &dir);
            if let Some((guard, prepare)) = guard {
                prepare(&dir)?;
                properties.guard(guard, guarded[id], &dir);
            }
            let doors = secured.map(|(doors, _)| doors.properties(*client, *controller, guarded[id]));
            fs::write(dir.join("server.properties"), properties.text() + &doors.unwrap_or_default())?;
            brokers.push(Broker { port: *client, guarded_port, dir, running: None });
        }
        let bootstrap = addresses(brokers.iter().map(|broker| broker.port));
        let mut kafka = Self { brokers, bootstrap, cluster_id: cluster_id(dir.path()), java, dir };
        for id in 0..count {
            kafka.format(id, secured.map_or(&[], |(_, users)| users))?;
            kafka.spawn(id)?;
        }
        kafka.wait_for(count)?;
        Ok(kafka)
    }

    /// Gives every broker a certificate of `authority` and lets it trust the certificates in `trusted` from its next
    /// start on.
    pub fn certify(&self, authority: &Authority, trusted: &str) -> Result<()> {
        self.brokers.iter().try_for_each(|broker| certify(&broker.dir, authority, trusted, LOOPBACK))
    }

    /// Lets every broker take another password from its next start on.
    pub fn set_password(&self, username: &str, password: &str) -> Result<()> {
        for broker in &self.brokers {
            let path = broker.dir.join("server.properties");
            let text = fs::read_to_string(&path)?;
            fs::write(path, properties::with_password(&text, username, password))?;
        }
        Ok(())
    }

    /// How a gateway with these files reaches it.
    pub fn tls_config(&self, files: KafkaTls) -> KafkaConfig {
        let bootstrap = self.guarded();
        KafkaConfig { tls: Some(files), ..KafkaConfig::plain(bootstrap) }
    }

    /// How a gateway with this password reaches it.
    pub fn sasl_config(&self, sasl: KafkaSasl) -> KafkaConfig {
        KafkaConfig { sasl: Some(sasl), ..KafkaConfig::plain(self.guarded()) }
    }

    fn guarded(&self) -> String {
        addresses(self.brokers.iter().filter_map(|broker| broker.guarded_port))
    }

    /// One broker for all tests of a binary that kill none; each makes topics of its own. It ends with the process.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start(1).map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn format(&self, id: usize, users: &[(&str, &str)]) -> Result<()> {
        let mut format = Command::new("env");
        self.java.command(&mut format, "kafka.tools.StorageTool");
        let properties = self.brokers[id].dir.join("server.properties");
        format.args(["format", "-t", &self.cluster_id, "-c"]).arg(properties);
        for (name, password) in users {
            format.args(["--add-scram", &format!("SCRAM-SHA-512=[name={name},password={password}]")]);
        }
        let done = format.output()?;
        ensure!(done.status.success(), "failed to format: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    fn spawn(&mut self, id: usize) -> Result<()> {
        let broker = &mut self.brokers[id];
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "sh"]);
        self.java.command(&mut guard, "kafka.Kafka");
        guard
            .arg(broker.dir.join("server.properties"))
            .env("LOG", broker.dir.join("log"))
            .env("DIR", if id == 0 { self.dir.path().as_os_str() } else { "".as_ref() })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut guard = guard.spawn().context("failed to start a broker")?;
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().context("the guard has no output")?).read_line(&mut pid)?;
        broker.running = Some(Running { guard, pid: pid.trim().parse().context("the guard told no pid")? });
        Ok(())
    }

    fn wait_for(&self, count: usize) -> Result<()> {
        let client = self.client()?;
        let until = Instant::now() + START;
        loop {
            let metadata = client.fetch_metadata(None, Duration::from_secs(1));
            if metadata.is_ok_and(|metadata| metadata.brokers().len() >= count) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("Kafka did not start: {}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the brokers said, for a failed test.
    pub fn logs(&self) -> String {
        let logs =
            self.brokers.iter().map(|broker| fs::read_to_string(broker.dir.join("log")).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n")
    }

    /// `host:port` of all brokers.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Kafka's own name for it; no two are alike.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// How a gateway reaches it.
    pub fn config(&self) -> KafkaConfig {
        KafkaConfig::plain(&*self.bootstrap)
    }

    /// The client port of a broker.
    pub fn port(&self, id: usize) -> u16 {
        self.brokers[id].port
    }

    /// Kills a broker with SIGKILL and waits for its end.
    pub fn kill(&mut self, id: usize) -> Result<()> {
        let Some(mut running) = self.brokers[id].running.take() else { return Ok(()) };
        let pid = running.pid.to_string();
        Command::new("kill").args(["-9", &pid]).status()?;
        let until = Instant::now() + Duration::from_secs(10);
        // a zombie until its guard ends has freed its sockets, too
        while TcpListener::bind(("127.0.0.1", self.brokers[id].port)).is_err() {
            ensure!(Instant::now() < until, "broker {id} outlived SIGKILL");
            std::thread::sleep(Duration::from_millis(5));
        }
        // the guard of broker 0 would remove the folder
        running.guard.kill()?;
        running.guard.wait()?;
        Ok(())
    }

    /// Starts a killed broker again; does not wait.
    pub fn restart(&mut self, id: usize) -> Result<()> {
        self.spawn(id)
    }

    /// Settings of a plain client of this Kafka.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("reconnect.backoff.max.ms", "200");
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
        config
    }

    pub(crate) fn client(&self) -> Result<BaseConsumer> {
        Ok(self.client_config().create()?)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for broker in &mut self.brokers {
            if let Some(mut running) = broker.running.take() {
                // closes the pipe: the guard kills Java and tidies up
                drop(running.guard.stdin.take());
                let _ = running.guard.wait();
            }
        }
    }
}

fn addresses(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// An id as Kafka makes them, from a folder that no other Kafka has.
fn cluster_id(dir: &Path) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab";
    let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let letters = hash.iter().take(21).map(|byte| char::from(LETTERS[usize::from(byte % 64)]));
    // 128 bits in base64: the last letter has two of them
    letters.chain(['g']).collect()
}

/// What a broker's folder needs before its first start.
type Prepare<'a> = dyn Fn(&Path) -> Result<()> + 'a;

fn certify(dir: &Path, authority: &Authority, trusted: &str, host: &str) -> Result<()> {
    let leaf = authority.leaf_at("broker", host)?;
    fs::write(dir.join("broker.pem"), leaf.key + &leaf.certificate)?;
    fs::write(dir.join("trusted.pem"), trusted)?;
    Ok(())
}

/// Ports that were free a moment ago.
fn free_ports(host: &str, count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind((host, 0))).collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(TcpListener::local_addr)
        .map(|address| address.map(|a| a.port()))
        .collect::<Result<_, _>>()?)
}
