//! Writes an image as a docker-archive with one layer, the same bytes for the same content. Does IO.
//!
//! Format: the tar that `docker save` writes (`manifest.json`, image config, layer), which `ctr images import`,
//! `docker load` and `podman load` read. Layer and config as in the OCI image specification.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::files::sha256;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    File { content: PathBuf, mode: u32 },
    Link { target: PathBuf },
}

/// The files of an image, by their path in it; everything belongs to root.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Layer {
    /// Takes over everything below `root`, except devices and sockets.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_tree(mut self, root: &Path, at: &str) -> Result<Self> {
        let at = relative(at);
        self.folders_above(&at);
        self.add_tree(root, &at).with_context(|| format!("failed to read {}", root.display()))?;
        Ok(self)
    }

    fn add_tree(&mut self, from: &Path, at: &Path) -> io::Result<()> {
        let about = fs::symlink_metadata(from)?;
        let mode = about.permissions().mode() & 0o7777;
        let kind = about.file_type();
        if kind.is_symlink() {
            self.entries.insert(at.to_owned(), Entry::Link { target: fs::read_link(from)? });
        } else if kind.is_file() {
            self.entries.insert(at.to_owned(), Entry::File { content: from.to_owned(), mode });
        } else if kind.is_dir() {
            self.entries.insert(at.to_owned(), Entry::Folder { mode });
            for child in fs::read_dir(from)? {
                let child = child?;
                self.add_tree(&child.path(), &at.join(child.file_name()))?;
            }
        } else {
            debug_assert!(
                kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket()
            );
        }
        Ok(())
    }

    /// Adds one file.
    #[must_use]
    pub fn with_file(mut self, content: &Path, at: &str, mode: u32) -> Self {
        self.insert(at, Entry::File { content: content.to_owned(), mode })
    }

    /// Adds a symbolic link at `at` that points to `target`.
    #[must_use]
    pub fn with_link(mut self, target: &str, at: &str) -> Self {
        self.insert(at, Entry::Link { target: target.into() })
    }

    /// Adds an empty folder.
    #[must_use]
    pub fn with_folder(mut self, at: &str, mode: u32) -> Self {
        self.insert(at, Entry::Folder { mode })
    }

    fn insert(&mut self, at: &str, entry: Entry) -> Self {
        let at = relative(at);
        self.folders_above(&at);
        self.entries.insert(at, entry);
        std::mem::take(self)
    }

    fn folders_above(&mut self, at: &Path) {
        for above in at.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.entries.entry(above.to_owned()).or_insert(Entry::Folder { mode: 0o755 });
        }
    }

    fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = Builder::new(out);
        // A folder's name sorts before what is in it. The root itself is implied.
        for (path, entry) in self.entries.iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
            add(&mut tar, path, entry).with_context(|| format!("failed to pack {}", path.display()))?;
        }
        tar.into_inner().context("failed to end the layer")?.flush().context("failed to write the layer")
    }
}

fn relative(at: &str) -> PathBuf {
    PathBuf::from(at.trim_start_matches('/'))
}

fn add(tar: &mut Builder<impl Write>, path: &Path, entry: &Entry) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    // Not 0: some programs take a file from 1970 for one that is missing.
    header.set_mtime(1);
    header.set_size(0);
    match entry {
        Entry::Folder { mode } => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            tar.append_data(&mut header, path, io::empty())
        }
        Entry::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target)
        }
        Entry::File { content, mode } => {
            let file = File::open(content)?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, file)
        }
    }
}

/// What a container of the image runs as.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Number of the user and of the group.
    pub user: u32,
    /// The program with its first arguments.
    pub entry_point: Vec<String>,
    /// `NAME=value`; a `PATH` is added unless there is one.
    pub env: Vec<String>,
    /// Where the program starts; empty for `/`.
    pub working_dir: String,
}

