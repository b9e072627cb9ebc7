//! The log of a load: every [`Entry`] in the order in which they happened. IO: one thread writes in batches, syncs the file,
//! and only then counts. What [`Progress`] calls acknowledged is on the disk.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use crate::entry::{Entry, EntryError, Message, Moment, Probe, ProbeKind};

/// The clock of a load.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Moment {
        Moment { mono_us: micros(self.0.elapsed()), wall_us: wall_us() }
    }

    /// The instant at which the clock was zero.
    pub fn zero(&self) -> Instant {
        self.0
    }
}

/// The wall clock, in microseconds since 1970.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What is in the log and on the disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that fell due.
    pub offered: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages that were refused for good.
    pub refused: u64,
    /// Connections that were accepted.
    pub connected: u64,
    /// Connections that were lost or could not be made.
    pub disconnected: u64,
    /// Subscriptions of observers that were accepted.
    pub subscribed: u64,
    /// Whether the log has its last line.
    pub ended: bool,
    /// Whether the log could not be written: nothing is counted any more.
    pub failed: bool,
}

impl Progress {
    /// Messages without an answer.
    pub const fn unanswered(&self) -> u64 {
        self.offered - self.acknowledged - self.refused
    }

    const fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Offered(_) => self.offered += 1,
            Entry::Acknowledged(_) => self.acknowledged += 1,
            Entry::Refused(_) => self.refused += 1,
            Entry::Connected { .. } => self.connected += 1,
            Entry::Disconnected { .. } => self.disconnected += 1,
            Entry::Watching { .. } => self.subscribed += 1,
            Entry::End(_) => self.ended = true,
            Entry::Head { .. }
            | Entry::Mark { .. }
            | Entry::Probe(_)
            | Entry::Blind { .. }
            | Entry::Seen { .. }
            | Entry::SeenAltered { .. }
            | Entry::Read { .. } => {}
        }
    }
}

/// The most lines that wait for the disk. A sender then waits too: the log never loses a line.
const QUEUE: usize = 65_536;

/// Where entries go; clone one per publisher.
#[derive(Clone, Debug)]
pub struct Sender(SyncSender<Entry>);

impl Sender {
    /// Puts an entry behind those before it. Waits only when 65,536 entries wait for the disk. An entry
    /// after the writer failed goes nowhere: [`Progress::failed`] says it.
    pub fn send(&self, entry: Entry) {
        if let Err(TrySendError::Full(entry)) = self.0.try_send(entry) {
            // An error means that the writer is gone, which `Progress::failed` reports.
            let _ = self.0.send(entry);
        }
    }
}

/// The thread that writes the log.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

/// Reads and awaits the progress of a [`Writer`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Writer {
    /// Creates the file and starts the thread, which ends when the last [`Sender`] is dropped.
    pub fn start(path: &Path) -> io::Result<(Self, Sender)> {
        let file = File::create(path)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ledger-log".to_owned()).spawn(move || {
            let result = write(file, &receiver, &for_thread);
            let mut progress = for_thread.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.failed |= result.is_err();
            for_thread.changed.notify_all();
            result
        })?;
        Ok((Self { shared, thread }, Sender(sender)))
    }

    /// A handle on the progress.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// Waits until everything is on the disk; all senders must be gone.
    pub fn finish(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the log's thread panicked")))
    }
}

impl Watch {
    /// What is on the disk now.
    pub fn progress(&self) -> Progress {
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `reached` says yes; after `limit`, or when the log failed, returns what there is as an error.
    pub fn wait(
        &self,
        limit: Duration,
        mut reached: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, Progress> {
        let lock = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, _) = self
            .0
            .changed
            .wait_timeout_while(lock, limit, |progress| !reached(progress) && !progress.failed)
            .unwrap_or_else(PoisonError::into_inner);
        if reached(&progress) { Ok(*progress) } else { Err(*progress) }
    }
}

fn write(mut file: File, entries: &Receiver<Entry>, shared: &Shared) -> io::Result<()> {
    let mut text = String::new();
    let mut counted = Progress::default();
    while let Ok(first) = entries.recv() {
        text.clear();
        let rest = std::iter::from_fn(|| entries.try_recv().ok()).take(QUEUE);
        for entry in std::iter::once(first).chain(rest) {
            counted.count(&entry);
            writeln!(text, "{entry}").map_err(io::Error::other)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        *shared.progress.lock().unwrap_or_else(PoisonError::into_inner) = counted;
        shared.changed.notify_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entries;

    #[test]
    fn what_progress_counts_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (writer, sender) = Writer::start(&path).unwrap();
        let watch = writer.watch();
        for entry in entries() {
            sender.send(entry);
        }
        let progress = watch.wait(Duration::from_secs(20), |progress| progress.acknowledged == 1).unwrap();
        assert!(progress.offered == 1);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\na 2 1 1 "));
        drop(sender);
        writer.finish().unwrap();
        let read: Vec<Entry> =
            std::fs::read_to_string(&path).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(read, entries());
        assert!(watch.progress().ended);
    }

    #[test]
    fn waiting_for_what_does_not_come_returns_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, sender) = Writer::start(&folder.path().join("log")).unwrap();
        let watch = writer.watch();
        drop(sender);
        writer.finish().unwrap();
        assert_eq!(watch.wait(Duration::ZERO, |progress| progress.offered > 0), Err(Progress::default()));
    }
}
