//! One device that publishes all the time and tells when what it hears changes: how long a change of its rights takes to
//! reach it. IO on a thread of its own.

use crate::login::Login;
use crate::mqtt::{Connection, ConnectionError};
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::time::{Instant as Due, sleep_until, timeout};

/// Between two messages, and between two attempts to connect.
const EVERY: Duration = Duration::from_millis(20);
/// An answer takes this long at most.
const ANSWER: Duration = Duration::from_secs(15);
/// Said, and not heard yet by who started the device.
const UNHEARD: usize = 1000;
const KEEP_ALIVE_S: u16 = 30;

/// What the device last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its message is stored.
    Stored,
    /// Its message is refused, with this reason code (MQTT 5 §3.4.2.1).
    Refused(u8),
    /// It has no connection, and why.
    Out(String),
}

/// Why something was not heard.
#[derive(Debug, thiserror::Error)]
#[error("failed to hear {what} within {limit:?}; heard last: {last:?}")]
pub struct DeviceError {
    what: String,
    limit: Duration,
    last: Option<Heard>,
}

/// A device that runs until this is dropped.
#[derive(Debug)]
pub struct Device {
    heard: Receiver<(Instant, Heard)>,
    last: RefCell<Option<(Instant, Heard)>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts it: it publishes to `address` through the gateway at `target` (`host:port`).
    ///
    /// # Errors
    /// When the machine refuses a thread.
    pub fn start(target: &str, login: &Login, address: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, heard) = sync_channel(UNHEARD);
        let ended = Arc::<AtomicBool>::default();
        let running = Running {
            target: target.to_owned(),
            login: login.clone(),
            address: address.to_owned(),
            tell,
            last: None,
            ended: Arc::clone(&ended),
        };
        let thread = std::thread::Builder::new()
            .name("ledger-device".to_owned())
            .spawn(move || runtime.block_on(running.run()))?;
        Ok(Self { heard, last: RefCell::default(), ended, thread: Some(thread) })
    }

    /// Waits until what it hears is as `wanted` says; when it was first heard.
    ///
    /// # Errors
    /// When that does not happen within `limit`.
    pub fn hears(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Heard) -> bool,
    ) -> Result<Instant, DeviceError> {
        let end = Instant::now() + limit;
        let mut last = self.last.borrow_mut();
        loop {
            if let Some((at, heard)) = &*last
                && wanted(heard)
            {
                return Ok(*at);
            }
            let Ok(next) = self.heard.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                let last = last.as_ref().map(|(_, heard)| heard.clone());
                return Err(DeviceError { what: what.to_owned(), limit, last });
            };
            *last = Some(next);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked with is on standard error.
            let _ = thread.join();
        }
    }
}

struct Running {
    target: String,
    login: Login,
    address: String,
    tell: SyncSender<(Instant, Heard)>,
    last: Option<Heard>,
    ended: Arc<AtomicBool>,
}

impl Running {
    async fn run(mut self) {
        while !self.ended.load(Ordering::Relaxed) {
            let client = format!("device-{}", self.login.username.replace('/', "-"));
            let opened = Connection::open(&self.target, &client, KEEP_ALIVE_S, Some(&self.login)).await;
            let ended = match opened {
                Ok(connection) => self.publish(connection).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                self.hear(Heard::Out(error.to_string()));
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// One connection, to its end; `Ok` when the device is asked to end.
    async fn publish(&mut self, mut connection: Connection) -> Result<(), ConnectionError> {
        while !self.ended.load(Ordering::Relaxed) {
            let next = Due::now() + EVERY;
            connection.publish(&self.address, b"here I am".to_vec())?;
            let heard = timeout(ANSWER, answer(&mut connection)).await;
            self.hear(heard.map_err(|_| ConnectionError::Silent)??);
            loop {
                tokio::select! {
                    // Between two messages it may be told to go.
                    packet = connection.progress() => packet.map(drop)?,
                    () = sleep_until(next) => break,
                }
            }
        }
        connection.close().await;
        Ok(())
    }

    fn hear(&mut self, heard: Heard) {
        if self.last.as_ref() != Some(&heard) {
            self.last = Some(heard.clone());
            // Nobody listens any more, or the device is about to end.
            let _ = self.tell.try_send((Instant::now(), heard));
        }
    }
}

async fn answer(connection: &mut Connection) -> Result<Heard, ConnectionError> {
    loop {
        if let Packet::PubAck(ack) = connection.next().await? {
            return Ok(match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Heard::Stored,
                reason => Heard::Refused(code(reason)),
            });
        }
    }
}

/// The number behind a name (MQTT 5 §3.4.2.1).
const fn code(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}
