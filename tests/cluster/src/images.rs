//! The images that Tidegate and the local cluster consist of. Does IO.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::{self, Config, Layer};
use crate::cache::Cache;
use crate::command::succeeds;
use crate::files::{Fingerprint, sha256};
use crate::kafka::Distribution;
use crate::{go, kafka, rootfs};

/// Raised when the same inputs make other images than before.
const RECIPE: &str = "1";

/// An image, built and kept in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What a pod's `image` names: `tidegate/operator:dev-0123456789ab`, the tag from the content.
    pub reference: String,
    /// The docker-archive.
    pub archive: PathBuf,
}

impl Image {
    /// The part before the tag: `tidegate/operator`.
    pub fn repository(&self) -> &str {
        self.reference.rsplit_once(':').map_or(&self.reference, |(repository, _)| repository)
    }
}

/// `tidegate/operator` from a built `tidegate-operator`.
///
/// # Errors
/// When the root file system cannot be made or the binary not be read.
pub fn operator(cache: &Cache, binary: &Path) -> Result<Image> {
    program(cache, "tidegate/operator", binary)
}

/// `tidegate/gateway` from a built `tidegate-gateway`.
///
/// # Errors
/// As [`operator`].
pub fn gateway(cache: &Cache, binary: &Path) -> Result<Image> {
    program(cache, "tidegate/gateway", binary)
}

/// An image with one Rust program at `/usr/local/bin/<its file name>`, which runs as user 65532.
///
/// # Errors
/// As [`operator`].
pub fn program(cache: &Cache, repository: &str, binary: &Path) -> Result<Image> {
    let root = rootfs::program(cache)?;
    let file = File::open(binary).with_context(|| format!("failed to open {}", binary.display()))?;
    let (hash, _) = sha256(file).with_context(|| format!("failed to read {}", binary.display()))?;
    let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let inputs = inputs(repository).with("root", fingerprint(&root)).with(&name, hash);
    build(cache, repository, inputs, |folder| {
        let stripped = folder.join(&name);
        // What a debugger reads is most of a development build; a backtrace keeps its names without it.
        if !succeeds(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(binary)) {
            fs::copy(binary, &stripped).with_context(|| format!("failed to copy {}", binary.display()))?;
        }
        let at = format!("/usr/local/bin/{name}");
        let layer = Layer::default()
            .with_tree(&root, "/")?
            .with_file(&stripped, &at, 0o755)
            .with_folder("/tmp", 0o1777);
        let config = Config { user: rootfs::NONROOT, entry_point: vec![at], ..Config::default() };
        Ok((layer, config))
    })
}

/// `tidegate/kafka`: a shell, `java` on the path, Kafka's unmodified jars in `/opt/kafka/libs`, no start script: the
/// operator brings that, so that the official image can take this one's place.
///
/// # Errors
/// When Kafka, its Java or the root file system cannot be made.
pub fn kafka(cache: &Cache) -> Result<Image> {
    let kafka: Distribution = kafka::distribution(cache)?;
    let root = rootfs::kafka(cache)?;
    let inputs =
        inputs("tidegate/kafka").with("root", fingerprint(&root)).with("kafka", fingerprint(&kafka.libs()));
    build(cache, "tidegate/kafka", inputs, |_| {
        let java = "/opt/java/openjdk";
        let layer = Layer::default()
            .with_tree(&root, "/")?
            .with_tree(&kafka.runtime(), java)?
            .with_tree(&kafka.libs(), "/opt/kafka/libs")?
            .with_folder("/tmp", 0o1777);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = Config {
            user: rootfs::KAFKA_USER,
            entry_point: vec![],
            env: vec![
                format!("JAVA_HOME={java}"),
                "LANG=C.UTF-8".to_owned(),
                format!("PATH={java}/bin:{path}"),
            ],
            working_dir: "/opt/kafka".to_owned(),
        };
        Ok((layer, config))
    })
}

