//! Latency of single messages over the whole path: from the publish to its acknowledgement, and to its delivery on
//! another connection. Both ends are in this process, so one clock measures. IO.

use crate::latency::Latencies;
use crate::log::wall_us;
use crate::mqtt::{Connection, ConnectionError};
use crate::payload::{PayloadSize, RunId, Stamp, decode, encode};
use crate::report::Row;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckReason};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Messages before the measured ones: connections, caches and Kafka's own first requests are not what is measured.
const WARM_UP: u32 = 5;
/// After the last message, answers and deliveries may take so long.
const REST: Duration = Duration::from_secs(30);
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
        self.samples.max(filling) + WARM_UP
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
pub fn latency(target: &str, plan: &Plan) -> Result<Vec<Row>, BenchError> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    plan.rates.iter().map(|rate| runtime.block_on(measure(target, plan, *rate))).collect()
}

/// Counts a latency unless it belongs to the warm-up.
pub(crate) fn measured(latencies: &mut Latencies, sequence: u32, latency: Duration) {
    if sequence >= WARM_UP {
        latencies.add(latency);
    }
}

struct Round {
    acks: Latencies,
    deliveries: Latencies,
    sent: Vec<Instant>,
    unanswered: HashMap<u16, u32>,
    undelivered: usize,
    run: RunId,
}

async fn measure(target: &str, plan: &Plan, rate: f64) -> Result<Row, BenchError> {
    let run = RunId::from_clock(wall_us());
    let mut subscriber = Connection::open(target, &format!("bench-{run}-sub"), 30).await?;
    subscriber.subscribe(&format!("{}/#", plan.address)).await?;
    let mut publisher = Connection::open(target, &format!("bench-{run}-pub"), 30).await?;
    let messages = plan.messages(rate);
    let mut round = Round {
        acks: Latencies::new(),
        deliveries: Latencies::new(),
        sent: Vec::with_capacity(messages as usize),
        unanswered: HashMap::new(),
        undelivered: 0,
        run,
    };
    let interval = Duration::from_secs_f64(1.0 / rate);
    let start = Instant::now();
    let mut ping = start + Duration::from_secs(10);
    for sequence in 0..messages {
        let due = start + interval * sequence;
        round.until(due, &mut publisher, &mut subscriber, |_| false).await?;
        round.sent.push(Instant::now());
        let id = publisher.publish(&plan.address(sequence), plan.payload(run, sequence))?;
        round.unanswered.insert(id, sequence);
        round.undelivered += 1;
        if Instant::now() >= ping {
            publisher.ping()?;
            subscriber.ping()?;
            ping += Duration::from_secs(10);
        }
    }
    let end = Instant::now() + REST;
    round
        .until(end, &mut publisher, &mut subscriber, |round| {
            round.unanswered.is_empty() && round.undelivered == 0
        })
        .await?;
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
    /// Serves both connections until `limit`, or until `done` says so.
    async fn until(
        &mut self,
        limit: Instant,
        publisher: &mut Connection,
        subscriber: &mut Connection,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), BenchError> {
        while !done(self) {
            // The limit is in here twice so that a message that is due is not kept waiting by a busy subscriber.
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
        // What was queued last still has to leave.
        let _ = timeout_at(limit, subscriber.progress()).await;
        Ok(())
    }

    fn acknowledged(&mut self, ack: &PubAck, now: Instant) -> Result<(), BenchError> {
        if !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) {
            return Err(BenchError::Refused(ack.reason));
        }
        if let Some(sequence) = self.unanswered.remove(&ack.pkid) {
            let sent = self.sent[sequence as usize];
            measured(&mut self.acks, sequence, now - sent);
        }
        Ok(())
    }

    fn delivered(&mut self, payload: &[u8], now: Instant) {
        let Ok(stamp) = decode(payload) else { return };
        let sent = self.sent.get(stamp.sequence as usize).filter(|_| stamp.run == self.run);
        if let Some(sent) = sent {
            measured(&mut self.deliveries, stamp.sequence, now - *sent);
            self.undelivered = self.undelivered.saturating_sub(1);
        }
    }
}
