//! All alerts, and which reasons of conditions need a person. Pure.

use super::Severity::{Critical, Info, Warning};
use super::{Alert, Runbook};
use tidegate_crds::conditions::{
    CERTIFICATE_EXPIRING, FAILOVER_LIMITED, KAFKA_CLOSED, READY, RECONCILING, SCALING_LIMITED, STALLED,
};
use tidegate_crds::{State, reasons};

const RUNBOOK: &str = "how-to/runbook.md";

/// Reasons that need nobody: it works, somebody wanted it so, or only Events have them.
pub const NOBODY: [&str; 24] = [
    reasons::ACCEPTED,
    reasons::RESOLVED_REFS,
    reasons::READY,
    reasons::UP_TO_DATE,
    reasons::CERTIFICATE_VALID,
    reasons::SCALED_TO_ZERO,
    reasons::SCALING_ON,
    reasons::FAILOVER_ON,
    reasons::KAFKA_CLOSED,
    // A roll, which has alerts of its own.
    reasons::KAFKA_CLOSING,
    // Wanted.
    reasons::PAUSED,
    reasons::SCALING_OFF,
    reasons::FAILOVER_OFF,
    // Events.
    reasons::FOREIGN_REMOVED,
    reasons::NODE_SUSPECT,
    reasons::NODE_DEAD,
    reasons::NODE_RETURNED,
    reasons::DISK_REPLACED,
    reasons::ROTATED,
    reasons::TOPIC_RECREATED,
    reasons::CONFIG_REPAIRED,
    reasons::RIGHTS_REPAIRED,
    reasons::ROUTING_CHANGED,
    reasons::LET_GO,
];

/// Why something does not serve.
const UNREADY: [&str; 16] = [
    reasons::ADDRESSES_EXHAUSTED,
    reasons::ATTACHMENT_NOT_FOUND,
    reasons::CAPABILITY_MISSING,
    reasons::CRASH_LOOP,
    reasons::DELETING,
    reasons::DISK_WRONG,
    reasons::IMAGE_PULL_FAILED,
    reasons::INTERFACE_NOT_FOUND,
    reasons::KAFKA_NOT_READY,
    reasons::KAFKA_UNREACHABLE,
    reasons::LOAD_BALANCER_PENDING,
    reasons::MINIMUM_REPLICAS_UNAVAILABLE,
    reasons::NETWORK_FAILED,
    reasons::PROGRESSING,
    reasons::TOPIC_UNAVAILABLE,
    reasons::UNSCHEDULABLE,
];

/// Why what is declared cannot be carried out.
const STALLS: [&str; 32] = [
    reasons::ANONYMOUS_CONFLICT,
    reasons::ATTACHMENT_NOT_FOUND,
    reasons::AUTHORITY_CONFLICT,
    reasons::CERTIFICATE_EXPIRED,
    reasons::CERTIFICATE_NOT_YET_VALID,
    reasons::FILTER_CONFLICT,
    reasons::FORBIDDEN,
    reasons::IDENTITY_BROKEN,
    reasons::INVALID,
    reasons::KAFKA_CERTIFICATE_UNTRUSTED,
    reasons::KAFKA_CLIENT_CERTIFICATE_REFUSED,
    reasons::KAFKA_CLUSTER_CHANGED,
    reasons::KAFKA_CREDENTIALS_REFUSED,
    reasons::KAFKA_FORBIDDEN,
    reasons::KAFKA_HOSTNAME_MISMATCH,
    reasons::KAFKA_NAME_CONFLICT,
    reasons::KAFKA_PROTOCOL_MISMATCH,
    reasons::KAFKA_REFUSED,
    reasons::MALFORMED,
    reasons::MULTUS_NOT_FOUND,
    reasons::NETWORK_NOT_FOUND,
    reasons::NOT_ALLOWED,
    reasons::NOT_IMPLEMENTED,
    reasons::PLATFORM_NOT_FOUND,
    reasons::POOL_NOT_FOUND,
    reasons::REJECTED,
    reasons::RESOURCE_CONFLICT,
    reasons::SECRET_BROKEN,
    reasons::SECRET_NOT_FOUND,
    reasons::SECRET_UNUSABLE,
    reasons::TOO_FEW_BROKERS,
    reasons::TOPIC_DIFFERS,
];

