//! Who looks on while the load runs: MQTT subscribers and HTTP readers of the load's own addresses. IO.

use crate::http::HttpConnection;
use crate::load::LoadOptions;
use crate::log::{Clock, Entry, Message, Sender};
use crate::login::Login;
use crate::mqtt::{Connection, ConnectionError};
use crate::payload::{PayloadError, Stamp, decode};
use crate::publisher::{BACKOFF_FIRST, BACKOFF_LONGEST, jittered};
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Between two reads of one reader.
const READ_EVERY: Duration = Duration::from_millis(100);
/// An answer to a read takes this long at most.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// After the last publish a subscriber listens on until nothing has come for so long: around a fault the way to it may take
/// longer than the acknowledgement.
const QUIET: Duration = Duration::from_secs(3);
/// And no longer than this.
const LISTEN_ON: Duration = Duration::from_secs(30);

/// One of them.
pub(crate) struct Observer {
    pub number: u16,
    pub options: Arc<LoadOptions>,
    pub clock: Clock,
    pub log: Sender,
}

impl Observer {
    /// Subscribes to the addresses of all publishers, again whenever the connection ends, until the load has its answers
    /// and what they were for has come.
    pub async fn subscribe(self, ended: watch::Receiver<bool>) {
        let heard = AtomicU64::new(0);
        let mut settled = pin!(self.settled(ended, &heard));
        let mut backoff = Duration::ZERO;
        loop {
            tokio::select! {
                result = self.listen(backoff, &heard) => {
                    let (subscribed, error) = result;
                    if subscribed {
                        let (observer, at) = (self.number, self.clock.now());
                        self.log.send(Entry::Blind { observer, at, reason: error.to_string() });
                        backoff = Duration::ZERO;
                    }
                    backoff = (backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_LONGEST);
                }
                () = &mut settled => return,
            }
        }
    }

    /// The load has ended, and nothing comes any more.
    async fn settled(&self, mut ended: watch::Receiver<bool>, heard_us: &AtomicU64) {
        if ended.wait_for(|ended| *ended).await.is_err() {
            // the load is gone
            return;
        }
        let end = Instant::now();
        loop {
            let heard = self.clock.zero() + Duration::from_micros(heard_us.load(Ordering::Relaxed));
            let until = (end.max(heard.into()) + QUIET).min(end + LISTEN_ON);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// One connection, to its end: whether it was subscribed, and why it ended.
    async fn listen(&self, wait: Duration, heard_us: &AtomicU64) -> (bool, ConnectionError) {
        tokio::time::sleep(jittered(wait)).await;
        let client = format!("watch-{}-{}", self.options.run, self.number);
        let (target, login) = (&self.options.target, self.options.login.as_ref());
        let opened = Connection::open(target, &client, self.options.keep_alive_s, login).await;
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(error) => return (false, error),
        };
        let publishers = 0..self.options.all_publishers();
        let filters: Vec<_> = publishers.map(|publisher| self.options.address_of(publisher)).collect();
        if let Err(error) = connection.subscribe(&filters).await {
            return (false, error);
        }
        self.log.send(Entry::Watching { observer: self.number, at: self.clock.now() });
        let mut heard = Instant::now();
        loop {
            // Pings go out four times per keep-alive, so that silence is noticed.
            let ping = Duration::from_secs(u64::from(connection.keep_alive_s.max(4))) / 4;
            let result = tokio::select! {
                biased;
                packet = connection.progress() => packet,
                () = sleep_until(Instant::now() + ping) => connection.ping().map(|()| None),
            };
            match result {
                Ok(Some(packet)) => {
                    heard = Instant::now();
                    if let Err(error) = self.take(&mut connection, packet, heard_us) {
                        return (true, error);
                    }
                }
                Ok(None) if heard.elapsed() > self.options.patience => {
                    return (true, ConnectionError::Silent);
                }
                Ok(None) => {}
                Err(error) => return (true, error),
            }
        }
    }

    fn take(
        &self,
        connection: &mut Connection,
        packet: Packet,
        heard_us: &AtomicU64,
    ) -> Result<(), ConnectionError> {
        let Packet::Publish(publish) = packet else { return Ok(()) };
        if publish.pkid != 0 {
            connection.queue(&Packet::PubAck(PubAck::new(publish.pkid, None)))?;
        }
        let (observer, at) = (self.number, self.clock.now());
        heard_us.store(at.mono_us, Ordering::Relaxed);
        match decode(&publish.payload) {
            Ok(Stamp { run, publisher, sequence, .. }) if run == self.options.run => {
                let message = Message { publisher, sequence, at };
                self.log.send(Entry::Seen { observer, message });
            }
            Ok(_) | Err(PayloadError::Foreign) => {}
            Err(_) => self.log.send(Entry::SeenAltered { observer, at }),
        }
        Ok(())
    }

    /// Reads the newest value of each publisher's address in turn, until the load stops.
    pub async fn read(self, target: String, mut ended: watch::Receiver<bool>) {
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        let mut turn = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // An error means that the load is gone.
                _ = ended.wait_for(|ended| *ended) => return,
            }
            let publisher = turn % self.options.all_publishers();
            turn = turn.wrapping_add(1);
            let asked_us = self.clock.now().mono_us;
            let (login, address) = (self.options.login.as_ref(), self.options.address_of(publisher));
            let answer = ask(&target, login, connection.take(), &address).await;
            let (observer, at) = (self.number, self.clock.now());
            self.log.send(match answer {
                Ok((open, payload)) => {
                    connection = Some(open);
                    match payload.as_deref().map(decode) {
                        None => Entry::Read { observer, publisher, sequence: None, asked_us, at },
                        Some(Ok(stamp)) if (stamp.run, stamp.publisher) == (self.options.run, publisher) => {
                            Entry::Read { observer, publisher, sequence: Some(stamp.sequence), asked_us, at }
                        }
                        // The address is the publisher's own: what is not its message is not what was sent.
                        Some(_) => Entry::SeenAltered { observer, at },
                    }
                }
                Err(reason) => Entry::Blind { observer, at, reason },
            });
        }
    }
}

/// The newest value, none if there is none yet; as an error why the reader got neither.
async fn ask(
    target: &str,
    login: Option<&Login>,
    open: Option<HttpConnection>,
    address: &str,
) -> Result<(HttpConnection, Option<bytes::Bytes>), String> {
    let mut connection = match open {
        Some(connection) => connection,
        None => HttpConnection::open(target, login).await.map_err(|error| error.to_string())?,
    };
    let answer = connection.get(address, READ_LIMIT).await.map_err(|error| error.to_string())?;
    match answer.status {
        200..=299 => Ok((connection, Some(answer.body))),
        404 => Ok((connection, None)),
        status => Err(format!("status {status}")),
    }
}
