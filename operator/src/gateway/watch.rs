//! The watches of the gateway controller on what is not its own: attachments of networks, and labels of nodes. IO: the
//! watches themselves.

use crate::frame::Scope;
use crate::frame::outside::changes;
use crate::network::definition::attachments;
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::BTreeMap;
use tidegate_crds::gateway::{ExposeType, Listener};
use tidegate_crds::{ProtocolGateway, labels};

/// A gateway as the controller sees it.
type Guarded = DeserializeGuard<ProtocolGateway>;

/// The gateways with second networks near an attachment that came, changed or went. Which attachment a network is stands
/// in the platform, so all gateways with networks in the namespace are looked at.
pub fn attached(
    scope: &Scope,
    gateways: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes(scope.dynamic(&attachments())).flat_map(move |object| {
        let namespace = object.map(|object| object.namespace());
        found(&gateways, |gateway| {
            !gateway.spec.networks.is_empty()
                && namespace.as_ref().is_none_or(|one| *one == gateway.namespace())
        })
    })
}

/// The gateways that nodes matter to, when the capabilities of one changed, or a node came, went, or was taken out or back
/// by failover: those that ask for capabilities, and those whose certificate names nodes.
pub fn placed(
    scope: &Scope,
    gateways: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let mut known: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let nodes = changes(scope.cluster_api::<PartialObjectMeta<Node>>());
    nodes.flat_map(move |node| {
        let news = node.is_some_and(|node| {
            let gone = node.metadata.deletion_timestamp.is_some();
            let mut counts = node.labels().clone();
            counts.retain(|label, _| {
                label.starts_with(labels::CAPABILITY_PREFIX) || label == labels::IN_SERVICE
            });
            let before = known.insert(node.name_any(), counts);
            gone || before.as_ref() != known.get(&node.name_any())
        });
        found(&gateways, |gateway| {
            let spec = &gateway.spec;
            let placed = spec.placement.as_ref().is_some_and(|placement| !placement.capabilities.is_empty());
            let listeners = [&spec.mqtt, &spec.http].into_iter().flatten().flat_map(|all| &all.listeners);
            let issued = |each: &Listener| each.tls.as_ref().is_some_and(|tls| tls.secret_ref.is_none());
            let named = spec.expose.type_ == ExposeType::NodePort && listeners.clone().any(issued);
            news && (placed || named)
        })
    })
}

fn found(
    gateways: &Store<Guarded>,
    concerned: impl Fn(&ProtocolGateway) -> bool,
) -> stream::Iter<std::vec::IntoIter<ObjectRef<Guarded>>> {
    let all = gateways.state().into_iter().filter(|gateway| gateway.0.as_ref().is_ok_and(&concerned));
    stream::iter(all.map(|gateway| ObjectRef::from_obj(&*gateway)).collect::<Vec<_>>())
}
