//! Asks nodes whether they are there: one TCP connection to each target, closed at once. IO: those connections.

use super::health::{Answer, Outcome, Round};
use futures::StreamExt as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// A probe waits so long.
pub const PATIENCE: Duration = Duration::from_millis(300);
/// So many connections are tried at a time.
const CONCURRENCY: usize = 256;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node that it is on.
    pub node: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a prober does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All targets.
    pub targets: Arc<[Target]>,
    /// The time from the beginning of one round to that of the next.
    pub interval: Duration,
}

/// Tries one connection.
pub async fn probe(address: SocketAddr) -> Outcome {
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Reset at the end: thousands of closed connections must not wait in anybody's tables.
            let _ = stream.set_zero_linger();
            Outcome::Answered
        }
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
            // No neighbour answers for the address, or a router says so: as good as nothing.
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                Outcome::TimedOut
            }
            _ => Outcome::Failed,
        },
        Err(_) => Outcome::TimedOut,
    }
}

/// Asks all targets once. `due` is when the round should have begun.
pub async fn round(targets: &[Target], due: Instant) -> Round {
    let late_start = Instant::now().saturating_duration_since(due);
    let probes = targets.iter().cloned().map(|target| async move {
        let outcome = probe(target.address).await;
        Answer { node: target.node, target: target.address, outcome }
    });
    let answers = futures::stream::iter(probes).buffer_unordered(CONCURRENCY).collect().await;
    let batches = u32::try_from(targets.len().div_ceil(CONCURRENCY)).unwrap_or(u32::MAX).max(1);
    let late_end = Instant::now().saturating_duration_since(due + PATIENCE.saturating_mul(batches));
    Round { late: late_start.max(late_end), answers }
}

/// Asks again and again, as `plan` says at the time, until nobody listens.
pub async fn run(mut plan: watch::Receiver<Plan>, rounds: mpsc::Sender<Round>) {
    let mut due = Instant::now();
    loop {
        let now = plan.borrow_and_update().clone();
        if now.targets.is_empty() {
            if plan.changed().await.is_err() {
                return;
            }
            due = Instant::now();
            continue;
        }
        if rounds.send(round(&now.targets, due).await).await.is_err() {
            return;
        }
        // A round that took longer than it may delays the next one and does not make it late.
        due = (due + now.interval).max(Instant::now());
        sleep_until(due).await;
    }
}
