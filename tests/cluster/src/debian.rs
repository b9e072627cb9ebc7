//! What the cluster takes from the machine's Debian (or Ubuntu) archive. Does IO.
//!
//! Tools are installed as anybody would. containerd, runc, the CNI plugins and promtool are only unpacked into the cache:
//! installed, they would start a service and push a container engine from elsewhere off the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{run, succeeds};
use crate::files::{self, Fingerprint};

/// Installed on the machine: what the cluster runs, what the workspace links to, what the stories use as devices.
pub const PACKAGES: [&str; 17] = [
    "ca-certificates",
    "conntrack",
    "curl",
    "e2fsprogs",
    "g++",
    "gcc",
    "iproute2",
    "iptables",
    "libseccomp2",
    "libssl-dev",
    "make",
    "mmdebstrap",
    "mosquitto-clients",
    "nftables",
    "openssl",
    "pkg-config",
    "zlib1g-dev",
];

/// Installed as well where second networks are wanted: who hands out addresses on the field network. It brings no service.
const FIELD_PACKAGES: [&str; 1] = ["dnsmasq-base"];

/// Only unpacked, for the nodes.
const NODE_PACKAGES: [&str; 3] = ["containerd", "containernetworking-plugins", "runc"];

/// A release of a distribution, from `/etc/os-release`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `debian` or `ubuntu`.
    pub id: String,
    /// `bookworm`.
    pub codename: String,
}

impl Release {
    /// This machine's.
    ///
    /// # Errors
    /// When there is no such file, or it does not say.
    pub fn here() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("failed to read /etc/os-release")?;
        Self::parse(&text).context("failed to find ID and VERSION_CODENAME in /etc/os-release")
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
        };
        Some(Self { id: value("ID")?, codename: value("VERSION_CODENAME")? })
    }
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let installed = |package: &str| {
        run(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
            .is_ok_and(|status| status.starts_with("installed"))
    };
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

/// Installs those of [`PACKAGES`] that are missing.
///
/// # Errors
/// When `apt-get` fails.
pub fn install(cache: &Cache) -> Result<()> {
    install_all(cache, &PACKAGES)
}

/// Installs what tests of second networks need, if it is missing.
///
/// # Errors
/// When `apt-get` fails.
pub(crate) fn install_for_field(cache: &Cache) -> Result<()> {
    install_all(cache, &FIELD_PACKAGES)
}

fn install_all(cache: &Cache, packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let step = format!("installing {} with apt-get", missing.join(" "));
    cache.progress().step(&step, || {
        update_if_stale(&missing)?;
        run(apt().args(["install", "-y", "--no-install-recommends"]).args(&missing))?;
        Ok(())
    })
}

/// The folder below which `usr/bin/containerd`, `usr/sbin/runc` and `usr/lib/cni` stand.
///
/// # Errors
/// When the download or the unpacking fails.
pub fn node_programs(cache: &Cache) -> Result<PathBuf> {
    unpacked(cache, "node-programs", &NODE_PACKAGES, |files| files::remove_dir(&files.join("usr/share")))
}

/// Prometheus' own tool for testing rules.
///
/// # Errors
/// When the download or the unpacking fails.
pub fn promtool(cache: &Cache) -> Result<PathBuf> {
    let only = |files: &Path| {
        let programs = files.join("usr/bin");
        fs::rename(programs.join("promtool"), files.join("promtool")).context("failed to keep promtool")?;
        ["etc", "lib", "usr", "var"].iter().try_for_each(|rest| files::remove_dir(&files.join(rest)))
    };
    Ok(unpacked(cache, "promtool", &["prometheus"], only)?.join("promtool"))
}

/// A part of the cache with the files of these packages; `trim` removes what is not needed.
fn unpacked(
    cache: &Cache,
    part: &str,
    packages: &[&str],
    trim: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let release = Release::here()?;
    let inputs = Fingerprint::default()
        .with("arch", std::env::consts::ARCH)
        .with("release", format!("{release:?}"))
        .with("packages", packages.join(" "));
    cache.part(part, inputs, |workshop| {
        update_if_stale(packages)?;
        let packed = workshop.out().join("packed");
        files::make_dir(&packed)?;
        // As root, or apt warns that its own user cannot write here.
        workshop.run(
            apt().args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&packed),
        )?;
        for entry in fs::read_dir(&packed).context("failed to list the packages")? {
            let package = entry.context("failed to list the packages")?.path();
            workshop.run(Command::new("dpkg-deb").arg("-x").arg(package).arg(workshop.out()))?;
        }
        files::remove_dir(&packed)?;
        trim(workshop.out())
    })
}

/// Fetches the package lists if they do not know a package that is needed.
fn update_if_stale(packages: &[&str]) -> Result<()> {
    let known = |package: &&str| {
        run(Command::new("apt-cache").args(["policy", package]))
            .is_ok_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
    };
    // Lists that know the package but not its newest file lead to a 404, so anything older than a day is renewed.
    let fresh = succeeds(Command::new("sh").args([
        "-c",
        "test -n \"$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 -print -quit)\"",
    ]));
    if fresh && packages.iter().all(known) {
        return Ok(());
    }
    run(apt().arg("update"))?;
    let unknown: Vec<&str> = packages.iter().copied().filter(|package| !known(package)).collect();
    if !unknown.is_empty() {
        bail!(
            "failed to find {} in the machine's package archive: check /etc/apt/sources.list.d for the main section \
             (on Ubuntu: universe)",
            unknown.join(", ")
        );
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// The machine's own package sources, so that a mirror it uses is used for images as well.
pub fn sources() -> Vec<PathBuf> {
    ["sources.list.d/debian.sources", "sources.list.d/ubuntu.sources", "sources.list"]
        .iter()
        .map(|name| Path::new("/etc/apt").join(name))
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| has_a_source(&text)))
        .collect()
}

fn has_a_source(text: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with("deb ") || line.starts_with("deb [") || line.starts_with("URIs:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_with_and_without_quotes() {
        let release = Release::parse("NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=\"debian\"\n").unwrap();
        assert_eq!(release, Release { id: "debian".into(), codename: "bookworm".into() });
        assert_eq!(Release::parse("ID=arch\n"), None);
    }

    #[test]
    fn an_emptied_sources_list_is_no_source() {
        assert!(!has_a_source("# moved to debian.sources\n"));
        assert!(has_a_source("Types: deb\nURIs: http://mirror/debian\n"));
        assert!(has_a_source("deb http://mirror/debian bookworm main\n"));
    }
}
