//! What is wrong with a request, or with the platform while it is served, and the answer that says what to do (problem
//! details, RFC 9457). Pure.

use crate::framing::Ambiguity;
use crate::request::{ALLOW, MAX_LAST, MAX_TARGET_BYTES, MAX_USER, is_kept};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tidegate_contract::AddressError;

/// `true` where a read stopped at its bounds: there may be older records.
pub const TRUNCATED: HeaderName = HeaderName::from_static("tidegate-truncated");
/// Seconds after which a passing failure is worth another try.
const RETRY_AFTER_S: u64 = 2;
/// How a device says who it is (RFC 7617).
const CHALLENGE: &str = r#"Basic realm="tidegate", charset="UTF-8""#;

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// `/` alone.
    #[error("write the address behind the slash: PUT or GET /sites/berlin/telemetry/meter-7/power")]
    NoAddress,
    /// A `%` without two hexadecimal digits (RFC 3986 §2.1).
    #[error("write \"%\" as \"%25\": it is followed by two hexadecimal digits")]
    PathEncoding,
    /// The decoded path is no UTF-8.
    #[error("write the path as percent-encoded UTF-8")]
    PathNotUtf8,
    /// The decoded path is no address.
    #[error("{0}")]
    Address(AddressError),
    /// `Tidegate-Response-Address` is no address.
    #[error("tidegate-response-address: {0}")]
    ResponseAddress(AddressError),
    /// Path and query are too long together.
    #[error("path and query have at most {MAX_TARGET_BYTES} bytes")]
    TargetTooLong,
    /// A query that a read does not know.
    #[error("write ?last=n with n from 1 to {MAX_LAST}, or no query for the newest record")]
    Query,
    /// A query on a desired document.
    #[error("remove the query: a desired document has no history")]
    QueryOnDesired,
    /// A query on a write.
    #[error("remove the query: it would not be stored")]
    QueryOnWrite,
    /// A method that an address does not have.
    #[error("use GET or HEAD to read and PUT or POST to write")]
    Method,
    /// The body is compressed.
    #[error(
        "send the body without Content-Encoding: a record is stored as it is sent, and readers get no encoding with it"
    )]
    ContentEncoding,
    /// Only a part is sent.
    #[error("send the whole body: a record is not written in parts")]
    ContentRange,
    /// A header whose value cannot be used.
    #[error(
        "send {0} once, as the documentation says: UTF-8 text, numbers as decimal digits, times in milliseconds since 1970"
    )]
    Header(String),
    /// Too many user properties.
    #[error("a record has at most {MAX_USER} user properties")]
    TooManyUser,
    /// HTTP/1.1 without one `Host` (RFC 9112 §3.2).
    #[error("send one Host header")]
    Host,
    /// The message's length can be understood in two ways.
    #[error("{0}")]
    Framing(Ambiguity),
    /// The body is too large.
    #[error("a body has at most {limit} bytes here")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The body stopped coming.
    #[error("send the body faster: it did not arrive in time")]
    BodyTooSlow,
    /// The body broke off or its chunks are malformed.
    #[error("send the whole body, in well-formed chunks where it is chunked")]
    BodyBroken,
    /// No topic holds the address.
    #[error(
        "no topic holds this address: create a Topic whose filters match it, or use an address that a topic holds"
    )]
    NoTopic,
    /// Nothing is stored at the address.
    #[error("nothing is stored at this address")]
    NoRecord,
    /// The device's fleet has no configuration.
    #[error("the DeviceFleet of this device has no configuration")]
    NoConfiguration,
    /// Nothing was found at the address within the bounds of one read.
    #[error(
        "nothing was found at this address among the newest records of its partition; there may be an older one"
    )]
    NoRecordInBounds,
    /// Nobody said who it is, and no fleet takes that.
    #[error("say who you are: Authorization: Basic with <fleet>/<device> and its password")]
    NoCredentials,
    /// There is no such device, or this is not its password.
    #[error("no device has this username and password: write <fleet>/<device> as the username")]
    WrongCredentials,
    /// It proved who it is, and may not come in.
    #[error("this device is disabled in its DeviceFleet")]
    DeviceDisabled,
    /// The connection's certificate is valid, and lets nobody in.
    #[error("{detail}")]
    Certificate {
        /// A constant name.
        reason: &'static str,
        /// What to do.
        detail: String,
    },
    /// Too many wrong passwords.
    #[error("wrong too often: send the request again later")]
    TooManyFailures {
        /// When another try is looked at, in seconds.
        after_s: u64,
    },
    /// `connectionsPerDevice` requests are served.
    #[error(
        "as many requests of this device are served at once as its DeviceFleet allows: send it again later"
    )]
    TooManyConnections,
    /// `publishRate` or `publishBytes`.
    #[error("this device publishes more than its DeviceFleet allows: send the request again later")]
    TooFast {
        /// When it may publish again, in seconds.
        after_s: u64,
    },
    /// The device has no right.
    #[error("this device has no right to do this: ask for a permission in its DeviceFleet")]
    Denied,
    /// Too much waits for Kafka in this process.
    #[error("too much waits here: send the request again later")]
    Busy,
    /// Kafka or this process is not able to serve now.
    #[error("the platform cannot serve this now: send the request again later")]
    Unavailable,
    /// Nobody knows whether the record is stored.
    #[error(
        "Kafka did not confirm the record: it may be stored or not. Send it again; a repeat is possible, a loss is not"
    )]
    Unknown,
}

