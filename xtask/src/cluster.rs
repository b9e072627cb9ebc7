//! `cargo xtask cluster …`: the local cluster, for people.

mod fault;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use tidegate_cluster::cache::Cache;
use tidegate_cluster::command::describe;
use tidegate_cluster::engine::{self, Engine};
use tidegate_cluster::{Cluster, Extra, Progress, Snapshot};

#[derive(Subcommand)]
pub enum Command {
    /// Build what is missing and start the cluster; changes nothing on one that runs
    Up {
        /// How many nodes (three, unless there are some already)
        #[arg(long)]
        nodes: Option<u8>,
        /// What it shall have beside what every cluster has: metrics-server, multus. Added to one that runs
        #[arg(long, value_delimiter = ',')]
        with: Vec<Extra>,
    },
    /// End everything and put the machine back as it was; the cluster's data is gone
    Down,
    /// What runs
    Status,
    /// Make something go wrong: a node, its network, a pod, a disk. `cluster heal` undoes it
    #[command(subcommand)]
    Fault(fault::Fault),
    /// Undo faults: all of them, or those named. Safe to repeat
    Heal {
        /// As `cluster status` names them: power-off:node1, cut:node1:node2, …
        faults: Vec<String>,
    },
    /// Print the path of the administrator's kubeconfig
    Kubeconfig,
    /// Run a command on a node, in all its namespaces
    Exec {
        /// node1, node2, …
        node: String,
        /// The command, after `--`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Bring images to every node: archives that `docker save` wrote, or names that docker or podman knows
    Load {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Write down what the machine is like, or compare it with what was written down before
    Snapshot {
        /// The file to write, or to compare with
        file: PathBuf,
        /// Compare; any difference is printed and makes this fail
        #[arg(long)]
        compare: bool,
    },
    /// Run kubectl on the cluster
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

pub fn run(command: Command) -> Result<ExitCode> {
    let progress = Progress::new();
    match command {
        Command::Up { nodes, with } => up(nodes, &with, &progress)?,
        Command::Down => Cluster::down(&progress)?,
        Command::Status => return status(&Cluster::attach(&progress)?),
        Command::Fault(fault) => fault.run(&Cluster::attach(&progress)?, &progress)?,
        Command::Heal { faults } => fault::heal(&Cluster::attach(&progress)?, &faults)?,
        Command::Kubeconfig => println!("{}", Cluster::attach(&progress)?.kubeconfig().display()),
        Command::Load { images } => load(&images, &progress)?,
        Command::Snapshot { file, compare } => return snapshot(&file, compare),
        Command::Exec { node, command } => {
            return pass_on(Cluster::attach(&progress)?.on_node(&node)?.args(command));
        }
        Command::Kubectl { arguments } => {
            return pass_on(Cluster::attach(&progress)?.kubectl().args(arguments));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(nodes: Option<u8>, with: &[Extra], progress: &Progress) -> Result<()> {
    let cluster = Cluster::up(nodes, with, progress)?;
    let kubeconfig: PathBuf = cluster.kubeconfig();
    progress.say(format_args!("the cluster is up; to use it: export KUBECONFIG={}", kubeconfig.display()));
    Ok(())
}

fn status(cluster: &Cluster) -> Result<ExitCode> {
    for one in cluster.status()? {
        let state = one.pid.map_or_else(|| "off".to_owned(), |pid| format!("on (process {pid})"));
        println!("{:24} {state}", one.name);
    }
    for fault in cluster.faults()? {
        println!("fault: {fault}");
    }
    println!();
    pass_on(cluster.kubectl().args(["get", "nodes,pods", "-A", "-o", "wide"]))
}

fn load(names: &[String], progress: &Progress) -> Result<()> {
    let cluster = Cluster::attach(progress)?;
    let folder = Cache::open(progress)?.dir().join("saved");
    let mut images = Vec::new();
    for name in names {
        let archive = Path::new(name);
        let archive =
            if archive.is_file() { archive.to_owned() } else { Engine::find()?.save(name, &folder)? };
        images.extend(engine::images_in(&archive)?);
    }
    progress.step("bringing images to the nodes", || cluster.load(&images.iter().collect::<Vec<_>>()))?;
    for image in images {
        println!("{}", image.reference);
    }
    Ok(())
}

fn snapshot(file: &Path, compare: bool) -> Result<ExitCode> {
    let now = Snapshot::take()?;
    if !compare {
        std::fs::write(file, serde_json::to_string_pretty(&now)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let before: Snapshot =
        serde_json::from_str(&text).with_context(|| format!("{} is no snapshot", file.display()))?;
    let difference = before.difference(&now);
    for line in &difference {
        println!("{line}");
    }
    if difference.is_empty() {
        println!("no difference");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Runs a command on this terminal; its exit code becomes ours.
fn pass_on(command: &mut std::process::Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("failed to start {}", describe(command)))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