/// A change that waits for somebody, while all else goes on.
const BLOCKED: [&str; 7] = [
    reasons::CAPABILITY_MISSING,
    reasons::DISK_NOT_REPLACED,
    reasons::DISK_WRONG,
    reasons::METADATA_VERSION,
    reasons::ROLLOUT_STOPPED,
    reasons::ROTATION_REFUSED,
    reasons::VOLUME_NOT_GROWN,
];

/// Why a broker is missing in a platform that serves.
const BROKER: [&str; 4] =
    [reasons::CRASH_LOOP, reasons::IMAGE_PULL_FAILED, reasons::KAFKA_NOT_READY, reasons::UNSCHEDULABLE];

/// What a change waits for, most often for a while.
const SLOW: [&str; 6] = [
    reasons::API_ERROR,
    reasons::MOVING,
    reasons::PROGRESSING,
    reasons::REPLACING_DISK,
    reasons::ROLLING_OUT,
    reasons::ROTATING,
];

/// What limits autoscaling.
const SCALING: [&str; 4] =
    [reasons::AT_MAXIMUM, reasons::SCALER_FAILED, reasons::TOLERANCE_DROPPED, reasons::USE_UNKNOWN];

/// What limits failover, while nothing is broken.
const FAILOVER: [&str; 3] =
    [reasons::FOREIGN_ADVERTISEMENT, reasons::NODE_RIGHTS_MISSING, reasons::TOO_FEW_NODES];

/// What keeps rights from being as declared.
const RIGHTS: [&str; 1] = [reasons::RIGHTS_NOT_WRITTEN];

/// What tells one object from another.
const OBJECT: &str = "kind, namespace, name";
const WITH_REASON: &str = "kind, namespace, name, reason";

fn reason(is: &str, of: &[&str]) -> String {
    format!(",reason{is}\"{}\"", of.join("|"))
}

/// The objects of which a condition holds.
fn condition(by: &str, type_: &str, state: State, more: &str) -> String {
    format!("max by ({by}) (tidegate_condition{{condition=\"{type_}\",status=\"{state}\"{more}}})")
}

/// All alerts, those about conditions first.
pub fn all() -> Vec<Alert> {
    [standstill(), changes(), limits(), of_the_operator(), of_gateways()].concat()
}

fn standstill() -> Vec<Alert> {
    let stalled = condition(OBJECT, STALLED, State::True, "");
    let unready = condition(OBJECT, READY, State::False, "");
    let waits = format!(
        "tidegate_condition{{condition=\"{READY}\",kind!=\"IoTPlatform\"{}}}",
        reason("=~", &[reasons::KAFKA_NOT_READY, reasons::KAFKA_UNREACHABLE])
    );
    vec![
        Alert {
            name: "TidegateNotReady",
            expression: format!("{unready}\nunless on ({OBJECT})\n{stalled}\nunless on ({OBJECT})\n{waits}"),
            wait: "10m",
            severity: Critical,
            summary: "{{ $labels.kind }} {{ $labels.namespace }}/{{ $labels.name }} is not ready",
            meaning: "`Ready=False`: it does not serve, or less than declared. What only waits for its platform's Kafka is left to the platform's alert, what is `Stalled` to that one",
            runbook: Runbook::ReasonNow(RUNBOOK, READY),
            reasons: &UNREADY,
        },
        Alert {
            name: "TidegateStalled",
            expression: condition(WITH_REASON, STALLED, State::True, ""),
            wait: "5m",
            severity: Warning,
            summary: "{{ $labels.kind }} {{ $labels.namespace }}/{{ $labels.name }} waits for somebody: {{ $labels.reason }}",
            meaning: "`Stalled=True`: what is declared cannot be carried out until somebody acts. What ran before goes on",
            runbook: Runbook::Reason(RUNBOOK),
            reasons: &STALLS,
        },
    ]
}

