//! One node: a set of namespaces with containerd, kubelet and kube-proxy in it. Does IO.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::cgroup::Cgroups;
use crate::command::{run, succeeds};
use crate::files::{self, Fingerprint};
use crate::host::{ip, link_exists};
use crate::images::Image;
use crate::pki::Pki;
use crate::plan::{API_SERVER, BRIDGE, DNS_ADDRESS, FIELD_BRIDGE, FIELD_LINK, HOST_ADDRESS, NodePlan, Plan};
use crate::process::{Daemon, Process, wait_until};

const INIT: &str = include_str!("node-init.sh");
/// All namespaces of a node at once. Its first process dies with `unshare`, which is what the record names.
const UNSHARE: [&str; 8] =
    ["--mount", "--net", "--uts", "--cgroup", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"];

/// How long containerd may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node of the local cluster, running or not.
#[derive(Debug)]
pub struct Node<'a> {
    /// Name and addresses.
    pub plan: NodePlan,
    /// The cluster's folder.
    pub state: &'a Path,
    /// The machine's control groups.
    pub cgroups: &'a Cgroups,
}

/// What a node is started with.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The folder of Kubernetes' programs.
    pub kubernetes: &'a Path,
    /// The folder of containerd, runc and CNI plugins.
    pub programs: &'a Path,
    /// The image that holds a pod's namespaces.
    pub pause: &'a str,
    /// Keys and kubeconfigs.
    pub pki: &'a Pki,
}

