//! The Tidegate operator: command line, logs, leadership, shutdown.

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use kube::client::ClientBuilder;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tidegate_operator::failover::{self, Board, Place};
use tidegate_operator::frame::elector::Elector;
use tidegate_operator::frame::http::{self, Health};
use tidegate_operator::frame::metrics::Metrics;
use tidegate_operator::frame::options::{AddressRange, Images, Options};
use tidegate_operator::frame::requests::CountRequests;
use tidegate_operator::frame::{Context, dns, failure};
use tidegate_operator::network::allow::NetworkRule;
use tidegate_operator::{controllers, manifests, rbac};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Passes under way have so long to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);

#[derive(Parser)]
#[command(
    name = "tidegate-operator",
    version,
    about = "Turns IoTPlatforms, ProtocolGateways, Topics and DeviceFleets into what runs",
    max_term_width = 110
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the generated manifests (CRDs and rights)
    #[command(hide = true)]
    Manifests {
        /// The folder with crds/ and rbac/
        #[arg(long, default_value = "manifests")]
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Settings {
    /// The image of gateways
    #[arg(long, env = "TIDEGATE_GATEWAY_IMAGE", default_value = "tidegate/gateway:latest")]
    gateway_image: String,
    /// The image of Kafka: any with its jars in /opt/kafka/libs and a Java runtime
    #[arg(long, env = "TIDEGATE_KAFKA_IMAGE", default_value = "tidegate/kafka:latest")]
    kafka_image: String,
    /// The namespaces to work in, comma-separated; all where none is given
    #[arg(long, env = "TIDEGATE_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Addresses that platforms may take for load balancers: ranges or networks, comma-separated; none where none is given
    #[arg(long, env = "TIDEGATE_ADDRESS_ALLOW_LIST", value_delimiter = ',')]
    address_allow_list: Vec<String>,
    /// Networks that platforms may have made on nodes, comma-separated: macvlan:eth1, hostDevice:enp3s0*, bridge:br0,
    /// vlan:eth1:100-199; none where none is given
    #[arg(long, env = "TIDEGATE_NETWORK_ALLOW_LIST", value_delimiter = ',')]
    network_allow_list: Vec<String>,
    /// The namespace of MetalLB's own objects
    #[arg(long, env = "TIDEGATE_METALLB_NAMESPACE", default_value = "metallb-system")]
    metallb_namespace: String,
    /// The cluster's DNS domain; without it the one that this pod searches, or cluster.local
    #[arg(long, env = "TIDEGATE_CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// How often an object is looked at of which nothing is heard, a fifth more or less
    #[arg(long, env = "TIDEGATE_RESYNC", default_value = "10m")]
    resync: tidegate_crds::Duration,
    /// How soon an object that is not ready yet is looked at again without an event, the first time; later less often
    #[arg(long, env = "TIDEGATE_LOOK_AGAIN", default_value = "10s")]
    look_again: tidegate_crds::Duration,
    /// How long pods need at most until they use what changed in a Secret that they mount: the kubelet's sync, a gateway's
    /// look, and a margin. Each step of a certificate rotation waits for it
    #[arg(long, env = "TIDEGATE_SECRET_SPREAD", default_value = "5m")]
    secret_spread: tidegate_crds::Duration,
    /// How long applications outside have to take new certificates into use, after each step of a rotation of Kafka's
    /// authority
    #[arg(long, env = "TIDEGATE_APPLICATIONS_WAIT", default_value = "24h")]
    applications_wait: tidegate_crds::Duration,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// The namespace of the leader's Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = rbac::NAMESPACE)]
    namespace: String,
    /// This replica's name, which no other replica has
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The node that this replica runs on
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// What is logged, as tracing's filters say it
    #[arg(long, env = "TIDEGATE_LOG", default_value = "info,kube=warn")]
    log: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Manifests { dir }) => manifests::write(&dir).map_err(Into::into),
        None => serve(&arguments.settings),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log).context("failed to read --log")?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        .init();
    let options = options(settings)?;
    let identity =
        settings.identity.clone().unwrap_or_else(|| format!("{}-{:08x}", rbac::NAME, rand::random::<u32>()));
    let shutdown = CancellationToken::new();
    let stopped = stop_signal()?;
    tokio::pin!(stopped);

    let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::default()));
    let server = http::serve(settings.listen, Arc::clone(&health), Arc::clone(&metrics), shutdown.clone())
        .await
        .with_context(|| format!("failed to listen on {}", settings.listen))?;
    tokio::spawn(server);

    let client = client(&metrics).await?;
    let context = Arc::new(Context::new(client.clone(), options, Arc::clone(&metrics), identity.clone()));
    // Every replica watches nodes: whoever leads may be on the one that dies.
    let board = Arc::new(Board::default());
    let place = Place {
        namespace: settings.namespace.clone(),
        identity: identity.clone(),
        node: settings.node.clone().filter(|node| !node.is_empty()),
    };
    tokio::spawn(failover::run(Arc::clone(&context), Arc::clone(&board), place, shutdown.clone()));

    let mut elector = Elector::new(client, &settings.namespace, rbac::NAME, &identity);
    let tick = |answered| {
        health.tick();
        // A standby is ready too: the API server answers it, and it may take over at any time.
        health.set_ready(answered);
    };
    tokio::select! {
        () = elector.campaign(tick) => {}
        () = &mut stopped => return Ok(()),
    }
    tracing::info!(identity, version = env!("CARGO_PKG_VERSION"), "leading");
    metrics.leads(true);
    board.lead();
    let mut running = controllers::start(&context, &board, &shutdown);
    tokio::select! {
        // Whoever leads now must not be disturbed: everything ends with this process, at once.
        lost = elector.keep(tick) => return Err(lost).context("leadership is lost"),
        ended = running.join_next() => bail!("a controller ended by itself: {ended:?}"),
        () = &mut stopped => tracing::info!("stopping"),
    }
    shutdown.cancel();
    let drained = async { while running.join_next().await.is_some() {} };
    tokio::select! {
        ended = tokio::time::timeout(DRAIN, drained) => {
            if ended.is_err() {
                tracing::warn!("some passes did not end in time");
            }
        }
        lost = elector.keep(tick) => return Err(lost).context("leadership is lost"),
    }
    // Nothing of ours writes any more, so another replica may begin at once.
    running.abort_all();
    elector.release().await;
    Ok(())
}

