//! Autoscaling: a `HorizontalPodAutoscaler` on the gateway's `/scale`, and what is said about how it does. Pure.
//!
//! The scaler owns `spec.replicas` through `/scale`; the operator brings the Deployment to what stands there and never
//! writes it. Two thresholds with nothing happening in between are one target with two tolerances: pods are added when
//! use / target > 1 + up, taken away when it is < 1 − down, and Kubernetes rounds use to whole percents before.

use super::names;
use super::validate::Gateway;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource as _, ResourceExt as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use tidegate_crds::gateway::Autoscaling;
use tidegate_crds::{ProtocolGateway, State, reasons};

/// Kubernetes' own tolerance in percent, where it keeps none of ours.
const DEFAULT_TOLERANCE: i32 = 10;

/// The scaler of a gateway that wants one.
pub fn scaler(gateway: &Gateway) -> Option<HorizontalPodAutoscaler> {
    let scaling = gateway.scaling.as_ref()?;
    let rules = |tolerance: String, window: Option<i32>| HPAScalingRules {
        tolerance: Some(Quantity(tolerance)),
        stabilization_window_seconds: window,
        ..HPAScalingRules::default()
    };
    let cool_down = i32::try_from(scaling.cool_down.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    Some(HorizontalPodAutoscaler {
        metadata: names::meta(gateway, gateway.name.clone()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(ProtocolGateway::api_version(&()).into_owned()),
                kind: ProtocolGateway::kind(&()).into_owned(),
                name: gateway.name.clone(),
            },
            min_replicas: Some(scaling.min_replicas),
            max_replicas: scaling.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(scaling.target_cpu_percent),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules("0".to_owned(), None)),
                scale_down: Some(rules(down_tolerance(scaling), Some(cool_down))),
            }),
        }),
        status: None,
    })
}

/// In thousandths, rounded up: at exactly the lower threshold nothing is taken away.
fn down_tolerance(scaling: &Autoscaling) -> String {
    let (target, below) = (scaling.target_cpu_percent, scaling.scale_down_below_percent);
    let thousandths = ((target - below).max(0) * 1000 + target - 1) / target.max(1);
    match thousandths {
        1000 => "1".to_owned(),
        _ => format!("{thousandths}m"),
    }
}

/// What is said about autoscaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The condition `ScalingLimited`.
    pub limited: State,
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// How autoscaling does; nothing where none is wanted.
pub fn standing(gateway: &Gateway, scaler: Option<&HorizontalPodAutoscaler>) -> Option<Standing> {
    let scaling = gateway.scaling.as_ref()?;
    let mut limits: Vec<(&'static str, String)> = Vec::new();
    let replicas = gateway.replicas;
    if replicas == 0 {
        let text = format!(
            "spec.replicas is 0, which stops autoscaling too: kubectl scale pgw {} --replicas={} begins it",
            gateway.name, scaling.min_replicas
        );
        limits.push((reasons::SCALING_OFF, text));
    } else if let Some(trouble) = scaler.and_then(|scaler| trouble(scaler, replicas)) {
        limits.push(trouble);
    }
    if scaler.is_some_and(|scaler| !keeps_tolerances(scaler)) {
        limits.push((reasons::TOLERANCE_DROPPED, dropped(scaling)));
    }
    if let Some(condition) = scaler.and_then(|scaler| condition(scaler, "ScalingLimited"))
        && (condition.status.as_str(), condition.reason.as_deref()) == ("True", Some("TooManyReplicas"))
        && replicas >= scaling.max_replicas
    {
        let text = format!(
            "the load asks for more than spec.autoscaling.maxReplicas, which is {}: raise it, or give each pod more with spec.resources",
            scaling.max_replicas
        );
        limits.push((reasons::AT_MAXIMUM, text));
    }
    if let Some(&(reason, _)) = limits.first() {
        let texts: Vec<_> = limits.into_iter().map(|(_, text)| text).collect();
        return Some(Standing { limited: State::True, reason, message: texts.join("; ") });
    }
    if scaler.and_then(|scaler| condition(scaler, "ScalingActive")).is_none() {
        let message = "Kubernetes' scaler has not looked at the gateway yet".to_owned();
        return Some(Standing { limited: State::Unknown, reason: reasons::PROGRESSING, message });
    }
    let message = format!(
        "{} to {} replicas: more above {} % of the requested CPU, fewer below {} %",
        scaling.min_replicas,
        scaling.max_replicas,
        scaling.target_cpu_percent,
        scaling.scale_down_below_percent
    );
    Some(Standing { limited: State::False, reason: reasons::SCALING_ON, message })
}

/// What keeps Kubernetes' scaler from working.
fn trouble(scaler: &HorizontalPodAutoscaler, replicas: i32) -> Option<(&'static str, String)> {
    let failing = |type_: &str| condition(scaler, type_).filter(|condition| condition.status == "False");
    let condition = failing("AbleToScale").or_else(|| failing("ScalingActive"))?;
    let (reason, message) =
        (condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref().unwrap_or_default());
    if reason.starts_with("FailedGet") && reason.ends_with("Metric") {
        let text = format!(
            "the pods' use of CPU is not known, so {replicas} replicas stay: kubectl top pods must work, which takes a running metrics-server, and a pod tells nothing in its first seconds ({message})"
        );
        return Some((reasons::USE_UNKNOWN, text));
    }
    let name = scaler.name_any();
    let text = format!(
        "HorizontalPodAutoscaler {name} does not scale ({reason}: {message}), so {replicas} replicas stay: kubectl describe hpa {name} shows more"
    );
    Some((reasons::SCALER_FAILED, text))
}

fn condition<'a>(
    scaler: &'a HorizontalPodAutoscaler,
    type_: &str,
) -> Option<&'a HorizontalPodAutoscalerCondition> {
    scaler.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Whether the API server stored both tolerances. One that does not know the field, or has it switched off, drops it.
