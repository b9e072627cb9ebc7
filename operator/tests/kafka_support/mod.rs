//! A real Kafka of three nodes on loopback, from the operator's own files, certificates and start script.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_operator::kafka::access::{Access, Tls};
use tidegate_operator::kafka::files::{START, files};
use tidegate_operator::kafka::identity::Identity;
use tidegate_operator::kafka::jvm::{Room, flags};
use tidegate_operator::kafka::names::Names;
use tidegate_operator::kafka::properties::{Paths, Settings};
use tidegate_operator::pki::{Authority, Issued, LeafSpec, keep_or_issue};
use time::OffsetDateTime;

/// Where Kafka's unmodified jars are: named by `TIDEGATE_KAFKA_LIBS` (then they must be there), or built by the local
/// cluster; nothing if this machine has none.
pub fn libs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TIDEGATE_KAFKA_LIBS").map(PathBuf::from) {
        assert!(named.is_dir(), "TIDEGATE_KAFKA_LIBS names {}, which is no folder", named.display());
        return Some(named);
    }
    let cache = std::env::var_os("TIDEGATE_CACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?.join("tidegate"))
    });
    find_libs(&cache?, 4)
}

fn find_libs(dir: &Path, depth: usize) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("kafka_2.13-") && path.extension().is_some_and(|e| e == "jar") {
            return Some(dir.to_path_buf());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(path);
        }
    }
    folders.into_iter().filter(|_| depth > 0).find_map(|folder| find_libs(&folder, depth - 1))
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
    authority: Authority,
    jars: PathBuf,
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Lays out everything and starts nothing yet.
    pub fn prepare(brokers: i32, jars: PathBuf) -> Self {
        let now = OffsetDateTime::now_utc();
        let names = Names::new("plant", "plant");
        let identity = Identity::settle(&names, brokers, None, &BTreeMap::new(), None).unwrap();
        let nodes: Vec<_> =
            (0..brokers).map(|id| Node { id, client: port(), controller: port(), process: None }).collect();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::keep_or_make(None, "plant Kafka", now).unwrap();
        let cluster = Self { dir, identity, nodes, authority, jars };
        for part in ["config", "identity", "tls"] {
            fs::create_dir(cluster.path(part)).unwrap();
        }
        let settings = Settings {
            brokers,
            controllers: cluster.nodes.iter().map(|n| format!("127.0.0.1:{}", n.controller)).collect(),
            min_in_sync_replicas: (brokers - 1).max(1),
            config: &BTreeMap::new(),
        };
        // Each test node has a disk of its own: `log.dirs` is the one line that pods share and we cannot.
        let paths = Paths { tls: cluster.path("tls").display().to_string(), data: "DATA".to_owned() };
        for (name, text) in files(&settings, &paths) {
            fs::write(cluster.path("config").join(name), text).unwrap();
        }
        for node in &cluster.nodes {
            let spec = LeafSpec {
                common_name: format!("broker-{}", node.id),
                names: ["127.0.0.1".to_owned()].into(),
            };
            let (leaf, _) = keep_or_issue(None, &spec, &cluster.authority, now).unwrap();
            fs::write(cluster.path("tls").join(format!("node-{}.pem", node.id)), leaf.key_store()).unwrap();
        }
        fs::write(cluster.path("tls").join("ca.crt"), cluster.authority.bundle()).unwrap();
        cluster.write_identity();
        cluster
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
            .env("KAFKA_LIBS", &self.jars)
            .env("KAFKA_MESSAGE", self.path(&format!("message-{id}")))
            .env("KAFKA_EMPTY_WAIT", "2")
            .env("KAFKA_JVM_FLAGS", flags(room, "none"))
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
            let _ = process.kill();
            let _ = process.wait();
        }
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
                authorities: issued.authorities,
                certificate: issued.certificate,
                key: issued.key,
            }),
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