async fn client(metrics: &Arc<Metrics>) -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer().await.context("failed to find the cluster")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    let client = ClientBuilder::try_from(config).context("failed to make a client")?;
    let client = client.with_layer(&CountRequests(Arc::clone(metrics))).build();
    match client.apiserver_version().await {
        Ok(version) => tracing::info!(version = version.git_version, "connected to the API server"),
        // It may be on its way up; the election goes on trying.
        Err(error) => tracing::warn!(error = failure::chain(&error), "the API server does not answer yet"),
    }
    Ok(client)
}

fn options(settings: &Settings) -> anyhow::Result<Options> {
    let filled = |all: &[String]| {
        all.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect::<Vec<_>>()
    };
    let ranges = filled(&settings.address_allow_list);
    let ranges: Result<Vec<AddressRange>, _> = ranges.iter().map(|text| text.parse()).collect();
    let networks = filled(&settings.network_allow_list);
    let networks: Result<Vec<NetworkRule>, _> = networks.iter().map(|text| text.parse()).collect();
    Ok(Options {
        images: Images { gateway: settings.gateway_image.clone(), kafka: settings.kafka_image.clone() },
        namespaces: filled(&settings.namespaces),
        address_allow_list: ranges.context("failed to read --address-allow-list")?,
        network_allow_list: networks.context("failed to read --network-allow-list")?,
        metallb_namespace: settings.metallb_namespace.clone(),
        cluster_domain: settings.cluster_domain.clone().unwrap_or_else(|| {
            dns::cluster_domain(&std::fs::read_to_string(dns::RESOLVER).unwrap_or_default())
        }),
        resync: wait("--resync", settings.resync)?,
        look_again: wait("--look-again", settings.look_again)?,
        secret_spread: wait("--secret-spread", settings.secret_spread)?,
        applications_wait: wait("--applications-wait", settings.applications_wait)?,
    })
}

/// A time to wait. Without a pause the operator would do nothing else.
fn wait(option: &str, time: tidegate_crds::Duration) -> anyhow::Result<Duration> {
    let time = Duration::from_millis(time.as_millis());
    if time < Duration::from_secs(1) {
        bail!("{option} is too short: write a time from 1s, for example 10m");
    }
    Ok(time)
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
