//! Resources for the tests of this module.

use super::fetch::Platform;
use super::validate::{Gateway, validate};
use tidegate_crds::{IoTPlatform, ProtocolGateway, ProtocolGatewaySpec};

/// A gateway `mqtt` in namespace `plant` with this spec.
pub fn resource(spec: &str) -> ProtocolGateway {
    let spec: ProtocolGatewaySpec = serde_yaml::from_str(spec).unwrap();
    let mut resource = ProtocolGateway::new("mqtt", spec);
    resource.metadata.namespace = Some("plant".to_owned());
    resource.metadata.uid = Some("11111111-1111-1111-1111-111111111111".to_owned());
    resource.metadata.generation = Some(2);
    resource
}

/// The gateway of the quickstart, with `more` in its spec.
pub fn mqtt(more: &str) -> ProtocolGateway {
    resource(&format!(
        "{{platformRef: {{name: plant}}, mqtt: {{listeners: [{{name: mqtt, port: 1883}}]}}, replicas: 2{more}}}"
    ))
}

/// The same, validated.
pub fn gateway(more: &str) -> Gateway {
    validate(&mqtt(more)).unwrap()
}

/// A platform with Kafka.
pub fn iot_platform() -> IoTPlatform {
    serde_yaml::from_str(
        "
apiVersion: tidegate.io/v1alpha1
kind: IoTPlatform
metadata: {name: plant, namespace: plant, uid: 22222222-2222-2222-2222-222222222222}
spec:
  kafka: {managed: {}}
  loadBalancer: {poolRef: {name: devices}}
status:
  kafka: {bootstrap: 'plant-kafka.plant.svc.cluster.local:9092', brokers: 3, brokersReady: 3}
",
    )
    .unwrap()
}

/// What a gateway needs to know of it.
pub fn platform() -> Platform {
    Platform::of(&iot_platform()).unwrap()
}
