//! `cargo xtask cluster fault …` and `heal`: what goes wrong, on purpose.

use anyhow::Result;
use clap::Subcommand;
use tidegate_cluster::{Cluster, Progress, faults};

#[derive(Subcommand)]
pub enum Fault {
    /// Pull the plug of a node: its link goes down and all its processes die at once; its disk stays
    PowerOff {
        /// node1, node2, …
        node: String,
    },
    /// Unplug a node's cable; everything on it goes on running
    LinkDown {
        /// node1, node2, …
        node: String,
    },
    /// Unplug a node's cable to the field network
    FieldDown {
        /// node1, node2, …
        node: String,
    },
    /// Let no frame pass between two nodes, in either direction; each still reaches all others
    Cut {
        /// node1, node2, …
        node: String,
        /// Another node, or `host`: the control plane and the outside world
        other: String,
    },
    /// Lose a share of the frames that a node sends and is sent
    Loss {
        /// node1, node2, …
        node: String,
        /// 1 to 100; another share takes the place of one that is there
        percent: u8,
    },
    /// Stop all processes of a pod where they are (SIGSTOP)
    Freeze {
        /// The pod, such as plant-kafka-0
        pod: String,
        /// Its namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Stop the API server where it is (SIGSTOP); what runs on nodes goes on without it
    FreezeApiServer,
    /// Fill the disk of a node's volumes. The first time, the volumes move to a disk of their own (a file, not the
    /// machine's disk), for which pods that use them are killed once
    FullDisk {
        /// node1, node2, …
        node: String,
    },
    /// Kill all processes of a pod at once; its containers start again by themselves
    Kill {
        /// The pod, such as plant-kafka-0
        pod: String,
        /// Its namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
    /// Empty the volume of a claim, as if its disk were replaced by a new one. Nothing brings the data back
    DiscardVolume {
        /// The claim, such as data-plant-kafka-0
        claim: String,
        /// Its namespace
        #[arg(short, long, default_value = "default")]
        namespace: String,
    },
}

impl Fault {
    pub fn run(self, cluster: &Cluster, progress: &Progress) -> Result<()> {
        let fault = match self {
            Self::PowerOff { node } => faults::Fault::PowerOff { node },
            Self::LinkDown { node } => faults::Fault::LinkDown { node },
            Self::FieldDown { node } => faults::Fault::FieldDown { node },
            Self::Cut { node, other } => faults::Fault::Cut { node, other },
            Self::Loss { node, percent } => faults::Fault::Loss { node, percent },
            Self::Freeze { pod, namespace } => faults::Fault::Freeze { namespace, pod },
            Self::FreezeApiServer => faults::Fault::FreezeApiServer,
            Self::FullDisk { node } => faults::Fault::FullDisk { node },
            Self::Kill { pod, namespace } => return cluster.kill(&namespace, &pod),
            Self::DiscardVolume { claim, namespace } => return cluster.discard_volume(&namespace, &claim),
        };
        let name = cluster.inject(fault)?;
        progress.say(format_args!("to undo it: cargo xtask cluster heal {name}"));
        Ok(())
    }
}

pub fn heal(cluster: &Cluster, names: &[String]) -> Result<()> {
    let healed = cluster.heal(names)?;
    for name in &healed {
        println!("healed {name}");
    }
    if healed.is_empty() {
        println!("nothing to heal");
    }
    Ok(())
}
