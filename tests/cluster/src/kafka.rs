//! Kafka's unmodified jars from Maven Central and a Java runtime cut to what they use. Does IO.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command::run;
use crate::files::{self, Fingerprint};

/// What Kafka's server, its tools and a diagnosing person need of Java: one module a line.
const MODULES: &str = include_str!("../kafka/modules");

/// Kafka as it lies in the cache and in the image.
#[derive(Clone, Debug)]
pub struct Distribution {
    dir: PathBuf,
}

impl Distribution {
    /// The folder of jars: `java -cp "<libs>/*" kafka.Kafka server.properties`.
    pub fn libs(&self) -> PathBuf {
        self.dir.join("libs")
    }

    /// The runtime's folder, with `bin/java`.
    pub fn runtime(&self) -> PathBuf {
        self.dir.join("java")
    }

    /// The `java` program.
    pub fn java(&self) -> PathBuf {
        self.runtime().join("bin/java")
    }
}

fn pom() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/pom.xml")
}

/// Kafka and a runtime for it. Under a minute when built for the first time.
///
/// # Errors
/// When Maven or `jlink` fails.
pub fn distribution(cache: &Cache) -> Result<Distribution> {
    let pom = pom();
    let inputs = Fingerprint::default()
        .with("arch", std::env::consts::ARCH)
        .with("modules", MODULES)
        .with("layout", "2")
        .with_file(pom.parent().unwrap_or(Path::new("/")), &pom)?;
    let dir = cache.part("kafka", inputs, |workshop| {
        workshop.run(
            Command::new("mvn")
                .args(["--batch-mode", "--no-transfer-progress", "dependency:copy-dependencies", "-f"])
                .arg(&pom)
                .arg(format!("-DoutputDirectory={}", workshop.out().join("libs").display())),
        )?;
        let java = workshop.out().join("java");
        workshop.run(
            Command::new("jlink")
                .args(["--add-modules", &MODULES.lines().collect::<Vec<_>>().join(",")])
                .args(["--strip-java-debug-attributes", "--no-header-files", "--no-man-pages", "--output"])
                .arg(&java),
        )?;
        // The archive of shared classes halves the time a JVM takes to start.
        workshop.run(Command::new(java.join("bin/java")).arg("-Xshare:dump"))
    })?;
    Ok(Distribution { dir })
}

/// The version of Kafka that the jars have, such as `4.4.0`.
///
/// # Errors
/// When the `pom.xml` does not name one.
pub fn version() -> Result<String> {
    let text = files::read_if_there(&pom())?.unwrap_or_default();
    let after = text.split("<kafka.version>").nth(1).and_then(|rest| rest.split('<').next());
    Ok(after.context("failed to find kafka.version in the pom.xml")?.to_owned())
}

/// The major version of the JDK whose `jlink` is on the path.
///
/// # Errors
/// When there is none.
pub fn jdk_version() -> Result<u32> {
    let said = run(Command::new("jlink").arg("--version"))?;
    said.trim()
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .context("failed to read the version of jlink")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_of_kafka_is_pinned() {
        assert!(super::version().unwrap().starts_with("4."));
    }
}
