//! What all controllers share. Holds the client, does no IO itself.

use super::applied::LastApplied;
use super::metrics::Metrics;
use super::options::Options;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use kube::core::DynamicResourceScope;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use std::sync::Arc;
use tidegate_crds::labels;

/// What all controllers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The administrator's settings.
    pub options: Options,
    /// Where Events go.
    pub recorder: Recorder,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// What children were when they were last applied.
    pub last_applied: LastApplied,
    /// The wall clock, for transition times and certificates.
    pub clock: fn() -> Timestamp,
}

impl Context {
    /// The context of a running operator; `instance` is this replica's name in Events.
    pub fn new(client: Client, options: Options, metrics: Arc<Metrics>, instance: String) -> Self {
        let reporter = Reporter { controller: "tidegate.io/operator".to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client.clone(), reporter);
        let last_applied = LastApplied::default();
        Self { client, options, recorder, metrics, last_applied, clock: Timestamp::now }
    }

    /// The API of a kind in one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a kind without namespaces.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    /// Where controllers watch: everywhere, or each of the administrator's namespaces.
    pub fn scopes(&self) -> Vec<Scope> {
        let metallb = &self.options.metallb_namespace;
        let scope = |namespace| Scope { client: self.client.clone(), namespace, metallb: metallb.clone() };
        if self.options.namespaces.is_empty() {
            vec![scope(None)]
        } else {
            self.options.namespaces.iter().cloned().map(|one| scope(Some(one))).collect()
        }
    }
}

/// Where one instance of a controller watches.
#[derive(Clone)]
pub struct Scope {
    client: Client,
    namespace: Option<String>,
    metallb: String,
}

impl Scope {
    /// The namespace that is watched; absent: all.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether objects of this namespace are watched here: whoever calls for one of another calls everywhere.
    pub fn covers(&self, namespace: Option<&str>) -> bool {
        self.namespace.is_none() || self.namespace.as_deref() == namespace
    }

    /// The API of a kind, for watching.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            None => Api::all(self.client.clone()),
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
        }
    }

    /// The API of a kind of which only a part is read, for watching.
    pub fn dynamic_api<K>(&self, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match &self.namespace {
            None => Api::all_with(self.client.clone(), resource),
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    /// The API of one of MetalLB's kinds, for watching.
    pub fn outside(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.metallb, resource)
    }

    /// The API of a kind that is not known at compile time, for watching.
    pub fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        match &self.namespace {
            None => Api::all_with(self.client.clone(), resource),
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    /// The API of a kind without namespaces, for watching.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    /// Watches only what the operator made.
    pub fn owned(&self) -> watcher::Config {
        watcher::Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER))
    }
}
