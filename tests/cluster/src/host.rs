//! What the cluster changes on the machine itself, and how it is put back: a bridge, kernel settings, two rules. Does IO.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::command::{run, succeeds};
use crate::files;
use crate::plan::{BRIDGE, BRIDGE_MAC, FIELD_BRIDGE, FIELD_BRIDGE_MAC, HOST_ADDRESS, Plan};

/// Kernel settings that are not a namespace's own and that a kubelet sets.
const CHANGED_BY_KUBELET: [&str; 6] = [
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
];

/// Kernel settings that several nodes on one machine need higher than one does.
const RAISED: [(&str, u64); 2] =
    [("fs.inotify.max_user_instances", 4096), ("fs.inotify.max_user_watches", 524_288)];

/// What pods on one node need to reach each other through a Service, and containerd for its layers.
const MODULES: [&str; 2] = ["br_netfilter", "overlay"];

/// Added on a machine whose default is to drop.
const RULES: [&[&str]; 3] = [
    &["INPUT", "-i", BRIDGE, "-j", "ACCEPT"],
    &["FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"],
    &["FORWARD", "-i", FIELD_BRIDGE, "-o", FIELD_BRIDGE, "-j", "ACCEPT"],
];

/// What the machine was like before the first change. Written once, before it, and kept until `down`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    settings: BTreeMap<String, String>,
    /// Kernel modules that were not loaded.
    modules: Vec<String>,
    /// Version 2 control groups: what the root gave to its children.
    subtree_control: Option<String>,
}

/// The host's side of the cluster.
#[derive(Debug)]
pub struct Host {
    record: PathBuf,
}

impl Host {
    /// `state` is the cluster's folder.
    pub fn new(state: &Path) -> Self {
        Self { record: state.join("before.json") }
    }

    /// Makes the bridge, the routes and the settings; safe to repeat.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prepare(&self, plan: Plan) -> Result<()> {
        self.remember()?;
        for module in MODULES {
            // Built in, or not to be had: what fails later says more than this would.
            let _ = succeeds(Command::new("modprobe").arg(module));
        }
        for (name, least) in RAISED {
            let now = setting(name).and_then(|value| value.parse::<u64>().ok());
            if now.is_some_and(|now| now < least) {
                set(name, &least.to_string())?;
            }
        }
        for (bridge, mac) in [(BRIDGE, BRIDGE_MAC), (FIELD_BRIDGE, FIELD_BRIDGE_MAC)] {
            if !link_exists(bridge) {
                // An address of its own, or it takes over one of its ports' and changes with them.
                ip(&["link", "add", bridge, "address", mac, "type", "bridge"])?;
            }
            ip(&["link", "set", bridge, "up"])?;
        }
        ip(&["address", "replace", &format!("{HOST_ADDRESS}/24"), "dev", BRIDGE])?;
        for node in plan.nodes() {
            // The API server reaches webhooks and aggregated servers in pods by these.
            ip(&["route", "replace", &node.pod_range(), "via", &node.address(), "dev", BRIDGE])?;
        }
        Self::let_nodes_through()
    }

    /// A machine that drops what it does not know (a firewall; Docker, for what it forwards) would keep the nodes from
    /// the API server, and from each other where bridged frames pass its rules.
    fn let_nodes_through() -> Result<()> {
        for rule in RULES {
            let chain = rule[0];
            let rules = run(Command::new("iptables").args(["-S", chain])).unwrap_or_default();
            let drops = rules.contains(&format!("-P {chain} DROP"));
            if drops && !succeeds(Command::new("iptables").arg("-C").args(rule)) {
                run(Command::new("iptables").arg("-I").args(rule))?;
            }
        }
        Ok(())
    }

    fn remember(&self) -> Result<()> {
        if self.record.exists() {
            return Ok(());
        }
        let names = CHANGED_BY_KUBELET.into_iter().chain(RAISED.into_iter().map(|(name, _)| name));
        let before = Before {
            settings: names.filter_map(|name| Some((name.to_owned(), setting(name)?))).collect(),
            modules: MODULES.into_iter().filter(|name| !module_loaded(name)).map(str::to_owned).collect(),
            subtree_control: files::read_if_there(Path::new("/sys/fs/cgroup/cgroup.subtree_control"))?,
        };
        files::write(&self.record, serde_json::to_string_pretty(&before)?, 0o644)
    }

    /// Puts everything back; safe to repeat, and fine when nothing was changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restore(&self) -> Result<()> {
        for rule in RULES {
            if succeeds(Command::new("iptables").arg("-C").args(rule)) {
                run(Command::new("iptables").arg("-D").args(rule))?;
            }
        }
        for bridge in [BRIDGE, FIELD_BRIDGE] {
            if link_exists(bridge) {
                // Its address and routes go with it.
                ip(&["link", "delete", bridge])?;
            }
        }
        let Some(text) = files::read_if_there(&self.record)? else { return Ok(()) };
        let before: Before =
            serde_json::from_str(&text).context("failed to read what the machine was like before")?;
        for (name, value) in &before.settings {
            if setting(name).as_ref() != Some(value) {
                set(name, value)?;
            }
        }
        for module in &before.modules {
            // In use by somebody else by now, or built in: either way it is not ours to insist.
            let _ = succeeds(Command::new("modprobe").args(["-r", module]));
        }
        if let Some(controllers) = before.subtree_control {
            restore_controllers(&controllers);
        }
        Ok(())
    }
}

fn restore_controllers(before: &str) {
    let file = "/sys/fs/cgroup/cgroup.subtree_control";
    let now = fs::read_to_string(file).unwrap_or_default();
    for added in now.split_whitespace().filter(|name| !before.split_whitespace().any(|one| one == *name)) {
        // Somebody else may use it by now.
        let _ = fs::write(file, format!("-{added}"));
    }
}

fn module_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).map(drop)
}

/// Whether the host has a link of this name.
pub(crate) fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn path_of(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting.replace('.', "/"))
}

fn setting(name: &str) -> Option<String> {
    fs::read_to_string(path_of(name)).ok().map(|value| value.trim().to_owned())
}

fn set(name: &str, value: &str) -> Result<()> {
    fs::write(path_of(name), value).with_context(|| format!("failed to set {name} to {value}"))
}
