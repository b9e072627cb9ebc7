//! The load: numbered publishers over MQTT and HTTP at a rate, each with an address of its own, who looks on, and the log of
//! every answer. IO on a thread of its own, so that a story can use it without an async runtime.

use crate::crew::Crew;
use crate::log::{Clock, Entry, Progress, Sender, Watch, Writer, wall_us};
use crate::login::Login;
use crate::payload::{PayloadSize, RunId};
use crate::publisher::Wish;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What to publish, where to, and how fast.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `host:port` of the MQTT gateway.
    pub target: String,
    /// Who all clients are; none: they say no name.
    pub login: Option<Login>,
    /// Names the run in payloads and client ids.
    pub run: RunId,
    /// How many publishers, each with a connection of its own.
    pub publishers: u16,
    /// Messages per second of all publishers together.
    pub rate: f64,
    /// Bytes of each payload.
    pub payload: PayloadSize,
    /// Each publisher's address: `{publisher}` stands for its number, `{run}` for the run.
    pub address: String,
    /// Unacknowledged messages per publisher; the server's own bound holds too.
    pub in_flight: u16,
    /// Keep-alive of each connection, in seconds.
    pub keep_alive_s: u16,
    /// A connection that says nothing for so long is given up.
    pub patience: Duration,
    /// The log of every offered and answered message.
    pub log: PathBuf,
    /// `host:port` of the HTTP gateway, for all that is below.
    pub http: String,
    /// How many publishers over HTTP, beside those over MQTT; each waits for an answer before it sends its next message.
    pub writers: u16,
    /// Messages per second of all HTTP publishers together.
    pub http_rate: f64,
    /// MQTT clients that subscribe to what all publishers write.
    pub subscribers: u16,
    /// HTTP clients that read the newest value of each publisher's address, one every 100 ms.
    pub readers: u16,
    /// Whether clients connect anew every 100 ms, over MQTT and, where there is a target, over HTTP.
    pub probe: bool,
}

impl LoadOptions {
    /// Five publishers, 50 messages a second in all, 100 bytes each, under `sites/berlin/telemetry/…`.
    pub fn new(target: &str, log: impl Into<PathBuf>) -> Self {
        Self {
            target: target.to_owned(),
            login: None,
            run: RunId::from_clock(wall_us()),
            publishers: 5,
            rate: 50.0,
            payload: PayloadSize::fixed(100),
            address: "sites/berlin/telemetry/ledger-{run}-{publisher}".to_owned(),
            in_flight: 16,
            keep_alive_s: 20,
            patience: Duration::from_secs(15),
            log: log.into(),
            http: String::new(),
            writers: 0,
            http_rate: 50.0,
            subscribers: 0,
            readers: 0,
            probe: false,
        }
    }

    /// The address of one publisher.
    pub fn address_of(&self, publisher: u16) -> String {
        address_of(&self.address, self.run, publisher)
    }

    /// Publishers over MQTT and HTTP together; those over HTTP have the higher numbers.
    pub fn all_publishers(&self) -> u16 {
        self.publishers.saturating_add(self.writers)
    }

    /// Messages per second of all publishers together.
    fn whole_rate(&self) -> f64 {
        let of = |count: u16, rate: f64| if count == 0 { 0.0 } else { rate };
        of(self.publishers, self.rate) + of(self.writers, self.http_rate)
    }

    fn check(&self) -> Result<(), LoadError> {
        let sensible =
            |count: u16, rate: f64| count == 0 || (1e-6..=1e6).contains(&(rate / f64::from(count)));
        let rates = sensible(self.publishers, self.rate) && sensible(self.writers, self.http_rate);
        if self.all_publishers() == 0 || !rates {
            return Err(LoadError::Options("one publisher or more, and a rate above zero"));
        }
        if self.http.is_empty() && self.writers + self.readers > 0 {
            return Err(LoadError::Options(
                "the HTTP gateway's host:port for what writes or reads over HTTP",
            ));
        }
        if self.all_publishers() > 1 && !self.address.contains("{publisher}") {
            return Err(LoadError::Options(
                "an address of its own for each publisher: write {publisher} in it",
            ));
        }
        if self.in_flight == 0 {
            return Err(LoadError::Options("one message in flight or more"));
        }
        Ok(())
    }
}

