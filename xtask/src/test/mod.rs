//! `cargo xtask test`: every layer, cheapest first, with a summary of counts and seconds.

mod fuzz;
mod lint;
mod rust;
mod stories;
mod summary;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use summary::{Outcome, Summary};

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

impl Test {
    pub fn run(&self) -> Result<()> {
        let layers: Vec<Layer> = match (&self.story, self.layer.as_slice()) {
            (Some(_), []) => vec![Layer::Cluster],
            (Some(_), [Layer::Cluster]) => vec![Layer::Cluster],
            (Some(_), _) => bail!("--story goes with the cluster layer only: leave --layer out"),
            (None, []) => Layer::ALL.to_vec(),
            (None, some) => Layer::ALL.into_iter().filter(|layer| some.contains(layer)).collect(),
        };
        let background = crate::prepare::start(layers.iter().any(|l| matches!(l, Layer::Parts | Layer::Cluster)))?;
        let mut background = Some(background);
        let mut summary = Summary::default();
        for layer in layers {
            println!("\n=== {} ===", layer.name());
            if matches!(layer, Layer::Parts | Layer::Cluster)
                && let Some(background) = background.take()
            {
                background.wait()?;
            }
            summary.layer(layer.name(), || match layer {
                Layer::Lint => lint::run(),
                Layer::Unit => rust::unit(),
                Layer::Parts => rust::parts(),
                Layer::Fuzz => fuzz::run(),
                Layer::Cluster => stories::run(self.story.as_deref()),
            });
        }
        summary.finish()
    }
}
