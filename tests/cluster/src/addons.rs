//! What the cluster runs in pods: DNS, load-balancer addresses, volumes. Does IO through `kubectl`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{run, run_with_input};
use crate::images::{Image, System};
use crate::plan::LOAD_BALANCER_RANGE;
use crate::process::wait_until;

const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const LOCAL_PATH: &str = include_str!("../manifests/local-path.yaml");
const POOL: &str = include_str!("../manifests/metallb-pool.yaml");

/// How long everything may take to become ready.
const PATIENCE: &str = "--timeout=180s";

/// Applies everything and waits until it works. `kubectl` makes a command for this cluster, `programs` is the folder
/// that the cluster's own images were made from.
///
/// # Errors
/// When something does not become ready.
pub(crate) fn apply(kubectl: impl Fn() -> Command, images: &System, programs: &Path) -> Result<()> {
    let with_image = |text: &str, image: &Image| text.replace("${IMAGE}", &image.reference);
    let manifest = programs.join("metallb-native.yaml");
    let metallb = std::fs::read_to_string(&manifest)
        .with_context(|| format!("failed to read {}", manifest.display()))?;
    let all = [
        with_image(COREDNS, &images.coredns),
        with_image(LOCAL_PATH, &images.local_path),
        metallb_manifest(&metallb, &images.metallb_controller, &images.metallb_speaker)?,
    ];
    let apply = |text: &str| apply_text(kubectl(), text);
    apply(&all.join("\n---\n"))?;
    let rollout = |namespace: &str, what: &[&str]| -> Result<()> {
        for one in what {
            run(kubectl().args(["rollout", "status", PATIENCE, "-n", namespace, one]))?;
        }
        Ok(())
    };
    rollout("metallb-system", &["deployment/controller"])?;
    let pool = POOL.replace("${RANGE}", LOAD_BALANCER_RANGE);
    // MetalLB's webhook answers a little after its controller is ready.
    let mut last = Ok(String::new());
    wait_until(Duration::from_secs(60), || {
        last = apply(&pool);
        last.is_ok()
    });
    last.context("failed to hand MetalLB its addresses")?;
    rollout("metallb-system", &["daemonset/speaker"])?;
    rollout("kube-system", &["deployment/coredns"])?;
    rollout("local-path-storage", &["deployment/local-path"])
}

/// Applies objects; the API server's answer.
pub(crate) fn apply_text(mut kubectl: Command, text: &str) -> Result<String> {
    let options = ["--server-side", "--force-conflicts", "--field-manager=tidegate-cluster", "-f", "-"];
    run_with_input(kubectl.arg("apply").args(options), text.as_bytes())
}

/// Upstream's manifest with the images that were built here instead of those that a registry would have, and with
/// readiness asked for at once instead of after 10 s.
fn metallb_manifest(upstream: &str, controller: &Image, speaker: &Image) -> Result<String> {
    let mut replaced = 0;
    let mut in_readiness = false;
    let mut lines = Vec::new();
    for line in upstream.lines() {
        let (indent, text) = line.split_at(line.len() - line.trim_start().len());
        if text.ends_with(':') && !text.starts_with("httpGet") {
            in_readiness = text == "readinessProbe:";
        }
        let text = match text {
            name if name.starts_with("image: quay.io/metallb/controller:") => {
                replaced += 1;
                format!("image: {}", controller.reference)
            }
            name if name.starts_with("image: quay.io/metallb/speaker:") => {
                replaced += 1;
                format!("image: {}", speaker.reference)
            }
            "initialDelaySeconds: 10" if in_readiness => "initialDelaySeconds: 0".to_owned(),
            "periodSeconds: 10" if in_readiness => "periodSeconds: 1".to_owned(),
            other => other.to_owned(),
        };
        lines.push(format!("{indent}{text}"));
    }
    if replaced != 2 {
        bail!(
            "failed to find MetalLB's two images in its manifest, found {replaced}: has the manifest changed?"
        );
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image { reference: format!("tidegate.local/{name}:dev-1"), archive: "x".into() }
    }

    #[test]
    fn metallb_runs_the_images_that_were_built_here_and_is_asked_at_once() {
        let upstream = "livenessProbe:\n  periodSeconds: 10\nimage: quay.io/metallb/controller:v1\n\
                        readinessProbe:\n  httpGet:\n    path: /x\n  periodSeconds: 10\nimage: quay.io/metallb/speaker:v1\n";
        let text = metallb_manifest(upstream, &image("c"), &image("s")).unwrap();
        let expected = "livenessProbe:\n  periodSeconds: 10\nimage: tidegate.local/c:dev-1\n\
                        readinessProbe:\n  httpGet:\n    path: /x\n  periodSeconds: 1\nimage: tidegate.local/s:dev-1";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_manifest_without_the_images_is_noticed() {
        assert!(metallb_manifest("kind: List", &image("c"), &image("s")).is_err());
    }
}