fn changes() -> Vec<Alert> {
    let reconciling = |by: &str, more: &str| {
        let of = condition(by, RECONCILING, State::True, more);
        format!("{of}\nunless on ({OBJECT})\n{}", condition(OBJECT, READY, State::False, ""))
    };
    vec![
        Alert {
            name: "TidegateChangeBlocked",
            expression: reconciling(WITH_REASON, &reason("=~", &BLOCKED)),
            wait: "5m",
            severity: Warning,
            summary: "a change of {{ $labels.kind }} {{ $labels.namespace }}/{{ $labels.name }} waits for somebody: {{ $labels.reason }}",
            meaning: "`Reconciling=True` with a reason that does not pass by itself. It serves meanwhile",
            runbook: Runbook::Reason(RUNBOOK),
            reasons: &BLOCKED,
        },
        Alert {
            name: "TidegateBrokerAway",
            expression: reconciling(OBJECT, &reason("=~", &BROKER)),
            wait: "10m",
            severity: Warning,
            summary: "a broker of {{ $labels.namespace }}/{{ $labels.name }} is away",
            meaning: "a platform serves without one of its brokers: the next loss may stop it",
            runbook: Runbook::ReasonNow(RUNBOOK, RECONCILING),
            reasons: &BROKER,
        },
        Alert {
            name: "TidegateChangeSlow",
            expression: reconciling(OBJECT, &reason("!~", &[&BLOCKED[..], &BROKER].concat())),
            wait: "1h",
            severity: Warning,
            summary: "a change of {{ $labels.kind }} {{ $labels.namespace }}/{{ $labels.name }} takes longer than an hour",
            meaning: "`Reconciling=True` with reasons that pass by themselves, and did not",
            runbook: Runbook::ReasonNow(RUNBOOK, RECONCILING),
            reasons: &SLOW,
        },
    ]
}

fn limits() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidegateRightsNotWritten",
            expression: condition(WITH_REASON, KAFKA_CLOSED, State::False, &reason("=~", &RIGHTS)),
            wait: "5m",
            severity: Warning,
            summary: "rights in the Kafka of {{ $labels.namespace }}/{{ $labels.name }} are not as declared",
            meaning: "`KafkaClosed=False`: Kafka does not take the declared rights. Those that it has stay in effect, so an application may lack one, or keep one that it should lose",
            runbook: Runbook::Reason(RUNBOOK),
            reasons: &RIGHTS,
        },
        Alert {
            name: "TidegateListenerCertificateExpires",
            expression: condition(
                WITH_REASON,
                CERTIFICATE_EXPIRING,
                State::True,
                &reason("=", &[reasons::CERTIFICATE_EXPIRES_SOON]),
            ),
            wait: "15m",
            severity: Warning,
            summary: "a listener's certificate of {{ $labels.namespace }}/{{ $labels.name }} expires soon",
            meaning: "`CertificateExpiring=True`: a listener shows a certificate that should have been renewed by now. When it is out of date, devices do not connect any more",
            runbook: Runbook::Reason(RUNBOOK),
            reasons: &[reasons::CERTIFICATE_EXPIRES_SOON],
        },
        Alert {
            name: "TidegateScalingLimited",
            expression: condition(
                WITH_REASON,
                SCALING_LIMITED,
                State::True,
                &reason("!=", &[reasons::SCALING_OFF]),
            ),
            wait: "15m",
            severity: Warning,
            summary: "autoscaling of {{ $labels.namespace }}/{{ $labels.name }} is limited: {{ $labels.reason }}",
            meaning: "`ScalingLimited=True`: the number of pods does not follow the load as declared",
            runbook: Runbook::Reason("how-to/autoscaling.md"),
            reasons: &SCALING,
        },
        Alert {
            name: "TidegateFailoverLimited",
            expression: condition(
                WITH_REASON,
                FAILOVER_LIMITED,
                State::True,
                &reason("!~", &[reasons::FAILOVER_OFF, reasons::BRAKE_ENGAGED]),
            ),
            wait: "15m",
            severity: Info,
            summary: "failover of {{ $labels.namespace }}/{{ $labels.name }} is limited: {{ $labels.reason }}",
            meaning: "`FailoverLimited=True`: the loss of a node would cost more than it has to",
            runbook: Runbook::Reason("how-to/failover-limited.md"),
            reasons: &FAILOVER,
        },
        Alert {
            name: "TidegateFailoverBraked",
            // Every replica tells it, also while nobody leads.
            expression: "max(tidegate_failover_brake) > 0".to_owned(),
            wait: "30s",
            severity: Critical,
            summary: "a node does not answer, and nothing is done about it",
            meaning: "too many nodes are out already, or none answers: gateways on the silent one stay in their Services",
            runbook: Runbook::Section("how-to/failover-limited.md#brakeengaged"),
            reasons: &[reasons::BRAKE_ENGAGED],
        },
    ]
}

