//! Disks of volumes: full, or lost. Does IO.
//!
//! A node's volumes are folders on the machine's own disk, which is never filled. So they first move to a disk of their own:
//! an ext4 in a sparse file, which the node mounts. What fills it is allocated and never written, and takes no room on the
//! machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::pods::stop;
use crate::cgroup::Cgroups;
use crate::cluster::{Cluster, STATE, lock};
use crate::command::{run, succeeds};
use crate::files;
use crate::process::send;

/// Where a node has its volumes, as `manifests/local-path.yaml` says.
const VOLUMES: &str = "/opt/local-path-provisioner";
/// The image of their disk, in the node's folder; `node-init.sh` mounts it when the node starts.
const IMAGE: &str = "volumes.img";
/// Room on a new disk, for what the volumes hold and will hold. Only what is written takes room on the machine.
const SIZE: &str = "16G";

/// Copies the volumes into the image `$1`, on a node.
const COPY: &str = r#"
set -eu
mkdir -p /run/node/aside /opt/local-path-provisioner
mount -o loop,discard,noinit_itable "$1" /run/node/aside
trap 'umount /run/node/aside; rmdir /run/node/aside' EXIT
cp -a /opt/local-path-provisioner/. /run/node/aside/
"#;

/// Mounts the image unless it is.
const MOUNT: &str = "
mountpoint -q /opt/local-path-provisioner ||
  mount -o loop,discard,noinit_itable /run/node/volumes.img /opt/local-path-provisioner
";

/// Takes all that is left; fails if any is left then. Asking for more than there is takes what there is.
const FILL: &str = r#"
fallocate -l 1T /opt/local-path-provisioner/.ballast 2> /dev/null
[ "$(stat -f -c %a /opt/local-path-provisioner)" = 0 ]
"#;

impl Cluster {
    /// Gives the volumes of a node a disk of their own, unless they have one. Pods that have any of them mounted are killed for
    /// that, once, and their containers start again on the new disk. It stays until `down`; healing does not undo it.
    ///
    /// # Errors
    /// When there is no such node, it is off, or the volumes cannot be moved.
    pub fn give_disk(&self, node: &str) -> Result<()> {
        let _lock = lock(&self.progress)?;
        self.move_volumes(node)
    }

    fn move_volumes(&self, node: &str) -> Result<()> {
        let users = || using(node, &format!("/{node}{VOLUMES}/"));
        let image = image(node);
        if !image.exists() {
            let aside = image.with_extension("new");
            let moved = make(&aside).and_then(|()| {
                // Still, so that nothing is written between the copy and the end.
                stop(users)?;
                self.in_node(node, COPY, &["/run/node/volumes.new"])?;
                fs::rename(&aside, &image).context("failed to finish the disk's image")
            });
            if let Err(error) = moved {
                users()?.into_iter().try_for_each(|pid| send(pid, Signal::SIGCONT))?;
                return Err(error).context("failed to move the volumes onto a disk of their own");
            }
        }
        self.in_node(node, MOUNT, &[]).context("failed to mount the disk of the volumes")?;
        users()?.into_iter().try_for_each(|pid| send(pid, Signal::SIGKILL))
    }

    pub(super) fn fill_disk(&self, node: &str) -> Result<()> {
        self.move_volumes(node)?;
        self.in_node(node, FILL, &[]).context("failed to fill the disk")
    }

    pub(super) fn clear_disk(&self, node: &str) -> Result<()> {
        if image(node).exists() {
            // A move that was cut off is ended as well.
            self.move_volumes(node)?;
        } else {
            let users = using(node, &format!("/{node}{VOLUMES}/"))?;
            users.into_iter().try_for_each(|pid| send(pid, Signal::SIGCONT))?;
        }
        self.in_node(node, &format!("rm -f {VOLUMES}/.ballast"), &[])
    }

    /// Takes everything off the volume of a claim, as if its disk were replaced by a new one; a pod that has it mounted is
    /// killed. Its node may be off. This cannot be healed.
    ///
    /// # Errors
    /// When there is no such claim (the message lists those that there are), or its files cannot be removed.
    pub fn discard_volume(&self, namespace: &str, claim: &str) -> Result<()> {
        let _lock = lock(&self.progress)?;
        let (node, folder) = self.folder_of(namespace, claim)?;
        let users = || using(&node, &format!("/{folder}"));
        // Still, so that nothing is written after the files are gone.
        stop(users)?;
        let empty = "find \"$1\" -mindepth 1 -delete";
        let emptied = if self.is_on(&node)? {
            self.in_node(&node, empty, &[&format!("{VOLUMES}/{folder}")])
        } else if image(&node).exists() {
            let script =
                "mount -o loop,discard,noinit_itable \"$2\" /mnt && find \"/mnt/$1\" -mindepth 1 -delete";
            let mut command = Command::new("unshare");
            command.args(["--mount", "bash", "-c", script, "bash", &folder]).arg(image(&node));
            run(&mut command).map(drop)
        } else {
            let here = Path::new(STATE).join(&node).join(VOLUMES.trim_start_matches('/')).join(&folder);
            run(Command::new("bash").args(["-c", empty, "bash"]).arg(here)).map(drop)
        };
        users()?.into_iter().try_for_each(|pid| send(pid, Signal::SIGKILL))?;
        emptied.with_context(|| format!("failed to empty the volume of claim {claim}"))
    }

