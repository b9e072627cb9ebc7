//! The cluster's control groups, in version 1 and version 2 of the kernel's interface. Does IO.
//!
//! Everything that the cluster starts lives below `tidegate` in every hierarchy: what is in there is ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::files;
use crate::process::{send, wait_until};

const ROOT: &str = "/sys/fs/cgroup";
const NAME: &str = "tidegate";

/// One mounted hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    at: PathBuf,
    /// As `mount -o` takes them: `cpu,cpuacct` or `none,name=systemd`.
    controllers: String,
}

/// How this machine's control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Empty on version 2.
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Looks at the mounts of this machine.
    ///
    /// # Errors
    /// When there are no control groups.
    pub fn detect() -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").context("failed to read the list of mounts")?;
        Self::parse(&mounts).context("failed to find control groups: mount cgroup2 at /sys/fs/cgroup")
    }

    fn parse(mounts: &str) -> Option<Self> {
        let mut hierarchies = Vec::new();
        let mut unified = false;
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let at = left.split(' ').nth(4).unwrap_or_default();
            let mut right = right.split(' ');
            match right.next().unwrap_or_default() {
                "cgroup2" if at == ROOT => unified = true,
                "cgroup" if at.starts_with(ROOT) => {
                    let options = right.nth(1).unwrap_or_default();
                    let controllers = controllers(options);
                    hierarchies.push(Hierarchy { at: at.into(), controllers });
                }
                _ => {}
            }
        }
        if unified {
            hierarchies.clear();
        }
        (unified || !hierarchies.is_empty()).then_some(Self { hierarchies })
    }

    /// Whether this is version 2.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.is_empty()
    }

    fn tops(&self) -> Vec<PathBuf> {
        let roots: Vec<&Path> = if self.is_unified() {
            vec![Path::new(ROOT)]
        } else {
            self.hierarchies.iter().map(|one| &*one.at).collect()
        };
        roots.into_iter().map(|root| root.join(NAME)).collect()
    }

    /// What a node needs to mount its own view: folder and controllers of each hierarchy, nothing on version 2.
    pub fn mounts(&self) -> String {
        let line = |one: &Hierarchy| {
            format!("{} {}\n", one.at.file_name().unwrap_or_default().to_string_lossy(), one.controllers)
        };
        self.hierarchies.iter().map(line).collect()
    }

    /// Makes the group `name` in every hierarchy and returns the files that a process joins it by.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut joins = Vec::new();
        for top in self.tops() {
            let group = top.join(name);
            files::make_dir(&group)?;
            if self.is_unified() {
                delegate(Path::new(ROOT))?;
                delegate(&top)?;
            } else {
                inherit_cpuset(&top)?;
                inherit_cpuset(&group)?;
            }
            joins.push(group.join("cgroup.procs"));
        }
        Ok(joins)
    }

    /// On version 2, where only leaves hold processes: moves those of group `name` into a leaf and lets the group
    /// hand its controllers to what a node's kubelet creates.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_inner(&self, name: &str) -> Result<()> {
        if !self.is_unified() {
            return Ok(());
        }
        let group = Path::new(ROOT).join(NAME).join(name);
        let leaf = group.join("init");
        files::make_dir(&leaf)?;
        // Until it is empty, because a process may fork while it is moved.
        let moved = wait_until(Duration::from_secs(5), || {
            for pid in processes_of(&group) {
                // One that ended meanwhile needs no moving.
                let _ = fs::write(leaf.join("cgroup.procs"), pid.to_string());
            }
            processes_of(&group).is_empty()
        });
        if !moved {
            bail!(
                "failed to empty the control group {NAME}/{name}: processes {:?} stay",
                processes_of(&group)
            );
        }
        delegate(&group)
    }

    /// Every process in the group `name` (all of the cluster's for an empty name) and below.
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .tops()
            .iter()
            .flat_map(|top| tree(&top.join(name)))
            .flat_map(|dir| processes_of(&dir))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Every process of a pod on `node`, whether the kubelet writes its uid with `-` or with `_`.
    pub fn processes_of_pod(&self, node: &str, uid: &str) -> Vec<i32> {
        let (one, other) = (format!("pod{uid}"), format!("pod{}", uid.replace('-', "_")));
        let is_its = |dir: &Path| {
            let text = dir.to_string_lossy();
            text.contains(&one) || text.contains(&other)
        };
        let mut pids: Vec<i32> = self
            .tops()
            .iter()
            .flat_map(|top| tree(&top.join(node)))
            .filter(|dir| is_its(dir))
            .flat_map(|dir| processes_of(&dir))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills what is left in the group `name` and removes it with all below.
    ///
    /// # Errors
    /// When something in it does not die.
    pub fn remove(&self, name: &str) -> Result<()> {
        let gone = wait_until(Duration::from_secs(15), || {
            for pid in self.processes(name) {
                // Repeated until the group is empty, so that one refusal does no harm.
                let _ = send(pid, Signal::SIGKILL);
            }
            for dir in self.tops().iter().flat_map(|top| tree(&top.join(name))) {
                let _ = fs::remove_dir(dir);
            }
            self.tops().iter().all(|top| !top.join(name).exists())
        });
        if !gone {
            bail!(
                "failed to remove the control group {NAME}/{name}: processes {:?} are still in it",
                self.processes(name)
            );
        }
        Ok(())
    }
}