fn of_the_operator() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidegateNobodyLeads",
            expression: "(sum(tidegate_leader) or vector(0)) != 1".to_owned(),
            wait: "2m",
            severity: Critical,
            summary: "{{ $value }} replicas of the operator lead",
            meaning: "not exactly one replica of the operator leads: nothing is repaired, and nothing tells of conditions. Also where the operator is not scraped",
            runbook: Runbook::Section("how-to/runbook.md#tidegatenobodyleads"),
            reasons: &[],
        },
        Alert {
            name: "TidegateCertificateExpires",
            // Leaves are made anew with 120 days left, and an authority has a successor that signs long before its end.
            expression: format!(
                "max by (namespace, name, certificate) ({metric}{{certificate=~\".*Authority\"}}) - time() < 300 * 86400\nor\nmax by (namespace, name, certificate) ({metric}{{certificate!~\".*Authority\"}}) - time() < 90 * 86400",
                metric = "tidegate_certificate_expires_timestamp_seconds"
            ),
            wait: "1h",
            severity: Warning,
            summary: "{{ $labels.certificate }} of platform {{ $labels.namespace }}/{{ $labels.name }} expires in {{ $value | humanizeDuration }}",
            meaning: "a certificate was not made anew a month after it should have been, or an authority still signs in its last 300 days. Everything works until the day on which it expires",
            runbook: Runbook::Section("how-to/runbook.md#tidegatecertificateexpires"),
            reasons: &[],
        },
        Alert {
            name: "TidegateNodeOut",
            expression: "max(sum without (state) (tidegate_failover_nodes{state!=\"well\"})) > 0".to_owned(),
            wait: "1m",
            severity: Warning,
            summary: "{{ $value }} nodes are out",
            meaning: "nodes do not answer, or returned a moment ago: their gateways and addresses moved",
            runbook: Runbook::Section("how-to/runbook.md#tidegatenodeout"),
            reasons: &[],
        },
        Alert {
            name: "TidegateFailoverBlind",
            expression: "rate(tidegate_failover_rounds_discarded_total[5m]) > 0.5 * rate(tidegate_failover_rounds_total[5m])".to_owned(),
            wait: "5m",
            severity: Warning,
            summary: "{{ $labels.pod }} would notice a dead node late",
            meaning: "more than half of a prober's rounds ran late and were thrown away",
            runbook: Runbook::Section("how-to/runbook.md#tidegatefailoverblind"),
            reasons: &[],
        },
        Alert {
            name: "TidegateApiServerRefuses",
            expression: format!(
                "sum by (controller, reason) (increase(tidegate_reconcile_failures_total{{reason=~\"{}|{}|{}\"}}[10m])) > 0",
                reasons::API_ERROR, reasons::FORBIDDEN, reasons::REJECTED
            ),
            wait: "30m",
            severity: Warning,
            summary: "the API server does not do what the operator asks: {{ $labels.controller }}, {{ $labels.reason }}",
            meaning: "requests fail for half an hour; conditions may be out of date, because they cannot be written either",
            runbook: Runbook::Section("how-to/runbook.md#tidegateapiserverrefuses"),
            reasons: &[],
        },
    ]
}