    /// The node of a claim's volume, and the name of its folder there.
    fn folder_of(&self, namespace: &str, claim: &str) -> Result<(String, String)> {
        let object = self.object(namespace, "persistentvolumeclaims", claim)?;
        let volume = object["spec"]["volumeName"].as_str();
        let volume = volume.with_context(|| format!("claim {claim} has no volume yet"))?;
        let text = run(self.kubectl().args(["get", "persistentvolume", volume, "--output=json"]))?;
        let object: Value = serde_json::from_str(&text).context("failed to read what kubectl printed")?;
        place(&object).with_context(|| format!("volume {volume} is no folder in {VOLUMES} of a node"))
    }

    fn in_node(&self, node: &str, script: &str, arguments: &[&str]) -> Result<()> {
        run(self.on_node(node)?.args(["bash", "-c", script, "bash"]).args(arguments)).map(drop)
    }
}

/// Node and folder of a volume of the local provisioner.
fn place(volume: &Value) -> Option<(String, String)> {
    let terms = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0";
    let node = volume.pointer(terms)?.as_str()?;
    let path =
        ["/spec/hostPath/path", "/spec/local/path"].iter().find_map(|at| volume.pointer(at)?.as_str())?;
    let folder = path.strip_prefix(VOLUMES)?.strip_prefix('/')?;
    (!folder.is_empty() && !folder.contains('/')).then(|| (node.to_owned(), folder.to_owned()))
}

fn image(node: &str) -> PathBuf {
    Path::new(STATE).join(node).join(IMAGE)
}

/// An empty disk in a file without content.
fn make(image: &Path) -> Result<()> {
    if !succeeds(Command::new("losetup").arg("--find")) {
        bail!("this machine has no loop devices, which a disk of its own needs: modprobe loop");
    }
    files::write(image, "", 0o600)?;
    run(Command::new("truncate").args(["--size", SIZE]).arg(image))?;
    // Nothing is kept back for root: full is full. What is lazy is never done: the file reads as zeros anyway.
    let lazy = "lazy_itable_init=1,lazy_journal_init=1";
    run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", lazy]).arg(image)).map(drop)
}

/// The processes on a node that have mounted something whose place on its file system contains `part`.
fn using(node: &str, part: &str) -> Result<Vec<i32>> {
    let mut all = Cgroups::detect()?.processes(node);
    // Those of the node itself see everything; only a container has a mount from there as its own.
    all.retain(|pid| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        mounts_from(&mounts, part)
    });
    Ok(all)
}

/// Whether a file's or folder's mount in a list of mounts is from a place that contains `part`.
fn mounts_from(mounts: &str, part: &str) -> bool {
    mounts.lines().filter_map(|line| line.split(' ').nth(3)).any(|root| root.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_of_the_provisioner_is_found_and_no_other() {
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}]}]}});
        let at = |path: &str| json!({"spec": {"hostPath": {"path": path}, "nodeAffinity": affinity}});
        let found = place(&at("/opt/local-path-provisioner/pvc-1_plant_data"));
        assert_eq!(found, Some(("node2".to_owned(), "pvc-1_plant_data".to_owned())));
        for other in [
            "/etc",
            "/opt/local-path-provisioner",
            "/opt/local-path-provisioner/",
            "/opt/local-path-provisioner/a/..",
        ] {
            assert_eq!(place(&at(other)), None, "{other}");
        }
    }

    #[test]
    fn who_has_a_volume_mounted_is_told_by_where_the_mount_is_from() {
        let mounts = "7 1 8:1 / / rw - ext4 /dev/a rw\n\
                      8 7 8:1 /x/node1/opt/local-path-provisioner/pvc-1_a_b /data rw - ext4 /dev/a rw\n";
        assert!(mounts_from(mounts, "/node1/opt/local-path-provisioner/"));
        assert!(mounts_from(mounts, "/pvc-1_a_b"));
        assert!(!mounts_from(mounts, "/node2/opt/local-path-provisioner/"));
        assert!(!mounts_from(mounts, "/data"));
    }

    #[test]
    fn volumes_are_where_the_provisioner_and_the_nodes_expect_them() {
        assert!(include_str!("../../manifests/local-path.yaml").contains(&format!("\"{VOLUMES}\"")));
        let init = include_str!("../node-init.sh");
        assert!(init.contains(VOLUMES) && init.contains(&format!("/run/node/{IMAGE}")));
        assert!([COPY, MOUNT, FILL].iter().all(|script| script.contains(VOLUMES)));
    }
}
