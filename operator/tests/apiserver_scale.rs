//! Many objects declared at once, on a bare API server and a real Kafka of one broker outside of it: how long until all are
//! reconciled, what that asks of the API server, how large the operator grows, and what it asks when nothing happens. The
//! figures go into the report `operator-scale`; what is asserted is that everything gets there, and what a pass may cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod apiserver_support;
mod drift_support;
mod kafka_support;

use apiserver_support::{Operator, Seen, World, says, watch_all};
use drift_support::declare_external;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kafka_support::{Cluster, Java};
use kube::api::{Api, PostParams};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::{IoTPlatform, ProtocolGateway, State, Topic};
use tidegate_ledger::report::{Report, Row, campaign, reports};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the quiet system is watched.
const QUIET: Duration = Duration::from_secs(20);

/// How much is declared.
struct Scale {
    gateways: usize,
    topics: usize,
}

impl Scale {
    /// The figures in the campaign, a tenth of them in every test run.
    fn chosen() -> Self {
        if campaign() { Self { gateways: 200, topics: 1000 } } else { Self { gateways: 20, topics: 100 } }
    }
}

#[test]
fn many_gateways_and_topics_declared_at_once_are_all_reconciled() {
    let mut kafka = Cluster::prepare(1, Java::find());
    kafka.start_all();
    let world = World::new();
    let operator = world.operator("scale");
    declare_external(&world, &kafka.access("operator"));
    let mut report = Report::start("operator-scale");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = world.client().await;
        let platforms = watch_all::<IoTPlatform>(&client);
        until("the platform is Ready", || async { ready(&platforms) == 1 }).await;
        let here = Measured { world: &world, operator: &operator };
        for row in declare(&client, &here, &Scale::chosen()).await {
            report.push(row);
        }
    });
    println!("{}", report.write(&reports()).unwrap().display());
    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    for line in log.lines() {
        assert!(!line.contains("forbidden") && !line.contains("\"ERROR\""), "{line}");
    }
}

/// The operator as it is measured.
struct Measured<'a> {
    world: &'a World,
    operator: &'a Operator,
}

impl Measured<'_> {
    /// Requests to the API server so far, by verb.
    fn requests(&self) -> BTreeMap<String, u64> {
        let text = self.operator.metrics();
        let mut all = BTreeMap::new();
        for line in
            text.lines().filter_map(|line| line.strip_prefix("tidegate_kubernetes_requests_total{verb=\""))
        {
            let (verb, rest) = line.split_once('"').unwrap();
            let count: u64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
            *all.entry(verb.to_owned()).or_default() += count;
        }
        assert!(!all.is_empty(), "{text}");
        all
    }

    /// A field of the process's status, in MiB.
    fn memory(&self, field: &str) -> f64 {
        let path = format!("/proc/{}/status", self.operator.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: f64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
        (kib / 102.4).round() / 10.0
    }

    /// Seconds of CPU so far.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.operator.child.id())).unwrap();
        let fields: Vec<_> = text.rsplit(") ").next().unwrap().split(' ').collect();
        // utime and stime, in hundredths of a second on every Linux
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

async fn declare(client: &Client, here: &Measured<'_>, scale: &Scale) -> [Row; 2] {
    let (topics_seen, gateways_seen) = (watch_all::<Topic>(client), watch_all::<ProtocolGateway>(client));
    let deployments_seen = watch_all::<Deployment>(client);
    let (before, memory, cpu) = (here.requests(), here.memory("VmRSS"), here.cpu());
    let began = Instant::now();
    let gateways = (0..scale.gateways).map(|n| {
        json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway", "metadata": {"name": format!("g-{n}")},
            "spec": {"platformRef": {"name": "plant"}, "mqtt": {"listeners": [{"name": "mqtt", "port": 1883}]},
                "expose": {"type": "ClusterIP"}},
        })
    });
    let topics = (0..scale.topics).map(|n| {
        json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic", "metadata": {"name": format!("t-{n}")},
            "spec": {"platformRef": {"name": "plant"}},
        })
    });
    let one = |object: Value| async move {
        match object["kind"].as_str() {
            Some("Topic") => create::<Topic>(client, &object).await,
            _ => create::<ProtocolGateway>(client, &object).await,
        }
    };
    stream::iter(gateways.chain(topics).map(one)).buffer_unordered(20).collect::<Vec<_>>().await;
    let declared = began.elapsed();
    until("all topics are Ready", || async { ready(&topics_seen) == scale.topics }).await;
    let topics_ready = began.elapsed();
    until("all gateways have what they are made of", || async {
        built(&gateways_seen, &deployments_seen) == scale.gateways
    })
    .await;
    let all = began.elapsed();

    let objects = scale.gateways + scale.topics;
    let spent = since(&here.requests(), &before);
    println!("requests by verb: {spent:?}");
    let mut row = Row::new("declared at once");
    row.set("gateways", scale.gateways)
        .set("topics", scale.topics)
        .set("declared_after_s", tenths(declared))
        .set("topics_ready_after_s", tenths(topics_ready))
        .set("reconciled_after_s", tenths(all))
        .set(
            "api_calls_per_object",
            (spent.values().sum::<u64>() as f64 / objects as f64 * 10.0).round() / 10.0,
        )
        .set("api_writes_per_object", (writes(&spent) as f64 / objects as f64 * 10.0).round() / 10.0)
        .set("cpu_s", tenths(Duration::from_secs_f64(here.cpu() - cpu)))
        .set("memory_before_mib", memory)
        .set("memory_peak_mib", here.memory("VmHWM"))
        .set("memory_after_mib", here.memory("VmRSS"));
    // What a pass costs is bounded: this would be a storm, whatever the machine.
    assert!(spent.values().sum::<u64>() < 60 * objects as u64, "{spent:?}\n{}", here.world.everything());

    let quiet = quiet(here).await;
    [row, quiet]
}

