//! `cargo xtask test`: every layer, cheapest first, with a summary of counts and seconds.

mod fuzz;
mod lifecycle;
mod lint;
pub mod rust;
pub mod stories;
pub mod summary;

use crate::local;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use summary::{Outcome, Summary};
use tidegate_cluster::{Extra, Progress};

/// Runs the tests: all layers, or those named.
#[derive(Args)]
pub struct Test {
    /// Only this layer (may be given more than once).
    #[arg(long, value_enum)]
    layer: Vec<Layer>,
    /// Only this story of the cluster layer, by a part of its name.
    #[arg(long)]
    story: Option<String>,
}

/// What a test needs decides its layer.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Formatting, clippy, licences, generated files.
    Lint,
    /// Pure code and mocked API servers.
    Unit,
    /// Code against the real kube-apiserver and the real Kafka.
    Parts,
    /// A minute and a million inputs for everything that reads from a network.
    Fuzz,
    /// Stories on the local cluster, with real clients.
    Cluster,
}

impl Layer {
    const ALL: [Self; 5] = [Self::Lint, Self::Unit, Self::Parts, Self::Fuzz, Self::Cluster];

    const fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Parts => "parts",
            Self::Fuzz => "fuzz",
            Self::Cluster => "cluster",
        }
    }
}

/// What the cluster consists of is built while cheaper layers run.
struct Parts {
    builds: Option<local::Builds>,
    built: Option<local::Built>,
}

impl Parts {
    fn built(&mut self) -> Result<&local::Built> {
        if let Some(builds) = self.builds.take() {
            self.built = Some(builds.wait()?);
        }
        self.built.as_ref().context("the cluster's parts could not be built")
    }
}

impl Test {
    pub fn run(&self) -> Result<()> {
        let layers: Vec<Layer> = match (&self.story, self.layer.as_slice()) {
            (Some(_), [] | [Layer::Cluster]) => vec![Layer::Cluster],
            (Some(_), _) => bail!("--story goes with the cluster layer only: leave --layer out"),
            (None, []) => Layer::ALL.to_vec(),
            (None, some) => Layer::ALL.into_iter().filter(|layer| some.contains(layer)).collect(),
        };
        let real = layers.iter().any(|layer| matches!(layer, Layer::Parts | Layer::Cluster));
        let builds = real.then(|| local::start(&Progress::new(), &Extra::ALL)).transpose()?;
        let mut parts = Parts { builds, built: None };
        let mut summary = Summary::default();
        for layer in layers {
            println!("\n=== {} ===", layer.name());
            summary.layer(layer.name(), || match layer {
                Layer::Lint => lint::run(),
                Layer::Unit => rust::unit(),
                Layer::Parts => parts.built().and_then(|_| rust::parts()),
                Layer::Fuzz => fuzz::run(),
                Layer::Cluster => {
                    let built = parts.built()?;
                    let mut outcome = stories::run(built, self.story.as_deref(), &[])?;
                    if self.story.is_none() {
                        outcome.add(lifecycle::run(built)?);
                    }
                    Ok(outcome)
                }
            });
        }
        summary.finish()
    }
}
