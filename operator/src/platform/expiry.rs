//! The metric of certificates: when each expires, as the platforms' status says it, read at each scrape, so that a platform
//! that is gone says nothing more. Only the leader watches, so only the leader has it. Pure.

use crate::frame::metrics::Metrics;
use crate::kafka::hub::Hub;
use kube::ResourceExt as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::{Arc, Weak};

/// When the certificates of all platforms expire.
#[derive(Debug)]
struct Expiry(Weak<Hub>);

/// Adds it to the operator's metrics.
pub fn register(hub: &Arc<Hub>, metrics: &Metrics) {
    let expiry = Box::new(Expiry(Arc::downgrade(hub)));
    metrics.register(|registry| registry.register_collector(expiry));
}

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When a platform's certificate expires, or the first of those who do the same, in seconds since 1970";
        let kind = MetricType::Gauge;
        let mut family =
            encoder.encode_descriptor("certificate_expires_timestamp_seconds", help, None, kind)?;
        for platform in self.0.upgrade().iter().flat_map(|hub| hub.platforms()) {
            let (namespace, name) = (platform.namespace().unwrap_or_default(), platform.name_any());
            for one in platform.status.iter().flat_map(|status| &status.certificates) {
                let labels = [
                    ("namespace", namespace.as_str()),
                    ("name", name.as_str()),
                    ("certificate", one.name.as_str()),
                ];
                ConstGauge::new(one.expires.0.as_second()).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::samples::platform;
    use kube::core::DeserializeGuard;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;
    use tidegate_crds::IoTPlatform;

    #[test]
    fn each_certificate_of_a_platform_that_is_there_says_when_it_expires() {
        let metrics = Metrics::default();
        let hub = Hub::new(&metrics);
        register(&hub, &metrics);
        let (store, mut writer) = reflector::store::<DeserializeGuard<IoTPlatform>>();
        hub.add_platforms(store);
        let mut object = serde_json::to_value(platform("{kafka: {managed: {}}}")).unwrap();
        object["status"] = json!({"certificates": [{"name": "Brokers", "expires": "2027-01-15T08:00:00Z"}]});
        let object: DeserializeGuard<IoTPlatform> = serde_json::from_value(object).unwrap();
        writer.apply_watcher_event(&watcher::Event::Apply(object.clone()));
        let row = "tidegate_certificate_expires_timestamp_seconds{namespace=\"iot\",name=\"plant\",certificate=\"Brokers\"} 1800000000";
        assert!(metrics.render().contains(row), "{}", metrics.render());
        writer.apply_watcher_event(&watcher::Event::Delete(object));
        assert!(!metrics.render().contains("Brokers"));
    }
}