impl Config {
    fn to_json(&self, diff_id: &str) -> serde_json::Value {
        let mut env = self.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        let epoch = "1970-01-01T00:00:00Z";
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": epoch,
            "config": {
                "User": format!("{0}:{0}", self.user),
                "Entrypoint": self.entry_point,
                "Env": env,
                "WorkingDir": self.working_dir,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
            "history": [{"created": epoch, "created_by": "tidegate"}],
        })
    }
}

/// The machine's architecture, as Go and the image specification call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes the archive of an image called `reference` to `out`.
///
/// # Errors
/// When a file of the layer cannot be read or `out` not be written.
pub fn write(layer: &Layer, config: &Config, reference: &str, out: &Path) -> Result<()> {
    let aside = out.with_extension("layer");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&aside)?;
    fs::remove_file(&aside)?;
    layer.write(BufWriter::with_capacity(1 << 20, &file))?;
    file.rewind()?;
    let (diff_id, size) = sha256(&file).context("failed to hash the layer")?;
    file.rewind()?;

    let config = config.to_json(&diff_id).to_string();
    let (config_id, _) = sha256(config.as_bytes()).context("failed to hash the config")?;
    let config_name = format!("{config_id}.json");
    let manifest =
        json!([{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).to_string();

    let archive = File::create(out).with_context(|| format!("failed to create {}", out.display()))?;
    let mut tar = Builder::new(BufWriter::with_capacity(1 << 20, archive));
    let mut put = |name: &str, size: u64, content: &mut dyn io::Read| -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_size(size);
        tar.append_data(&mut header, name, content)
    };
    put("manifest.json", manifest.len() as u64, &mut manifest.as_bytes())?;
    put(&config_name, config.len() as u64, &mut config.as_bytes())?;
    put("layer.tar", size, &mut file)?;
    tar.into_inner().and_then(|mut out| out.flush()).context("failed to write the archive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn sample(dir: &Path) -> Layer {
        let root = dir.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/name"), "value").unwrap();
        std::os::unix::fs::symlink("name", root.join("etc/alias")).unwrap();
        fs::write(dir.join("program"), "#!").unwrap();
        Layer::default()
            .with_tree(&root, "/")
            .unwrap()
            .with_file(&dir.join("program"), "/usr/local/bin/program", 0o755)
            .with_link("program", "/usr/local/bin/other")
            .with_folder("/tmp", 0o1777)
    }

    fn parts(archive: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(File::open(archive).unwrap());
        let read = |mut entry: tar::Entry<'_, File>| {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        };
        tar.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    #[test]
    fn an_archive_names_its_config_and_layer_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("image.tar");
        let config =
            Config { user: 7, entry_point: vec!["/usr/local/bin/program".into()], ..Config::default() };
        write(&sample(dir.path()), &config, "tidegate/x:dev", &out).unwrap();
        let parts = parts(&out);
        let manifest: serde_json::Value = serde_json::from_slice(&parts["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "tidegate/x:dev");
        let config: serde_json::Value =
            serde_json::from_slice(&parts[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        let layer = sha256(parts["layer.tar"].as_slice()).unwrap().0;
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{layer}"));
        assert_eq!(config["config"]["User"], "7:7");
    }

    #[test]
    fn a_layer_holds_every_file_once_below_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let mut layer = Vec::new();
        sample(dir.path()).write(&mut layer).unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let names: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        let expected = ["etc", "etc/alias", "etc/name", "tmp", "usr", "usr/local", "usr/local/bin"];
        assert_eq!(names[..7], expected);
        assert_eq!(names[7..], ["usr/local/bin/other", "usr/local/bin/program"]);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = sample(dir.path());
        let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
        write(&layer, &Config::default(), "a:b", &one).unwrap();
        // Another time of change must not show.
        fs::write(dir.path().join("root/etc/name"), "value").unwrap();
        write(&layer, &Config::default(), "a:b", &two).unwrap();
        assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
    }
}
