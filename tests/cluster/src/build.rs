//! Everything that is built before the cluster starts, side by side. Does IO.

use std::path::PathBuf;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::extras::{self, Extra, Extras};
use crate::images::{self, Image, System};
use crate::{debian, go, kafka, rootfs};

/// Where everything that the cluster is made from lies.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The folder of Kubernetes' programs and etcd.
    pub kubernetes: PathBuf,
    /// The folder of what runs in the cluster's own pods.
    pub addons: PathBuf,
    /// The folder of containerd, runc and CNI plugins.
    pub node_programs: PathBuf,
    /// The images of the cluster's own pods.
    pub system: System,
    /// The image of Kafka.
    pub kafka: Image,
    /// What this cluster has beside what every one has.
    pub extras: Extras,
}

/// Builds that go on in the background.
#[derive(Debug)]
pub struct Builds {
    programs: JoinHandle<Result<(PathBuf, PathBuf, System, Extras)>>,
    others: JoinHandle<Result<(PathBuf, Image)>>,
}

/// Starts to build what the cache lacks; meanwhile the caller may compile Rust.
///
/// The Debian packages must be there, see [`debian::install`].
pub fn start(cache: &Cache, wanted: &[Extra]) -> Builds {
    // One after the other: each build uses all processors, and what one has compiled the next need not.
    // A cluster that is there keeps what it has; one whose record cannot be read is replaced by `up`.
    let there = Cluster::extras().unwrap_or_default();
    let (of_programs, wanted) = (cache.clone(), [wanted, &there].concat());
    let programs = std::thread::spawn(move || {
        let kubernetes = go::kubernetes(&of_programs)?;
        let addons = go::addons(&of_programs)?;
        let system = images::system(&of_programs)?;
        let extras = extras::build(&of_programs, &wanted)?;
        Ok((kubernetes, addons, system, extras))
    });
    // These mostly wait for the network and the disk.
    let of_others = cache.clone();
    let others = std::thread::spawn(move || {
        let node_programs = debian::node_programs(&of_others)?;
        let kafka = images::kafka(&of_others)?;
        // Not needed here, but the next step asks for it.
        rootfs::program(&of_others)?;
        Ok((node_programs, kafka))
    });
    Builds { programs, others }
}

impl Builds {
    /// Waits for all of it.
    ///
    /// # Errors
    /// When a build fails.
    pub fn wait(self) -> Result<Parts> {
        let panicked = |_| anyhow!("a build has panicked");
        let (node_programs, kafka) = self.others.join().map_err(panicked)??;
        let (kubernetes, addons, system, extras) = self.programs.join().map_err(panicked)??;
        Ok(Parts { kubernetes, addons, node_programs, system, kafka, extras })
    }
}

/// Kafka's jars and runtime, for tests that run it on loopback.
///
/// # Errors
/// When it cannot be built.
pub fn kafka_distribution(cache: &Cache) -> Result<kafka::Distribution> {
    kafka::distribution(cache)
}
