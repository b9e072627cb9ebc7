//! What can go wrong between us and a broker. Pure.

use super::frame::FrameError;
use crate::kafka::error::Failure;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::io;
use std::time::Duration;
use tokio_rustls::rustls;

/// What can go wrong between us and a broker.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The operator's own certificate, key or authorities cannot be used.
    #[error("failed to read the operator's own certificates: {0}")]
    Certificates(String),
    /// rustls takes no such settings.
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
    /// An address that is none.
    #[error("failed to read the address {0:?}: write host:port")]
    Address(String),
    /// No broker of the list could be reached; the last attempt's error.
    #[error("failed to connect to {address}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The broker took too long.
    #[error("failed to {what} within {limit:?}")]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke.
    #[error("failed to {what}: the connection broke")]
    Broken {
        /// What was tried.
        what: &'static str,
        /// How it broke.
        source: io::Error,
    },
    /// What came is no answer to what was asked.
    #[error("failed to {what}: {source}")]
    Frame {
        /// What was tried.
        what: &'static str,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The codec cannot write the request or read the answer.
    #[error("failed to {what}: {detail}")]
    Codec {
        /// What was tried.
        what: &'static str,
        /// The codec's words.
        detail: String,
    },
    /// Kafka knows no version of the call that we know.
    #[error("failed to {0}: this Kafka speaks no version of the call that Tidegate knows")]
    Unsupported(&'static str),
    /// Kafka answered with an error.
    #[error("failed to {what}: Kafka answers with error {code}{}", said(.message.as_ref()))]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Kafka's code.
        code: i16,
        /// Kafka's own words.
        message: Option<String>,
    },
}

fn said(message: Option<&String>) -> String {
    message.map(|text| format!(": {text}")).unwrap_or_default()
}

impl WireError {
    /// As Kafka's answers are told everywhere else.
    pub fn failure(&self, what: &str) -> Failure {
        use RDKafkaErrorCode as C;
        let code = match self {
            Self::Certificates(_) | Self::Tls(_) => C::SSL,
            Self::Address(_) => C::InvalidArgument,
            Self::Connect { .. } | Self::Broken { .. } => C::BrokerTransportFailure,
            Self::Timeout { .. } => C::OperationTimedOut,
            Self::Frame { .. } | Self::Codec { .. } => C::BadMessage,
            Self::Unsupported(_) => C::UnsupportedVersion,
            Self::Refused { code, .. } => known(*code),
        };
        Failure::told(what, code, crate::frame::failure::chain(self))
    }
}

/// librdkafka's name for a code of the protocol.
fn known(code: i16) -> RDKafkaErrorCode {
    use RDKafkaRespErr as E;
    match code {
        29 => E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED.into(),
        31 => E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED.into(),
        35 => E::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION.into(),
        42 => E::RD_KAFKA_RESP_ERR_INVALID_REQUEST.into(),
        44 => E::RD_KAFKA_RESP_ERR_POLICY_VIOLATION.into(),
        54 => E::RD_KAFKA_RESP_ERR_SECURITY_DISABLED.into(),
        _ => RDKafkaErrorCode::Fail,
    }
}
