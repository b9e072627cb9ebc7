//! The gateway binary: reads its configuration and runs the one protocol it names.

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use std::path::{Path, PathBuf};
use tidegate_contract::GatewayConfig;
use tidegate_contract::config::{CONFIG_DIR, CONFIG_FILE, Listener, Protocol};
use tidegate_core::telemetry::init_logs;
use tidegate_core::{Services, Shutdown};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A Tidegate gateway: one protocol between devices and Kafka.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration file, JSON.
    #[arg(long, default_value_os_t = Path::new(CONFIG_DIR).join(CONFIG_FILE))]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    init_logs();
    let run = run(&arguments.config).await;
    if let Err(error) = &run {
        // one line with the whole chain, as every other log line
        tracing::error!(error = format!("{error:#}"), "the gateway cannot go on");
        std::process::exit(1);
    }
    run
}

async fn run(path: &Path) -> Result<()> {
    let config = read(path)?;
    // bound before anything else: a port that is taken is a configuration error, not a passing one
    let listeners = bind(config.protocol.listeners()).await?;
    tracing::info!(
        gateway = config.gateway,
        platform = config.platform,
        protocol = config.protocol.name(),
        "starting"
    );
    let (services, runtime) = tidegate_core::start(config).await?;
    let signals = tokio::spawn(end_on_signal(services.shutdown.clone()));
    // until the directory is there no address has a topic: connections would only be refused
    tokio::select! {
        () = services.directory.ready() => serve(listeners, services).await?,
        () = services.shutdown.begun() => {}
    }
    runtime.close().await;
    signals.abort();
    tracing::info!("ended");
    Ok(())
}

async fn serve(listeners: Vec<(Listener, TcpListener)>, services: Services) -> Result<()> {
    match &services.config.protocol {
        Protocol::Mqtt(_) => tidegate_mqtt::serve(listeners, services).await.context("failed to serve MQTT"),
        Protocol::Http(_) => tidegate_http::serve(listeners, services).await.context("failed to serve HTTP"),
    }
}

fn read(path: &Path) -> Result<GatewayConfig> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {name}"))?;
    let config: GatewayConfig =
        serde_json::from_str(&text).with_context(|| format!("failed to understand {name}"))?;
    check(&config).with_context(|| format!("{name} is not usable"))?;
    Ok(config)
}

/// What the types cannot say.
fn check(config: &GatewayConfig) -> Result<()> {
    let listeners = config.protocol.listeners();
    if listeners.is_empty() {
        bail!("protocol.{}.listeners is empty: name at least one listener", config.protocol.name());
    }
    for (at, listener) in listeners.iter().enumerate() {
        if listeners[..at].iter().any(|other| other.name == listener.name) {
            bail!("two listeners are called {:?}: give each a name of its own", listener.name);
        }
        let taken = listeners[..at].iter().find(|other| other.port == listener.port);
        if let Some(other) = taken {
            bail!("listeners {:?} and {:?} want the same port {}", other.name, listener.name, listener.port);
        }
        if listener.port == config.admin_port {
            bail!("listener {:?} wants adminPort {}: choose another", listener.name, listener.port);
        }
    }
    for listener in listeners {
        tidegate_core::tls::check(listener)?;
    }
    if config.kafka.bootstrap.trim().is_empty() {
        bail!("kafka.bootstrap is empty: write host:port, several with commas");
    }
    for (field, path) in config.kafka.files() {
        std::fs::metadata(path)
            .with_context(|| format!("kafka.{field} names {}, which cannot be read", path.display()))?;
    }
    let limits = &config.limits;
    let bounds = [
        ("connections", u64::from(limits.connections)),
        ("connectRate", u64::from(limits.connect_rate)),
        ("packetBytes", u64::from(limits.packet_bytes)),
        ("inFlight", u64::from(limits.in_flight)),
        ("subscriptions", u64::from(limits.subscriptions)),
        ("idleTimeMs", limits.idle_time_ms),
    ];
    for (field, value) in bounds {
        if value == 0 {
            bail!("limits.{field} is 0: nothing could be served; write at least 1 or leave it out");
        }
    }
    Ok(())
}

async fn bind(listeners: &[Listener]) -> Result<Vec<(Listener, TcpListener)>> {
    let mut bound = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let socket = TcpListener::bind(("0.0.0.0", listener.port)).await.with_context(|| {
            format!("failed to listen on port {} (listener {:?})", listener.port, listener.name)
        })?;
        bound.push((listener.clone(), socket));
    }
    Ok(bound)
}

async fn end_on_signal(shutdown: Shutdown) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("failed to wait for signals: the process ends without draining");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to end: no new connections, open ones drain");
    shutdown.begin();
}

#[cfg(test)]
mod tests;
