//! Builds that are made once: a folder per part and fingerprint of its inputs. Does IO.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::files::{self, Fingerprint, Lock};
use crate::progress::Progress;

/// A build that nothing has used for this long is removed when its part is built anew.
const KEEP: Duration = Duration::from_hours(14 * 24);

/// The folder of builds.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    progress: Progress,
}

impl Cache {
    /// The person's cache, see [`files::cache_dir`].
    ///
    /// # Errors
    /// When it cannot be found or made.
    pub fn open(progress: &Progress) -> Result<Self> {
        Self::at(&files::cache_dir()?, progress)
    }

    /// A cache in `dir`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn at(dir: &Path, progress: &Progress) -> Result<Self> {
        files::make_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), progress: progress.clone() })
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The clock that the cache's steps report to.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The folder that holds `part` as built from `inputs`; `build` fills it if it is not there yet.
    ///
    /// Only a complete build gets its name, and two processes that want the same part build it once.
    ///
    /// # Errors
    /// What `build` returned, or when the file system refuses.
    pub fn part(
        &self,
        part: &str,
        inputs: Fingerprint,
        build: impl FnOnce(&Workshop) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.dir.join(format!("{part}-{}", inputs.short()));
        let used = folder.join(".used");
        if folder.is_dir() {
            files::write(&used, "", 0o644)?;
            return Ok(folder);
        }
        let _lock = Lock::take(&self.dir.join(format!("{part}.lock")), || {
            self.progress.say(format_args!("{part}: another process builds it, waiting"));
        })?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let unfinished = self.dir.join(format!("{part}.unfinished"));
        files::remove_dir(&unfinished)?;
        files::make_dir(&unfinished)?;
        let log = self.dir.join("logs").join(format!("{part}.log"));
        files::write(&log, "", 0o644)?;
        let workshop = Workshop { out: unfinished, log };
        self.progress.step(&format!("building {part}"), || build(&workshop))?;
        files::write(&workshop.out.join(".used"), "", 0o644)?;
        fs::rename(&workshop.out, &folder).with_context(|| format!("failed to keep {}", folder.display()))?;
        self.remove_unused(part)?;
        Ok(folder)
    }

    fn remove_unused(&self, part: &str) -> Result<()> {
        for entry in fs::read_dir(&self.dir).context("failed to list the cache")? {
            let path = entry.context("failed to list the cache")?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_build = name
                .strip_prefix(part)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|hash| hash.len() == 12);
            let age = fs::metadata(path.join(".used"))
                .and_then(|used| used.modified())
                .ok()
                .and_then(|used| SystemTime::now().duration_since(used).ok());
            if is_build && age.is_some_and(|age| age > KEEP) {
                files::remove_dir(&path)?;
            }
        }
        Ok(())
    }
}

/// Where one part is being built.
#[derive(Debug)]
pub struct Workshop {
    out: PathBuf,
    log: PathBuf,
}

impl Workshop {
    /// The folder to fill.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Runs one program of the build; what it prints goes to the part's log.
    ///
    /// # Errors
    /// When it fails; the error repeats the end of the log and names it.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let open = || fs::File::options().append(true).create(true).open(&self.log);
        let log = open().with_context(|| format!("failed to open {}", self.log.display()))?;
        let errors = log.try_clone().context("failed to open the log twice")?;
        let status = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status()
            .with_context(|| format!("failed to start {}", command::describe(command)))?;
        if !status.success() {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            bail!(
                "failed to run {}: {status}\n{end}\n(all of it: {})",
                command::describe(command),
                self.log.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> Cache {
        Cache::at(dir, &Progress::new()).unwrap()
    }

    fn inputs(text: &str) -> Fingerprint {
        Fingerprint::default().with("input", text)
    }

    #[test]
    fn the_same_inputs_are_built_once_and_others_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let fill = |workshop: &Workshop| files::write(&workshop.out().join("it"), "made", 0o644);
        let first = cache.part("thing", inputs("a"), fill).unwrap();
        let again = cache.part("thing", inputs("a"), |_| panic!("it is there already")).unwrap();
        let other = cache.part("thing", inputs("b"), fill).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(fs::read_to_string(first.join("it")).unwrap(), "made");
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_looks_finished() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let error = cache
            .part("thing", inputs("a"), |workshop| {
                files::write(&workshop.out().join("half"), "", 0o644)?;
                workshop.run(Command::new("sh").args(["-c", "echo because; exit 1"]))
            })
            .unwrap_err();
        assert!(format!("{error:#}").contains("because"));
        let built = cache.part("thing", inputs("a"), |workshop| {
            assert!(!workshop.out().join("half").exists());
            Ok(())
        });
        assert!(built.unwrap().is_dir());
    }
}
