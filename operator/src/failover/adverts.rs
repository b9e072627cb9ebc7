//! MetalLB's announcements: which pools each covers, whose it is, which nodes announce. Pure but for [`list`].
//!
//! Ours select nodes by the label that failover sets on them, so they stay as they are when a node dies: MetalLB's webhook
//! guards them, and has one replica, which may be on that very node. MetalLB follows a node's labels as fast as its own
//! objects. It announces an address from any node that *one* of the advertisements over its pool selects; so where an
//! administrator's own covers a pool, ours can keep no node out.

use super::model::{Advert, Announcers, Owner};
use crate::frame::Context;
use crate::platform::pool::PLATFORM_UID;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::core::{GroupVersionKind, Selector, SelectorExt as _};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_crds::labels;

/// The label's value on announcements of pools that platforms refer to.
pub const COMPONENT: &str = "failover";

/// MetalLB's objects, as far as failover needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetalLb {
    /// All announcements.
    pub adverts: Vec<Advert>,
    /// The names of all pools.
    pub pools: BTreeSet<String>,
}

/// An API of one of MetalLB's kinds.
pub fn api(context: &Context, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), &context.options.metallb_namespace, &resource(kind))
}

fn resource(kind: &str) -> ApiResource {
    let plural = format!("{}s", kind.to_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metallb.io", "v1beta1", kind), &plural)
}

/// Reads all of it; nothing where the cluster has no MetalLB.
pub async fn list(context: &Context) -> Result<Option<MetalLb>, kube::Error> {
    // From the API server's cache: what is older than that is noticed when it is written.
    let all = ListParams::default().match_any();
    let pools = match api(context, "IPAddressPool").list_metadata(&all).await {
        Ok(pools) => pools,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
        Err(error) => return Err(error),
    };
    let pools: BTreeMap<_, _> =
        pools.into_iter().map(|pool| (pool.name_any(), pool.labels().clone())).collect();
    let mut adverts = Vec::new();
    for kind in ["L2Advertisement", "BGPAdvertisement"] {
        let found = match api(context, kind).list(&all).await {
            Ok(found) => found,
            // A MetalLB that was installed without it.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        adverts.extend(found.iter().map(|object| advert(kind_name(kind), object, &pools)));
    }
    Ok(Some(MetalLb { adverts, pools: pools.into_keys().collect() }))
}

fn kind_name(kind: &str) -> &'static str {
    if kind == "L2Advertisement" { "L2Advertisement" } else { "BGPAdvertisement" }
}

fn advert(
    kind: &'static str,
    object: &DynamicObject,
    pools: &BTreeMap<String, BTreeMap<String, String>>,
) -> Advert {
    let spec = &object.data["spec"];
    let ours = object.labels().get(labels::MANAGED_BY).is_some_and(|who| who == labels::MANAGER);
    let shared = object.labels().get(labels::COMPONENT).is_some_and(|what| what == COMPONENT);
    let owner = match kind {
        "L2Advertisement" if ours && shared => Owner::Shared,
        "L2Advertisement" if ours && object.labels().contains_key(PLATFORM_UID) => Owner::Platform,
        _ => Owner::Foreign,
    };
    let names = strings(&spec["ipAddressPools"]);
    let selectors = spec["ipAddressPoolSelectors"].as_array().cloned().unwrap_or_default();
    let selected = |labels: &BTreeMap<String, String>| {
        selectors.iter().any(|selector| {
            let selector = serde_json::from_value::<LabelSelector>(selector.clone());
            // What we cannot read may select it.
            selector.map_or(true, |selector| {
                Selector::try_from(selector).map_or(true, |selector| selector.matches(labels))
            })
        })
    };
    let all = names.is_empty() && selectors.is_empty();
    let covers = |(name, labels): &(&String, &BTreeMap<String, String>)| {
        all || names.contains(*name) || selected(labels)
    };
    Advert {
        kind,
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        version: object.resource_version().unwrap_or_default(),
        owner,
        pools: pools.iter().filter(covers).map(|(name, _)| name.clone()).collect(),
        from: announcers(&spec["nodeSelectors"]),
    }
}

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn announcers(selectors: &Value) -> Announcers {
    let selectors = if selectors.is_null() { &json!([]) } else { selectors };
    let known = [Announcers::All, Announcers::InService];
    let known = known.into_iter().find(|from| *selectors == node_selectors(*from));
    known.unwrap_or(Announcers::Others)
}

/// Node selectors that let these nodes announce.
pub fn node_selectors(from: Announcers) -> Value {
    match from {
        Announcers::InService => {
            json!([{"matchExpressions": [{"key": labels::IN_SERVICE, "operator": "NotIn", "values": ["false"]}]}])
        }
        Announcers::All | Announcers::Others => json!([]),
    }
}

/// Our announcement of a pool that platforms refer to.
pub fn shared(pool: &str, namespace: &str, from: Announcers) -> DynamicObject {
    // No platform's own has a dot in its name.
    let mut object = DynamicObject::new(&format!("tidegate.{pool}"), &resource("L2Advertisement"))
        .data(json!({"spec": {"ipAddressPools": [pool], "nodeSelectors": node_selectors(from)}}));
    object.metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        labels: Some(
            [(labels::MANAGED_BY, labels::MANAGER), (labels::COMPONENT, COMPONENT)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ),
        ..object.metadata
    };
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> BTreeMap<String, BTreeMap<String, String>> {
        let site = [("site".to_owned(), "berlin".to_owned())];
        [("devices".to_owned(), site.into()), ("other".to_owned(), BTreeMap::new())].into()
    }

    fn read(kind: &'static str, labels: &Value, spec: &Value) -> Advert {
        let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
            "metadata": {"name": "a", "labels": labels}, "spec": spec});
        advert(kind, &serde_json::from_value(object).unwrap(), &pools())
    }

    fn over(spec: &Value) -> Vec<String> {
        read("L2Advertisement", &json!({}), spec).pools.into_iter().collect()
    }

    #[test]
    fn an_advertisement_covers_pools_by_name_by_label_or_all() {
        assert_eq!(over(&json!({"ipAddressPools": ["other"]})), ["other"]);
        assert_eq!(over(&json!({})), ["devices", "other"]);
        let berlin = json!({"matchLabels": {"site": "berlin"}});
        assert_eq!(over(&json!({"ipAddressPoolSelectors": [berlin]})), ["devices"]);
        let unreadable = json!({"matchExpressions": [{"key": "site", "operator": "Near"}]});
        assert_eq!(over(&json!({"ipAddressPoolSelectors": [unreadable]})).len(), 2);
    }

    #[test]
    fn what_is_not_marked_is_an_administrators() {
        let unmarked = json!({});
        let owner = |kind, labels| read(kind, labels, &json!({})).owner;
        let ours =
            json!({"app.kubernetes.io/managed-by": "tidegate", "app.kubernetes.io/component": "failover"});
        let platform = json!({"app.kubernetes.io/managed-by": "tidegate", PLATFORM_UID: "u"});
        assert_eq!(owner("L2Advertisement", &ours), Owner::Shared);
        assert_eq!(owner("L2Advertisement", &platform), Owner::Platform);
        assert_eq!(owner("L2Advertisement", &unmarked), Owner::Foreign);
        assert_eq!(owner("BGPAdvertisement", &ours), Owner::Foreign);
    }

    #[test]
    fn which_nodes_announce_is_read_back_and_other_selectors_are_known_as_such() {
        let seen = |selectors: &Value| {
            read("L2Advertisement", &json!({}), &json!({"nodeSelectors": selectors})).from
        };
        for from in [Announcers::All, Announcers::InService] {
            assert_eq!(seen(&node_selectors(from)), from);
        }
        assert_eq!(read("L2Advertisement", &json!({}), &json!({})).from, Announcers::All);
        assert_eq!(seen(&json!([{"matchLabels": {"edge": "true"}}])), Announcers::Others);
    }
}
