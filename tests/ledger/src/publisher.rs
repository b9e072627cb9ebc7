//! One publisher of the load: messages fall due on its schedule whatever the network does; what is unanswered when a
//! connection ends is sent again, in order, on the next one. IO.

use crate::load::LoadOptions;
use crate::log::{Clock, Entry, Message, Sender, wall_us};
use crate::mqtt::{Connection, ConnectionError};
use crate::payload::{Stamp, encode};
use rumqttc::v5::mqttbytes::v5::{DisconnectReasonCode, Packet, PubAckReason};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Unanswered messages that a publisher keeps; at this bound its schedule waits.
pub(crate) const BACKLOG: usize = 20_000;
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(50);
pub(crate) const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// After "busy" (MQTT 5 0x89) and its kin the first wait is longer: such a server asks for less, not for more.
const BACKOFF_BUSY: Duration = Duration::from_millis(500);

/// What the load wants from its publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Publish on schedule.
    Publish,
    /// No new messages; wait for the answers that are missing until the instant.
    Drain(Instant),
}

/// A message that is not answered.
#[derive(Clone, Copy)]
struct Item {
    sequence: u32,
    /// Microseconds since 1970 of the first send; none before it.
    sent_us: Option<u64>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, ConnectionError>> + Send>>;

pub(crate) struct Publisher {
    pub number: u16,
    pub options: Arc<LoadOptions>,
    pub clock: Clock,
    pub log: Sender,
    pub wish: watch::Receiver<Wish>,
}

struct Link {
    connection: Connection,
    /// Sent and not answered, in order, with packet ids.
    sent: VecDeque<(u16, Item)>,
    heard: Instant,
    ping_at: Instant,
}

impl Publisher {
    /// Runs until the load says stop and everything is answered, or the time for that is over.
    pub async fn run(mut self) {
        let interval = Duration::from_secs_f64(f64::from(self.options.publishers) / self.options.rate);
        let phase = interval.mul_f64(f64::from(self.number) / f64::from(self.options.publishers));
        let mut due = Instant::from_std(self.clock.zero()) + phase;
        let mut next_sequence = 0_u32;
        let mut queue = VecDeque::<Item>::new();
        let mut backoff = Duration::ZERO;
        let mut connecting = Some(self.connect(backoff, None));
        let mut link: Option<Link> = None;
        loop {
            let wish = *self.wish.borrow();
            let unanswered = queue.len() + link.as_ref().map_or(0, |link| link.sent.len());
            let deadline = match wish {
                Wish::Publish => None,
                Wish::Drain(_) if unanswered == 0 => break,
                Wish::Drain(until) => Some(until),
            };
            if let Some(link) = &mut link {
                self.send(link, &mut queue);
            }
            let lost = tokio::select! {
                () = sleep_until(due), if wish == Wish::Publish && unanswered < BACKLOG => {
                    self.log.send(Entry::Offered(self.message(next_sequence)));
                    queue.push_back(Item { sequence: next_sequence, sent_us: None });
                    next_sequence += 1;
                    due += interval;
                    None
                }
                result = connected(&mut connecting) => {
                    connecting = None;
                    match result {
                        Ok(connection) => {
                            self.log.send(Entry::Connected { publisher: self.number, at: self.clock.now() });
                            backoff = Duration::ZERO;
                            let now = Instant::now();
                            let ping_at = now + ping_interval(&connection);
                            link = Some(Link { connection, sent: VecDeque::new(), heard: now, ping_at });
                            None
                        }
                        Err(error) => Some(error),
                    }
                }
                result = alive(&mut link) => match result {
                    Ok(packet) => {
                        let acknowledged = link.as_mut().map(|link| self.answer(link, packet));
                        acknowledged.and_then(Result::err)
                    }
                    Err(error) => Some(error),
                },
                () = until(deadline) => break,
                // An error means that the load is gone: the next turn sees its last wish.
                _ = self.wish.changed() => None,
            };
            if let Some(error) = lost {
                let at = self.clock.now();
                self.log.send(Entry::Disconnected { publisher: self.number, at, reason: error.to_string() });
                if let Some(link) = link.take() {
                    for (_, item) in link.sent.into_iter().rev() {
                        queue.push_front(item);
                    }
                }
                backoff = (backoff * 2).clamp(first_wait(&error), BACKOFF_LONGEST);
                connecting = Some(self.connect(jittered(backoff), elsewhere(error)));
            }
        }
        if let Some(link) = link {
            link.connection.close().await;
        }
    }

