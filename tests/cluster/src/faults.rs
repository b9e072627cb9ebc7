//! What can go wrong with the cluster's nodes, network, pods and disks, done on purpose and undone again. Does IO.
//!
//! A fault is written down in the cluster's folder before it is done, and forgotten after it is undone: whatever ends
//! in between, [`Cluster::heal`] finds it. What an administrator could do through the API is no fault of this kind.

mod disks;
mod network;
mod pods;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::cluster::{Cluster, STATE, lock};
use crate::{control_plane, files, process};

pub use network::HOST;

/// A fault that lasts until it is healed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The node's plug is pulled: its link goes down and all its processes die at once; its disk stays.
    PowerOff {
        /// `node1`.
        node: String,
    },
    /// The node's cable is unplugged; everything on it goes on running.
    LinkDown {
        /// `node1`.
        node: String,
    },
    /// The node's cable to the field network is unplugged.
    FieldDown {
        /// `node1`.
        node: String,
    },
    /// No frame passes between two nodes, in either direction; each still reaches all others.
    Cut {
        /// `node1`.
        node: String,
        /// `node2`, or [`HOST`]: the control plane and the outside world.
        other: String,
    },
    /// Of the frames that a node sends and is sent, this share is lost.
    Loss {
        /// `node1`.
        node: String,
        /// 1 to 100.
        percent: u8,
    },
    /// All processes of a pod stand still; its addresses still answer, as the kernel does that.
    Freeze {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// The API server stands still; what runs on nodes goes on without it.
    FreezeApiServer,
    /// The disk of the node's volumes has no room left. The first time on a node the volumes move onto a disk of their
    /// own, for which the pods that have them mounted are killed once: see [`Cluster::give_disk`].
    FullDisk {
        /// `node1`.
        node: String,
    },
}

impl Fault {
    /// What goes wrong, as [`Fault`]'s name on the command line begins.
    pub const KINDS: [&str; 8] =
        ["power-off", "link-down", "field-down", "cut", "loss", "freeze", "freeze-api-server", "full-disk"];

    /// The same fault always has the same name, whichever of two nodes was named first.
    fn steady(self) -> Self {
        match self {
            Self::Cut { node, other } if node == HOST || (other != HOST && other < node) => {
                Self::Cut { node: other, other: node }
            }
            same => same,
        }
    }
}

/// `cut:node1:node2`, which `cargo xtask cluster heal` takes.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff { node } => write!(f, "power-off:{node}"),
            Self::LinkDown { node } => write!(f, "link-down:{node}"),
            Self::FieldDown { node } => write!(f, "field-down:{node}"),
            Self::Cut { node, other } => write!(f, "cut:{node}:{other}"),
            // A node has one share of loss; another takes its place.
            Self::Loss { node, .. } => write!(f, "loss:{node}"),
            Self::Freeze { namespace, pod } => write!(f, "freeze:{namespace}:{pod}"),
            Self::FreezeApiServer => f.write_str("freeze-api-server"),
            Self::FullDisk { node } => write!(f, "full-disk:{node}"),
        }
    }
}

/// A fault with what is needed to undo it without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    fault: Fault,
    /// The pod, as its node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    node: String,
    uid: String,
}

/// The faults that are written down below a cluster's folder.
#[derive(Debug)]
struct Records(PathBuf);

impl Records {
    fn here() -> Self {
        Self(Path::new(STATE).join("faults"))
    }

    fn path(&self, fault: &Fault) -> PathBuf {
        self.0.join(format!("{fault}.json"))
    }

    fn write(&self, entry: &Entry) -> Result<()> {
        files::write(&self.path(&entry.fault), serde_json::to_string_pretty(entry)?, 0o644)
    }

    fn forget(&self, fault: &Fault) -> Result<()> {
        match fs::remove_file(self.path(fault)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to forget {fault}"))
            }
            _ => Ok(()),
        }
    }

    /// All, in the order of their names.
    fn all(&self) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let Ok(entries) = fs::read_dir(&self.0) else { return Ok(all) };
        for entry in entries {
            let path = entry.context("failed to list the faults")?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(text) = files::read_if_there(&path)?
            {
                let read = serde_json::from_str(&text);
                all.push(read.with_context(|| format!("failed to read {}", path.display()))?);
            }
        }
        all.sort_by_cached_key(|entry: &Entry| entry.fault.to_string());
        Ok(all)
    }
}

/// A fault that is healed when this is dropped.
#[derive(Debug)]
pub struct Injected<'a> {
    cluster: &'a Cluster,
    name: Option<String>,
}

impl Injected<'_> {
    /// Undoes it, and says if that failed.
    ///
    /// # Errors
    /// As [`Cluster::heal`].
    pub fn heal(mut self) -> Result<()> {
        self.name.take().map_or(Ok(()), |name| self.cluster.heal(&[name]).map(drop))
    }
}

impl Drop for Injected<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && let Err(error) = self.cluster.heal(std::slice::from_ref(&name))
        {
            self.cluster.progress.say(format_args!("failed to heal {name}: {error:#}"));
        }
    }
}

