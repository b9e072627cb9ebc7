//! Checks that every protocol crate runs: what the platform promises a device, whatever it speaks.

use crate::memory::MemoryKafka;
use anyhow::{Result, ensure};
use std::time::Duration;
use tidegate_core::PublishFailure;

/// How long a check looks whether something happens that must not.
const QUIET: Duration = Duration::from_millis(300);
/// How long a check waits for what must happen.
const SOON: Duration = Duration::from_secs(10);

/// One device of a protocol, connected to a gateway under test. Its publishes ask for an acknowledgement.
pub trait Device {
    /// Sends a publish without waiting for its answer.
    fn publish(&mut self, address: &str, payload: &[u8]) -> impl Future<Output = Result<()>>;

    /// The next thing that the gateway says about a publish, or that it closed the connection.
    fn answer(&mut self) -> impl Future<Output = Answer>;
}

/// What a device hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A publish was acknowledged.
    Acknowledged,
    /// A publish failed for now: HTTP 503, CoAP 5.03.
    Unavailable,
    /// The connection was closed.
    Closed,
}

/// A publish to `address` (which a topic of `kafka` holds) is acknowledged after Kafka confirmed it, never before.
pub async fn acks_only_after_delivery(
    kafka: &MemoryKafka,
    device: &mut impl Device,
    address: &str,
) -> Result<()> {
    kafka.hold();
    device.publish(address, b"compliance").await?;
    reaches_kafka(kafka, 1).await?;
    if let Ok(answer) = tokio::time::timeout(QUIET, device.answer()).await {
        anyhow::bail!("{answer:?} before Kafka confirmed");
    }
    ensure!(kafka.stored(address).is_empty(), "the check's own Kafka stored what it holds");
    kafka.release(1);
    let answer = tokio::time::timeout(SOON, device.answer()).await?;
    ensure!(answer == Answer::Acknowledged, "{answer:?} after Kafka confirmed");
    ensure!(kafka.stored(address).len() == 1, "acknowledged and not stored");
    Ok(())
}

/// When Kafka fails a publish, the device hears no acknowledgement of it and none of anything that it sent later
/// on the same connection, whether those are stored or not. `pipelined` says how many publishes a device of
/// this protocol may have unanswered, at least 1.
pub async fn nothing_is_acknowledged_after_a_failure(
    kafka: &MemoryKafka,
    device: &mut impl Device,
    address: &str,
    pipelined: usize,
) -> Result<()> {
    kafka.hold();
    for _ in 0..pipelined {
        device.publish(address, b"compliance").await?;
    }
    reaches_kafka(kafka, pipelined).await?;
    kafka.fail(PublishFailure::TimedOut, true);
    kafka.release(pipelined - 1);
    let answer = tokio::time::timeout(SOON, device.answer()).await?;
    ensure!(answer != Answer::Acknowledged, "acknowledged after a failure");
    while let Ok(answer) = tokio::time::timeout(QUIET, device.answer()).await {
        ensure!(answer != Answer::Acknowledged, "acknowledged after a failure");
        if answer == Answer::Closed {
            break;
        }
    }
    Ok(())
}

async fn reaches_kafka(kafka: &MemoryKafka, count: usize) -> Result<()> {
    let waiting = kafka.clone();
    let reached = tokio::task::spawn_blocking(move || waiting.wait_held(count)).await?;
    ensure!(reached, "{} of {count} publishes reached Kafka", kafka.held());
    Ok(())
}