fn keeps_tolerances(scaler: &HorizontalPodAutoscaler) -> bool {
    let behavior = scaler.spec.as_ref().and_then(|spec| spec.behavior.as_ref());
    let kept = |rules: Option<&HPAScalingRules>| rules.is_some_and(|rules| rules.tolerance.is_some());
    behavior.is_some_and(|behavior| kept(behavior.scale_up.as_ref()) && kept(behavior.scale_down.as_ref()))
}

fn dropped(scaling: &Autoscaling) -> String {
    let (target, below) = (scaling.target_cpu_percent, scaling.scale_down_below_percent);
    let (up, down) = (target * (100 + DEFAULT_TOLERANCE) / 100, target * (100 - DEFAULT_TOLERANCE) / 100);
    format!(
        "this API server keeps no tolerances (Kubernetes before 1.35, or its feature gate HPAConfigurableTolerance is off): by Kubernetes' own tolerance pods are added above about {up} % of the requested CPU and taken away below about {down} %, instead of {target} and {below}; switch the gate on, or update Kubernetes"
    )
}

/// What of a scaler is worth a pass: all but its figures. It has no generation that would count changes.
pub fn what_counts(scaler: &HorizontalPodAutoscaler) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = &scaler.metadata;
    (meta.deletion_timestamp.is_some(), &meta.labels).hash(&mut hasher);
    serde_json::to_vec(&scaler.spec).unwrap_or_default().hash(&mut hasher);
    for owner in meta.owner_references.iter().flatten() {
        owner.uid.hash(&mut hasher);
    }
    let conditions = scaler.status.as_ref().and_then(|status| status.conditions.as_ref());
    for condition in conditions.into_iter().flatten() {
        (&condition.type_, &condition.status, &condition.reason).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::samples::gateway;
    use serde_json::{Value, json};

    fn scaled(more: &str) -> Gateway {
        gateway(&format!(", autoscaling: {{maxReplicas: 5{more}}}"))
    }

    /// The scaler as the API server has it, with these conditions: type, status, reason.
    fn stored(gateway: &Gateway, conditions: &[(&str, &str, &str)]) -> HorizontalPodAutoscaler {
        let mut stored = scaler(gateway).unwrap();
        let conditions: Value = conditions
            .iter()
            .map(|(type_, status, reason)| json!({"type": type_, "status": status, "reason": reason, "message": "so it says"}))
            .collect();
        stored.status = Some(
            serde_json::from_value(
                json!({"currentReplicas": 1, "desiredReplicas": 1, "conditions": conditions}),
            )
            .unwrap(),
        );
        stored
    }

    const WORKS: [(&str, &str, &str); 3] = [
        ("AbleToScale", "True", "ReadyForNewScale"),
        ("ScalingActive", "True", "ValidMetricFound"),
        ("ScalingLimited", "False", "DesiredWithinRange"),
    ];

    #[test]
    fn the_scaler_of_a_gateway_with_the_defaults_of_the_api() {
        insta::assert_yaml_snapshot!(scaler(&scaled("")).unwrap());
        assert_eq!(scaler(&gateway("")), None);
    }

    #[test]
    fn pods_are_taken_away_below_the_lower_threshold_and_not_at_it() {
        for (target, below) in [(70, 30), (70, 69), (1000, 999), (999, 333), (3, 1), (50, 0), (1, 0)] {
            let gateway = scaled(&format!(", targetCpuPercent: {target}, scaleDownBelowPercent: {below}"));
            let tolerance: tidegate_crds::Quantity =
                down_tolerance(gateway.scaling.as_ref().unwrap()).parse().unwrap();
            // As Kubernetes counts: whole percents of use, then thousandths of tolerance.
            let goes = |used: i32| {
                let (used, target) = (used.unsigned_abs(), u128::from(i32::unsigned_abs(target)));
                u128::from(used) * 1000 < target * (1000 - tolerance.millis())
            };
            assert!(!goes(below), "{target} {below}");
            assert!(below == 0 || goes(below - 1), "{target} {below}");
        }
    }

    #[test]
    fn a_cool_down_is_whole_seconds() {
        let window = |more: &str| {
            let spec = scaler(&scaled(more)).unwrap().spec.unwrap();
            spec.behavior.unwrap().scale_down.unwrap().stabilization_window_seconds
        };
        assert_eq!(window(""), Some(300));
        assert_eq!(window(", coolDown: 0s"), Some(0));
        assert_eq!(window(", coolDown: 1500ms"), Some(2));
    }

    #[test]
    fn what_limits_autoscaling_is_told_with_what_to_do() {
        let gateway = scaled("");
        let say = |gateway: &Gateway, scaler: Option<&HorizontalPodAutoscaler>| {
            let standing = standing(gateway, scaler).unwrap();
            (standing.limited, standing.reason, standing.message)
        };
        let works = stored(&gateway, &WORKS);
        let (limited, reason, message) = say(&gateway, Some(&works));
        assert_eq!((limited, reason), (State::False, "ScalingOn"));
        assert_eq!(message, "1 to 5 replicas: more above 70 % of the requested CPU, fewer below 30 %");

        assert_eq!(say(&gateway, None).0, State::Unknown);
        assert_eq!(say(&gateway, Some(&stored(&gateway, &[]))).0, State::Unknown);

        let blind = stored(&gateway, &[WORKS[0], ("ScalingActive", "False", "FailedGetResourceMetric")]);
        let (limited, reason, message) = say(&gateway, Some(&blind));
        assert_eq!((limited, reason), (State::True, "UseUnknown"));
        assert!(message.contains("metrics-server") && message.contains("so it says"), "{message}");

        let failed = stored(&gateway, &[("AbleToScale", "False", "FailedGetScale")]);
        let (_, reason, message) = say(&gateway, Some(&failed));
        assert_eq!(reason, "ScalerFailed");
        assert!(message.contains("FailedGetScale: so it says"), "{message}");

        let mut off = gateway.clone();
        off.replicas = 0;
        let disabled = stored(&off, &[WORKS[0], ("ScalingActive", "False", "ScalingDisabled")]);
        let (limited, reason, message) = say(&off, Some(&disabled));
        assert_eq!((limited, reason), (State::True, "ScalingOff"));
        assert!(message.contains("kubectl scale pgw mqtt --replicas=1"), "{message}");
    }

    #[test]
    fn a_server_that_drops_the_tolerances_is_told_with_what_happens_instead() {
        let gateway = scaled("");
        let mut old = stored(&gateway, &WORKS);
        let behavior = old.spec.as_mut().unwrap().behavior.as_mut().unwrap();
        behavior.scale_down.as_mut().unwrap().tolerance = None;
        let standing = standing(&gateway, Some(&old)).unwrap();
        assert_eq!((standing.limited, standing.reason), (State::True, "ToleranceDropped"));
        assert!(standing.message.contains("above about 77 %"), "{}", standing.message);
        assert!(standing.message.contains("below about 63 %"), "{}", standing.message);
        assert!(standing.message.contains("HPAConfigurableTolerance"), "{}", standing.message);
    }

    #[test]
    fn a_load_beyond_the_maximum_is_told_beside_what_is_worse() {
        let mut gateway = scaled("");
        let full = [WORKS[0], WORKS[1], ("ScalingLimited", "True", "TooManyReplicas")];
        let below = standing(&gateway, Some(&stored(&gateway, &full))).unwrap();
        assert_eq!(below.limited, State::False, "there is room: the scaler only steps slowly");
        gateway.replicas = 5;
        let told = standing(&gateway, Some(&stored(&gateway, &full))).unwrap();
        assert_eq!(told.reason, "AtMaximum");
        let mut old = stored(&gateway, &full);
        old.spec.as_mut().unwrap().behavior = None;
        let both = standing(&gateway, Some(&old)).unwrap();
        assert_eq!(both.reason, "ToleranceDropped");
        assert!(both.message.contains("maxReplicas"), "{}", both.message);
    }

    #[test]
    fn a_scalers_figures_are_worth_no_pass_and_its_conditions_are() {
        let gateway = scaled("");
        let before = stored(&gateway, &WORKS);
        let mut figures = before.clone();
        figures.metadata.resource_version = Some("9".to_owned());
        figures.status.as_mut().unwrap().desired_replicas = 4;
        assert_eq!(what_counts(&before), what_counts(&figures));
        let blind = stored(&gateway, &[WORKS[0], ("ScalingActive", "False", "FailedGetResourceMetric")]);
        assert_ne!(what_counts(&before), what_counts(&blind));
        figures.spec.as_mut().unwrap().max_replicas = 9;
        assert_ne!(what_counts(&before), what_counts(&figures));
    }
}
