//! Files that survive a crash in the middle: written aside and renamed, locked, hashed. Does IO.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Where builds are kept: `$TIDEGATE_CACHE`, or `tidegate` in `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// When none of the variables (nor `HOME`) says where.
pub fn cache_dir() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("TIDEGATE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("tidegate")))
        .or_else(|| var("HOME").map(|dir| dir.join(".cache/tidegate")))
        .filter(|dir| dir.is_absolute())
        .context("failed to find a cache folder: set TIDEGATE_CACHE or HOME to an absolute path")
}

/// Writes `content` so that `path` holds either the old or the new, with `mode`.
///
/// # Errors
/// When the file system refuses.
pub fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let work = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let aside = folder.join(format!(".{}-{}", std::process::id(), crate::command::unique()));
        let mut file = File::create(&aside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_ref())?;
        fs::rename(&aside, path)
    };
    work().with_context(|| format!("failed to write {}", path.display()))
}

/// Puts a file of the cache where a node finds it: the same file where both are on one disk, else a copy. What is there
/// may run, so it is replaced and never written to; repeating it changes nothing.
///
/// # Errors
/// When the file cannot be linked, copied or renamed.
pub fn share(from: &Path, to: &Path) -> io::Result<()> {
    let aside = to.with_extension("new");
    // Left by a crash. It may be the cache's own file by another name, which a copy would write into.
    remove_file(&aside)?;
    fs::hard_link(from, &aside).or_else(|_| fs::copy(from, &aside).map(drop))?;
    fs::rename(&aside, to)?;
    // Where both are names of one file, a rename does nothing and keeps both.
    remove_file(&aside)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file that may be absent.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
}

/// Creates a folder and all above it.
///
/// # Errors
/// When the file system refuses.
pub fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))
}

/// Removes a folder with all in it; one that is not there is fine.
///
/// # Errors
/// When the file system refuses, or when something is mounted below it: deleting would reach into that.
pub fn remove_dir(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to read the list of mounts")?;
    if let Some(mount) =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|at| Path::new(at).starts_with(path))
    {
        bail!("failed to remove {}: {mount} is mounted there; unmount it first", path.display());
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A lock between processes that ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`; `waiting` is called once if somebody else holds it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn take(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let work = || -> Result<Self> {
            if let Some(folder) = path.parent() {
                make_dir(folder)?;
            }
            let file = File::options().create(true).append(true).open(path)?;
            if file.try_lock().is_err() {
                waiting();
                file.lock()?;
            }
            Ok(Self { _file: file })
        };
        work().with_context(|| format!("failed to lock {}", path.display()))
    }
}

/// A running SHA-256, fed with named pieces so that no two lists of pieces look alike.
#[derive(Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds one piece.
    #[must_use]
    pub fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.0.update(format!("{name} {}\n", content.len()));
        self.0.update(content);
        self
    }

    /// Adds a file under the name it has below `root`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_file(self, root: &Path, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path);
        Ok(self.with(&name.to_string_lossy(), content))
    }

    /// The first 12 hexadecimal digits: enough to tell versions apart, short enough for a tag.
    pub fn short(self) -> String {
        hex(&self.0.finalize())[..12].to_owned()
    }
}

/// The SHA-256 of a stream, in hexadecimal, and its length.
///
/// # Errors
/// When reading fails.
pub fn sha256(mut content: impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let length = io::copy(&mut content, &mut hash)?;
    Ok((hex(&hash.finalize()), length))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_the_content_and_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        write(&path, "one", 0o600).unwrap();
        write(&path, "two", 0o640).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn files_of_the_cache_stay_as_they_are_however_often_they_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("node")).unwrap();
        for name in ["one", "two"] {
            fs::write(path(name), name).unwrap();
        }
        for _ in 0..3 {
            for name in ["one", "two"] {
                share(&path(name), &path("node").join(name)).unwrap();
            }
        }
        // What a crash between two steps leaves.
        fs::hard_link(path("one"), path("node/two.new")).unwrap();
        share(&path("two"), &path("node/two")).unwrap();
        for name in ["one", "two"] {
            assert_eq!(fs::read_to_string(path(name)).unwrap(), name);
            assert_eq!(fs::read_to_string(path("node").join(name)).unwrap(), name);
        }
        assert_eq!(fs::read_dir(path("node")).unwrap().count(), 2);
    }

    #[test]
    fn the_border_between_two_pieces_is_part_of_the_fingerprint() {
        let one = Fingerprint::default().with("a", "bc").with("d", "").short();
        let other = Fingerprint::default().with("a", "b").with("d", "c").short();
        assert_ne!(one, other);
        assert_eq!(one.len(), 12);
    }

    #[test]
    fn a_lock_keeps_a_second_taker_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path, || panic!("nobody else holds it")).unwrap();
        let (waits, waited) = std::sync::mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(&path, || waits.send(()).unwrap()).map(|_| ()));
            waited.recv().unwrap();
            drop(held);
            second.join().unwrap().unwrap();
        });
    }
}
