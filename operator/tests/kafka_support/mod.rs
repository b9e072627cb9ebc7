//! A real Kafka of three nodes on loopback, from the operator's own files, certificates and start script.
#![allow(dead_code, reason = "each test uses its part")]

pub mod writer;

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_cluster::cache::Cache;
use tidegate_cluster::kafka::Distribution;
use tidegate_cluster::progress::Progress;
use tidegate_operator::kafka::access::{Access, ClientCertificate, Tls};
use tidegate_operator::kafka::admin::Admin;
use tidegate_operator::kafka::files::{PROPERTIES, START, files};
use tidegate_operator::kafka::identity::Identity;
use tidegate_operator::kafka::jvm::{Room, flags};
use tidegate_operator::kafka::names::Names;
use tidegate_operator::kafka::properties::{Paths, Settings};
use tidegate_operator::kafka::rights::Stage;
use tidegate_operator::kafka::survey::Survey;
use tidegate_operator::kafka::surveyor::survey;
use tidegate_operator::pki::{Authority, Issued, LeafSpec, keep_or_issue};
use time::OffsetDateTime;

/// Names a folder with Kafka's jars; without it they come from the local cluster's cache.
const LIBS: &str = "TIDEGATE_KAFKA_LIBS";
const HOW: &str = "run `cargo xtask cluster up`";

/// Kafka's unmodified jars and what runs them.
#[derive(Clone, Debug, Default)]
pub struct Java {
    pub libs: PathBuf,
    /// The folder of the `java` program; absent: the machine's own.
    pub bin: Option<PathBuf>,
}

impl Java {
    /// Finds them as the gateways' tests do. A machine without them fails: a test that passes without having run
    /// proves nothing.
    pub fn find() -> Self {
        let named = std::env::var_os(LIBS).map(PathBuf::from);
        let made =
            || Cache::open(&Progress::new()).and_then(|cache| tidegate_cluster::kafka::distribution(&cache));
        Self::look(named, made).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The jars of the named folder, or those of the local cluster's cache.
    pub fn look(named: Option<PathBuf>, made: impl FnOnce() -> Result<Distribution>) -> Result<Self> {
        let Some(libs) = named else {
            let made = made().with_context(|| format!("Kafka's jars are missing: {HOW}"))?;
            return Ok(Self { libs: made.libs(), bin: Some(made.runtime().join("bin")) });
        };
        ensure!(
            libs.is_dir(),
            "{LIBS} names {}, which is no folder with Kafka's jars: unset it and {HOW}",
            libs.display()
        );
        Ok(Self { libs, bin: None })
    }

    /// `PATH` for the start script.
    fn path(&self) -> OsString {
        let machine = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(self.bin.iter().cloned().chain(std::env::split_paths(&machine))).unwrap()
    }
}

pub struct Node {
    pub id: i32,
    pub client: u16,
    pub controller: u16,
    process: Option<Child>,
}

/// A running cluster; its processes end with it.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub identity: Identity,
    pub nodes: Vec<Node>,
    pub authority: Authority,
    java: Java,
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a broker's certificate says.
pub fn broker(node: i32) -> LeafSpec {
    LeafSpec::peer(&format!("broker-{node}"), ["127.0.0.1".to_owned()].into())
}

impl Cluster {
    /// Lays out everything and starts nothing yet.
    pub fn prepare(brokers: i32, java: Java) -> Self {
        let now = OffsetDateTime::now_utc();
        let names = Names::new("plant", "plant", "cluster.local");
        let identity = Identity::settle(&names, brokers, None, &BTreeMap::new(), None).unwrap();
        let nodes: Vec<_> =
            (0..brokers).map(|id| Node { id, client: port(), controller: port(), process: None }).collect();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::keep_or_make(None, "plant Kafka", now).unwrap();
        let cluster = Self { dir, identity, nodes, authority, java };
        for part in ["config", "identity", "tls"] {
            fs::create_dir(cluster.path(part)).unwrap();
        }
        cluster.configure(Stage::Closed);
        for node in &cluster.nodes {
            let (leaf, _) = keep_or_issue(None, &broker(node.id), &cluster.authority, now).unwrap();
            fs::write(cluster.path("tls").join(format!("node-{}.pem", node.id)), leaf.key_store()).unwrap();
        }
        fs::write(cluster.path("tls").join("ca.crt"), cluster.authority.bundle()).unwrap();
        cluster.write_identity();
        cluster
    }

