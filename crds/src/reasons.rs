//! Every reason of a condition or an Event, in one place: people and alerts match on them.

/// The spec can be carried out.
pub const ACCEPTED: &str = "Accepted";
/// A field holds something that cannot be carried out; the message names it and says what to write.
pub const INVALID: &str = "Invalid";
/// A field asks for something that this version cannot do yet; the message names it.
pub const NOT_IMPLEMENTED: &str = "NotImplemented";
/// The stored object does not fit the types of this version.
pub const MALFORMED: &str = "Malformed";

/// All references lead somewhere.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// There is no `IoTPlatform` of that name in the namespace.
pub const PLATFORM_NOT_FOUND: &str = "PlatformNotFound";
/// A referenced address pool does not exist.
pub const POOL_NOT_FOUND: &str = "PoolNotFound";
/// A referenced Secret does not exist.
pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
/// A referenced Secret lacks a key, or holds there what cannot be used.
pub const SECRET_UNUSABLE: &str = "SecretUnusable";
/// All certificates of a gateway's listeners are valid for long enough; the message says until when.
pub const CERTIFICATE_VALID: &str = "CertificateValid";
/// A listener's certificate expires soon, and nobody has put another in its place.
pub const CERTIFICATE_EXPIRES_SOON: &str = "CertificateExpiresSoon";
/// A listener's certificate is out of date: devices that look do not connect.
pub const CERTIFICATE_EXPIRED: &str = "CertificateExpired";
/// A listener's certificate is not valid yet.
pub const CERTIFICATE_NOT_YET_VALID: &str = "CertificateNotYetValid";
/// What was asked for lies outside the administrator's allow-list.
pub const NOT_ALLOWED: &str = "NotAllowed";
/// The cluster has no Multus, so pods can have no second networks.
pub const MULTUS_NOT_FOUND: &str = "MultusNotFound";
/// The platform has no network of that name.
pub const NETWORK_NOT_FOUND: &str = "NetworkNotFound";
/// A `NetworkAttachmentDefinition` does not exist, or not any more; pods that have their interfaces keep them.
pub const ATTACHMENT_NOT_FOUND: &str = "AttachmentNotFound";

/// Everything is as declared and works.
pub const READY: &str = "Ready";
/// Nothing is left to do.
pub const UP_TO_DATE: &str = "UpToDate";
/// A change is being carried out.
pub const PROGRESSING: &str = "Progressing";
/// Brokers restart with new settings, one at a time; the message says how many did and what the next one waits for.
pub const ROLLING_OUT: &str = "RollingOut";
/// A broker does not start, so no other one restarts; the message says why and what to do.
pub const ROLLOUT_STOPPED: &str = "RolloutStopped";
/// Kafka's metadata is not at the declared version; the message says why.
pub const METADATA_VERSION: &str = "MetadataVersion";
/// A volume is smaller than declared and its storage class does not let it grow.
pub const VOLUME_NOT_GROWN: &str = "VolumeNotGrown";
/// `tidegate.io/paused` stops all writes but status.
pub const PAUSED: &str = "Paused";
/// The resource is being deleted.
pub const DELETING: &str = "Deleting";
/// Fewer pods are ready than declared.
pub const MINIMUM_REPLICAS_UNAVAILABLE: &str = "MinimumReplicasUnavailable";
/// No replica is wanted, so nothing serves.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// A pod cannot start because its image cannot be had.
pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
/// A pod starts and ends again and again.
pub const CRASH_LOOP: &str = "CrashLoop";
/// No node takes a pod.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// No node that works has the capabilities that a gateway asks for; the message names the label to set.
pub const CAPABILITY_MISSING: &str = "CapabilityMissing";
/// A pod moves from a node that lost a capability to one that has it.
pub const MOVING: &str = "Moving";
/// A pod's node has no interface of the name that a network is made on.
pub const INTERFACE_NOT_FOUND: &str = "InterfaceNotFound";
/// A network has no address left for a pod.
pub const ADDRESSES_EXHAUSTED: &str = "AddressesExhausted";
/// A pod cannot be given its networks; the message has the plugin's words.
pub const NETWORK_FAILED: &str = "NetworkFailed";
/// A Service of type `LoadBalancer` has no address yet.
pub const LOAD_BALANCER_PENDING: &str = "LoadBalancerPending";

/// Kafka is not formed yet or fewer brokers answer than declared.
pub const KAFKA_NOT_READY: &str = "KafkaNotReady";
/// Kafka does not answer at all.
pub const KAFKA_UNREACHABLE: &str = "KafkaUnreachable";
/// Kafka refused what was asked.
pub const KAFKA_REFUSED: &str = "KafkaRefused";
/// Kafka refused the name or the password, or knows no such mechanism.
pub const KAFKA_CREDENTIALS_REFUSED: &str = "KafkaCredentialsRefused";
/// Kafka refused the client's certificate, or wants one.
pub const KAFKA_CLIENT_CERTIFICATE_REFUSED: &str = "KafkaClientCertificateRefused";
/// A broker's certificate is signed by nobody that the platform trusts, or is out of date.
pub const KAFKA_CERTIFICATE_UNTRUSTED: &str = "KafkaCertificateUntrusted";
/// A broker's certificate is another host's.
pub const KAFKA_HOSTNAME_MISMATCH: &str = "KafkaHostnameMismatch";
/// Kafka speaks TLS or asks for a name where the platform does not, or the other way round.
pub const KAFKA_PROTOCOL_MISMATCH: &str = "KafkaProtocolMismatch";
/// Kafka's rights do not allow something that the platform needs; the message names it.
pub const KAFKA_FORBIDDEN: &str = "KafkaForbidden";
/// Kafka has fewer brokers than a topic shall have copies.
pub const TOO_FEW_BROKERS: &str = "TooFewBrokers";
/// The bootstrap servers lead to another Kafka than the one that the platform's topics are on.
pub const KAFKA_CLUSTER_CHANGED: &str = "KafkaClusterChanged";
/// Another platform has this prefix on this Kafka.
pub const KAFKA_NAME_CONFLICT: &str = "KafkaNameConflict";
/// Another Topic holds the same filter.
pub const FILTER_CONFLICT: &str = "FilterConflict";
/// An older fleet has the same certificate authority.
pub const AUTHORITY_CONFLICT: &str = "AuthorityConflict";
/// An older fleet takes the devices that do not say who they are.
pub const ANONYMOUS_CONFLICT: &str = "AnonymousConflict";

