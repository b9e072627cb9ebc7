//! The log of a load: every offered and answered message with its time, in the order in which they happened.
//!
//! The line format is pure; [`Writer`] does the IO: one thread that writes in batches, syncs the file, and only then
//! counts. What [`Progress`] calls acknowledged is on the disk.

use crate::payload::RunId;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since the load started, on the monotonic clock.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub wall_us: u64,
}

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

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The first line.
    Head {
        /// The run.
        run: RunId,
        /// The number of publishers.
        publishers: u16,
        /// The offered rate of all publishers together, in messages per 1,000 seconds.
        rate_milli: u64,
        /// The payload's bytes, as given.
        payload: String,
    },
    /// A message fell due: from here on it counts.
    Offered(Message),
    /// It was acknowledged.
    Acknowledged(Message),
    /// It was refused for good (a reason code of 0x80 or more).
    Refused(Message),
    /// A publisher's connection was accepted.
    Connected {
        /// The publisher.
        publisher: u16,
        /// When.
        at: Moment,
    },
    /// A publisher lost its connection or could not get one.
    Disconnected {
        /// The publisher.
        publisher: u16,
        /// When.
        at: Moment,
        /// Why, in one line.
        reason: String,
    },
    /// Something happened outside that the judge is to measure from, such as a fault.
    Mark {
        /// When.
        at: Moment,
        /// Its name.
        name: String,
    },
    /// The load stopped and nothing follows.
    End(Moment),
}

/// A message of a publisher at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The publisher.
    pub publisher: u16,
    /// The sequence.
    pub sequence: u32,
    /// When.
    pub at: Moment,
}

/// A line that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a line of the load's log: {0:?}")]
pub struct EntryError(pub String);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mono_us, self.wall_us)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.publisher, self.sequence, self.at)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { run, publishers, rate_milli, payload } => {
                write!(f, "load 1 {run} {publishers} {rate_milli} {payload}")
            }
            Self::Offered(message) => write!(f, "o {message}"),
            Self::Acknowledged(message) => write!(f, "a {message}"),
            Self::Refused(message) => write!(f, "r {message}"),
            Self::Connected { publisher, at } => write!(f, "c {publisher} {at}"),
            Self::Disconnected { publisher, at, reason } => {
                write!(f, "d {publisher} {at} {}", reason.replace(['\n', '\r'], " "))
            }
            Self::Mark { at, name } => write!(f, "m {at} {}", name.replace(['\n', '\r'], " ")),
            Self::End(at) => write!(f, "e {at}"),
        }
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| EntryError(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<Entry> {
    let (kind, rest) = text.split_once(' ')?;
    let mut words = Words(rest);
    let entry = match kind {
        "load" => {
            (words.next()? == "1").then_some(())?;
            Entry::Head {
                run: words.next()?.parse().ok()?,
                publishers: words.number()?,
                rate_milli: words.number()?,
                payload: words.next()?.to_owned(),
            }
        }
        "o" => Entry::Offered(words.message()?),
        "a" => Entry::Acknowledged(words.message()?),
        "r" => Entry::Refused(words.message()?),
        "c" => Entry::Connected { publisher: words.number()?, at: words.moment()? },
        "d" => Entry::Disconnected {
            publisher: words.number()?,
            at: words.moment()?,
            reason: words.rest().to_owned(),
        },
        "m" => Entry::Mark { at: words.moment()?, name: words.rest().to_owned() },
        "e" => Entry::End(words.moment()?),
        _ => return None,
    };
    words.0.is_empty().then_some(entry)
}

/// The words of a line that were not read yet.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        Some(word)
    }

    fn number<T: FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn moment(&mut self) -> Option<Moment> {
        Some(Moment { mono_us: self.number()?, wall_us: self.number()? })
    }

    fn message(&mut self) -> Option<Message> {
        Some(Message { publisher: self.number()?, sequence: self.number()?, at: self.moment()? })
    }

    fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.0)
    }
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
            Entry::End(_) => self.ended = true,
            Entry::Head { .. } | Entry::Mark { .. } => {}
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

    fn at(us: u64) -> Moment {
        Moment { mono_us: us, wall_us: 1_795_400_000_000_000 + us }
    }

    fn message(sequence: u32) -> Message {
        Message { publisher: 2, sequence, at: at(u64::from(sequence)) }
    }

    fn entries() -> Vec<Entry> {
        vec![
            Entry::Head {
                run: "abc123".parse().unwrap(),
                publishers: 3,
                rate_milli: 50_000,
                payload: "100..1000".to_owned(),
            },
            Entry::Connected { publisher: 2, at: at(0) },
            Entry::Offered(message(1)),
            Entry::Acknowledged(message(1)),
            Entry::Refused(message(2)),
            Entry::Disconnected { publisher: 2, at: at(5), reason: "closed by the gateway".to_owned() },
            Entry::Mark { at: at(6), name: "broker killed".to_owned() },
            Entry::End(at(9)),
        ]
    }

    #[test]
    fn every_entry_reads_back() {
        for entry in entries() {
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
    }

    #[test]
    fn a_torn_or_strange_line_is_refused() {
        for text in ["", "o", "o 1 2 3", "o 1 2 3 4 5", "x 1 2 3 4", "load 2 abc123 1 1 1", "a 70000 1 1 1"] {
            assert!(text.parse::<Entry>().is_err(), "{text:?}");
        }
    }

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