impl Node<'_> {
    fn dir(&self) -> PathBuf {
        self.state.join(self.plan.name())
    }

    fn daemon(&self, cgroups: Vec<PathBuf>) -> Daemon {
        let name = self.plan.name();
        Daemon {
            record: self.state.join("run").join(&name),
            log: self.state.join("log").join(format!("{name}.log")),
            cgroups,
        }
    }

    /// The process that holds the node's namespaces, if the node is on.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn running(&self) -> Result<Option<Process>> {
        self.daemon(vec![]).running()
    }

    /// Switches the node on unless it is, and waits until containerd answers.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(&self, plan: Plan, parts: &Parts<'_>) -> Result<()> {
        if self.running()?.is_none() {
            // What a power-off or a crash left would keep the kubelet busy for a minute.
            self.cgroups.remove(&self.plan.name())?;
            self.write_configuration(parts)?;
        }
        let daemon = self.daemon(self.cgroups.create(&self.plan.name())?);
        let init = self.dir().join("init.sh");
        let arguments =
            ["bash".to_owned(), init.to_string_lossy().into_owned(), self.plan.name(), self.plan.address()];
        let folders = [self.dir(), parts.kubernetes.to_owned(), parts.programs.to_owned()];
        let folders = folders.iter().map(|folder| folder.to_string_lossy().into_owned());
        let options = UNSHARE.iter().map(|option| (*option).to_owned());
        let all: Vec<String> = options.chain(arguments).chain(folders).collect();
        let process = daemon.start(Path::new("unshare"), &all)?;
        self.plug_in(plan, &process).with_context(|| daemon.last_words())?;
        let answers = wait_until(PATIENCE, || {
            !process.is_alive() || succeeds(enter(&process).args(["ctr", "version"]))
        });
        if !answers || !process.is_alive() {
            bail!("failed to start {}:\n{}", self.plan.name(), daemon.last_words());
        }
        Ok(())
    }

    fn write_configuration(&self, parts: &Parts<'_>) -> Result<()> {
        let (name, address, dir) = (self.plan.name(), self.plan.address(), self.dir());
        let pki = parts.pki;
        let key = format!("kubelet-{name}");
        let server = pki.kubeconfig(&key, &format!("/O=system:nodes/CN=system:node:{name}"), API_SERVER)?;
        let serving = format!("serving-{name}");
        pki.issue(
            &serving,
            "ca",
            &format!("/O=system:nodes/CN=system:node:{name}"),
            &format!("DNS:{name},IP:{address}"),
        )?;
        let copy = |from: &Path, to: &str| -> Result<()> {
            let content = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
            files::write(&dir.join(to), content, 0o600)
        };
        copy(&server, "kubelet.kubeconfig")?;
        copy(&pki.path("proxy.kubeconfig"), "proxy.kubeconfig")?;
        copy(&pki.path("ca.crt"), "ca.crt")?;
        copy(&pki.path(&format!("{serving}.crt")), "kubelet.crt")?;
        copy(&pki.path(&format!("{serving}.key")), "kubelet.key")?;
        files::write(&dir.join("init.sh"), INIT, 0o755)?;
        files::write(&dir.join("cgroups"), self.cgroups.mounts(), 0o644)?;
        files::write(&dir.join("containerd.toml"), containerd_config(parts.pause), 0o644)?;
        files::write(&dir.join("kubelet.yaml"), kubelet_config(), 0o644)?;
        files::write(&dir.join("cni.conflist"), network_config(self.plan), 0o644)
    }

    /// Lays the cable between the node and the bridge and gives it its addresses; safe to repeat.
    fn plug_in(&self, plan: Plan, process: &Process) -> Result<()> {
        let link = self.plan.link();
        let ours =
            fs::metadata("/proc/self/ns/net").context("failed to look at the network namespace")?.ino();
        let separate = wait_until(Duration::from_secs(10), || {
            fs::metadata(format!("/proc/{}/ns/net", process.pid())).is_ok_and(|theirs| theirs.ino() != ours)
        });
        if !separate {
            bail!("failed to give {} a network of its own", self.plan.name());
        }
        self.cgroups.make_inner(&self.plan.name())?;
        let pid = process.pid().to_string();
        let inside = |arguments: &[&str]| -> Result<()> {
            run(Command::new("nsenter").args(["--target", &pid, "--net", "ip"]).args(arguments)).map(drop)
        };
        let cable = |link: &str, inner: &str, mac: &str, bridge: &str| -> Result<()> {
            if !link_exists(link) {
                let cable = ["link", "add", link, "type", "veth", "peer", "name", inner];
                ip(&[cable.as_slice(), &["address", mac, "netns", &pid]].concat())?;
            }
            ip(&["link", "set", link, "master", bridge, "up"])
        };
        cable(&link, "eth0", &self.plan.mac(), BRIDGE)?;
        cable(&self.plan.field_link(), FIELD_LINK, &self.plan.field_mac(), FIELD_BRIDGE)?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", FIELD_LINK, "up"])?;
        inside(&["address", "replace", &format!("{}/24", self.plan.address()), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        for other in plan.nodes().filter(|other| *other != self.plan) {
            inside(&["route", "replace", &other.pod_range(), "via", &other.address()])?;
        }
        inside(&["route", "replace", "default", "via", HOST_ADDRESS])
    }

    /// Cuts the node off and kills everything on it at once, as if its plug were pulled; its disk stays.
    ///
    /// # Errors
    /// When something on it does not die.
    pub fn power_off(&self) -> Result<()> {
        let links = [self.plan.link(), self.plan.field_link()];
        for link in links.iter().filter(|link| link_exists(link)) {
            ip(&["link", "set", link, "down"])?;
        }
        if let Some(process) = self.running()? {
            process.signal(Signal::SIGKILL)?;
        }
        // Its first process is a child of the one above and dies with it, and everything else with that.
        self.cgroups.remove(&self.plan.name())?;
        for link in links.iter().filter(|link| link_exists(link)) {
            // The kernel takes it away with the node's network, but not at once.
            let _ = succeeds(Command::new("ip").args(["link", "delete", link]));
        }
        Ok(())
    }

    /// Brings images to the node that it does not have yet, and says how many those were.
    ///
    /// # Errors
    /// When the node is off or containerd refuses.
    pub fn load(&self, images: &[&Image]) -> Result<usize> {
        let process = self.running()?.with_context(|| {
            format!("{0} is off: cargo xtask cluster heal power-off:{0}", self.plan.name())
        })?;
        let has = run(enter(&process).args(["ctr", "-n", "k8s.io", "images", "list", "-q"]))?;
        let missing: Vec<_> =
            images.iter().filter(|image| !has.lines().any(|name| is_same(name, &image.reference))).collect();
        for image in &missing {
            let archive = fs::File::open(&image.archive)
                .with_context(|| format!("failed to open {}", image.archive.display()))?;
            run(enter(&process)
                .args(["ctr", "-n", "k8s.io", "images", "import", "-"])
                .stdin(Stdio::from(archive)))
            .with_context(|| format!("failed to bring {} to {}", image.reference, self.plan.name()))?;
        }
        Ok(missing.len())
    }
}

/// Tells nodes that start in another way than these.
pub(crate) fn version() -> String {
    Fingerprint::default().with("init", INIT).with("kubelet", kubelet_config()).short()
}

/// containerd writes out the registry that a short name leaves away.
fn is_same(full: &str, reference: &str) -> bool {
    full == reference
        || full
            .strip_prefix("docker.io/")
            .is_some_and(|short| short == reference || short == format!("library/{reference}"))
}

/// A command that runs inside the node that `process` is of, in all its namespaces.
pub(crate) fn enter(process: &Process) -> Command {
    let mut command = Command::new("nsenter");
    // The namespaces of the first process, which unlike `unshare` itself is in the node's process namespace.
    let first = first_child(process.pid()).unwrap_or(process.pid());
    command.args(["--target", &first.to_string(), "--all", "env"]);
    command.arg(
        "PATH=/run/kubernetes:/run/programs/usr/bin:/run/programs/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}

fn first_child(pid: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn containerd_config(pause: &str) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # Root may lack the right to make a process less likely to be killed than containerd is itself.
  restrict_oom_score_adj = true
  # A profile would be loaded into the machine's kernel and stay there.
  disable_apparmor = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#
    )
}

fn kubelet_config() -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: /run/node/ca.crt}}}}
authorization: {{mode: Webhook}}
cgroupDriver: cgroupfs
clusterDNS: [{DNS_ADDRESS}]
clusterDomain: cluster.local
configMapAndSecretChangeDetectionStrategy: Watch
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# The disk is the machine's; how full it is says nothing about the node.
evictionHard: {{memory.available: 100Mi, nodefs.available: "0%", imagefs.available: "0%"}}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
nodeLeaseDurationSeconds: 20
nodeStatusUpdateFrequency: 4s
# No name outside of the cluster is ever looked up.
resolvConf: /dev/null
serializeImagePulls: false
syncFrequency: 10s
tlsCertFile: /run/node/kubelet.crt
tlsPrivateKeyFile: /run/node/kubelet.key
volumePluginDir: /var/lib/kubelet/volume-plugins
"#
    )
}

/// How pods of a node get their first interface.
pub(crate) fn network_config(node: NodePlan) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "tidegate",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pod_range()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_recognised_by_its_short_and_its_full_name() {
        assert!(is_same("docker.io/tidegate/operator:dev-1", "tidegate/operator:dev-1"));
        assert!(is_same("tidegate.local/pause:dev-1", "tidegate.local/pause:dev-1"));
        assert!(is_same("docker.io/library/busybox:1", "busybox:1"));
        assert!(!is_same("docker.io/tidegate/operator:dev-2", "tidegate/operator:dev-1"));
    }

    #[test]
    fn pods_of_a_node_get_addresses_of_its_range() {
        let node = Plan::new(3).unwrap().node("node2").unwrap();
        let config: serde_json::Value = serde_json::from_str(&network_config(node)).unwrap();
        assert_eq!(config["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.2.0/24");
    }
}