fn of_gateways() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidegateKafkaAway",
            expression: "min by (namespace, gateway) (tidegate_kafka_available) == 0".to_owned(),
            wait: "30s",
            severity: Critical,
            summary: "Kafka is away for gateway {{ $labels.namespace }}/{{ $labels.gateway }}",
            meaning: "nothing is acknowledged by a pod of this gateway",
            runbook: Runbook::Section("how-to/runbook.md#tidegatekafkaaway"),
            reasons: &[],
        },
        Alert {
            name: "TidegatePublishesUnconfirmed",
            expression: "sum by (namespace, gateway) (rate(tidegate_publish_records_total{outcome!=\"acknowledged\"}[5m])) > 0".to_owned(),
            wait: "10m",
            severity: Warning,
            summary: "Kafka does not confirm all publishes of gateway {{ $labels.namespace }}/{{ $labels.gateway }}",
            meaning: "devices are disconnected and send again. Around a broker's death this passes",
            runbook: Runbook::Section("how-to/runbook.md#tidegatepublishesunconfirmed"),
            reasons: &[],
        },
        Alert {
            name: "TidegateAcknowledgementsSlow",
            expression: "histogram_quantile(0.99, sum by (namespace, gateway, le) (rate(tidegate_publish_seconds_bucket[5m]))) > 1".to_owned(),
            wait: "5m",
            severity: Warning,
            summary: "one in a hundred publishes of gateway {{ $labels.namespace }}/{{ $labels.gateway }} waits longer than {{ $value | humanizeDuration }}",
            meaning: "brokers are short of disk or CPU, or a replica lags",
            runbook: Runbook::Section("how-to/runbook.md#tidegateacknowledgementsslow"),
            reasons: &[],
        },
        Alert {
            name: "TidegateCredentialsPending",
            expression: "max by (namespace, gateway) (tidegate_kafka_credentials_pending) == 1".to_owned(),
            wait: "5m",
            severity: Warning,
            summary: "new Kafka credentials of gateway {{ $labels.namespace }}/{{ $labels.gateway }} do not work",
            meaning: "the gateway goes on with the old ones, for as long as those work",
            runbook: Runbook::Section("how-to/runbook.md#tidegatecredentialspending"),
            reasons: &[],
        },
        Alert {
            name: "TidegateReaderLostRecords",
            expression: "sum by (namespace, gateway) (increase(tidegate_tail_gap_records_total[10m])) > 0".to_owned(),
            wait: "0m",
            severity: Warning,
            summary: "a subscriber of gateway {{ $labels.namespace }}/{{ $labels.gateway }} missed records",
            meaning: "a connected QoS 1 subscriber was slower than its topic's retention",
            runbook: Runbook::Section("how-to/runbook.md#tidegatereaderlostrecords"),
            reasons: &[],
        },
        Alert {
            name: "TidegatePublishesRefused",
            expression: "sum by (namespace, gateway, reason) (rate(tidegate_mqtt_publishes_refused_total[5m])) > 0".to_owned(),
            wait: "10m",
            severity: Warning,
            summary: "gateway {{ $labels.namespace }}/{{ $labels.gateway }} refuses publishes: {{ $labels.reason }}",
            meaning: "devices publish what can never be stored, most often to an address that no Topic holds",
            runbook: Runbook::Section("how-to/runbook.md#tidegatepublishesrefused"),
            reasons: &[],
        },
        Alert {
            name: "TidegateGatewayFull",
            expression: "sum by (namespace, gateway, reason) (rate(tidegate_mqtt_connections_refused_total{reason=~\"TooManyConnections|ConnectRate\"}[5m])) > 0\nor\nsum by (namespace, gateway, reason) (rate(tidegate_http_connections_closed_total{reason=~\"TooManyConnections|ConnectRate\"}[5m])) > 0".to_owned(),
            wait: "5m",
            severity: Warning,
            summary: "gateway {{ $labels.namespace }}/{{ $labels.gateway }} refuses connections: {{ $labels.reason }}",
            meaning: "a gateway reached one of its `limits`",
            runbook: Runbook::Section("how-to/runbook.md#tidegategatewayfull"),
            reasons: &[],
        },
    ]
}
