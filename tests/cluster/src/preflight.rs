//! Whether this machine can run the cluster, everything that is missing at once. The report is pure, the look is IO.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::cluster::STATE;
use crate::command::{run, succeeds};
use crate::plan::{BRIDGE, FIELD_RANGE, POD_RANGE, SERVICE_RANGE};
use crate::{files, kafka};

const GIB: u64 = 1 << 30;
/// Go, 1.x.
const GO: u32 = 25;
/// The Java that Kafka's servers need.
const JDK: u32 = 17;
/// Three nodes with three brokers use about half of this.
const MEMORY: u64 = 6 * GIB;
/// Builds, Go's own cache, images on three nodes.
const DISK: u64 = 20 * GIB;

/// What etcd and the control plane listen on.
const PORTS: [u16; 5] = [2379, 2380, 6443, 10257, 10259];
/// Nodes, devices, pods and Services.
const RANGES: [&str; 4] = ["172.31.0.0/24", FIELD_RANGE, POD_RANGE, SERVICE_RANGE];

/// What a look at the machine found; `None` where a tool is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, not a state")]
pub struct Machine {
    linux: bool,
    root: bool,
    apt: bool,
    /// The 25 of Go 1.25.
    go: Option<u32>,
    jdk: Option<u32>,
    /// Whether the JDK brings the modules that a runtime is linked from.
    java_modules: bool,
    maven: bool,
    /// Whether the cluster is there already, and takes its memory, disk, addresses and ports.
    up: bool,
    /// Routes to addresses that the cluster uses.
    taken: Vec<String>,
    /// Ports that somebody listens on.
    busy: Vec<u16>,
    /// Bytes available.
    memory: u64,
    /// Bytes free, and where.
    disks: Vec<(String, u64)>,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let cache = files::cache_dir().unwrap_or_else(|_| "/".into());
        Self {
            linux: cfg!(target_os = "linux"),
            root: Uid::effective().is_root(),
            apt: succeeds(Command::new("apt-get").arg("--version")),
            go: run(Command::new("go").args(["env", "GOVERSION"])).ok().and_then(|said| go_minor(&said)),
            jdk: kafka::jdk_version().ok(),
            java_modules: has_modules(),
            maven: succeeds(Command::new("mvn").arg("--version")),
            up: Path::new(STATE).join("cluster.json").exists(),
            taken: run(Command::new("ip").args(["-4", "route", "show"]))
                .map(|text| taken(&text))
                .unwrap_or_default(),
            busy: PORTS.into_iter().filter(|port| TcpListener::bind(("0.0.0.0", *port)).is_err()).collect(),
            memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)).unwrap_or(0),
            disks: [cache.as_path(), Path::new(STATE)].into_iter().filter_map(free).collect(),
        }
    }

    /// What is missing, each with how to get it; empty if nothing is.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut need = |met: bool, text: String| {
            if !met {
                missing.push(text);
            }
        };
        need(self.linux, "Linux: the nodes are Linux namespaces".to_owned());
        need(
            self.root,
            "root: run the same command as root (sudo -E env \"PATH=$PATH\" cargo xtask …)".to_owned(),
        );
        need(
            self.apt,
            "apt-get: containerd and the images' files come from Debian or Ubuntu packages".to_owned(),
        );
        let found = |version: Option<u32>, prefix: &str| {
            version.map_or_else(|| "none found".to_owned(), |number| format!("found {prefix}{number}"))
        };
        need(
            self.go.is_some_and(|minor| minor >= GO),
            format!(
                "Go 1.{GO} or newer ({}): see https://go.dev/doc/install, then put its bin folder on the PATH",
                found(self.go, "1.")
            ),
        );
        need(
            self.jdk.is_some_and(|major| major >= JDK),
            format!(
                "JDK {JDK} or newer with jlink ({}): apt-get install openjdk-{JDK}-jdk-headless",
                found(self.jdk, "")
            ),
        );
        need(
            self.jdk.is_none() || self.java_modules,
            format!(
                "the JDK's jmods folder: apt-get install openjdk-{}-jdk-headless",
                self.jdk.unwrap_or(JDK)
            ),
        );
        need(self.maven, "Maven: apt-get install maven".to_owned());
        need(
            self.up || self.memory >= MEMORY,
            format!(
                "{} GiB of memory available (there are {}): end other programs",
                MEMORY / GIB,
                tenths(self.memory)
            ),
        );
        need(
            self.up || self.taken.is_empty(),
            format!(
                "the networks {} for itself; the machine has routes to them: {}",
                RANGES.join(", "),
                self.taken.join("; ")
            ),
        );
        need(
            self.up || self.busy.is_empty(),
            format!("the TCP ports {PORTS:?}; somebody listens on {:?}: see ss -ltnp, end it", self.busy),
        );
        for (place, free) in &self.disks {
            need(
                self.up || *free >= DISK,
                format!(
                    "{} GiB free at {place} (there are {}): free some, or set TIDEGATE_CACHE to a folder on another disk",
                    DISK / GIB,
                    tenths(*free)
                ),
            );
        }
        missing
    }
}

