//! What Kafka answers, sorted by what can be done about it. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidegate_crds::reasons;

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself: try again.
    Transient,
    /// It stays until somebody changes something.
    Blocked,
}

/// An answer of Kafka that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {what}: {code}")]
pub struct Failure {
    /// What was tried: "describe topics".
    pub what: String,
    /// Kafka's or librdkafka's code.
    pub code: RDKafkaErrorCode,
    detail: Option<String>,
    /// What to say instead of all this.
    words: Option<String>,
}

impl Failure {
    /// A failure with Kafka's code.
    pub fn new(what: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self { what: what.into(), code, detail: None, words: None }
    }

    /// A failure with a code, told in these words and no others.
    pub fn told(what: impl Into<String>, code: RDKafkaErrorCode, words: String) -> Self {
        Self { what: what.into(), code, detail: None, words: Some(words) }
    }

    /// A failure from the client library.
    pub fn from_client(what: impl Into<String>, error: &KafkaError) -> Self {
        let code = match error {
            KafkaError::AdminOp(code)
            | KafkaError::MetadataFetch(code)
            | KafkaError::MessageConsumption(code)
            | KafkaError::MessageConsumptionFatal(code)
            | KafkaError::MessageProduction(code)
            | KafkaError::OffsetFetch(code)
            | KafkaError::Flush(code)
            | KafkaError::Global(code) => *code,
            KafkaError::Transaction(inner) => inner.code(),
            _ => RDKafkaErrorCode::Fail,
        };
        let detail = (code == RDKafkaErrorCode::Fail).then(|| error.to_string());
        Self { what: what.into(), code, detail, words: None }
    }

    /// A constant name for conditions and metrics.
    pub const fn reason(&self) -> &'static str {
        match self.class() {
            Class::Transient => reasons::KAFKA_UNREACHABLE,
            Class::Blocked => reasons::KAFKA_REFUSED,
        }
    }

    /// What can be done about it.
    pub const fn class(&self) -> Class {
        use RDKafkaErrorCode as C;
        match self.code {
            C::TopicAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::GroupAuthorizationFailed
            | C::TransactionalIdAuthorizationFailed
            | C::SecurityDisabled
            | C::UnsupportedVersion
            | C::InvalidTopic
            | C::InvalidPartitions
            | C::InvalidReplicationFactor
            | C::InvalidReplicaAssignment
            | C::InvalidConfig
            | C::InvalidRequest
            | C::PolicyViolation
            | C::Authentication
            | C::SSL => Class::Blocked,
            _ => Class::Transient,
        }
    }

    /// The message for people: with what the library adds, and what to do where that is known.
    pub fn message(&self) -> String {
        let advice = match self.code {
            RDKafkaErrorCode::InvalidReplicationFactor => {
                "; write at most as many replicas as there are brokers"
            }
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                "; Kafka's rights do not let the operator do it"
            }
            _ => "",
        };
        if let Some(words) = &self.words {
            return format!("{words}{advice}");
        }
        match &self.detail {
            Some(detail) => format!("{self} ({detail}){advice}"),
            None => format!("{self}{advice}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_stays_are_told_apart() {
        let away = Failure::from_client(
            "read metadata",
            &KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure),
        );
        assert_eq!((away.class(), away.reason()), (Class::Transient, "KafkaUnreachable"));
        let denied = Failure::new("create topic \"x\"", RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!((denied.class(), denied.reason()), (Class::Blocked, "KafkaRefused"));
        assert!(denied.message().contains("create topic \"x\""));
    }
}
