//! The local cluster as a whole: up, down, status, nodes off and on, images in. Does IO.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use crate::build::Parts;
use crate::cache::Cache;
use crate::cgroup::Cgroups;
use crate::command::{run, succeeds};
use crate::control_plane::{self, ControlPlane};
use crate::extras::{self, Extra, Extras};
use crate::files::{self, Lock};
use crate::host::Host;
use crate::images::Image;
use crate::node::{self, Node};
use crate::pki::Pki;
use crate::plan::{DEFAULT_NODES, NodePlan, Plan};
use crate::process::wait_until;
use crate::progress::Progress;
use crate::{addons, build, debian, faults, field, preflight};

/// The cluster's folder: records of processes, logs, keys, disks of the nodes. One machine has one local cluster.
pub const STATE: &str = "/var/lib/tidegate/cluster";
/// Held while something is changed; outside of the folder, which `down` removes.
const LOCK: &str = "/run/lock/tidegate-cluster.lock";

/// What a running cluster was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    nodes: u8,
    kubernetes: PathBuf,
    addons: PathBuf,
    node_programs: PathBuf,
    /// The image that holds a pod's namespaces.
    pause: String,
    /// What a node does when it starts, as a hash.
    #[serde(default)]
    node_init: String,
    /// What it has beside what every cluster has, and the builds of that.
    #[serde(default)]
    extras: BTreeMap<Extra, PathBuf>,
}

impl Record {
    /// Whether both are made from the same builds, with however many nodes.
    fn is_made_as(&self, other: &Self) -> bool {
        self.kubernetes == other.kubernetes
            && self.addons == other.addons
            && self.node_programs == other.node_programs
            && self.node_init == other.node_init
    }

    fn write(&self) -> Result<()> {
        let path = Path::new(STATE).join("cluster.json");
        files::write(&path, serde_json::to_string_pretty(self)?, 0o644)
    }

    fn node_parts<'a>(&'a self, pki: &'a Pki) -> node::Parts<'a> {
        node::Parts { kubernetes: &self.kubernetes, programs: &self.node_programs, pause: &self.pause, pki }
    }
}

/// A handle on the local cluster; dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) plan: Plan,
    kubernetes: PathBuf,
    pub(crate) progress: Progress,
}

/// One line of [`Cluster::status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `etcd` or `node1`.
    pub name: String,
    /// Its process, if it runs.
    pub pid: Option<i32>,
}

impl Cluster {
    /// Brings the cluster up: builds what is missing, clears or takes over what a crash left, changes nothing on a
    /// cluster that runs. `nodes` is how many there shall be; none for as many as there are, or three. Extras are added
    /// to those that are there.
    ///
    /// # Errors
    /// When this machine cannot run it, or a part does not start.
    pub fn up(nodes: Option<u8>, extras: &[Extra], progress: &Progress) -> Result<Self> {
        preflight::check()?;
        let cache = Cache::open(progress)?;
        debian::install(&cache)?;
        let parts = build::start(&cache, extras).wait()?;
        Self::up_with(nodes, &parts, progress)
    }

    /// [`Cluster::up`] with parts that were built before, see [`build::start`].
    ///
    /// # Errors
    /// When this machine cannot run it, or a part does not start.
    pub fn up_with(nodes: Option<u8>, parts: &Parts, progress: &Progress) -> Result<Self> {
        let _lock = lock(progress)?;
        let found = Self::record()?;
        let nodes = nodes.or(found.as_ref().map(|found| found.nodes)).unwrap_or(DEFAULT_NODES);
        let plan = Plan::new(nodes)?;
        let wanted = Record {
            nodes,
            extras: parts.extras.builds(),
            kubernetes: parts.kubernetes.clone(),
            addons: parts.addons.clone(),
            node_programs: parts.node_programs.clone(),
            pause: parts.system.pause.reference.clone(),
            node_init: node::version(),
        };
        let cluster = Self { plan, kubernetes: parts.kubernetes.clone(), progress: progress.clone() };
        if found.as_ref().is_some_and(|found| found.is_made_as(&wanted) && found.nodes <= nodes) {
            // Who wants the cluster up wants it whole. What cannot be healed is started anew below.
            match cluster.heal_locked(&[]) {
                Ok(healed) if healed.is_empty() => {}
                Ok(healed) => progress.say(format_args!("healed {}", healed.join(", "))),
                Err(error) => progress.say(format_args!("{error:#}")),
            }
        }
        match found {
            Some(found) if found.nodes == nodes && found.is_made_as(&wanted) && cluster.is_healthy()? => {
                if wanted.extras == found.extras {
                    progress.say("the cluster is up already");
                } else {
                    cluster.add(&parts.extras)?;
                    wanted.write()?;
                }
                return Ok(cluster);
            }
            // More nodes are added to what is there; everything else is another cluster.
            Some(found) if found.is_made_as(&wanted) && found.nodes <= nodes => {
                progress.say("completing the cluster that is there");
            }
            Some(found) if found.is_made_as(&wanted) => bail!(
                "the cluster has {} nodes, which cannot become {nodes}: run `cargo xtask cluster down` first",
                found.nodes
            ),
            Some(_) => {
                progress.say("the cluster that is there was made from other versions");
                tear_down(progress)?;
            }
            None if Path::new(STATE).exists() => tear_down(progress)?,
            None => {}
        }
        cluster.bring_up(&wanted, parts)?;
        Ok(cluster)
    }

