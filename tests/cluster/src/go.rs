//! Builds the cluster's programs from the Go module proxy. Does IO.
//!
//! All modules share one workspace (`go/go.work`) and so one version of everything they have in common: the
//! compiler's own cache then serves `MetalLB` what Kubernetes has compiled already.

use std::ffi::OsStr;
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
const METRICS_SERVER: &str = "sigs.k8s.io/metrics-server";
const MULTUS: &str = "gopkg.in/k8snetworkplumbingwg/multus-cni.v4";
const WHEREABOUTS: &str = "github.com/k8snetworkplumbingwg/whereabouts";

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go")
}

/// What not every cluster has, apart so that it changes nothing of what every cluster has.
fn optional_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go-optional")
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

/// The folder with `metrics-server`. It does not compile with the libraries of a current Kubernetes, so it is built with
/// its own.
///
/// # Errors
/// When the build fails.
pub fn metrics_server(cache: &Cache) -> Result<PathBuf> {
    let root = optional_sources();
    let inputs = of_files(&root, &["metrics-server/go.mod", "metrics-server/go.sum"])?;
    cache.part("metrics-server", inputs, |workshop| {
        let mut go = go_in(&root.join("metrics-server"), "off".as_ref());
        build_with(&mut go, workshop, "metrics-server", &format!("{METRICS_SERVER}/cmd/metrics-server"))
    })
}

/// The folder with the network plugins `multus` and `whereabouts`, whereabouts' `ip-control-loop`, and what the API server
/// needs to know of them: `definitions.yaml`.
///
/// # Errors
/// When the build fails.
pub fn multus(cache: &Cache) -> Result<PathBuf> {
    let root = optional_sources();
    let files = [
        "go.work",
        "go.work.sum",
        "multus/go.mod",
        "multus/go.sum",
        "whereabouts/go.mod",
        "whereabouts/go.sum",
    ];
    // Its workspace has everybody's modules in it.
    let inputs = of_files(&root, &files)?.with("all", inputs(&[])?.short());
    cache.part("multus", inputs, |workshop| {
        let go = || go_in(&root, root.join("go.work").as_os_str());
        build_with(&mut go(), workshop, "multus", &format!("{MULTUS}/cmd/multus"))?;
        build_with(&mut go(), workshop, "whereabouts", &format!("{WHEREABOUTS}/cmd"))?;
        build_with(&mut go(), workshop, "ip-control-loop", &format!("{WHEREABOUTS}/cmd/controlloop"))?;
        let module = |name: &str| -> Result<PathBuf> {
            Ok(run(go().args(["list", "-m", "-f", "{{.Dir}}", name]))?.trim().into())
        };
        let read = |path: PathBuf| {
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
        };
        let of_multus = read(module(MULTUS)?.join("deployments/multus-daemonset.yml"))?;
        let definition =
            of_multus.split("\n---\n").find(|part| part.contains("kind: CustomResourceDefinition"));
        let mut definitions = definition.context("failed to find the definition of Multus")?.to_owned();
        for name in ["ippools", "overlappingrangeipreservations"] {
            let file = format!("doc/crds/whereabouts.cni.cncf.io_{name}.yaml");
            definitions.push_str("\n---\n");
            definitions.push_str(read(module(WHEREABOUTS)?.join(file))?.trim_start_matches("---"));
        }
        files::write(&workshop.out().join("definitions.yaml"), definitions, 0o644)
    })
}

fn build(workshop: &Workshop, stamp: &str, packages: &[&str]) -> Result<()> {
    let mut out = workshop.out().as_os_str().to_owned();
    // With a slash at its end it is a folder to Go.
    out.push("/");
    workshop.run(options(&mut go(), stamp).arg("-o").arg(out).args(packages))
}

/// Builds one program under a name of our choice.
fn build_with(go: &mut Command, workshop: &Workshop, name: &str, package: &str) -> Result<()> {
    workshop.run(options(go, "").arg("-o").arg(workshop.out().join(name)).arg(package))
}

fn options<'a>(go: &'a mut Command, stamp: &str) -> &'a mut Command {
    go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags"])
        .arg(format!("-s -w {stamp}"))
}

fn go() -> Command {
    go_in(&sources(), sources().join("go.work").as_os_str())
}

fn go_in(folder: &Path, work: &OsStr) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", work);
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
    of_files(&root, &files)
}

fn of_files(root: &Path, files: &[impl AsRef<Path>]) -> Result<Fingerprint> {
    let start = Fingerprint::default().with("arch", std::env::consts::ARCH);
    files.iter().try_fold(start, |fingerprint, file| fingerprint.with_file(root, &root.join(file)))
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
