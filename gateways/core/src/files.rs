//! Files that are replaced while the process runs: certificates, keys, passwords. IO: a look at them every few
//! seconds, on a blocking thread.
//!
//! They are compared by content and by looking, not by a file-system watch: the kubelet swaps a symbolic link above
//! them, also when only their neighbours changed, and it is itself up to a minute late; three seconds more lose
//! nothing and work on every file system.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often files are looked at.
pub const LOOK: Duration = Duration::from_secs(3);
/// The longest pause between two tries of the same files.
const AGAIN: Duration = Duration::from_mins(1);

/// Files that belong together, and what is done with new ones.
pub(crate) trait Files: Send + 'static {
    /// Why new ones are not used.
    type Refusal: Copy + PartialEq + Send;

    /// What all of them hold, in few bytes; nothing if one cannot be read.
    fn fingerprint(&self) -> Option<u64>;

    /// Takes those with this fingerprint into use, as a whole or not at all.
    fn take(&mut self, fingerprint: u64) -> Result<(), (Self::Refusal, String)>;

    /// What happened, for metrics and logs.
    fn tell(&mut self, news: News<'_, Self::Refusal>);
}

/// What happened to files.
pub(crate) enum News<'a, Refusal> {
    /// They hold what is in use.
    Same {
        /// Which they did not the last time.
        again: bool,
    },
    /// They hold something else.
    Different,
    /// That is in use now.
    Taken,
    /// That does not work; what was in use stays so.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The same for people.
        why: &'a str,
        /// This was not the reason of the last try.
        first: bool,
    },
}

/// Looks at files and takes new ones into use.
pub(crate) struct Watch<F: Files> {
    files: F,
    in_use: u64,
    every: Duration,
    failed: Option<Failed<F::Refusal>>,
}

/// Files that do not work, and when they are tried again.
struct Failed<Refusal> {
    fingerprint: u64,
    pause: Duration,
    again: Instant,
    refusal: Refusal,
}

impl<F: Files> Watch<F> {
    /// A watch of files that were taken into use when they held `in_use`.
    pub(crate) const fn new(files: F, in_use: u64, every: Duration) -> Self {
        Self { files, in_use, every, failed: None }
    }

    /// Looks until `closed` returns.
    pub(crate) async fn run(mut self, closed: impl Future<Output = ()>) {
        let mut closed = std::pin::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => return,
                () = tokio::time::sleep(self.every) => {}
            }
            let look = move || {
                self.look();
                self
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(same) => self = same,
                Err(error) => return tracing::error!(%error, "credentials are watched no more"),
            }
        }
    }

    fn look(&mut self) {
        let found = self.files.fingerprint();
        if found == Some(self.in_use) {
            let again = self.failed.take().is_some();
            return self.files.tell(News::Same { again });
        }
        // nothing: a file is away, as between two steps of whoever writes them without care
        let Some(fingerprint) = found else { return };
        let known = self.failed.as_ref().filter(|failed| failed.fingerprint == fingerprint);
        if known.is_some_and(|failed| Instant::now() < failed.again) {
            return;
        }
        self.files.tell(News::Different);
        match self.files.take(fingerprint) {
            Ok(()) => {
                self.in_use = fingerprint;
                self.failed = None;
                self.files.tell(News::Taken);
            }
            Err((refusal, why)) => {
                let pause = known.map_or(self.every, |failed| (failed.pause * 2).min(AGAIN));
                let first = known.is_none_or(|failed| failed.refusal != refusal);
                self.files.tell(News::Refused { refusal, why: &why, first });
                self.failed = Some(Failed { fingerprint, pause, again: Instant::now() + pause, refusal });
            }
        }
    }
}

/// What these files hold, in few bytes; nothing if one cannot be read, or there are none.
pub(crate) fn fingerprint<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Option<u64> {
    let mut contents = Vec::new();
    for path in paths {
        contents.push(std::fs::read(path).ok()?);
    }
    (!contents.is_empty()).then(|| of(&contents))
}

/// The fingerprint of what was read.
pub(crate) fn of(contents: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