impl Cluster {
    /// Makes something go wrong until it is healed, and returns the name that [`Cluster::heal`] takes. A fault that is
    /// there already is fine.
    ///
    /// # Errors
    /// When there is no such node, pod or claim (the message lists those that there are), or the machine refuses.
    pub fn inject(&self, fault: Fault) -> Result<String> {
        let fault = fault.steady();
        let _lock = lock(&self.progress)?;
        let records = Records::here();
        let entry = Entry { place: self.place(&fault)?, fault };
        records.write(&entry)?;
        self.do_it(&entry).with_context(|| format!("failed to do {}", entry.fault))?;
        Ok(entry.fault.to_string())
    }

    /// [`Cluster::inject`] for as long as what is returned lives.
    ///
    /// # Errors
    /// As [`Cluster::inject`].
    pub fn inject_for_now(&self, fault: Fault) -> Result<Injected<'_>> {
        let fault = fault.steady();
        let done = self.inject(fault.clone());
        // Healed as well if only half of it worked.
        let name = self.faults()?.contains(&fault).then(|| fault.to_string());
        let injected = Injected { cluster: self, name };
        done.map(|_| injected)
    }

    /// The faults that there are.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        Ok(Records::here().all()?.into_iter().map(|entry| entry.fault).collect())
    }

    /// Undoes the faults of these names, all for none, and returns what was undone. Safe to repeat, and after
    /// anything that ended in the middle.
    ///
    /// # Errors
    /// When there is no fault of a name (the message lists those that there are), or one cannot be undone; the others
    /// are undone all the same.
    pub fn heal(&self, names: &[String]) -> Result<Vec<String>> {
        let _lock = lock(&self.progress)?;
        self.heal_locked(names)
    }

    pub(crate) fn heal_locked(&self, names: &[String]) -> Result<Vec<String>> {
        let records = Records::here();
        let mut chosen = records.all()?;
        let there: Vec<String> = chosen.iter().map(|entry| entry.fault.to_string()).collect();
        for name in names {
            if !there.contains(name) {
                let list = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                bail!("no fault is called {name:?}: there are {list}");
            }
        }
        chosen.retain(|entry| names.is_empty() || names.contains(&entry.fault.to_string()));
        // Without the API server no node starts. Nodes come next: the rest of what is wrong with them is healed on a node
        // that is on.
        chosen.sort_by_key(|entry| match entry.fault {
            Fault::FreezeApiServer => 0,
            Fault::PowerOff { .. } => 1,
            _ => 2,
        });
        let (mut healed, mut failed) = (Vec::new(), Vec::new());
        for entry in chosen {
            match records.forget_after(&entry, || self.undo(&entry)) {
                Ok(()) => healed.push(entry.fault.to_string()),
                Err(error) => failed.push(format!("{}: {error:#}", entry.fault)),
            }
        }
        if names.is_empty() {
            // Also what nobody has written down.
            network::apply(&Records::here().network()?)?;
        }
        if !failed.is_empty() {
            bail!("failed to heal {}", failed.join("; "));
        }
        Ok(healed)
    }

    fn place(&self, fault: &Fault) -> Result<Option<Place>> {
        Ok(match fault {
            Fault::PowerOff { node }
            | Fault::LinkDown { node }
            | Fault::FieldDown { node }
            | Fault::FullDisk { node } => {
                self.plan.node(node)?;
                None
            }
            Fault::Cut { node, other } => {
                self.plan.node(node)?;
                if other != HOST {
                    self.plan.node(other).with_context(|| format!("beside nodes there is {HOST:?}"))?;
                }
                if node == other {
                    bail!("{node} cannot be cut off from itself");
                }
                None
            }
            Fault::Loss { node, percent } => {
                self.plan.node(node)?;
                if !(1..=100).contains(percent) {
                    bail!("{percent} is no share of lost frames: 1 to 100 percent");
                }
                None
            }
            Fault::Freeze { namespace, pod } => Some(self.place_of_pod(namespace, pod)?),
            Fault::FreezeApiServer => None,
        })
    }

    fn do_it(&self, entry: &Entry) -> Result<()> {
        match (&entry.fault, &entry.place) {
            (Fault::PowerOff { node }, _) => self.node(node, &Cgroups::detect()?)?.power_off(),
            (Fault::LinkDown { node }, _) => network::link(&self.plan.node(node)?.link(), false),
            (Fault::FieldDown { node }, _) => network::link(&self.plan.node(node)?.field_link(), false),
            (Fault::Cut { .. } | Fault::Loss { .. }, _) => network::apply(&Records::here().network()?),
            (Fault::FullDisk { node }, _) => self.fill_disk(node),
            (Fault::FreezeApiServer, _) => pods::stop(api_server),
            (Fault::Freeze { .. }, Some(place)) => pods::freeze(place),
            (Fault::Freeze { .. }, None) => bail!("its record is incomplete"),
        }
    }

    fn undo(&self, entry: &Entry) -> Result<()> {
        match (&entry.fault, &entry.place) {
            (Fault::PowerOff { node }, _) => self.switch_on(node),
            (Fault::LinkDown { node }, _) => network::link(&self.plan.node(node)?.link(), true),
            (Fault::FieldDown { node }, _) => network::link(&self.plan.node(node)?.field_link(), true),
            (Fault::Cut { .. } | Fault::Loss { .. }, _) => {
                let mut others = Records::here().network()?;
                others.retain(|fault| *fault != entry.fault);
                network::apply(&others)
            }
            (Fault::FullDisk { node }, _) => self.clear_disk(node),
            (Fault::FreezeApiServer, _) => {
                api_server()?.into_iter().try_for_each(|pid| process::send(pid, Signal::SIGCONT))
            }
            (Fault::Freeze { .. }, Some(place)) => pods::thaw(place),
            (Fault::Freeze { .. }, None) => Ok(()),
        }
    }

    /// Unplugs again what [`crate::node::Node::start`] has plugged in.
    pub(crate) fn unplug_again(&self, node: &str) -> Result<()> {
        let named = |one: &str| one == node;
        for entry in Records::here().all()? {
            if matches!(&entry.fault, Fault::LinkDown { node } | Fault::FieldDown { node } if named(node)) {
                self.do_it(&entry)?;
            }
        }
        Ok(())
    }
}

