//! The credentials of the connection to Kafka, which change while devices stay connected: librdkafka reads its files
//! once, so new files need new handles. IO: a look at the files every few seconds, and a try of new ones.

use super::base;
use crate::files::{self, Files, News, Watch};
use crate::telemetry::{Client, CredentialsMetrics, Refusal};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_contract::config::KafkaConfig;
use tidegate_contract::internal;
use tokio_util::sync::CancellationToken;

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

impl Credentials {
    /// Notes what the files hold now. Make the handles after it: what changes in between is then seen as a change.
    pub fn new(kafka: &KafkaConfig, id: &str, metrics: CredentialsMetrics) -> Self {
        let in_use = fingerprint(kafka);
        Self { kafka: kafka.clone(), id: id.to_owned(), metrics, in_use }
    }

    /// Watches the files until `closed` and renews `handles` when they change.
    pub(crate) fn watch(self, handles: Vec<Arc<dyn Renew>>, every: Duration, closed: CancellationToken) {
        // a plain connection has no files; with files that were missing at the start there is no handle
        let Some(in_use) = self.in_use else { return };
        let watch = Watch::new(Renewed { credentials: self, handles }, in_use, every);
        tokio::spawn(async move { watch.run(closed.cancelled()).await });
    }
}

/// The files, and whom new ones are for.
struct Renewed {
    credentials: Credentials,
    handles: Vec<Arc<dyn Renew>>,
}

impl Files for Renewed {
    type Refusal = Refusal;

    fn fingerprint(&self) -> Option<u64> {
        fingerprint(&self.credentials.kafka)
    }

    /// No handle is switched before there is a new one for each. A switch waits for records in flight.
    fn take(&mut self, found: u64) -> Result<(), (Refusal, String)> {
        let Credentials { kafka, id, .. } = &self.credentials;
        check(kafka, id)?;
        let switches: KafkaResult<Vec<_>> = self.handles.iter().map(|each| each.prepare()).collect();
        let switches = switches.map_err(|error| (Refusal::unreadable, error.to_string()))?;
        // the files are several and were read several times: all of it was these
        if fingerprint(kafka) != Some(found) {
            return Err((Refusal::changing, "the files changed while they were read".to_owned()));
        }
        for switch in switches {
            switch();
        }
        Ok(())
    }

    fn tell(&mut self, news: News<'_, Refusal>) {
        let metrics = &self.credentials.metrics;
        match news {
            News::Same { again } => {
                metrics.pending(false);
                if again {
                    tracing::info!("Kafka's credentials are the ones in use again");
                }
            }
            News::Different => metrics.pending(true),
            News::Taken => metrics.reloaded(),
            News::Refused { refusal, why, first } => metrics.failed(refusal, why, first),
        }
    }
}

/// What all files hold; nothing if one cannot be read, or there are none.
fn fingerprint(kafka: &KafkaConfig) -> Option<u64> {
    files::fingerprint(kafka.files().into_iter().map(|(_, file)| file))
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