/// Checks this machine.
///
/// # Errors
/// When something is missing; the message lists all of it and names the alternative.
pub fn check() -> Result<()> {
    let missing = Machine::look().missing();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine cannot run the local cluster yet. It lacks:\n  - {}\n\
         Or use a cluster of your own (kind, k3d, a cloud): cargo xtask demo --context NAME --registry R",
        missing.join("\n  - ")
    );
}

/// The routes that overlap with the cluster's own networks, except the cluster's.
fn taken(routes: &str) -> Vec<String> {
    let ranges: Vec<(u32, u32)> = RANGES.into_iter().filter_map(range).collect();
    let overlaps = |line: &&str| {
        let destination = line.split_whitespace().find(|word| word.contains('.')).and_then(range);
        !line.starts_with("default")
            && !line.contains(&format!("dev {BRIDGE}"))
            && destination
                .is_some_and(|(first, last)| ranges.iter().any(|(from, to)| first <= *to && *from <= last))
    };
    routes.lines().map(str::trim).filter(overlaps).map(str::to_owned).collect()
}

/// First and last address of `10.0.0.0/8` or of `10.0.0.1`.
fn range(text: &str) -> Option<(u32, u32)> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    let first = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let host = u32::MAX.checked_shr(bits.parse().ok()?).unwrap_or(0);
    Some((first & !host, first | host))
}

fn go_minor(version: &str) -> Option<u32> {
    let minor = version.trim().strip_prefix("go1.")?;
    minor.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn has_modules() -> bool {
    jlink_home().is_some_and(|home| Path::new(&home).join("jmods/java.base.jmod").exists())
}

fn jlink_home() -> Option<String> {
    let path = run(Command::new("sh").args(["-c", "readlink -f \"$(command -v jlink)\""])).ok()?;
    let home = Path::new(path.trim()).parent()?.parent()?;
    Some(home.to_string_lossy().into_owned())
}

/// Free bytes on the disk that `path` is or will be on.
fn free(path: &Path) -> Option<(String, u64)> {
    let there = path.ancestors().find(|path| path.exists())?;
    let said = run(Command::new("df").args(["--output=avail", "--block-size=1"]).arg(there)).ok()?;
    Some((path.display().to_string(), said.lines().nth(1)?.trim().parse().ok()?))
}

fn tenths(bytes: u64) -> String {
    let tenths = bytes * 10 / GIB;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Machine {
        Machine {
            linux: true,
            root: true,
            apt: true,
            go: Some(26),
            jdk: Some(17),
            java_modules: true,
            maven: true,
            up: false,
            taken: vec![],
            busy: vec![],
            memory: 24 * GIB,
            disks: vec![("/cache".into(), 100 * GIB)],
        }
    }

    #[test]
    fn a_machine_with_everything_lacks_nothing() {
        assert_eq!(good().missing(), Vec::<String>::new());
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let bare = Machine { root: false, go: Some(19), jdk: None, maven: false, memory: GIB / 2, ..good() };
        let missing = bare.missing().join("\n");
        for word in [
            "root:",
            "Go 1.25",
            "found 1.19",
            "JDK 17",
            "none found",
            "Maven",
            "6 GiB of memory",
            "there are 0.5",
        ] {
            assert!(missing.contains(word), "{word} in {missing}");
        }
    }

    #[test]
    fn a_full_disk_is_named_by_its_place() {
        let full = Machine { disks: vec![("/cache".into(), GIB)], ..good() };
        assert!(full.missing()[0].contains("20 GiB free at /cache (there are 1.0)"));
    }

    #[test]
    fn a_cluster_that_runs_does_not_stand_in_its_own_way() {
        let busy = Machine {
            up: true,
            busy: vec![6443],
            memory: GIB,
            disks: vec![("/cache".into(), GIB)],
            ..good()
        };
        assert_eq!(busy.missing(), Vec::<String>::new());
    }

    #[test]
    fn a_network_or_a_port_of_the_cluster_that_is_in_use_is_named() {
        let taken = Machine { taken: vec!["172.31.0.0/20 dev eth0".into()], busy: vec![6443], ..good() };
        let missing = taken.missing().join("\n");
        assert!(missing.contains("172.31.0.0/20 dev eth0") && missing.contains("[6443]"), "{missing}");
    }

    #[test]
    fn only_foreign_routes_into_the_clusters_networks_count() {
        let routes = "default via 10.0.0.1 dev eth0\n172.31.0.0/20 dev eth0 scope link\n10.0.0.0/24 dev eth0\n\
                      10.244.1.0/24 via 172.31.0.11 dev tg0\n172.31.0.0/24 dev tg0\n10.96.0.1 dev wg0\n";
        assert_eq!(taken(routes), ["172.31.0.0/20 dev eth0 scope link", "10.96.0.1 dev wg0"]);
    }

    #[test]
    fn versions_and_sizes_are_read_from_what_the_tools_print() {
        assert_eq!(go_minor("go1.26.8\n"), Some(26));
        assert_eq!(go_minor("go1.25rc1"), Some(25));
        assert_eq!(go_minor("devel"), None);
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
    }
}
