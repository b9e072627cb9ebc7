//! The names of the labels and annotations that Tidegate reads and writes.

/// Annotation on one of our resources: `"true"` stops all writes but status and failover.
pub const PAUSED: &str = "tidegate.io/paused";
/// Annotation on an object that Tidegate did not create: `"true"` lets it take the object over.
pub const ADOPT: &str = "tidegate.io/adopt";
/// Annotation on an `IoTPlatform`: the node id of a Kafka broker whose disk is lost and may be replaced by an empty one.
pub const REPLACE_DISK: &str = "tidegate.io/replace-disk";
/// Annotation on an `IoTPlatform`: what of its certificates to rotate, `kafka-authority/2026-11` for example.
pub const ROTATE: &str = "tidegate.io/rotate";
/// Label on gateway pods, selected by every gateway Service: `"true"`, or `"false"` while a node is suspect.
pub const IN_SERVICE: &str = "tidegate.io/in-service";
/// Label on every child: the kind of its owner in lower case (`protocolgateway`).
pub const OWNER_KIND: &str = "tidegate.io/owner-kind";
/// Label on every child: the uid of its owner. An owner reference that somebody takes away is put back by it.
pub const OWNER_UID: &str = "tidegate.io/owner-uid";
/// Label on every child: the name of its platform.
pub const PLATFORM: &str = "tidegate.io/platform";
/// Beginning of a label on a node that has a capability which gateways may ask for: `tidegate.io/capability.<name>: "true"`.
pub const CAPABILITY_PREFIX: &str = "tidegate.io/capability.";
/// Beginning of a label on a pod that takes a device of its node for itself: `tidegate.io/host-device.<device>: "true"`.
pub const HOST_DEVICE_PREFIX: &str = "tidegate.io/host-device.";

/// Label: the application, for example `tidegate-gateway`.
pub const NAME: &str = "app.kubernetes.io/name";
/// Label: the resource that the object belongs to.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label: the part that the object plays, for example `gateway`.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label: who keeps the object; always [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] and the field manager of everything that the operator applies.
pub const MANAGER: &str = "tidegate";
/// The field manager of what failover writes: nodes that announcements keep out, pods that are out of their Services.
pub const FAILOVER_MANAGER: &str = "tidegate-failover";
/// The field manager of every status that the operator writes.
pub const STATUS_MANAGER: &str = "tidegate-status";

/// Whether an annotation or label says yes.
pub fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|text| text == "true")
}
