//! The same messages straight into Kafka with librdkafka, set as the gateway sets it: what the path through the gateway
//! is measured against. Runs where brokers can be reached, in a pod. IO.

use crate::bench::{BenchError, Plan};
use crate::kafka::KafkaOptions;
use crate::latency::Latencies;
use crate::log::wall_us;
use crate::payload::RunId;
use crate::report::Row;
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// `message.timeout.ms`, and a bit.
const REST: Duration = Duration::from_secs(12);

struct Report {
    sequence: u32,
    at: Instant,
    failed: Option<KafkaError>,
}

struct Context(SyncSender<Report>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u32>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Self::DeliveryOpaque) {
        let failed = result.as_ref().err().map(|(error, _)| error.clone());
        // The receiver is gone only when the measurement is over.
        let _ = self.0.send(Report { sequence: *sequence, at: Instant::now(), failed });
    }
}

/// Measures every rate of the plan and returns a row for each, of the same case as the whole path's.
pub fn latency(kafka: &KafkaOptions, topic: &str, plan: &Plan) -> Result<Vec<Row>, BenchError> {
    plan.check()?;
    plan.rates.iter().map(|rate| measure(kafka, topic, plan, *rate)).collect()
}

fn measure(kafka: &KafkaOptions, topic: &str, plan: &Plan, rate: f64) -> Result<Row, BenchError> {
    let (warm_up, messages) = (plan.warm_up(), plan.messages(rate));
    let (reports, results) = sync_channel((warm_up + messages) as usize);
    let producer: ThreadedProducer<Context> = kafka
        .client()
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .set("socket.timeout.ms", "3000")
        .set("message.timeout.ms", "10000")
        .create_with_context(Context(reports))?;
    let run = RunId::from_clock(wall_us());
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut sent = Vec::with_capacity((warm_up + messages) as usize);
    let mut publish = |sequence: u32| -> Result<(), KafkaError> {
        let (key, payload) = (plan.address(sequence), plan.payload(run, sequence));
        let record = BaseRecord::with_opaque_to(topic, Box::new(sequence)).key(&key).payload(&payload);
        sent.push(Instant::now());
        producer.send(record).map_err(|(error, _)| error)
    };
    for sequence in 0..warm_up {
        publish(sequence)?;
        producer.flush(REST)?;
    }
    let start = Instant::now();
    for number in 0..messages {
        std::thread::sleep((start + interval * number).saturating_duration_since(Instant::now()));
        publish(warm_up + number)?;
    }
    producer.flush(REST)?;
    let mut latencies = Latencies::new();
    for report in results.try_iter() {
        if let Some(error) = report.failed {
            return Err(error.into());
        }
        if report.sequence >= warm_up {
            latencies.add(report.at - sent[report.sequence as usize]);
        }
    }
    let mut row = plan.row(rate);
    row.set("bare_samples", latencies.count());
    latencies.set(&mut row, "bare");
    Ok(row)
}
