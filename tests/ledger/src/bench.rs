//! Latency of single messages over the whole path: from the publish to its acknowledgement, and to its delivery on
//! another connection. Both ends are in this process, so one clock measures. IO.

use crate::latency::Latencies;
use crate::log::wall_us;
use crate::login::Login;
use crate::mqtt::{Connection, ConnectionError};
use crate::payload::{PayloadSize, RunId, Stamp, decode, encode};
use crate::report::Row;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckReason};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// After the last message, answers and deliveries may take so long.
const REST: Duration = Duration::from_secs(30);
/// Keep-alive of both connections, in seconds.
const KEEP_ALIVE_S: u16 = 30;
/// Both connections say something at least this often.
const PING: Duration = Duration::from_secs(10);
/// A fast rate takes up to four times as many samples to fill so long.
const LONG_ENOUGH_S: f64 = 10.0;

/// What to measure. The same for the whole path and for bare librdkafka.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Messages per second, each rate measured for itself
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    pub rates: Vec<f64>,
    /// Messages per rate at least; a fast rate takes up to four times as many, to run for ten seconds
    #[arg(long, default_value_t = 300)]
    pub samples: u32,
    /// Bytes of each payload
    #[arg(long, default_value = "100")]
    pub payload: PayloadSize,
    /// Messages go in turn to this address and a number, so that they meet several partitions and their leaders
    #[arg(long, default_value = "sites/berlin/telemetry/bench")]
    pub address: String,
    /// How many addresses
    #[arg(long, default_value_t = 10)]
    pub addresses: u32,
}

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A connection failed; a measurement that reconnects would measure something else.
    #[error("failed to measure over MQTT")]
    Mqtt(#[from] ConnectionError),
    /// Kafka refused.
    #[error("failed to measure with librdkafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The machine refused a thread.
    #[error("failed to start")]
    Io(#[from] std::io::Error),
    /// A publish was refused.
    #[error("failed to publish: {0:?}")]
    Refused(PubAckReason),
    /// The plan makes no sense.
    #[error("failed to start: rates are above zero, and there is one address or more")]
    Plan,
}

impl Plan {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let good = self.rates.iter().all(|rate| (1e-3..=1e6).contains(rate)) && self.addresses > 0;
        if good { Ok(()) } else { Err(BenchError::Plan) }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn messages(&self, rate: f64) -> u32 {
        let filling = ((rate * LONG_ENOUGH_S) as u32).min(self.samples.saturating_mul(4));
        self.samples.max(filling)
    }

    /// Messages before the measured ones, one after the other, one for each address: connections, caches and the first
    /// requests to each leader are not what is measured.
    pub(crate) const fn warm_up(&self) -> u32 {
        self.addresses
    }

    pub(crate) fn address(&self, sequence: u32) -> String {
        format!("{}/{}", self.address, sequence % self.addresses)
    }

    pub(crate) fn payload(&self, run: RunId, sequence: u32) -> Vec<u8> {
        encode(&Stamp { run, publisher: 0, sequence, sent_us: wall_us() }, self.payload.of(0, sequence))
    }

    pub(crate) fn row(&self, rate: f64) -> Row {
        let mut row = Row::new(&format!("{rate} msg/s"));
        row.set("rate_per_s", rate).set("payload_bytes", self.payload.to_string());
        row
    }
}

/// Measures every rate of the plan through the gateway at `target`, slowest path first as the plan says, and returns a
/// row for each.
pub fn latency(target: &str, login: Option<&Login>, plan: &Plan) -> Result<Vec<Row>, BenchError> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    plan.rates.iter().map(|rate| runtime.block_on(measure(target, login, plan, *rate))).collect()
}

struct Round {
    run: RunId,
    warm_up: u32,
    acks: Latencies,
    deliveries: Latencies,
    sent: Vec<Instant>,
    unanswered: HashMap<u16, u32>,
    undelivered: usize,
}

