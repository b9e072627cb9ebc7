//! What a cluster may have beside what every cluster has: built and started only where it is asked for. Does IO.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::command::run;
use crate::files;
use crate::images::{self, Image};
use crate::node::network_config;
use crate::pki::Pki;
use crate::plan::{API_SERVER, NodePlan};
use crate::{addons, debian, go};

const METRICS_SERVER: &str = include_str!("../manifests/metrics-server.yaml");
const MULTUS: &str = include_str!("../manifests/multus.yaml");

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extra {
    /// `kubectl top` and autoscaling by load: metrics-server.
    MetricsServer,
    /// Second networks for pods: Multus, whereabouts and a DHCP client on each node.
    Multus,
}

impl Extra {
    /// All that there are.
    pub const ALL: [Self; 2] = [Self::MetricsServer, Self::Multus];
}

impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MetricsServer => "metrics-server",
            Self::Multus => "multus",
        })
    }
}

impl FromStr for Extra {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|extra| extra.to_string() == name).with_context(|| {
            let all = Self::ALL.map(|extra| extra.to_string()).join(", ");
            format!("no extra is called {name:?}: there are {all}")
        })
    }
}

/// What the wanted extras are made from.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    metrics_server: Option<Image>,
    multus: Option<Multus>,
}

/// Second networks.
#[derive(Clone, Debug)]
struct Multus {
    /// The folder of plugins and definitions.
    programs: PathBuf,
    /// Frees addresses of pods that are gone.
    reconciler: Image,
}

/// Builds what is wanted.
///
/// # Errors
/// When a build fails.
pub(crate) fn build(cache: &Cache, wanted: &[Extra]) -> Result<Extras> {
    let mut extras = Extras::default();
    if wanted.contains(&Extra::Multus) {
        debian::install_for_field(cache)?;
        let programs = go::multus(cache)?;
        let reconciler =
            images::single(cache, &programs, "whereabouts", "ip-control-loop", "/ip-control-loop")?;
        extras.multus = Some(Multus { programs, reconciler });
    }
    if wanted.contains(&Extra::MetricsServer) {
        let programs = go::metrics_server(cache)?;
        extras.metrics_server =
            Some(images::single(cache, &programs, "metrics-server", "metrics-server", "/metrics-server")?);
    }
    Ok(extras)
}

impl Extras {
    /// Which they are, and what tells one build from another.
    pub(crate) fn builds(&self) -> BTreeMap<Extra, PathBuf> {
        let metrics = self.metrics_server.as_ref().map(|image| (Extra::MetricsServer, image.archive.clone()));
        let multus = self.multus.as_ref().map(|multus| (Extra::Multus, multus.programs.clone()));
        metrics.into_iter().chain(multus).collect()
    }

    /// Their images.
    pub(crate) fn images(&self) -> Vec<&Image> {
        self.metrics_server.iter().chain(self.multus.as_ref().map(|multus| &multus.reconciler)).collect()
    }

    /// Tells the API server about them. Nothing waits until they work.
    pub(crate) fn apply(&self, kubectl: &dyn Fn() -> Command, pki: &Pki) -> Result<()> {
        if let Some(image) = &self.metrics_server {
            let name = "metrics-server";
            let host = "metrics-server.kube-system.svc";
            pki.issue(name, "ca", &format!("/CN={host}"), &format!("DNS:{host}"))?;
            let text = [
                ("${IMAGE}", image.reference.clone()),
                ("${CA}", pki.encoded("ca.crt")?),
                ("${CERTIFICATE}", pki.encoded("metrics-server.crt")?),
                ("${KEY}", pki.encoded("metrics-server.key")?),
            ]
            .into_iter()
            .fold(METRICS_SERVER.to_owned(), |text, (name, value)| text.replace(name, &value));
            addons::apply_text(kubectl(), &text)?;
        }
        if let Some(multus) = &self.multus {
            let definitions = multus.programs.join("definitions.yaml");
            let definitions =
                files::read_if_there(&definitions)?.context("failed to find Multus' definitions")?;
            addons::apply_text(kubectl(), &definitions)?;
            addons::apply_text(kubectl(), &MULTUS.replace("${IMAGE}", &multus.reconciler.reference))?;
        }
        Ok(())
    }

    /// Brings a node what it needs for second networks; `node-init.sh` takes it from there when the node starts, and
    /// [`wake`] lets it take it before.
    pub(crate) fn equip(&self, node: NodePlan, state: &Path, pki: &Pki) -> Result<()> {
        let Some(multus) = &self.multus else { return Ok(()) };
        let folder = state.join(node.name()).join("multus");
        files::make_dir(&folder)?;
        for name in ["multus", "whereabouts"] {
            files::share(&multus.programs.join(name), &folder.join(name))
                .with_context(|| format!("failed to bring {name} to {}", node.name()))?;
        }
        let kubeconfig =
            pki.kubeconfig(&format!("multus-{}", node.name()), "/CN=tidegate-multus", API_SERVER)?;
        let kubeconfig = files::read_if_there(&kubeconfig)?.unwrap_or_default();
        files::write(&folder.join("kubeconfig"), kubeconfig, 0o600)?;
        files::write(&folder.join("whereabouts.conf"), whereabouts_config(), 0o600)?;
        files::write(&folder.join("00-multus.conf"), multus_config(&network_config(node))?, 0o600)
    }
}

/// Wakes a running node that waits for being equipped; one that is equipped already does not.
pub(crate) fn wake(mut on_node: Command) -> Result<()> {
    let script = "[ ! -p /run/node/equip ] || timeout 5 bash -c 'echo > /run/node/equip'\n\
                  until [ -e /etc/cni/net.d/00-multus.conf ]; do sleep 0.05; done";
    run(on_node.args(["timeout", "20", "bash", "-c", script])).map(drop)
}

/// Multus first, which calls what was first before.
fn multus_config(delegate: &str) -> Result<String> {
    let delegate: serde_json::Value =
        serde_json::from_str(delegate).context("failed to read a node's network")?;
    let config = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "multus",
        "type": "multus",
        "capabilities": {"portMappings": true},
        "kubeconfig": "/run/node/multus/kubeconfig",
        "logFile": "/run/node/log/multus.log",
        "logLevel": "error",
        "delegates": [delegate],
    });
    Ok(config.to_string())
}

fn whereabouts_config() -> String {
    serde_json::json!({
        "datastore": "kubernetes",
        "kubernetes": {"kubeconfig": "/run/node/multus/kubeconfig"},
        "log_file": "/run/node/log/whereabouts.log",
        "log_level": "error",
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_is_found_by_its_name_and_an_unknown_one_is_answered_with_all() {
        for extra in Extra::ALL {
            assert_eq!(extra.to_string().parse::<Extra>().unwrap(), extra);
        }
        let error = "top".parse::<Extra>().unwrap_err().to_string();
        assert!(error.contains("metrics-server, multus"), "{error}");
    }

    #[test]
    fn multus_calls_the_network_that_was_there() {
        let text = multus_config(r#"{"name": "tidegate", "plugins": [{"type": "bridge"}]}"#).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["delegates"][0]["plugins"][0]["type"], "bridge");
    }

    #[test]
    fn nothing_is_left_to_fill_in_but_what_is_filled_in() {
        let unknown = |text: &str, known: &[&str]| {
            known.iter().fold(text.to_owned(), |text, name| text.replace(name, "")).contains("${")
        };
        assert!(!unknown(METRICS_SERVER, &["${IMAGE}", "${CA}", "${CERTIFICATE}", "${KEY}"]));
        assert!(!unknown(MULTUS, &["${IMAGE}"]));
    }
}