/// The options of a cgroup mount without those that any file system has.
fn controllers(options: &str) -> String {
    let common = ["rw", "ro", "seclabel", "xattr", "clone_children"];
    let mut own: Vec<&str> = options
        .split(',')
        .filter(|option| !common.contains(option) && !option.starts_with("release_agent="))
        .collect();
    if own.iter().all(|option| option.starts_with("name=")) {
        own.insert(0, "none");
    }
    own.join(",")
}

/// Lets the children of a version 2 group use all controllers that it has itself.
fn delegate(group: &Path) -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(group.join(name))
            .with_context(|| format!("failed to read {name} of {}", group.display()))
    };
    let (have, given) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    for controller in have.split_whitespace().filter(|name| !given.split_whitespace().any(|one| one == *name))
    {
        let file = group.join("cgroup.subtree_control");
        // Some cannot be given on by the root of a container; the kubelet says which one it misses.
        let _ = fs::write(file, format!("+{controller}"));
    }
    Ok(())
}

/// A new version 1 group has no processor and no memory, and so takes no process.
fn inherit_cpuset(group: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (own, above) = (group.join(name), group.join("..").join(name));
        let Some(value) = files::read_if_there(&above)? else { continue };
        if files::read_if_there(&own)?.is_some_and(|own| own.trim().is_empty()) {
            fs::write(&own, value.trim()).with_context(|| format!("failed to write {}", own.display()))?;
        }
    }
    Ok(())
}

/// A group and all below, the deepest first.
fn tree(group: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            all.extend(tree(&entry.path()));
        }
        all.push(group.to_owned());
    }
    all
}

fn processes_of(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process that this namespace does not see.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_hierarchies_are_found_with_their_controllers() {
        let mounts = "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                      3 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      4 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroups = Cgroups::parse(mounts).unwrap();
        assert!(!cgroups.is_unified());
        assert_eq!(cgroups.mounts(), "cpu,cpuacct cpu,cpuacct\nsystemd none,name=systemd\n");
    }

    #[test]
    fn version_2_needs_no_list_of_controllers() {
        let cgroups =
            Cgroups::parse("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n").unwrap();
        assert!(cgroups.is_unified());
        assert_eq!(cgroups.mounts(), "");
    }

    #[test]
    fn a_machine_without_control_groups_is_noticed() {
        assert_eq!(Cgroups::parse("1 0 0:1 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