impl Problem {
    /// A constant name for metrics and for the problem's type.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoAddress => "NoAddress",
            Self::PathEncoding => "PathEncoding",
            Self::PathNotUtf8 => "PathNotUtf8",
            Self::Address(error) => error.reason(),
            Self::ResponseAddress(_) => "ResponseAddress",
            Self::TargetTooLong => "TargetTooLong",
            Self::Query => "Query",
            Self::QueryOnDesired => "QueryOnDesired",
            Self::QueryOnWrite => "QueryOnWrite",
            Self::Method => "Method",
            Self::ContentEncoding => "ContentEncoding",
            Self::ContentRange => "ContentRange",
            Self::Header(_) => "Header",
            Self::TooManyUser => "TooManyUser",
            Self::Host => "Host",
            Self::Framing(_) => "Framing",
            Self::TooLarge { .. } => "TooLarge",
            Self::BodyTooSlow => "BodyTooSlow",
            Self::BodyBroken => "BodyBroken",
            Self::NoTopic => "NoTopic",
            Self::NoRecord => "NoRecord",
            Self::NoConfiguration => "NoConfiguration",
            Self::NoRecordInBounds => "NoRecordInBounds",
            Self::NoCredentials => "NoCredentials",
            Self::WrongCredentials => "WrongCredentials",
            Self::DeviceDisabled => "DeviceDisabled",
            Self::Certificate { reason, .. } => reason,
            Self::TooManyFailures { .. } => "TooManyFailures",
            Self::TooManyConnections => "TooManyConnections",
            Self::TooFast { .. } => "TooFast",
            Self::Denied => "Denied",
            Self::Busy => "Busy",
            Self::Unavailable => "Unavailable",
            Self::Unknown => "Unknown",
        }
    }

    /// The status code.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoAddress
            | Self::NoTopic
            | Self::NoRecord
            | Self::NoRecordInBounds
            | Self::NoConfiguration => StatusCode::NOT_FOUND,
            Self::Address(error) if is_kept(*error) => StatusCode::NOT_FOUND,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoCredentials | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::Denied | Self::DeviceDisabled | Self::Certificate { .. } => StatusCode::FORBIDDEN,
            Self::TooManyFailures { .. } | Self::TooManyConnections | Self::TooFast { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Busy | Self::Unavailable | Self::Unknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::PathEncoding
            | Self::PathNotUtf8
            | Self::Address(_)
            | Self::ResponseAddress(_)
            | Self::Query
            | Self::QueryOnDesired
            | Self::QueryOnWrite
            | Self::ContentRange
            | Self::Header(_)
            | Self::TooManyUser
            | Self::Host
            | Self::Framing(_)
            | Self::BodyBroken => StatusCode::BAD_REQUEST,
        }
    }

    /// When it is worth another try, in seconds.
    const fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures { after_s } | Self::TooFast { after_s } => Some(*after_s),
            Self::TooManyConnections | Self::Busy | Self::Unavailable | Self::Unknown => Some(RETRY_AFTER_S),
            _ => None,
        }
    }

    /// Whether the connection cannot be used after the answer: what follows on it cannot be told from this request, a
    /// publish on it has failed, or its certificate is of no use.
    pub const fn closes(&self) -> bool {
        matches!(
            self,
            Self::Framing(_)
                | Self::BodyTooSlow
                | Self::BodyBroken
                | Self::TooLarge { .. }
                | Self::Unknown
                | Self::Certificate { .. }
        )
    }

    /// The answer. `write`: whether the request was to store a record; then the answer says whether it did.
    pub fn response(&self, write: bool) -> Response<Bytes> {
        let status = self.status();
        let body = Body {
            r#type: format!("urn:tidegate:problem:{}", self.reason()),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
            stored: write.then_some(if *self == Self::Unknown { "unknown" } else { "no" }),
        };
        let mut response = Response::new(serde_json::to_vec(&body).unwrap_or_default().into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static(ALLOW));
        }
        if matches!(self, Self::NoRecordInBounds) {
            headers.insert(TRUNCATED, HeaderValue::from_static("true"));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// RFC 9457 §3.1, with one member of ours.
#[derive(Serialize)]
struct Body {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn a_problem_says_what_to_write_instead() {
        let response = Problem::Address(AddressError::Wildcard).response(true);
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let expected = json!({
            "type": "urn:tidegate:problem:AddressWildcard", "title": "Bad Request", "status": 400,
            "detail": "an address has no wildcard: remove \"+\" and \"#\"", "stored": "no",
        });
        assert_eq!(body(&response), expected);
    }

    #[test]
    fn a_passing_failure_says_when_to_try_again_and_whether_the_record_may_be_stored() {
        for (problem, stored) in
            [(Problem::Busy, "no"), (Problem::Unavailable, "no"), (Problem::Unknown, "unknown")]
        {
            let response = problem.response(true);
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers()["retry-after"], "2");
            assert_eq!(body(&response)["stored"], stored);
        }
        assert_eq!(body(&Problem::Busy.response(false)).get("stored"), None);
    }

    #[test]
    fn a_connection_on_which_a_publish_failed_is_closed() {
        assert_eq!(Problem::Unknown.response(true).headers()["connection"], "close");
        assert!(!Problem::NoTopic.response(true).headers().contains_key("connection"));
    }

    #[test]
    fn whoever_is_not_known_is_told_how_to_say_who_it_is() {
        for problem in [Problem::NoCredentials, Problem::WrongCredentials] {
            let response = problem.response(true);
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], CHALLENGE);
        }
        for problem in [Problem::TooManyFailures { after_s: 7 }, Problem::TooFast { after_s: 7 }] {
            let response = problem.response(true);
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (429, &HeaderValue::from(7))
            );
        }
        assert!(!Problem::Denied.response(true).headers().contains_key("www-authenticate"));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        assert_eq!(Problem::Method.response(false).headers()["allow"], ALLOW);
    }
}
