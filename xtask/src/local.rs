//! Tidegate on the local cluster, from what stands in the checkout.

use crate::process::{cargo, root, run};
use crate::target::{Images, Target};
use anyhow::{Context, Result};
use tidegate_cluster::build::{self, Parts};
use tidegate_cluster::cache::Cache;
use tidegate_cluster::images::{self, Image};
use tidegate_cluster::{Cluster, Extra, Progress, debian, preflight};

/// Programs that go into images.
const PROGRAMS: [&str; 3] = ["tidegate-operator", "tidegate-gateway", "tidegate-ledger"];

/// Builds in the background, of what the cluster consists of.
pub struct Builds {
    cache: Cache,
    builds: build::Builds,
}

/// Checks the machine, installs Debian packages and starts building what the cluster consists of.
pub fn start(progress: &Progress, extras: &[Extra]) -> Result<Builds> {
    preflight::check()?;
    let cache = Cache::open(progress)?;
    debian::install(&cache)?;
    let builds = build::start(&cache, extras);
    Ok(Builds { cache, builds })
}

impl Builds {
    /// Waits for them.
    pub fn wait(self) -> Result<Built> {
        Ok(Built { parts: self.builds.wait()?, cache: self.cache })
    }
}

/// What the cluster consists of.
pub struct Built {
    cache: Cache,
    parts: Parts,
}

/// The cluster with our images on its nodes.
pub struct Ready {
    pub target: Target,
    pub images: Images,
    pub ledger: Image,
}

/// Compiles what goes into images; may run beside [`Builds`].
pub fn compile(progress: &Progress) -> Result<()> {
    progress.step("compiling operator, gateway and ledger", || {
        let mut command = cargo();
        command.args(["build", "--release", "--quiet"]);
        for program in PROGRAMS {
            command.args(["--package", program]);
        }
        run(&mut command)
    })
}

impl Built {
    /// Starts the cluster, unless it runs, with nothing of ours on it.
    pub fn cluster(&self, nodes: Option<u8>, progress: &Progress) -> Result<Cluster> {
        Cluster::up_with(nodes, &self.parts, progress)
    }

    /// Starts the cluster, unless it runs, and loads our images.
    pub fn up(&self, nodes: Option<u8>, progress: &Progress) -> Result<Ready> {
        let cluster = Cluster::up_with(nodes, &self.parts, progress)?;
        let program = |name: &str| root().join("target/release").join(name);
        let (operator, gateway, ledger) = progress.step("making images", || {
            Ok((
                images::operator(&self.cache, &program("tidegate-operator"))?,
                images::gateway(&self.cache, &program("tidegate-gateway"))?,
                images::program(&self.cache, "tidegate/ledger", &program("tidegate-ledger"))?,
            ))
        })?;
        let kafka = &self.parts.kafka;
        progress.step("bringing images to the nodes", || {
            cluster.load(&[&operator, &gateway, &ledger, kafka]).context("failed to load images")
        })?;
        let images = Images {
            operator: operator.reference,
            gateway: gateway.reference,
            kafka: kafka.reference.clone(),
        };
        Ok(Ready { target: Target::Local(cluster), images, ledger })
    }
}
