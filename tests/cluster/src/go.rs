//! Builds the cluster's programs from the Go module proxy. Does IO.
//!
//! All modules share one workspace (`go/go.work`) and so one version of everything they have in common: the
//! compiler's own cache then serves `MetalLB` what Kubernetes has compiled already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Cache, Workshop};
use crate::command::run;
use crate::files::{self, Fingerprint};

/// The roles that the one Kubernetes binary plays, by name.
const ROLES: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];
const METALLB: &str = "go.universe.tf/metallb";
const LOCAL_PATH: &str = "github.com/rancher/local-path-provisioner";
const KUBERNETES: &str = "k8s.io/kubernetes";

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go")
}

/// The folder with `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kube-proxy`, `kubelet` and
/// `kubectl`. Some minutes when built for the first time.
///
/// # Errors
/// When the build fails.
pub fn kubernetes(cache: &Cache) -> Result<PathBuf> {
    cache.part("kubernetes", inputs(&["kubernetes", "etcd"])?, |workshop| {
        let version = version_of(KUBERNETES, "kubernetes")?;
        let number = version.trim_start_matches('v');
        let mut parts = number.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // Without these the server calls itself v0.0.0 and kubectl warns about the difference.
        let stamp = format!(
            "-X k8s.io/component-base/version.gitVersion={version} -X k8s.io/component-base/version.gitMajor={major} \
             -X k8s.io/component-base/version.gitMinor={minor}"
        );
        build(workshop, &stamp, &["./kubernetes", "./etcd"])?;
        for role in ROLES {
            std::os::unix::fs::symlink("kubernetes", workshop.out().join(role)).context("failed to link a role")?;
        }
        Ok(())
    })
}

/// The folder with what runs in pods: `coredns`, `MetalLB`'s `controller` and `speaker` and its manifest
/// `metallb-native.yaml`, `local-path-provisioner` with its helper `local-path`, and `pause`.
///
/// # Errors
/// When the build fails.
pub fn addons(cache: &Cache) -> Result<PathBuf> {
    cache.part("addons", inputs(&["coredns", "local-path", "metallb", "pause"])?, |workshop| {
        let (controller, speaker) = (format!("{METALLB}/controller"), format!("{METALLB}/speaker"));
        build(workshop, "", &["./coredns", "./local-path", "./pause", &controller, &speaker, LOCAL_PATH])?;
        let module = run(go().args(["list", "-m", "-f", "{{.Dir}}", METALLB]))?;
        let manifest = Path::new(module.trim()).join("config/manifests/metallb-native.yaml");
        let text = fs::read(&manifest).with_context(|| format!("failed to read {}", manifest.display()))?;
        files::write(&workshop.out().join("metallb-native.yaml"), text, 0o644)
    })
}

fn build(workshop: &Workshop, stamp: &str, packages: &[&str]) -> Result<()> {
    let mut out = workshop.out().as_os_str().to_owned();
    // With a slash at its end it is a folder to Go.
    out.push("/");
    workshop.run(
        go().args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
            .arg(format!("-s -w {stamp}"))
            .arg("-o")
            .arg(out)
            .args(packages),
    )
}

fn go() -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(sources())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env("GOWORK", sources().join("go.work"));
    command
}

/// The version of `module` in the `go.mod` of `part`, so that it is written down once.
fn version_of(module: &str, part: &str) -> Result<String> {
    let text = fs::read_to_string(sources().join(part).join("go.mod")).context("failed to read go.mod")?;
    version_in(&text, module).with_context(|| format!("failed to find {module} in the go.mod of {part}"))
}

fn version_in(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().map(str::trim).find_map(|line| {
        let version = line.trim_start_matches("require ").strip_prefix(module)?.strip_prefix(' ')?;
        version.split(' ').next().map(str::to_owned)
    })
}

/// Every module takes part in choosing the versions; only a part's own sources are compiled into it.
fn inputs(parts: &[&str]) -> Result<Fingerprint> {
    let root = sources();
    let mut files = vec![root.join("go.work"), root.join("go.work.sum")];
    for entry in fs::read_dir(&root).context("failed to list the Go modules")? {
        let path = entry.context("failed to list the Go modules")?.path();
        if path.is_dir() {
            files.extend([path.join("go.mod"), path.join("go.sum")].into_iter().filter(|file| file.exists()));
        }
    }
    for part in parts {
        for entry in fs::read_dir(root.join(part)).with_context(|| format!("failed to list {part}"))? {
            files.push(entry.with_context(|| format!("failed to list {part}"))?.path());
        }
    }
    files.sort();
    files.dedup();
    let start = Fingerprint::default().with("arch", std::env::consts::ARCH);
    files.iter().try_fold(start, |fingerprint, file| fingerprint.with_file(&root, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_where_it_is_pinned() {
        let text = "module a\n\nrequire (\n\tk8s.io/kubernetes-other v1.0.0\n\tk8s.io/kubernetes v1.35.4 // why\n)\n";
        assert_eq!(version_in(text, "k8s.io/kubernetes").as_deref(), Some("v1.35.4"));
        assert_eq!(version_in(text, "k8s.io/absent"), None);
        assert!(version_of(KUBERNETES, "kubernetes").unwrap().starts_with("v1."));
    }

    #[test]
    fn parts_have_fingerprints_of_their_own() {
        assert_ne!(inputs(&["etcd"]).unwrap().short(), inputs(&["pause"]).unwrap().short());
    }
}