    /// Adds extras to a cluster that runs.
    fn add(&self, extras: &Extras) -> Result<()> {
        let pki = Pki::open(&Path::new(STATE).join("pki"))?;
        let names: Vec<String> = extras.builds().keys().map(Extra::to_string).collect();
        self.progress.step(&format!("adding {}", names.join(", ")), || {
            self.load(&extras.images())?;
            extras.apply(&|| self.kubectl(), &pki)?;
            for plan in self.plan.nodes() {
                extras.equip(plan, Path::new(STATE), &pki)?;
                self.wake(plan, extras)?;
            }
            Ok(())
        })
    }

    /// Lets a running node take what it was equipped with.
    fn wake(&self, node: NodePlan, extras: &Extras) -> Result<()> {
        if !extras.builds().contains_key(&Extra::Multus) {
            return Ok(());
        }
        let name = node.name();
        extras::wake(self.on_node(&name)?).with_context(|| format!("{name} does not start second networks"))
    }

    /// What the cluster that is there, if any, has beside what every one has.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn extras() -> Result<Vec<Extra>> {
        Ok(Self::record()?.map(|record| record.extras.into_keys().collect()).unwrap_or_default())
    }

    fn bring_up(&self, wanted: &Record, parts: &Parts) -> Result<()> {
        let state = Path::new(STATE);
        let cgroups = Cgroups::detect()?;
        let progress = &self.progress;
        Host::new(state).prepare(self.plan)?;
        wanted.write()?;
        let pki = progress.step("making certificates", || {
            let pki = Pki::open(&state.join("pki"))?;
            control_plane::issue(&pki)?;
            Ok(pki)
        })?;
        let control_plane = ControlPlane { state, programs: &parts.kubernetes, pki: &pki, cgroups: &cgroups };
        let node_parts = wanted.node_parts(&pki);
        // Nodes need the API server only when their images are in, so both can start at once.
        std::thread::scope(|scope| -> Result<()> {
            let control =
                scope.spawn(|| progress.step("starting the control plane", || control_plane.start()));
            let nodes: Vec<_> = self
                .plan
                .nodes()
                .map(|plan| {
                    let (cgroups, parts, system, extras) =
                        (&cgroups, &node_parts, &parts.system, &parts.extras);
                    scope.spawn(move || {
                        let node = Node { plan, state, cgroups };
                        progress.step(&format!("starting {}", plan.name()), || {
                            extras.equip(plan, state, parts.pki)?;
                            node.start(self.plan, parts)?;
                            self.wake(plan, extras)?;
                            node.load(&[system.all().as_slice(), &extras.images()].concat()).map(drop)
                        })
                    })
                })
                .collect();
            for thread in std::iter::once(control).chain(nodes) {
                thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
            }
            Ok(())
        })?;
        progress.step("waiting for the nodes to be ready", || self.wait_for_nodes())?;
        progress.step("starting DNS, load balancer and volumes", || {
            parts.extras.apply(&|| self.kubectl(), &pki)?;
            addons::apply(|| self.kubectl(), &parts.system, &parts.addons)
        })?;
        files::write(&state.join("complete"), "", 0o644)
    }

    fn wait_for_nodes(&self) -> Result<()> {
        for node in self.plan.nodes() {
            let name = node.name();
            let registered =
                wait_until(Duration::from_secs(90), || succeeds(self.kubectl().args(["get", "node", &name])));
            if !registered {
                bail!("{name} has not registered itself: see {STATE}/{name}/log/kubelet.log");
            }
        }
        run(self.kubectl().args(["wait", "node", "--all", "--for=condition=Ready", "--timeout=120s"]))
            .with_context(|| format!("a node does not become ready: see {STATE}/node*/log"))
            .map(drop)
    }

    /// Everything runs that should, and the API server says so.
    fn is_healthy(&self) -> Result<bool> {
        Ok(Path::new(STATE).join("complete").exists()
            && self.status()?.iter().all(|one| one.pid.is_some())
            && succeeds(self.kubectl().args(["get", "--raw", "/readyz"])))
    }

    fn record() -> Result<Option<Record>> {
        let text = files::read_if_there(&Path::new(STATE).join("cluster.json"))?;
        // A record of another layout is one of another cluster, which `up` clears away.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// A handle on the cluster that was brought up before.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(progress: &Progress) -> Result<Self> {
        let record = Self::record()?.context("no local cluster is up: cargo xtask cluster up")?;
        Ok(Self { plan: Plan::new(record.nodes)?, kubernetes: record.kubernetes, progress: progress.clone() })
    }

    /// Ends everything that the cluster started and puts the machine back as it was; safe to repeat.
    ///
    /// # Errors
    /// When something does not end.
    pub fn down(progress: &Progress) -> Result<()> {
        let _lock = lock(progress)?;
        tear_down(progress)
    }

    /// What should run, and whether it does.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn status(&self) -> Result<Vec<Status>> {
        let state = Path::new(STATE);
        let cgroups = Cgroups::detect()?;
        let mut all = Vec::new();
        for (name, process) in control_plane::running(state)? {
            all.push(Status { name: name.to_owned(), pid: process.map(|process| process.pid()) });
        }
        for plan in self.plan.nodes() {
            let process = Node { plan, state, cgroups: &cgroups }.running()?;
            all.push(Status { name: plan.name(), pid: process.map(|process| process.pid()) });
        }
        Ok(all)
    }

    /// The nodes.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        Path::new(STATE).join("pki/admin.kubeconfig")
    }

    /// A `kubectl` for this cluster, ready for its arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.kubernetes.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// Brings images to every node that is on; those that a node has are skipped.
    ///
    /// # Errors
    /// When containerd on a node refuses.
    pub fn load(&self, images: &[&Image]) -> Result<()> {
        let cgroups = Cgroups::detect()?;
        std::thread::scope(|scope| {
            let loads: Vec<_> = self
                .plan
                .nodes()
                .map(|plan| {
                    let cgroups = &cgroups;
                    scope.spawn(move || -> Result<()> {
                        let node = Node { plan, state: Path::new(STATE), cgroups };
                        if node.running()?.is_none() {
                            self.progress.say(format_args!("{} is off and gets no images", plan.name()));
                            return Ok(());
                        }
                        node.load(images).map(drop)
                    })
                })
                .collect();
            loads
                .into_iter()
                .try_for_each(|load| load.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))?)
        })
    }

    /// Pulls the plug of a node until it is healed: [`Fault::PowerOff`](faults::Fault::PowerOff).
    ///
    /// # Errors
    /// As [`Cluster::inject`].
    pub fn power_off(&self, node: &str) -> Result<()> {
        self.inject(faults::Fault::PowerOff { node: node.to_owned() }).map(drop)
    }

    /// Switches a node on again; it is not waited for to become ready. One that is on stays as it is.
    ///
    /// # Errors
    /// When there is no such node, or it does not start.
    pub fn power_on(&self, node: &str) -> Result<()> {
        self.plan.node(node)?;
        let off = faults::Fault::PowerOff { node: node.to_owned() };
        if self.faults()?.contains(&off) {
            return self.heal(&[off.to_string()]).map(drop);
        }
        let _lock = lock(&self.progress)?;
        self.switch_on(node)
    }

    /// Switches a node on; what else was wrong with its link stays so.
    pub(crate) fn switch_on(&self, node: &str) -> Result<()> {
        let state = Path::new(STATE);
        let record = Self::record()?.context("the cluster is gone")?;
        let pki = Pki::open(&state.join("pki"))?;
        let cgroups = Cgroups::detect()?;
        self.node(node, &cgroups)?.start(self.plan, &record.node_parts(&pki))?;
        self.unplug_again(node)
    }

    pub(crate) fn node<'a>(&self, name: &str, cgroups: &'a Cgroups) -> Result<Node<'a>> {
        Ok(Node { plan: self.plan.node(name)?, state: Path::new(STATE), cgroups })
    }

    pub(crate) fn is_on(&self, node: &str) -> Result<bool> {
        Ok(self.node(node, &Cgroups::detect()?)?.running()?.is_some())
    }

    /// A command that runs on a node, in all its namespaces, ready for its program and arguments.
    ///
    /// # Errors
    /// When there is no such node or it is off.
    pub fn on_node(&self, node: &str) -> Result<Command> {
        let process = self
            .node(node, &Cgroups::detect()?)?
            .running()?
            .with_context(|| format!("{node} is off: cargo xtask cluster heal power-off:{node}"))?;
        Ok(node::enter(&process))
    }
}

pub(crate) fn lock(progress: &Progress) -> Result<Lock> {
    if !Uid::effective().is_root() {
        bail!("changing the cluster needs root: run the same command with sudo -E env \"PATH=$PATH\"");
    }
    Lock::take(Path::new(LOCK), || progress.say("another command changes the cluster, waiting for it"))
}

fn tear_down(progress: &Progress) -> Result<()> {
    progress.step("taking the cluster down", || {
        let state = Path::new(STATE);
        let cgroups = Cgroups::detect()?;
        // All that there could be, whatever a record says: each is fine when it is not there.
        for plan in Plan::new(crate::plan::MAX_NODES)?.nodes() {
            Node { plan, state, cgroups: &cgroups }.power_off()?;
        }
        control_plane::kill(state)?;
        faults::tear_down()?;
        field::tear_down();
        // What a crash left unrecorded is in here as well.
        cgroups.remove("")?;
        Host::new(state).restore()?;
        files::remove_dir(state)?;
        if let Some(above) = state.parent() {
            // Only if nothing else of ours is in it.
            let _ = std::fs::remove_dir(above);
        }
        Ok(())
    })
}