/// What is asked while nothing changes.
async fn quiet(here: &Measured<'_>) -> Row {
    // Events of the last passes may still be under way: quiet begins with a second without a request but the lease's.
    let mut last = here.requests();
    until("the operator rests", || {
        let now = here.requests();
        let rests = since(&now, &last).values().sum::<u64>() <= 2;
        last = now;
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            rests
        }
    })
    .await;
    let (before, cpu) = (here.requests(), here.cpu());
    tokio::time::sleep(QUIET).await;
    let spent = since(&here.requests(), &before);
    let seconds = QUIET.as_secs_f64();
    let mut row = Row::new("nothing changes");
    row.set("api_calls_per_s", spent.values().sum::<u64>() as f64 / seconds)
        .set("cpu_share", ((here.cpu() - cpu) / seconds * 1000.0).round() / 1000.0)
        .set("memory_after_mib", here.memory("VmRSS"));
    row
}

fn since(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    now.iter().map(|(verb, count)| (verb.clone(), count - before.get(verb).copied().unwrap_or(0))).collect()
}

fn writes(spent: &BTreeMap<String, u64>) -> u64 {
    ["create", "update", "patch", "delete"].iter().filter_map(|verb| spent.get(*verb)).sum()
}

fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

async fn create<K>(client: &Client, object: &Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let object: K = serde_json::from_value(object.clone()).unwrap();
    Api::<K>::namespaced(client.clone(), "plant").create(&PostParams::default(), &object).await.unwrap();
}

/// How many objects are Ready.
fn ready(all: &Store<Seen>) -> usize {
    let is_ready = |one: &Arc<Seen>| says(one, "Ready").is_some_and(|(state, ..)| state == State::True);
    all.state().iter().filter(|one| is_ready(one)).count()
}

/// How many gateways have a status of their newest generation, and a Deployment. No pod runs here, so none gets Ready.
fn built(gateways: &Store<Seen>, deployments: &Store<Seen>) -> usize {
    let deployments: BTreeSet<_> = deployments.state().iter().map(|one| one.name_any()).collect();
    let is = |one: &Seen, type_, wanted| says(one, type_).is_some_and(|(state, ..)| state == wanted);
    let is_built = |gateway: &Arc<Seen>| {
        is(gateway, "ResolvedRefs", State::True)
            && is(gateway, "Ready", State::False)
            && deployments.contains(&gateway.name_any())
    };
    gateways.state().iter().filter(|gateway| is_built(gateway)).count()
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
