//! The metric of conditions: what every object says of itself, read at each scrape from what its controller watches, so
//! that an object that is gone says nothing more. Only the leader watches, so only the leader has it. Pure.

use super::driver::Subject;
use super::malformed;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use tidegate_crds::{CommonStatus as _, reasons};

/// One condition of one object.
type Labels<'a> = [(&'static str, &'a str); 6];

/// Shows each condition that one controller's objects have.
type Source = Box<dyn Fn(&mut dyn FnMut(Labels<'_>) -> fmt::Result) -> fmt::Result + Send + Sync>;

/// The conditions of all objects that controllers watch.
#[derive(Default)]
pub struct ConditionMetrics(Mutex<Vec<Source>>);

impl fmt::Debug for ConditionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionMetrics").finish_non_exhaustive()
    }
}

impl ConditionMetrics {
    /// Shows the objects of this store from now on.
    pub fn add<S: Subject>(&self, store: Store<DeserializeGuard<S>>) {
        let source: Source = Box::new(move |show| {
            let kind = S::kind(&());
            for object in store.state() {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                let mut show = |condition: &str, status: &str, reason: &str| {
                    show([
                        ("kind", &kind),
                        ("namespace", &namespace),
                        ("name", &name),
                        ("condition", condition),
                        ("status", status),
                        ("reason", reason),
                    ])
                };
                match &object.0 {
                    Ok(subject) => {
                        for one in subject.status().into_iter().flat_map(|status| status.conditions().iter())
                        {
                            show(&one.type_, &one.status, &one.reason)?;
                        }
                    }
                    // Its status cannot be read, and what stands there is known.
                    Err(_) => {
                        for (condition, state) in malformed::SAYS {
                            show(condition, state.as_str(), reasons::MALFORMED)?;
                        }
                    }
                }
            }
            Ok(())
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }
}

impl Collector for ConditionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for each condition of each resource, with its status and reason";
        let mut family = encoder.encode_descriptor("condition", help, None, MetricType::Gauge)?;
        for source in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut |labels| ConstGauge::new(1).encode(family.encode_family(&labels)?))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::frame::metrics::Metrics;
    use kube::core::DeserializeGuard;
    use kube::runtime::{reflector, watcher};
    use serde_json::{Value, json};
    use tidegate_crds::Topic;

    fn topic(name: &str, spec: &Value, reason: &str) -> DeserializeGuard<Topic> {
        let ready = json!({"type": "Ready", "status": "False", "reason": reason, "message": "no leader",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "Topic",
            "metadata": {"name": name, "namespace": "plant"},
            "spec": spec, "status": {"conditions": [ready]},
        }))
        .unwrap()
    }

    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render();
        assert!(text.contains("# TYPE tidegate_condition gauge\n"), "{text}");
        text.lines().filter_map(|line| line.strip_prefix("tidegate_condition")).map(str::to_owned).collect()
    }

    #[test]
    fn an_objects_conditions_are_shown_as_they_are_and_go_with_it() {
        let metrics = Metrics::default();
        let (store, mut writer) = reflector::store();
        metrics.conditions().add::<Topic>(store);
        let spec = json!({"platformRef": {"name": "plant"}, "addressFilters": ["a/#"]});
        for reason in ["KafkaNotReady", "TopicUnavailable"] {
            writer.apply_watcher_event(&watcher::Event::Apply(topic("a", &spec, reason)));
            let line = "{kind=\"Topic\",namespace=\"plant\",name=\"a\",condition=\"Ready\",status=\"False\",reason=\"R\"} 1";
            assert_eq!(shown(&metrics), [line.replace("\"R\"", &format!("{reason:?}"))]);
        }
        writer.apply_watcher_event(&watcher::Event::Delete(topic("a", &spec, "TopicUnavailable")));
        assert_eq!(shown(&metrics), [""; 0]);
    }

    #[test]
    fn an_object_that_does_not_fit_our_types_is_shown_as_malformed_and_hides_no_other() {
        let metrics = Metrics::default();
        let (store, mut writer) = reflector::store();
        metrics.conditions().add::<Topic>(store);
        let spec = json!({"platformRef": {"name": "plant"}, "addressFilters": ["a/#"]});
        writer.apply_watcher_event(&watcher::Event::Apply(topic("a", &spec, "TopicUnavailable")));
        writer.apply_watcher_event(&watcher::Event::Apply(topic("b", &json!("none"), "Ready")));
        let shown = shown(&metrics);
        assert_eq!(shown.iter().filter(|line| line.contains("\"TopicUnavailable\"")).count(), 1, "{shown:?}");
        for says in
            ["\"Ready\",status=\"False\"", "\"Stalled\",status=\"True\"", "\"Accepted\",status=\"False\""]
        {
            let line = format!("name=\"b\",condition={says},reason=\"Malformed\"}} 1");
            assert!(shown.iter().any(|one| one.ends_with(&line)), "{line} is missing in {shown:?}");
        }
    }
}
