//! Names of a managed Kafka's objects, hosts and ports. Pure.

use super::cluster::APP;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use tidegate_crds::labels;

/// The port of the listener for clients and between brokers.
pub const CLIENT_PORT: u16 = 9092;
/// The port of the controllers' listener.
pub const CONTROLLER_PORT: u16 = 9093;
/// Nodes 0 to 2 vote; later ones are brokers only.
pub const VOTERS: i32 = 3;

/// Names of everything that one platform's managed Kafka is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The platform's namespace.
    pub namespace: String,
    /// The platform's name.
    pub platform: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
}

impl Names {
    /// Of the platform `namespace`/`platform`.
    pub fn new(namespace: &str, platform: &str, cluster_domain: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            platform: platform.to_owned(),
            cluster_domain: cluster_domain.to_owned(),
        }
    }

    /// StatefulSet, headless Service, `PodDisruptionBudget` and ServiceAccount.
    pub fn kafka(&self) -> String {
        format!("{}-kafka", self.platform)
    }

    /// The one mutable ConfigMap: which node is who.
    pub fn identity(&self) -> String {
        format!("{}-kafka-identity", self.platform)
    }

    /// The Secret of the authority that signs everything that speaks with Kafka.
    pub fn kafka_ca(&self) -> String {
        format!("{}-kafka-ca", self.platform)
    }

    /// The Secret of the authority that signs device listeners.
    pub fn device_ca(&self) -> String {
        format!("{}-device-ca", self.platform)
    }

    /// The ConfigMap with the public certificates of that authority.
    pub fn devices_ca(&self) -> String {
        format!("{}-devices-ca", self.platform)
    }

    /// The Secret with the brokers' key stores, one key per node.
    pub fn broker_tls(&self) -> String {
        format!("{}-kafka-broker", self.platform)
    }

    /// The Secret with the operator's client certificate.
    pub fn operator_tls(&self) -> String {
        format!("{}-kafka-operator", self.platform)
    }

    /// The Secret with the gateways' client certificate.
    pub fn gateway_tls(&self) -> String {
        format!("{}-kafka-gateway", self.platform)
    }

    /// The Secret with an application's client certificate.
    pub fn application_tls(&self, name: &str) -> String {
        format!("{}-app-{name}", self.platform)
    }

    /// The pod of a node.
    pub fn pod(&self, node: i32) -> String {
        format!("{}-kafka-{node}", self.platform)
    }

    /// The claim of a node's volume, named as the StatefulSet looks for it.
    pub fn claim(&self, node: i32) -> String {
        format!("data-{}-kafka-{node}", self.platform)
    }

    /// The domain of the pods: `plant-kafka.plant.svc.cluster.local`. In full, so that it is asked for once and not under
    /// each suffix that pods search: each question may go to a DNS server that is gone.
    pub fn domain(&self) -> String {
        format!("{}.{}", self.short_domain(), self.cluster_domain)
    }

    fn short_domain(&self) -> String {
        format!("{}.{}.svc", self.kafka(), self.namespace)
    }

    /// The host that a node advertises.
    pub fn host(&self, node: i32) -> String {
        format!("{}.{}", self.pod(node), self.domain())
    }

    /// What clients start from.
    pub fn bootstrap(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.domain())
    }

    /// Every name that a client may call a node by, for its certificate.
    pub fn certificate_names(&self, node: i32) -> std::collections::BTreeSet<String> {
        let (pod, kafka, namespace) = (self.pod(node), self.kafka(), &self.namespace);
        [
            self.host(node),
            format!("{pod}.{}", self.short_domain()),
            format!("{pod}.{kafka}"),
            kafka.clone(),
            format!("{kafka}.{namespace}"),
            self.domain(),
            self.short_domain(),
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
        ]
        .into()
    }
}

impl Names {
    /// The labels of every object.
    pub fn labels(&self, component: &str) -> BTreeMap<String, String> {
        [
            (labels::NAME, APP),
            (labels::INSTANCE, self.platform.as_str()),
            (labels::COMPONENT, component),
            (labels::MANAGED_BY, labels::MANAGER),
            (labels::PLATFORM, self.platform.as_str()),
            (labels::OWNER_KIND, "iotplatform"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The metadata of an object; the owner is added where it is applied.
    pub fn metadata(&self, name: String, component: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels(component)),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_pods_name_in_the_headless_service() {
        let names = Names::new("iot", "plant", "cluster.local");
        assert_eq!(names.host(2), "plant-kafka-2.plant-kafka.iot.svc.cluster.local");
        assert_eq!(names.bootstrap(), "plant-kafka.iot.svc.cluster.local:9092");
        assert!(names.certificate_names(2).contains("plant-kafka-2.plant-kafka.iot.svc"));
        assert!(names.certificate_names(2).contains("plant-kafka.iot.svc"));
    }
}