    /// Writes the files of nodes that start from now on.
    pub fn configure(&self, stage: Stage) {
        let settings = Settings {
            brokers: i32::try_from(self.nodes.len()).unwrap(),
            controllers: self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.controller)).collect(),
            min_in_sync_replicas: (i32::try_from(self.nodes.len()).unwrap() - 1).max(1),
            stage,
            config: &BTreeMap::new(),
        };
        // Each test node has a disk of its own: `log.dirs` is the one line that pods share and we cannot.
        let paths = Paths { tls: self.path("tls").display().to_string(), data: "DATA".to_owned() };
        for (name, text) in files(&settings, &paths) {
            fs::write(self.path("config").join(name), text).unwrap();
        }
    }

    /// As nodes were configured before there were rights: without an authorizer.
    pub fn configure_open(&self) {
        self.configure(Stage::Granting);
        let path = self.path("config").join(PROPERTIES);
        let text = fs::read_to_string(&path).unwrap();
        let ours = Stage::Granting.settings().map(|(name, _)| name);
        let open: Vec<_> =
            text.lines().filter(|line| !ours.iter().any(|name| line.starts_with(name))).collect();
        assert_eq!(open.len() + ours.len(), text.lines().count());
        fs::write(path, open.join("\n") + "\n").unwrap();
    }

    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// What the kubelet does with the ConfigMap.
    pub fn write_identity(&self) {
        let port = |id: i32| self.nodes.iter().find(|node| node.id == id).unwrap().controller;
        for (key, text) in self.identity.data(|id| format!("127.0.0.1:{}", port(id))) {
            fs::write(self.path("identity").join(key), text).unwrap();
        }
    }

    pub fn data(&self, id: i32) -> PathBuf {
        self.path(&format!("data-{id}"))
    }

    pub fn log(&self, id: i32) -> String {
        fs::read_to_string(self.path(&format!("log-{id}"))).unwrap_or_default()
    }

    pub fn message(&self, id: i32) -> String {
        fs::read_to_string(self.path(&format!("message-{id}"))).unwrap_or_default()
    }

    pub fn start(&mut self, id: i32) {
        let config = self.path(&format!("config-{id}"));
        fs::create_dir_all(&config).unwrap();
        for entry in fs::read_dir(self.path("config")).unwrap() {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap();
            let text = text.replace("log.dirs=DATA", &format!("log.dirs={}", self.data(id).display()));
            fs::write(config.join(entry.file_name()), text).unwrap();
        }
        let log =
            fs::File::options().create(true).append(true).open(self.path(&format!("log-{id}"))).unwrap();
        let room = Room { memory: Some(600 << 20), millicpu: Some(250) };
        let node = self.nodes.iter().find(|node| node.id == id).unwrap();
        let mut command = Command::new("bash");
        command
            .arg(config.join(START))
            .env("KAFKA_NODE_ID", id.to_string())
            .env("KAFKA_HOST", "127.0.0.1")
            .env("KAFKA_BIND", "127.0.0.1")
            .env("KAFKA_CLIENT_PORT", node.client.to_string())
            .env("KAFKA_CONTROLLER_PORT", node.controller.to_string())
            .env("KAFKA_CONFIG", &config)
            .env("KAFKA_IDENTITY", self.path("identity"))
            .env("KAFKA_TLS", self.path("tls"))
            .env("KAFKA_DATA", self.data(id))
            .env("KAFKA_RUN", self.path(&format!("run-{id}")))
            .env("PATH", self.java.path())
            .env("KAFKA_LIBS", &self.java.libs)
            .env("KAFKA_MESSAGE", self.path(&format!("message-{id}")))
            .env("KAFKA_EMPTY_WAIT", "2")
            .env("KAFKA_JVM_FLAGS", flags(room, &config.display().to_string()))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .process_group(0);
        let process = command.spawn().unwrap();
        self.nodes.iter_mut().find(|node| node.id == id).unwrap().process = Some(process);
    }

    pub fn start_all(&mut self) {
        for id in self.nodes.iter().map(|node| node.id).collect::<Vec<_>>() {
            self.start(id);
        }
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self, id: i32) {
        let node = self.nodes.iter_mut().find(|node| node.id == id).unwrap();
        if let Some(mut process) = node.process.take() {
            // The script and its Java are one group.
            let group = format!("-{}", process.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = process.wait();
        }
    }

    /// The process id of a node's start script.
    pub fn process(&self, id: i32) -> Option<u32> {
        self.nodes.iter().find(|node| node.id == id)?.process.as_ref().map(Child::id)
    }

    /// Waits for a node's process to end by itself.
    pub fn wait_end(&mut self, id: i32, limit: Duration) -> bool {
        let node = self.nodes.iter_mut().find(|node| node.id == id).unwrap();
        let Some(process) = node.process.as_mut() else { return true };
        wait(limit, || process.try_wait().unwrap().is_some())
    }

    pub fn client(&self, common_name: &str) -> Issued {
        let spec = LeafSpec::client(common_name);
        keep_or_issue(None, &spec, &self.authority, OffsetDateTime::now_utc()).unwrap().0
    }

    pub fn access(&self, common_name: &str) -> Access {
        let issued = self.client(common_name);
        let bootstrap: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.client)).collect();
        Access {
            bootstrap: bootstrap.join(","),
            prefix: String::new(),
            tls: Some(Tls {
                authorities: Some(issued.authorities),
                client: Some(ClientCertificate { certificate: issued.certificate, key: issued.key }),
            }),
            sasl: None,
            external: false,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = self.log(node.id);
                let tail: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- node {}:", node.id);
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        for id in self.nodes.iter().map(|node| node.id).collect::<Vec<_>>() {
            self.kill(id);
        }
    }
}

/// Waits for a condition.
pub fn wait(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// What the survey finds as soon as it is as `holds` wants it.
pub async fn survey_until(
    cluster: &Cluster,
    admin: &Admin,
    limit: Duration,
    what: &str,
    holds: impl Fn(&Survey) -> bool,
) -> Survey {
    let (access, started) = (cluster.access("operator"), Instant::now());
    let mut last = None;
    while started.elapsed() < limit {
        match survey(admin, &access).await {
            Ok(found) if holds(&found) => return found,
            other => last = Some(other),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never seen: {what}; last: {last:?}");
}