/// An object of that name exists and is not ours.
pub const RESOURCE_CONFLICT: &str = "ResourceConflict";
/// Fields that others had set in an object of ours were removed; the message names them.
pub const FOREIGN_REMOVED: &str = "ForeignRemoved";
/// The API server refused a write because of the operator's rights.
pub const FORBIDDEN: &str = "Forbidden";
/// The API server refused an object as invalid.
pub const REJECTED: &str = "Rejected";
/// The API server could not be asked, or failed.
pub const API_ERROR: &str = "ApiError";

/// Nothing limits autoscaling.
pub const SCALING_ON: &str = "ScalingOn";
/// `replicas: 0` stops the gateway, and with it autoscaling.
pub const SCALING_OFF: &str = "ScalingOff";
/// The scaler cannot learn how much CPU the pods use.
pub const USE_UNKNOWN: &str = "UseUnknown";
/// Kubernetes' scaler does not work for another cause; the message has its words.
pub const SCALER_FAILED: &str = "ScalerFailed";
/// The API server keeps no tolerances, so pods are added and taken away at other loads than declared.
pub const TOLERANCE_DROPPED: &str = "ToleranceDropped";
/// The load asks for more pods than `maxReplicas`.
pub const AT_MAXIMUM: &str = "AtMaximum";

/// Nothing limits failover.
pub const FAILOVER_ON: &str = "FailoverOn";
/// `spec.failover.enabled` is false.
pub const FAILOVER_OFF: &str = "FailoverOff";
/// The operator may not watch nodes, or not read MetalLB's objects; the message says which rights it lacks.
pub const NODE_RIGHTS_MISSING: &str = "NodeRightsMissing";
/// An administrator's own advertisement of the pool announces addresses from nodes that Tidegate keeps out.
pub const FOREIGN_ADVERTISEMENT: &str = "ForeignAdvertisement";
/// The cluster has too few nodes for another to take over, or to bear witness.
pub const TOO_FEW_NODES: &str = "TooFewNodes";
/// A node does not answer and is used all the same, because too many others are out or none answers.
pub const BRAKE_ENGAGED: &str = "BrakeEngaged";
/// A node does not answer.
pub const NODE_SUSPECT: &str = "NodeSuspect";
/// A node does not answer and has stopped renewing its lease.
pub const NODE_DEAD: &str = "NodeDead";
/// A node answers and is used again.
pub const NODE_RETURNED: &str = "NodeReturned";

/// Two Kafka identities contradict each other, or nothing is left of one; the message says what to do.
pub const IDENTITY_BROKEN: &str = "IdentityBroken";
/// A Secret with certificates was changed by hand and cannot be used; the message says what to do.
pub const SECRET_BROKEN: &str = "SecretBroken";
/// A broker's disk is empty or another's, and nobody said that it may be formatted.
pub const DISK_WRONG: &str = "DiskWrong";
/// A broker's lost disk is being replaced; the message says how far it is.
pub const REPLACING_DISK: &str = "ReplacingDisk";
/// A broker's disk is not replaced as was asked; the message says why and what to do.
pub const DISK_NOT_REPLACED: &str = "DiskNotReplaced";
/// A broker's lost disk was replaced, and the new one has everything.
pub const DISK_REPLACED: &str = "DiskReplaced";
/// Certificates, or the authority that signs them, are being exchanged; the message says how far it is and what it waits
/// for.
pub const ROTATING: &str = "Rotating";
/// Certificates, or the authority that signs them, were exchanged everywhere.
pub const ROTATED: &str = "Rotated";
/// `tidegate.io/rotate` asks for what cannot be done; the message says what to write.
pub const ROTATION_REFUSED: &str = "RotationRefused";
/// A topic has other partitions or replicas in Kafka than declared.
pub const TOPIC_DIFFERS: &str = "TopicDiffers";
/// Partitions have no leader or too few replicas in sync, so nothing is acknowledged.
pub const TOPIC_UNAVAILABLE: &str = "TopicUnavailable";
/// A topic that was gone from Kafka was created again, empty.
pub const TOPIC_RECREATED: &str = "TopicRecreated";
/// Somebody else had changed settings of a topic in Kafka, and they were put back; the message names them.
pub const CONFIG_REPAIRED: &str = "ConfigRepaired";
/// Every broker refuses whoever has no right, and the declared rights are in effect.
pub const KAFKA_CLOSED: &str = "KafkaClosed";
/// Kafka is on its way to refuse whoever has no right; the message says how far it is.
pub const KAFKA_CLOSING: &str = "KafkaClosing";
/// Kafka does not take the declared rights; the message has its words.
pub const RIGHTS_NOT_WRITTEN: &str = "RightsNotWritten";
/// Somebody else had changed rights in Kafka, and they were put back; the message names them.
pub const RIGHTS_REPAIRED: &str = "RightsRepaired";
/// New records of some addresses go elsewhere now; stored ones stay where they are.
pub const ROUTING_CHANGED: &str = "RoutingChanged";
/// A finalizer was let go without its work being done.
pub const LET_GO: &str = "LetGo";
