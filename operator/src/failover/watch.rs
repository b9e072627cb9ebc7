//! Keeps what failover has to know of the cluster at hand. IO: watches on nodes, leases, pods, platforms and the record.

use super::model::{Node, PlatformKey, Pod, Role};
use super::record::{self, Record};
use crate::frame::backbone::address_pool;
use crate::frame::failure::chain;
use crate::frame::{Context, Scope};
use crate::kafka::names::CLIENT_PORT;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{self as core, ConfigMap};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::config::ADMIN_PORT;
use tidegate_crds::{IoTPlatform, labels};
use tokio::task::JoinSet;

/// The namespace of the nodes' leases.
pub const LEASES: &str = "kube-node-lease";
/// Where a kubelet listens unless it says otherwise.
const KUBELET_PORT: u16 = 10_250;
/// A kubelet renews its lease four times in the lease's duration.
const RENEWALS: u32 = 4;
/// The lease's duration unless it says otherwise, in seconds.
const LEASE_SECONDS: i32 = 40;

/// When we saw a lease change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// What it says, to be compared only.
    pub renewed: String,
    /// How often it should.
    pub interval: Duration,
    /// When we saw it, by our clock.
    pub at: Instant,
}

/// What a platform says about failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Namespace and name.
    pub key: PlatformKey,
    /// Whether failover is on.
    pub enabled: bool,
    /// How often nodes are asked.
    pub interval: Duration,
    /// The pool that its addresses come from, and whether that is another's.
    pub pool: Option<(String, bool)>,
    /// Whether the platform fits our types; else the defaults are taken.
    pub readable: bool,
}

type Renewals = Arc<Mutex<BTreeMap<String, Renewal>>>;

/// What failover has to know of the cluster.
pub struct Watches {
    nodes: Store<core::Node>,
    pods: Vec<Store<core::Pod>>,
    platforms: Vec<Store<DeserializeGuard<IoTPlatform>>>,
    record: Store<ConfigMap>,
    record_key: ObjectRef<ConfigMap>,
    renewals: Renewals,
    /// The watches themselves, which end with this.
    _tasks: JoinSet<()>,
}

