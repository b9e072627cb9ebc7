//! The cluster that a command works on: the local one, or one that the person has.

use crate::process::{output, root, run, succeeds};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::Path;
use std::process::Command;
use tidegate_cluster::Cluster;

/// The person's own cluster instead of the local one.
#[derive(Args, Clone)]
pub struct Own {
    /// A context of your kubeconfig: that cluster is used instead of the local one (kind, k3d, a cloud)
    #[arg(long, requires = "registry")]
    pub context: Option<String>,
    /// Where images are pushed to, and the cluster pulls them from: `registry.example/team`
    #[arg(long, requires = "context")]
    pub registry: Option<String>,
    /// Images with this tag are in the registry already: build and push none
    #[arg(long, requires = "registry")]
    pub tag: Option<String>,
}

/// A cluster that takes images and objects.
pub enum Target {
    Local(Cluster),
    Own { context: String },
}

/// The images of one version of Tidegate, as pods name them.
pub struct Images {
    pub operator: String,
    pub gateway: String,
    pub kafka: String,
}

impl Target {
    /// kubectl on this cluster, ready for its arguments.
    pub fn kubectl(&self) -> Command {
        match self {
            Self::Local(cluster) => cluster.kubectl(),
            Self::Own { context } => {
                let mut command = Command::new("kubectl");
                command.arg("--context").arg(context);
                command
            }
        }
    }

    /// Applies the operator's manifests with these images and waits until it serves.
    pub fn install(&self, images: &Images) -> Result<()> {
        // kustomize wants bases by relative paths, so the overlay lies inside the checkout
        let folder = root().join("target/install");
        std::fs::create_dir_all(&folder)?;
        // On the person's own cluster the person decides what may be made on nodes.
        let networks = matches!(self, Self::Local(_)).then_some("macvlan:eth1,hostDevice:bus*");
        std::fs::write(folder.join("kustomization.yaml"), overlay(images, networks))?;
        apply(self.kubectl(), &folder).context("failed to install the operator")?;
        run(self.kubectl().args([
            "--namespace=tidegate-system",
            "rollout",
            "status",
            "deployment/tidegate-operator",
            "--timeout=180s",
        ]))
        .context("the operator did not become ready")
    }
}

/// Applies a folder with a kustomization, quietly.
pub fn apply(mut kubectl: Command, folder: &Path) -> Result<()> {
    output(kubectl.args(["apply", "--server-side", "--force-conflicts", "--kustomize"]).arg(folder)).map(drop)
}

/// The base with images of its own, and networks that platforms may have made.
fn overlay(images: &Images, networks: Option<&str>) -> String {
    let networks = networks.map_or_else(String::new, |networks| {
        format!("\n            - {{name: TIDEGATE_NETWORK_ALLOW_LIST, value: \"{networks}\"}}")
    });
    format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../manifests/base]
patches:
- target: {{kind: Deployment, name: tidegate-operator}}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {{name: tidegate-operator}}
    spec:
      template:
        spec:
          containers:
          - name: operator
            image: {operator}
            env:
            - {{name: TIDEGATE_GATEWAY_IMAGE, value: \"{gateway}\"}}
            - {{name: TIDEGATE_KAFKA_IMAGE, value: \"{kafka}\"}}{networks}
",
        operator = images.operator,
        gateway = images.gateway,
        kafka = images.kafka,
    )
}

impl Own {
    /// The images in the registry: built by their Dockerfiles and pushed, unless a tag says that they are there.
    pub fn push(&self, registry: &str) -> Result<Images> {
        let tag = self.tag.clone().map_or_else(|| build_and_push(registry), Ok)?;
        let name = |part: &str| format!("{registry}/tidegate-{part}:{tag}");
        Ok(Images { operator: name("operator"), gateway: name("gateway"), kafka: name("kafka") })
    }
}

/// Builds and pushes all images; returns their tag.
fn build_and_push(registry: &str) -> Result<String> {
    let engine = engine()?;
    let commit = output(Command::new("git").current_dir(root()).args(["rev-parse", "--short=12", "HEAD"]))?;
    let tag = format!("dev-{}", commit.trim());
    for part in ["operator", "gateway", "kafka"] {
        let name = format!("{registry}/tidegate-{part}:{tag}");
        let file = format!("manifests/images/{part}.Dockerfile");
        run(Command::new(engine).current_dir(root()).args(["build", "--tag", &name, "--file", &file, "."]))?;
        run(Command::new(engine).args(["push", &name]))?;
    }
    Ok(tag)
}

/// A container engine that answers.
fn engine() -> Result<&'static str> {
    for engine in ["docker", "podman"] {
        let mut command = Command::new(engine);
        command.arg("info").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        if succeeds(&mut command).unwrap_or(false) {
            return Ok(engine);
        }
    }
    bail!(
        "neither docker nor podman answers: start one of them, or push the images from a machine that has one and name \
         their tag with --tag"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_names_all_images() {
        let text = overlay(
            &Images { operator: "r/o:1".into(), gateway: "r/g:1".into(), kafka: "r/k:1".into() },
            Some("macvlan:eth1"),
        );
        for part in ["value: \"macvlan:eth1\"", "image: r/o:1", "value: \"r/g:1\"", "value: \"r/k:1\""] {
            assert!(text.contains(part), "{text}");
        }
    }
}
