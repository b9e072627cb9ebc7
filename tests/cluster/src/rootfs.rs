//! Root file systems of images, from the machine's own Debian (or Ubuntu) release: a binary that was linked here
//! finds the same libraries there. Does IO.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command::run;
use crate::debian::{Release, sources};
use crate::files::{self, Fingerprint};

/// Numbers of the user that operator and gateway run as; the same as distroless images have.
pub const NONROOT: u32 = 65532;
/// Numbers of the user that Kafka runs as; the same as in the official image.
pub const KAFKA_USER: u32 = 1000;

/// Documentation, translations and what a package manager leaves behind.
const USELESS: [&str; 12] = [
    "etc/apt",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];

/// What a linked Rust program with librdkafka needs to run, and nothing to log in with.
///
/// # Errors
/// When `mmdebstrap` fails.
pub fn program(cache: &Cache) -> Result<PathBuf> {
    let ssl = package_of("libssl.so.3")?;
    root(
        cache,
        "program-root",
        &["ca-certificates", "libc6", "libgcc-s1", &ssl, "tzdata", "zlib1g"],
        "tidegate",
        NONROOT,
    )
}

/// What Java and a start script need.
///
/// # Errors
/// When `mmdebstrap` fails.
pub fn kafka(cache: &Cache) -> Result<PathBuf> {
    let packages =
        ["bash", "ca-certificates", "coreutils", "dash", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"];
    root(cache, "kafka-root", &packages, "kafka", KAFKA_USER)
}

/// The package that brings a library on this machine; its name differs between releases.
fn package_of(library: &str) -> Result<String> {
    let found = run(Command::new("dpkg-query").args(["-S", &format!("*/{library}")]))
        .with_context(|| format!("failed to find the package of {library}"))?;
    let name = found.split([':', ',']).next().unwrap_or_default().trim();
    Ok(name.to_owned())
}

fn root(cache: &Cache, part: &str, packages: &[&str], user: &str, id: u32) -> Result<PathBuf> {
    let release = Release::here()?;
    let include = packages.join(",");
    let inputs = Fingerprint::default()
        .with("arch", std::env::consts::ARCH)
        .with("release", format!("{release:?}"))
        .with("packages", &include)
        .with("user", format!("{user} {id}"))
        .with("useless", USELESS.join(","));
    let dir = cache.part(part, inputs, |workshop| {
        let dir = workshop.out().join("root");
        workshop.run(
            Command::new("mmdebstrap")
                .args(["--quiet", "--mode=root", "--variant=extract"])
                .arg(format!("--include={include}"))
                // As on every current system, and as in the images that the Dockerfiles start from.
                .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
                .arg(&release.codename)
                .arg(&dir)
                .args(sources()),
        )?;
        for useless in USELESS {
            files::remove_dir(&dir.join(useless))?;
        }
        certificates(&dir)?;
        users(&dir, user, id)
    })?;
    Ok(dir.join("root"))
}

/// Does what the scripts of `ca-certificates` would have done: only unpacked, the bundle does not exist.
fn certificates(root: &Path) -> Result<()> {
    let folder = root.join("usr/share/ca-certificates/mozilla");
    let mut names: Vec<PathBuf> = fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("failed to list {}", folder.display()))?;
    names.sort();
    let mut bundle = String::new();
    for name in names {
        let certificate =
            fs::read_to_string(&name).with_context(|| format!("failed to read {}", name.display()))?;
        bundle.push_str(certificate.trim_end());
        bundle.push('\n');
    }
    files::write(&root.join("etc/ssl/certs/ca-certificates.crt"), bundle, 0o644)
}

fn users(root: &Path, user: &str, id: u32) -> Result<()> {
    let passwd = format!(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n{user}:x:{id}:{id}:{user}:/tmp:/usr/sbin/nologin\n"
    );
    files::write(&root.join("etc/passwd"), passwd, 0o644)?;
    files::write(&root.join("etc/group"), format!("root:x:0:\n{user}:x:{id}:\n"), 0o644)?;
    files::write(&root.join("etc/nsswitch.conf"), "hosts: files dns\n", 0o644)
}