impl Watches {
    /// Starts all watches; they end when this is dropped. `changed` is told of every event.
    pub fn start(
        context: &Context,
        namespace: &str,
        changed: &Arc<impl Fn() + Send + Sync + 'static>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let ours = watcher::Config::default().labels(&format!(
            "{}={},{}",
            labels::MANAGED_BY,
            labels::MANAGER,
            labels::PLATFORM
        ));
        let nodes = keep(
            &mut tasks,
            context.cluster_api(),
            watcher::Config::default(),
            changed,
            |node: &mut core::Node| {
                // The longest part of a node, and of no use here.
                if let Some(status) = &mut node.status {
                    status.images = None;
                }
            },
        );
        let scopes = context.scopes();
        let pods = scopes.iter().map(|scope: &Scope| {
            keep(&mut tasks, scope.api::<core::Pod>(), ours.clone(), changed, |pod: &mut core::Pod| {
                pod.metadata.managed_fields = None;
            })
        });
        let pods = pods.collect();
        let platforms = scopes.iter().map(|scope| {
            keep(
                &mut tasks,
                scope.api::<DeserializeGuard<IoTPlatform>>(),
                watcher::Config::default(),
                changed,
                |_| {},
            )
        });
        let platforms = platforms.collect();
        let by_name = watcher::Config::default().fields(&format!("metadata.name={}", record::NAME));
        let record = keep(&mut tasks, context.api::<ConfigMap>(namespace), by_name, changed, |_| {});
        let renewals = Renewals::default();
        tasks.spawn(follow(context.api::<Lease>(LEASES), Arc::clone(&renewals)));
        let record_key = ObjectRef::new(record::NAME).within(namespace);
        Self { nodes, pods, platforms, record, record_key, renewals, _tasks: tasks }
    }

    /// Waits until everything was listed once.
    pub async fn ready(&self) {
        let _ = self.nodes.wait_until_ready().await;
        let _ = self.record.wait_until_ready().await;
        for pods in &self.pods {
            let _ = pods.wait_until_ready().await;
        }
        for platforms in &self.platforms {
            let _ = platforms.wait_until_ready().await;
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> BTreeMap<String, Node> {
        self.nodes.state().iter().map(|one| (one.name_any(), node(one))).collect()
    }

    /// All pods of ours that a node was found for.
    pub fn pods(&self) -> Vec<Pod> {
        self.pods.iter().flat_map(Store::state).filter_map(|one| pod(&one)).collect()
    }

    /// What platforms say about failover.
    pub fn wishes(&self) -> Vec<Wish> {
        self.platforms.iter().flat_map(Store::state).map(|one| wish(&one)).collect()
    }

    /// The platforms themselves, for Events.
    pub fn platforms(&self) -> Vec<IoTPlatform> {
        self.platforms.iter().flat_map(Store::state).filter_map(|one| one.0.as_ref().ok().cloned()).collect()
    }

    /// The record as it was seen last.
    pub fn record(&self) -> Option<Record> {
        self.record.get(&self.record_key).map(|map| Record::read(&map))
    }

    /// When leases changed.
    pub fn renewals(&self) -> BTreeMap<String, Renewal> {
        lock(&self.renewals).clone()
    }
}

fn lock(renewals: &Renewals) -> MutexGuard<'_, BTreeMap<String, Renewal>> {
    renewals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps all objects of one kind at hand.
fn keep<K>(
    tasks: &mut JoinSet<()>,
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<impl Fn() + Send + Sync + 'static>,
    strip: impl FnMut(&mut K) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let writer = Writer::<K>::new(());
    let store = writer.as_reader();
    let changed = Arc::clone(changed);
    let stream = reflector(writer, watcher(api, config).default_backoff().modify(strip));
    tasks.spawn(stream.for_each(move |event| {
        match event {
            Ok(_) => changed(),
            Err(error) => tracing::warn!(kind = %K::kind(&()), error = chain(&error), "a watch failed"),
        }
        futures::future::ready(())
    }));
    store
}

/// Notes when leases change.
async fn follow(api: Api<Lease>, renewals: Renewals) {
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let note = |lease: &Lease| {
        let (name, renewal) = (lease.name_any(), renewal(lease));
        let mut all = lock(&renewals);
        // An event may come again, after a watch was taken up anew.
        if all.get(&name).is_none_or(|before| before.renewed != renewal.renewed) {
            all.insert(name, renewal);
        }
    };
    let events = events.for_each(|event| {
        match &event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => note(lease),
            Ok(watcher::Event::Delete(lease)) => {
                lock(&renewals).remove(&lease.name_any());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(kind = "Lease", error = chain(error), "a watch failed"),
        }
        futures::future::ready(())
    });
    events.await;
}

/// What a lease says now.
pub fn renewal(lease: &Lease) -> Renewal {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).filter(|seconds| *seconds > 0);
    let duration = Duration::from_secs(u64::try_from(seconds.unwrap_or(LEASE_SECONDS)).unwrap_or_default());
    Renewal {
        renewed: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0.to_string())
            .unwrap_or_default(),
        interval: duration / RENEWALS,
        at: tokio::time::Instant::now().into_std(),
    }
}

fn node(node: &core::Node) -> Node {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    let kubelet = status
        .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0);
    Node {
        uid: node.uid().unwrap_or_default(),
        in_service: node.labels().get(labels::IN_SERVICE).is_none_or(|value| value != "false"),
        address: addresses
            .filter(|address| address.type_ == "InternalIP")
            .find_map(|address| address.address.parse::<IpAddr>().ok()),
        kubelet: kubelet.unwrap_or(KUBELET_PORT),
    }
}

