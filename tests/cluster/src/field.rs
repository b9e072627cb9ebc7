//! Devices on the field network, and nowhere else: network namespaces with one cable into its bridge; and more cables of
//! nodes to it, for pods to take. Does IO.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroups;
use crate::cluster::{Cluster, STATE, lock};
use crate::command::{run, succeeds};
use crate::host::{ip, link_exists};
use crate::plan::FIELD_BRIDGE;
use crate::process::{Daemon, Process, wait_until};

/// Beginning of the host's end of a device's cable.
const LINK: &str = "tgd-";
/// The kernel allows 15 bytes for a link's name.
const LONGEST: usize = 15 - LINK.len();

/// A device on the field network; it is gone when this is dropped.
#[derive(Debug)]
pub struct Device {
    process: Process,
    link: String,
}

/// A link of a node to the field network, which a pod may take for itself; it is gone when this is dropped.
#[derive(Debug)]
pub struct HostDevice {
    link: String,
}

impl Cluster {
    /// Gives a node that is on a link of this name to the field network. One that is there already is replaced; it goes
    /// with the node's power.
    ///
    /// # Errors
    /// When there is no such node, the name is too long or the kernel refuses.
    pub fn host_device(&self, node: &str, name: &str) -> Result<HostDevice> {
        let link = format!("{LINK}{name}{node}");
        checked(&format!("{name}{node}"))?;
        let _lock = lock(&self.progress)?;
        let process = self.node(node, &Cgroups::detect()?)?.running()?;
        let pid = process.with_context(|| format!("{node} is off"))?.pid().to_string();
        unplug(&link);
        ip(&["link", "add", &link, "type", "veth", "peer", "name", name, "netns", &pid])?;
        let device = HostDevice { link };
        ip(&["link", "set", &device.link, "master", FIELD_BRIDGE, "up"])?;
        Ok(device)
    }

    /// Puts a device on the field network, with an address such as `172.31.9.50/24`, or none (it may ask for one by DHCP).
    /// A device of this name that is there already is replaced.
    ///
    /// # Errors
    /// When the name is too long or the kernel refuses.
    pub fn device(&self, name: &str, address: Option<&str>) -> Result<Device> {
        checked(name)?;
        let _lock = lock(&self.progress)?;
        let state = Path::new(STATE);
        let link = format!("{LINK}{name}");
        let daemon = Daemon {
            record: state.join("run").join(&link),
            log: state.join("log").join(format!("{link}.log")),
            cgroups: Cgroups::detect()?.create("field")?,
        };
        if let Some(process) = daemon.running()? {
            remove(&process, &link)?;
        }
        let arguments = ["--net", "sleep", "infinity"].map(str::to_owned);
        // From here on dropping it removes what was made.
        let device = Device { process: daemon.start(Path::new("unshare"), &arguments)?, link };
        device.plug_in(address).with_context(|| format!("failed to put {name} on the field network"))?;
        Ok(device)
    }
}

impl Device {
    fn plug_in(&self, address: Option<&str>) -> Result<()> {
        let pid = self.process.pid().to_string();
        let namespace = |of: &str| fs::metadata(format!("/proc/{of}/ns/net")).map(|found| found.ino());
        let ours = namespace("self").context("failed to look at the network namespace")?;
        let separate =
            wait_until(Duration::from_secs(10), || namespace(&pid).is_ok_and(|theirs| theirs != ours));
        if !separate {
            bail!("it has no network of its own");
        }
        ip(&["link", "add", &self.link, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        ip(&["link", "set", &self.link, "master", FIELD_BRIDGE, "up"])?;
        let inside = |arguments: &[&str]| run(self.command("ip").args(arguments)).map(drop);
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", "eth0", "up"])?;
        address.map_or(Ok(()), |address| inside(&["address", "add", address, "dev", "eth0"]))
    }

    /// A program that has only the device's network, its interface `eth0`; ready for its arguments.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process.pid().to_string(), "--net", program]);
        command
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        unplug(&self.link);
    }
}

fn checked(name: &str) -> Result<()> {
    ensure!(
        !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{name:?} is no name of a device: 1 to {LONGEST} letters and digits"
    );
    Ok(())
}

impl Drop for Device {
    fn drop(&mut self) {
        // `down` removes what this could not.
        let _ = remove(&self.process, &self.link);
    }
}

fn remove(process: &Process, link: &str) -> Result<()> {
    unplug(link);
    process.kill()
}

fn unplug(link: &str) {
    if link_exists(link) {
        // The kernel takes it away with the namespace at its other end, but not at once.
        let _ = succeeds(Command::new("ip").args(["link", "delete", link]));
    }
}

/// Takes away the cables of devices; their processes are in the cluster's control group.
pub(crate) fn tear_down() {
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(LINK) {
            unplug(&name);
        }
    }
}