/// The address of one publisher after a pattern.
pub(crate) fn address_of(pattern: &str, run: RunId, publisher: u16) -> String {
    pattern.replace("{publisher}", &publisher.to_string()).replace("{run}", run.as_str())
}

/// Why a load did not start, or did not come as far as was waited for.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The options make no sense.
    #[error("failed to start the load: it needs {0}")]
    Options(&'static str),
    /// The log cannot be written or a thread not be started.
    #[error("failed to write the load's log")]
    Io(#[from] std::io::Error),
    /// What was waited for did not happen.
    #[error("failed to see {what} within {limit:?}: {progress:?}")]
    TooLate {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// How far the load is.
        progress: Progress,
    },
}

/// A running load. Dropping it stops it without waiting for answers.
#[derive(Debug)]
pub struct Load {
    options: Arc<LoadOptions>,
    clock: Clock,
    log: Option<Sender>,
    writer: Option<Writer>,
    watch: Watch,
    wish: watch::Sender<Wish>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts publishing.
    pub fn start(options: LoadOptions) -> Result<Self, LoadError> {
        options.check()?;
        let options = Arc::new(options);
        let (writer, log) = Writer::start(&options.log)?;
        log.send(Entry::Head {
            run: options.run,
            publishers: options.publishers,
            writers: options.writers,
            rate_milli: milli(options.whole_rate()),
            payload: options.payload.to_string(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (wish, wishes) = watch::channel(Wish::Publish);
        let clock = Clock::start();
        let crew = Crew { options: Arc::clone(&options), clock, log: log.clone(), wish: wishes };
        let thread = std::thread::Builder::new()
            .name("ledger-load".to_owned())
            .spawn(move || runtime.block_on(crew.run()))?;
        let watch = writer.watch();
        Ok(Self { options, clock, log: Some(log), writer: Some(writer), watch, wish, thread: Some(thread) })
    }

    /// What it was started with.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// What is in the log and on the disk.
    pub fn progress(&self) -> Progress {
        self.watch.progress()
    }

    /// Acknowledged messages that are in the log and on the disk.
    pub fn acknowledged(&self) -> u64 {
        self.progress().acknowledged
    }

    /// Writes a moment into the log that the judge measures from, such as a fault.
    pub fn mark(&self, name: &str) {
        if let Some(log) = &self.log {
            log.send(Entry::Mark { at: self.clock.now(), name: name.to_owned() });
        }
    }

    /// Waits until so many messages in all are acknowledged.
    pub fn wait_acknowledged(&self, count: u64, limit: Duration) -> Result<Progress, LoadError> {
        self.wait(&format!("{count} acknowledgements"), limit, |progress| progress.acknowledged >= count)
    }

    /// Waits until no more messages are unanswered than the offered rate brings in half a second: acknowledgements flow
    /// at the offered rate and nothing is left of a fault.
    pub fn wait_caught_up(&self, limit: Duration) -> Result<Progress, LoadError> {
        let few = milli(self.options.whole_rate()) / 2000 + u64::from(self.options.all_publishers());
        let offered = self.progress().offered;
        self.wait("every message acknowledged but the newest", limit, |progress| {
            progress.offered > offered && progress.unanswered() <= few
        })
    }

    /// Waits until `reached` says yes.
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        reached: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, LoadError> {
        self.watch.wait(limit, reached).map_err(|progress| LoadError::TooLate {
            what: what.to_owned(),
            limit,
            progress,
        })
    }

    /// Publishes nothing new, waits up to `limit` for the answers that are missing, and ends the log. Messages that are
    /// unanswered then stay so.
    pub fn stop(mut self, limit: Duration) -> Result<Progress, LoadError> {
        self.end(limit)?;
        Ok(self.watch.progress())
    }

    fn end(&mut self, limit: Duration) -> Result<(), LoadError> {
        // Nobody listens any more if every publisher has ended.
        let _ = self.wish.send(Wish::Drain(Instant::now() + limit));
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| std::io::Error::other("the load's thread panicked"))?;
        }
        if let Some(log) = self.log.take() {
            log.send(Entry::End(self.clock.now()));
        }
        self.writer.take().map_or(Ok(()), Writer::finish)?;
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After `stop` nothing is left to end; otherwise there is nobody to tell.
        let _ = self.end(Duration::ZERO);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn milli(rate: f64) -> u64 {
    (rate * 1000.0).round() as u64
}
