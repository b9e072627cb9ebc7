//! The Java that runs Kafka, and Kafka's jars. IO: looks at files.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use tidegate_cluster::cache::Cache;
use tidegate_cluster::progress::Progress;

/// Names a folder with Kafka's jars; without it they come from the local cluster's cache.
const LIBS: &str = "TIDEGATE_KAFKA_LIBS";

/// What runs a broker.
pub(crate) struct Java {
    program: PathBuf,
    libs: PathBuf,
}

impl Java {
    /// Finds it, or says how to get it.
    pub(crate) fn find() -> Result<Self> {
        if let Some(libs) = std::env::var_os(LIBS).map(PathBuf::from) {
            ensure!(libs.is_dir(), "{LIBS} names {}, which is no folder with Kafka's jars", libs.display());
            return Ok(Self { program: "java".into(), libs });
        }
        let distribution = Cache::open(&Progress::new())
            .and_then(|cache| tidegate_cluster::kafka::distribution(&cache))
            .with_context(|| {
                format!(
                    "Kafka's jars are missing: run `cargo xtask cluster up`, or `mvn dependency:copy-dependencies \
                     -f tests/cluster/kafka/pom.xml -DoutputDirectory=DIR` and set {LIBS}=DIR"
                )
            })?;
        Ok(Self { program: distribution.java(), libs: distribution.libs() })
    }

    /// Completes `wrapper` to a command that runs this class.
    pub(crate) fn command(&self, wrapper: &mut Command, main: &str) {
        wrapper
            .arg(&self.program)
            .args(["-Xmx320m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
            .arg(format!("{}/*", self.libs.display()))
            .arg(main);
    }
}