/// What the cluster itself runs in pods.
#[derive(Clone, Debug)]
pub struct System {
    /// Holds a pod's namespaces.
    pub pause: Image,
    /// DNS.
    pub coredns: Image,
    /// `MetalLB`'s controller.
    pub metallb_controller: Image,
    /// `MetalLB`'s speaker.
    pub metallb_speaker: Image,
    /// The volume provisioner and its helper.
    pub local_path: Image,
}

impl System {
    /// All of them.
    pub fn all(&self) -> [&Image; 5] {
        [&self.pause, &self.coredns, &self.metallb_controller, &self.metallb_speaker, &self.local_path]
    }
}

/// The images of the cluster's own pods: static programs and nothing else.
///
/// # Errors
/// When the programs cannot be built.
pub fn system(cache: &Cache) -> Result<System> {
    let programs = go::addons(cache)?;
    let single =
        |name: &str, file: &str, entry_point: &str| single(cache, &programs, name, file, entry_point);
    Ok(System {
        pause: single("pause", "pause", "/pause")?,
        coredns: single("coredns", "coredns", "/coredns")?,
        metallb_controller: single("metallb-controller", "controller", "/controller")?,
        metallb_speaker: single("metallb-speaker", "speaker", "/speaker")?,
        local_path: single("local-path", "local-path-provisioner", "/local-path-provisioner")?,
    })
}

/// An image with one static program, `file` of the build in `programs`.
pub(crate) fn single(
    cache: &Cache,
    programs: &Path,
    name: &str,
    file: &str,
    entry_point: &str,
) -> Result<Image> {
    let repository = format!("tidegate.local/{name}");
    let inputs = inputs(&repository).with("programs", fingerprint(programs));
    build(cache, &repository, inputs, |_| {
        let mut layer =
            Layer::default().with_file(&programs.join(file), entry_point, 0o755).with_folder("/tmp", 0o1777);
        if name == "local-path" {
            layer = layer
                .with_file(&programs.join("local-path"), "/volume-create", 0o755)
                .with_link("volume-create", "/volume-delete");
        }
        Ok((layer, Config { entry_point: vec![entry_point.to_owned()], ..Config::default() }))
    })
}

/// What a cached build was made from is in the name of its folder; where the cache is must not matter.
fn fingerprint(path: &Path) -> String {
    let names = path.iter().rev().map(|name| name.to_string_lossy());
    let is_build = |name: &str| name.rsplit_once('-').is_some_and(|(_, hash)| hash.len() == 12);
    names.into_iter().find(|name| is_build(name)).unwrap_or_default().into_owned()
}

fn inputs(repository: &str) -> Fingerprint {
    Fingerprint::default()
        .with("recipe", RECIPE)
        .with("repository", repository)
        .with("arch", std::env::consts::ARCH)
}

fn build(
    cache: &Cache,
    repository: &str,
    inputs: Fingerprint,
    compose: impl FnOnce(&Path) -> Result<(Layer, Config)>,
) -> Result<Image> {
    let fingerprint = inputs.clone().short();
    let reference = format!("{repository}:dev-{fingerprint}");
    let part = format!("image-{}", repository.rsplit('/').next().unwrap_or_default());
    let folder = cache.part(&part, inputs, |workshop| {
        let aside = tempdir(workshop.out())?;
        let (layer, config) = compose(&aside)?;
        archive::write(&layer, &config, &reference, &workshop.out().join("image.tar"))?;
        crate::files::remove_dir(&aside)
    })?;
    Ok(Image { reference, archive: folder.join("image.tar") })
}

fn tempdir(within: &Path) -> Result<PathBuf> {
    let dir = within.join("aside");
    crate::files::make_dir(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_does_not_depend_on_where_the_cache_is() {
        let at = |cache: &str| fingerprint(&Path::new(cache).join("program-root-0123456789ab/root"));
        assert_eq!(at("/root/.cache/tidegate"), "program-root-0123456789ab");
        assert_eq!(at("/root/.cache/tidegate"), at("/mnt/cache"));
    }
}
