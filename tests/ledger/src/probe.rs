//! Clients that connect anew all the time, as new devices do: what they are refused is a gap in the service that connections
//! which stay open do not see. IO.

use crate::http::HttpConnection;
use crate::load::LoadOptions;
use crate::log::{Clock, Entry, Probe, ProbeKind, Sender};
use crate::mqtt::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// The time between two attempts.
pub const EVERY: Duration = Duration::from_millis(100);
/// An answer takes this long at most.
const LIMIT: Duration = Duration::from_secs(5);

/// Connects every [`EVERY`] until `ended`; over HTTP it reads the first publisher's address as well. What is under way then is waited for.
pub(crate) async fn run(
    kind: ProbeKind,
    options: Arc<LoadOptions>,
    clock: Clock,
    log: Sender,
    mut ended: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    let mut ticks = interval(EVERY);
    // a loop that was late itself must not make a burst of devices
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            // An error means that the load is gone.
            _ = ended.wait_for(|ended| *ended) => break,
        }
        let (options, log) = (Arc::clone(&options), log.clone());
        open.spawn(async move {
            let at = clock.now();
            let failed = match kind {
                ProbeKind::Connect => connect(&options, number).await,
                ProbeKind::Http => get(&options).await,
            };
            let took_us = clock.now().mono_us - at.mono_us;
            log.send(Entry::Probe(Probe { kind, at, took_us, failed: failed.err() }));
        });
        while open.try_join_next().is_some() {}
    }
    while open.join_next().await.is_some() {}
}

async fn connect(options: &LoadOptions, number: u64) -> Result<(), String> {
    let (client, login) = (format!("prober-{number}"), options.login.as_ref());
    let connection = Connection::open(&options.target, &client, 10, login).await;
    connection.map_err(|error| error.to_string())?.close().await;
    Ok(())
}

/// A value, or that there is none: either way the gateway and Kafka behind it have answered.
async fn get(options: &LoadOptions) -> Result<(), String> {
    let opened = HttpConnection::open(&options.http, options.login.as_ref()).await;
    let mut connection = opened.map_err(|error| error.to_string())?;
    match connection.get(&options.address_of(0), LIMIT).await.map_err(|error| error.to_string())?.status {
        200..=299 | 404 => Ok(()),
        status => Err(format!("status {status}")),
    }
}
