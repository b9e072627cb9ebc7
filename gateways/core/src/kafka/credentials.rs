//! The credentials of the connection to Kafka, which change while devices stay connected: librdkafka reads its files
//! once, so new files need new handles. IO: a look at the files every few seconds, and a try of new ones.
//!
//! The files are compared by content and by looking, not by a file-system watch: the kubelet swaps a symbolic link
//! above them, also when only their neighbours changed, and it is itself up to a minute late; three seconds more lose
//! nothing and work on every file system.

use super::base;
use crate::telemetry::{Client, CredentialsMetrics, Refusal};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::config::KafkaConfig;
use tidegate_contract::internal;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(3);
/// The longest pause between two tries of the same files.
const AGAIN: Duration = Duration::from_mins(1);
/// How long Kafka may take to answer somebody with new credentials.
const ANSWER: Duration = Duration::from_secs(5);

/// Replaces handles by others with the files' new content.
pub(crate) trait Renew: Send + Sync {
    /// Makes the new handles beside the old ones, which go on. Calling what it returns switches; that may block for
    /// as long as records in flight need.
    fn prepare(&self) -> KafkaResult<Switch>;
}

/// From old handles to new ones.
pub(crate) type Switch = Box<dyn FnOnce() + Send>;

/// The credentials in use, by what the files held when the first handle was made.
pub struct Credentials {
    kafka: KafkaConfig,
    id: String,
    metrics: CredentialsMetrics,
    /// Nothing: there are no files.
    in_use: Option<u64>,
}

/// Files that do not work, and when they are tried again.
struct Failed {
    files: u64,
    pause: Duration,
    again: Instant,
    refusal: Refusal,
}

impl Credentials {
    /// Notes what the files hold now. Make the handles after it: what changes in between is then seen as a change.
    pub fn new(kafka: &KafkaConfig, id: &str, metrics: CredentialsMetrics) -> Self {
        let in_use = fingerprint(kafka);
        Self { kafka: kafka.clone(), id: id.to_owned(), metrics, in_use }
    }

    /// Watches the files until `closed` and renews `handles` when they change.
    pub(crate) fn watch(self, handles: Vec<Arc<dyn Renew>>, every: Duration, closed: CancellationToken) {
        // a plain connection has no files; with files that were missing at the start there is no handle
        if self.in_use.is_none() {
            return;
        }
        tokio::spawn(async move {
            let mut looks = Looks { credentials: self, handles, every, failed: None };
            while closed.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
                // a thread of its own: a switch waits for records in flight
                match tokio::task::spawn_blocking(move || {
                    looks.look();
                    looks
                })
                .await
                {
                    Ok(same) => looks = same,
                    Err(error) => return tracing::error!(%error, "Kafka's credentials are watched no more"),
                }
            }
        });
    }
}

struct Looks {
    credentials: Credentials,
    handles: Vec<Arc<dyn Renew>>,
    every: Duration,
    failed: Option<Failed>,
}

impl Looks {
    fn look(&mut self) {
        let found = fingerprint(&self.credentials.kafka);
        if found == self.credentials.in_use {
            if self.failed.take().is_some() {
                tracing::info!("Kafka's credentials are the ones in use again");
            }
            return self.credentials.metrics.pending(false);
        }
        // nothing: a file is away, as between two steps of whoever writes them without care
        let Some(files) = found else { return };
        let known = self.failed.as_ref().filter(|failed| failed.files == files);
        if known.is_some_and(|failed| Instant::now() < failed.again) {
            return;
        }
        self.credentials.metrics.pending(true);
        match self.renew(files) {
            Ok(()) => {
                self.credentials.in_use = Some(files);
                self.failed = None;
                self.credentials.metrics.reloaded();
            }
            Err((refusal, why)) => {
                let pause = known.map_or(self.every, |failed| (failed.pause * 2).min(AGAIN));
                let said = known.is_some_and(|failed| failed.refusal == refusal);
                self.credentials.metrics.failed(refusal, &why, !said);
                self.failed = Some(Failed { files, pause, again: Instant::now() + pause, refusal });
            }
        }
    }

    /// All or nothing: no handle is switched before there is a new one for each.
    fn renew(&self, files: u64) -> Result<(), (Refusal, String)> {
        let Credentials { kafka, id, .. } = &self.credentials;
        check(kafka, id)?;
        let switches: KafkaResult<Vec<_>> = self.handles.iter().map(|each| each.prepare()).collect();
        let switches = switches.map_err(|error| (Refusal::unreadable, error.to_string()))?;
        // the files are several and were read several times: all of it was these
        if fingerprint(kafka) != Some(files) {
            return Err((Refusal::changing, "the files changed while they were read".to_owned()));
        }
        for switch in switches {
            switch();
        }
        Ok(())
    }
}

/// What all files hold, in few bytes; nothing if one cannot be read, or there are none.
fn fingerprint(kafka: &KafkaConfig) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let files = kafka.files();
    for (_, file) in &files {
        std::fs::read(file).ok()?.hash(&mut hasher);
    }
    (!files.is_empty()).then(|| hasher.finish())
}

/// Whether Kafka answers somebody who comes with the files as they are now, on a connection of its own: a handle of
/// the gateway that is refused would say that Kafka is away.
fn check(kafka: &KafkaConfig, id: &str) -> Result<(), (Refusal, String)> {
    let unreadable = |error: KafkaError| (Refusal::unreadable, error.to_string());
    let mut config = base(kafka, Client::directory, id).map_err(unreadable)?;
    config.set_log_level(RDKafkaLogLevel::Emerg);
    let client: BaseConsumer<Heard> = config.create_with_context(Heard::default()).map_err(unreadable)?;
    let topic = internal::name(&kafka.prefix, internal::DIRECTORY);
    match client.fetch_metadata(Some(&topic), ANSWER) {
        Ok(_) => Ok(()),
        Err(error) => Err((Refusal::refused, client.context().last(&error))),
    }
}

/// Remembers the last thing that a client complained of: its answers say only that there was none.
#[derive(Default)]
struct Heard(Mutex<Option<String>>);

impl Heard {
    fn last(&self, otherwise: &KafkaError) -> String {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.take().unwrap_or_else(|| otherwise.to_string())
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // "all brokers are down" only says that there was something before
        if error.rdkafka_error_code() != Some(rdkafka::error::RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Heard {}
