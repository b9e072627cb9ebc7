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

/// What a failure means, where more is known than Kafka's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// What can be done about it.
    pub class: Class,
    /// What is wrong and what to do.
    pub text: String,
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
    told: Option<Box<Told>>,
}

impl Failure {
    /// A failure with Kafka's code.
    pub fn new(what: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self { what: what.into(), code, detail: None, words: None, told: None }
    }

    /// A failure with a code, told in these words and no others.
    pub fn told(what: impl Into<String>, code: RDKafkaErrorCode, words: String) -> Self {
        Self { what: what.into(), code, detail: None, words: Some(words), told: None }
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
        Self { what: what.into(), code, detail, words: None, told: None }
    }

    /// The same, with what it means.
    #[must_use]
    pub fn meaning(self, told: Told) -> Self {
        Self { told: Some(Box::new(told)), ..self }
    }

    /// Where Kafka's rights are in the way: who lacks which right on what.
    #[must_use]
    pub fn lacking(self, who: &str, right: &str) -> Self {
        if !self.is_denied() {
            return self;
        }
        let text = format!("Kafka's rights do not let {who} {}: allow it {right}", self.what);
        self.meaning(Told { reason: reasons::KAFKA_FORBIDDEN, class: Class::Blocked, text })
    }

    /// Whether Kafka's rights are in the way.
    pub const fn is_denied(&self) -> bool {
        use RDKafkaErrorCode as C;
        matches!(
            self.code,
            C::TopicAuthorizationFailed
                | C::ClusterAuthorizationFailed
                | C::GroupAuthorizationFailed
                | C::TransactionalIdAuthorizationFailed
        )
    }

    /// A constant name for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        if let Some(told) = &self.told {
            return told.reason;
        }
        if self.is_denied() {
            return reasons::KAFKA_FORBIDDEN;
        }
        match (self.class(), self.code) {
            (_, RDKafkaErrorCode::InvalidReplicationFactor) => reasons::TOO_FEW_BROKERS,
            (Class::Transient, _) => reasons::KAFKA_UNREACHABLE,
            (Class::Blocked, _) => reasons::KAFKA_REFUSED,
        }
    }

    /// What can be done about it.
    pub fn class(&self) -> Class {
        use RDKafkaErrorCode as C;
        if let Some(told) = &self.told {
            return told.class;
        }
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
        if let Some(told) = &self.told {
            return told.text.clone();
        }
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
        assert_eq!((denied.class(), denied.reason()), (Class::Blocked, "KafkaForbidden"));
        let denied = denied.lacking("User:tidegate", "operation Create on topic \"x\"").message();
        let said = "Kafka's rights do not let User:tidegate create topic \"x\": allow it operation Create on topic \"x\"";
        assert_eq!(denied, said);
        assert_eq!(away.clone().lacking("User:tidegate", "everything"), away);
    }

    #[test]
    fn more_copies_than_brokers_is_told_as_that() {
        let few = Failure::new("create topic \"x\"", RDKafkaErrorCode::InvalidReplicationFactor);
        assert_eq!((few.class(), few.reason()), (Class::Blocked, "TooFewBrokers"));
        assert!(few.message().contains("at most as many replicas"), "{}", few.message());
    }
}