async fn measure(target: &str, login: Option<&Login>, plan: &Plan, rate: f64) -> Result<Row, BenchError> {
    let run = RunId::from_clock(wall_us());
    let mut subscriber = Connection::open(target, &format!("bench-{run}-sub"), KEEP_ALIVE_S, login).await?;
    subscriber.subscribe(&[format!("{}/#", plan.address)]).await?;
    let mut publisher = Connection::open(target, &format!("bench-{run}-pub"), KEEP_ALIVE_S, login).await?;
    let (warm_up, messages) = (plan.warm_up(), plan.messages(rate));
    let mut round = Round {
        run,
        warm_up,
        acks: Latencies::new(),
        deliveries: Latencies::new(),
        sent: Vec::with_capacity((warm_up + messages) as usize),
        unanswered: HashMap::new(),
        undelivered: 0,
    };
    for sequence in 0..warm_up {
        round.publish(&mut publisher, plan, sequence, Instant::now())?;
        let end = Instant::now() + REST;
        round.until(end, &mut publisher, &mut subscriber, Round::is_done).await?;
    }
    let window = usize::from(publisher.receive_maximum);
    let interval = Duration::from_secs_f64(1.0 / rate);
    let start = Instant::now();
    let mut ping = start + PING;
    for number in 0..messages {
        let due = start + interval * number;
        round.until(due, &mut publisher, &mut subscriber, |_| false).await?;
        let full = round.unanswered.len() >= window;
        let end = Instant::now() + REST;
        round.until(end, &mut publisher, &mut subscriber, |round| round.unanswered.len() < window).await?;
        // What the server's window held back was late from the moment at which it was due.
        let sent = if full { due } else { Instant::now() };
        round.publish(&mut publisher, plan, warm_up + number, sent)?;
        if Instant::now() >= ping {
            publisher.ping()?;
            subscriber.ping()?;
            ping += PING;
        }
    }
    let end = Instant::now() + REST;
    round.until(end, &mut publisher, &mut subscriber, Round::is_done).await?;
    publisher.close().await;
    subscriber.close().await;
    let mut row = plan.row(rate);
    row.set("samples", round.acks.count())
        .set("unanswered", round.unanswered.len())
        .set("undelivered", round.undelivered);
    round.acks.set(&mut row, "ack");
    round.deliveries.set(&mut row, "end_to_end");
    Ok(row)
}

impl Round {
    fn is_done(&self) -> bool {
        self.unanswered.is_empty() && self.undelivered == 0
    }

    fn publish(
        &mut self,
        publisher: &mut Connection,
        plan: &Plan,
        sequence: u32,
        sent: Instant,
    ) -> Result<(), BenchError> {
        self.sent.push(sent);
        let id = publisher.publish(&plan.address(sequence), plan.payload(self.run, sequence))?;
        self.unanswered.insert(id, sequence);
        self.undelivered += 1;
        Ok(())
    }

    /// Serves both connections until `limit`, or until `done` says so.
    async fn until(
        &mut self,
        limit: Instant,
        publisher: &mut Connection,
        subscriber: &mut Connection,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), BenchError> {
        while !done(self) {
            // The limit comes first, so that a message that is due is not kept waiting by a busy subscriber.
            tokio::select! {
                biased;
                () = sleep_until(limit) => return Ok(()),
                packet = publisher.progress() => {
                    let now = Instant::now();
                    if let Some(Packet::PubAck(ack)) = packet? {
                        self.acknowledged(&ack, now)?;
                    }
                }
                packet = subscriber.progress() => {
                    let now = Instant::now();
                    if let Some(Packet::Publish(publish)) = packet? {
                        if publish.qos == QoS::AtLeastOnce {
                            subscriber.queue(&Packet::PubAck(PubAck::new(publish.pkid, None)))?;
                        }
                        self.delivered(&publish.payload, now);
                    }
                }
            }
        }
        // The acknowledgement of the last delivery still has to leave.
        Ok(subscriber.flush().await?)
    }

    fn acknowledged(&mut self, ack: &PubAck, now: Instant) -> Result<(), BenchError> {
        if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
            return Err(BenchError::Refused(ack.reason));
        }
        if let Some(sequence) = self.unanswered.remove(&ack.pkid)
            && sequence >= self.warm_up
        {
            self.acks.add(now - self.sent[sequence as usize]);
        }
        Ok(())
    }

    fn delivered(&mut self, payload: &[u8], now: Instant) {
        let Ok(stamp) = decode(payload) else { return };
        let sent = self.sent.get(stamp.sequence as usize).filter(|_| stamp.run == self.run);
        if let Some(sent) = sent {
            if stamp.sequence >= self.warm_up {
                self.deliveries.add(now - *sent);
            }
            self.undelivered = self.undelivered.saturating_sub(1);
        }
    }
}