    fn message(&self, sequence: u32) -> Message {
        Message { publisher: self.number, sequence, at: self.clock.now() }
    }

    /// Connects after `wait`, for once to another server where the last one named it.
    fn connect(&self, wait: Duration, elsewhere: Option<String>) -> Connecting {
        let options = Arc::clone(&self.options);
        let client = format!("ledger-{}-{}", options.run, self.number);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let target = elsewhere.as_deref().unwrap_or(&options.target);
            Connection::open(target, &client, options.keep_alive_s, options.login.as_ref()).await
        })
    }

    /// Queues as many messages as the server and the options let fly.
    fn send(&self, link: &mut Link, queue: &mut VecDeque<Item>) {
        let window = usize::from(self.options.in_flight.min(link.connection.receive_maximum));
        while link.sent.len() < window
            && let Some(mut item) = queue.pop_front()
        {
            let sent_us = *item.sent_us.get_or_insert_with(wall_us);
            let stamp =
                Stamp { run: self.options.run, publisher: self.number, sequence: item.sequence, sent_us };
            let payload = encode(&stamp, self.options.payload.of(self.number, item.sequence));
            let address = self.options.address_of(self.number);
            // Writing into memory fails only for a packet beyond MQTT's own bound, which the options exclude.
            if let Ok(id) = link.connection.publish(&address, payload) {
                link.sent.push_back((id, item));
            }
        }
    }

    fn answer(&self, link: &mut Link, packet: Option<Packet>) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let Some(packet) = packet else {
            return self.watch(link, now);
        };
        link.heard = now;
        if let Packet::PubAck(ack) = packet {
            let place = link.sent.iter().position(|(id, _)| *id == ack.pkid);
            let Some((_, item)) = place.and_then(|place| link.sent.remove(place)) else {
                return Err(ConnectionError::Packet(format!("PUBACK of unknown packet {}", ack.pkid)));
            };
            let message = self.message(item.sequence);
            let stored = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            self.log.send(if stored { Entry::Acknowledged(message) } else { Entry::Refused(message) });
        }
        self.watch(link, now)
    }

    /// Keeps the connection alive and gives up on one that says nothing.
    fn watch(&self, link: &mut Link, now: Instant) -> Result<(), ConnectionError> {
        if now >= link.ping_at {
            link.connection.ping()?;
            link.ping_at = now + ping_interval(&link.connection);
        }
        if now > link.heard + self.options.patience
            && (!link.sent.is_empty() || link.connection.keep_alive_s > 0)
        {
            return Err(ConnectionError::Silent);
        }
        Ok(())
    }
}

/// The shortest wait before the next attempt.
const fn first_wait(error: &ConnectionError) -> Duration {
    use DisconnectReasonCode::{ConnectionRateExceeded, MessageRateTooHigh, QuotaExceeded, ServerBusy};
    match error {
        ConnectionError::Disconnected {
            code: ServerBusy | MessageRateTooHigh | QuotaExceeded | ConnectionRateExceeded,
            ..
        } => BACKOFF_BUSY,
        _ => BACKOFF_FIRST,
    }
}

/// Between half and all of it, so that those whom one fault has thrown out do not return as one.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

/// Where the server sends the client to: "use another server" (0x9C), "server moved" (0x9D).
fn elsewhere(error: ConnectionError) -> Option<String> {
    match error {
        ConnectionError::Disconnected {
            code: DisconnectReasonCode::UseAnotherServer | DisconnectReasonCode::ServerMoved,
            server,
        } => server,
        _ => None,
    }
}

/// Pings go out four times per keep-alive, so that a silent connection is noticed within the publisher's patience.
fn ping_interval(connection: &Connection) -> Duration {
    match connection.keep_alive_s {
        0 => Duration::from_hours(1),
        seconds => Duration::from_secs(u64::from(seconds)) / 4,
    }
}

async fn connected(connecting: &mut Option<Connecting>) -> Result<Connection, ConnectionError> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

/// The next packet, or nothing when it is time to look at the clock.
async fn alive(link: &mut Option<Link>) -> Result<Option<Packet>, ConnectionError> {
    let Some(link) = link else { return std::future::pending().await };
    let ping_at = link.ping_at.min(Instant::now() + Duration::from_secs(1));
    tokio::select! {
        biased;
        packet = link.connection.progress() => packet,
        () = sleep_until(ping_at) => Ok(None),
    }
}

pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