fn pod(pod: &core::Pod) -> Option<Pod> {
    let text = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    let role = match text(labels::COMPONENT).as_str() {
        "gateway" => Role::Gateway,
        "broker" => Role::Broker,
        _ => return None,
    };
    let status = pod.status.as_ref();
    let runs = status.and_then(|status| status.phase.as_deref()) == Some("Running");
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let address = status.and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok());
    let port = if role == Role::Gateway { ADMIN_PORT } else { CLIENT_PORT };
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = |condition: &core::PodCondition| condition.type_ == "Ready" && condition.status == "True";
    Some(Pod {
        namespace: pod.namespace()?,
        name: pod.name_any(),
        uid: pod.uid()?,
        node: pod.spec.as_ref()?.node_name.clone().unwrap_or_default(),
        role,
        platform: text(labels::PLATFORM),
        instance: text(labels::INSTANCE),
        target: address.filter(|_| runs && !leaving).map(|address| SocketAddr::new(address, port)),
        in_service: labels::is_true(pod.labels().get(labels::IN_SERVICE)),
        ready: conditions.into_iter().any(ready),
        leaving,
    })
}

fn wish(platform: &DeserializeGuard<IoTPlatform>) -> Wish {
    let key = (platform.namespace().unwrap_or_default(), platform.name_any());
    let platform = platform.0.as_ref().ok();
    let failover = platform.map(|platform| platform.spec.failover.clone()).unwrap_or_default();
    let balancer = platform.and_then(|platform| platform.spec.load_balancer.as_ref());
    let referred = balancer.is_some_and(|balancer| balancer.pool_ref.is_some());
    Wish {
        key,
        enabled: failover.enabled,
        interval: Duration::from_millis(failover.probe_interval.as_millis()),
        pool: platform.and_then(address_pool).map(|pool| (pool, referred)),
        readable: platform.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gateways_pod_is_asked_where_its_health_is_served() {
        let object = json!({
            "metadata": {"namespace": "plant", "name": "mqtt-1", "uid": "u", "labels": {
                "app.kubernetes.io/component": "gateway", "app.kubernetes.io/instance": "mqtt",
                "tidegate.io/platform": "plant", "tidegate.io/in-service": "true"}},
            "spec": {"nodeName": "node1", "containers": []},
            "status": {"phase": "Running", "podIP": "10.244.1.7",
                "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let read = |object: &serde_json::Value| pod(&serde_json::from_value(object.clone()).unwrap());
        let seen = read(&object).unwrap();
        assert_eq!(seen.target.unwrap().to_string(), "10.244.1.7:9100");
        assert!(seen.is_endpoint() && seen.role == Role::Gateway && seen.node == "node1");
        let mut leaving = object.clone();
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let seen = read(&leaving).unwrap();
        assert!(seen.target.is_none() && !seen.is_endpoint());
        let mut other = object;
        other["metadata"]["labels"]["app.kubernetes.io/component"] = "tool".into();
        assert!(read(&other).is_none());
    }

    #[test]
    fn a_node_is_known_by_its_mark_its_inner_address_and_its_kubelets_port() {
        let object = json!({
            "metadata": {"name": "ip-10-0-0-7.example", "uid": "u"},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "192.0.2.7"}, {"type": "InternalIP", "address": "10.0.0.7"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}},
        });
        let seen = node(&serde_json::from_value(object.clone()).unwrap());
        assert_eq!((seen.uid.as_str(), seen.kubelet, seen.in_service), ("u", 10251, true));
        assert_eq!(seen.address.unwrap().to_string(), "10.0.0.7");
        let mut out = object;
        out["metadata"]["labels"] = json!({"tidegate.io/in-service": "false"});
        assert!(!node(&serde_json::from_value(out).unwrap()).in_service);
    }

    #[test]
    fn a_lease_is_renewed_four_times_in_its_duration() {
        let lease = |spec| serde_json::from_value::<Lease>(json!({"metadata": {"name": "n"}, "spec": spec}));
        let seen = renewal(&lease(json!({"leaseDurationSeconds": 20})).unwrap());
        assert_eq!(seen.interval, Duration::from_secs(5));
        assert_eq!(renewal(&lease(json!({})).unwrap()).interval, Duration::from_secs(10));
    }
}