impl Records {
    fn forget_after(&self, entry: &Entry, undo: impl FnOnce() -> Result<()>) -> Result<()> {
        undo()?;
        self.forget(&entry.fault)
    }

    /// The faults that the packet filter does.
    fn network(&self) -> Result<Vec<Fault>> {
        let all = self.all()?.into_iter().map(|entry| entry.fault);
        Ok(all.filter(|fault| matches!(fault, Fault::Cut { .. } | Fault::Loss { .. })).collect())
    }
}

/// The API server's process.
fn api_server() -> Result<Vec<i32>> {
    let all = control_plane::running(Path::new(STATE))?.into_iter();
    let found: Vec<_> =
        all.filter(|(name, _)| *name == "kube-apiserver").filter_map(|(_, one)| one).collect();
    if found.is_empty() {
        bail!("no API server runs");
    }
    Ok(found.iter().map(process::Process::pid).collect())
}

/// Takes away what a fault leaves on the machine itself, outside of the cluster's folder and its nodes.
pub(crate) fn tear_down() -> Result<()> {
    network::apply(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(node: &str, other: &str) -> Fault {
        Fault::Cut { node: node.into(), other: other.into() }.steady()
    }

    #[test]
    fn a_cut_has_one_name_whichever_node_is_named_first() {
        assert_eq!(cut("node2", "node1"), cut("node1", "node2"));
        assert_eq!(cut("node2", "node1").to_string(), "cut:node1:node2");
        assert_eq!(cut("host", "node1").to_string(), "cut:node1:host");
        assert_eq!(cut("node1", "host").to_string(), "cut:node1:host");
    }

    #[test]
    fn a_fault_is_found_again_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records(dir.path().join("faults"));
        assert_eq!(records.all().unwrap(), []);
        let place = Some(Place { node: "node2".into(), uid: "0-1".into() });
        let freeze = Fault::Freeze { namespace: "plant".into(), pod: "plant-kafka-0".into() };
        let (frozen, cut) =
            (Entry { fault: freeze, place }, Entry { fault: cut("node1", "node2"), place: None });
        records.write(&frozen).unwrap();
        records.write(&cut).unwrap();
        assert_eq!(records.all().unwrap(), [cut.clone(), frozen.clone()]);
        assert_eq!(records.network().unwrap(), std::slice::from_ref(&cut.fault));
        records.forget(&cut.fault).unwrap();
        records.forget(&cut.fault).unwrap();
        assert_eq!(records.all().unwrap(), [frozen]);
    }

    #[test]
    fn another_share_of_loss_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records(dir.path().join("faults"));
        for percent in [10, 20] {
            let fault = Fault::Loss { node: "node1".into(), percent };
            records.write(&Entry { fault, place: None }).unwrap();
        }
        assert_eq!(records.network().unwrap(), [Fault::Loss { node: "node1".into(), percent: 20 }]);
    }

    #[test]
    fn a_fault_that_could_not_be_undone_is_kept_for_another_try() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records(dir.path().join("faults"));
        let entry = Entry { fault: cut("node1", "node2"), place: None };
        records.write(&entry).unwrap();
        assert!(records.forget_after(&entry, || bail!("no")).is_err());
        assert_eq!(records.all().unwrap(), std::slice::from_ref(&entry));
        records.forget_after(&entry, || Ok(())).unwrap();
        assert_eq!(records.all().unwrap(), []);
    }

    #[test]
    fn every_kind_begins_its_name() {
        let node = || "node1".to_owned();
        let faults = [
            Fault::PowerOff { node: node() },
            Fault::LinkDown { node: node() },
            Fault::FieldDown { node: node() },
            cut("node1", "node2"),
            Fault::Loss { node: node(), percent: 1 },
            Fault::Freeze { namespace: "a".into(), pod: "b".into() },
            Fault::FreezeApiServer,
            Fault::FullDisk { node: node() },
        ];
        let kinds = faults.map(|fault| fault.to_string().split(':').next().unwrap().to_owned());
        assert_eq!(kinds, Fault::KINDS);
    }
}
