//! Names and labels of a gateway's children. Pure.

use super::validate::Gateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use std::collections::BTreeMap;
use tidegate_crds::labels;

/// The value of `app.kubernetes.io/name` on everything of a gateway.
pub const APPLICATION: &str = "tidegate-gateway";

/// The ServiceAccount's name.
pub fn service_account(gateway: &Gateway) -> String {
    format!("{}-gateway", gateway.name)
}

/// The Secret with the certificate that the platform's authority issues for the listeners.
pub fn issued(gateway: &Gateway) -> String {
    format!("{}-listeners", gateway.name)
}

/// The Services' names: the gateway's own for the first, numbered from 2 for the others.
pub fn services(gateway: &Gateway) -> Vec<String> {
    (1..=gateway.expose.addresses.max(1))
        .map(|number| if number == 1 { gateway.name.clone() } else { format!("{}-{number}", gateway.name) })
        .collect()
}

/// The labels that never change and that the Deployment selects by.
pub fn selector_labels(gateway: &Gateway) -> BTreeMap<String, String> {
    [(labels::NAME, APPLICATION), (labels::INSTANCE, gateway.name.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The same as a selector.
pub fn selector(gateway: &Gateway) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(gateway)), ..LabelSelector::default() }
}

/// The same as text, for `/scale` and for lists.
pub fn selector_text(gateway: &Gateway) -> String {
    let all: Vec<_> =
        selector_labels(gateway).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(",")
}

/// The labels of every object of a gateway.
pub fn labels(gateway: &Gateway) -> BTreeMap<String, String> {
    let mut all = selector_labels(gateway);
    all.insert(labels::COMPONENT.to_owned(), "gateway".to_owned());
    all.insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned());
    all.insert(labels::PLATFORM.to_owned(), gateway.platform.clone());
    all
}

/// The metadata of an object of a gateway.
pub fn meta(gateway: &Gateway, name: impl Into<String>) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), labels: Some(labels(gateway)), ..ObjectMeta::default() }
}
