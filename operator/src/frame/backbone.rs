//! How gateways reach a platform's Kafka: the one thing that the platform's controller says and the gateways'
//! reads. Pure.

use tidegate_crds::IoTPlatform;

/// How gateways reach a platform's Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backbone {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// In front of every topic, group and transactional id.
    pub prefix: String,
    /// The Secret with `tls.crt`, `tls.key` and `ca.crt` for the gateways' connection.
    pub secret: String,
}

impl Backbone {
    /// The name of the Secret with the gateways' client certificate.
    pub fn gateway_secret(platform: &str) -> String {
        format!("{platform}-kafka-gateway")
    }

    /// What a platform says about its Kafka; nothing before its controller knows it.
    pub fn of(platform: &IoTPlatform) -> Option<Self> {
        let name = platform.metadata.name.as_deref()?;
        let kafka = platform.status.as_ref()?.kafka.as_ref()?;
        if kafka.bootstrap.is_empty() {
            return None;
        }
        Some(Self {
            bootstrap: kafka.bootstrap.clone(),
            prefix: platform.spec.kafka.prefix.clone(),
            secret: Self::gateway_secret(name),
        })
    }
}

/// The MetalLB pool that the platform's load-balancer addresses come from: the one it names, or the one that the
/// operator makes for its ranges; nothing where the cluster's load balancer decides.
pub fn address_pool(platform: &IoTPlatform) -> Option<String> {
    let load_balancer = platform.spec.load_balancer.as_ref()?;
    if let Some(reference) = &load_balancer.pool_ref {
        return Some(reference.name.clone());
    }
    if load_balancer.addresses.is_empty() {
        return None;
    }
    let meta = &platform.metadata;
    Some(format!("tidegate-{}-{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}
