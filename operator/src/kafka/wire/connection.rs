//! One connection to one broker. Does network IO.

use super::call::Call;
use super::error::WireError;
use super::{features, frame};
use bytes::BytesMut;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Message as _, StrBytes, VersionRange};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long one call may take: the broker may have to ask the active controller.
pub const CALL: Duration = Duration::from_secs(5);
/// The version in which every Kafka since 2.4 answers what it can do.
const FIRST: i16 = 3;

/// What bytes come and go through.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// One connection to one broker, one call at a time. After an error other than [`WireError::Refused`] and
/// [`WireError::Unsupported`] nothing fits together any more: drop it.
pub struct Connection<S = Box<dyn Socket>> {
    socket: S,
    correlation: i32,
    apis: BTreeMap<i16, VersionRange>,
    features: features::Features,
}

impl<S: Socket> Connection<S> {
    /// Asks the broker what it can do.
    pub async fn open(socket: S) -> Result<Self, WireError> {
        let mut connection =
            Self { socket, correlation: 0, apis: BTreeMap::new(), features: features::Features::default() };
        let ask = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("tidegate-operator"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer: ApiVersionsResponse = connection.exchange(&ask, FIRST).await?;
        if answer.error_code != 0 {
            let (what, code) = (ApiVersionsRequest::WHAT, answer.error_code);
            return Err(WireError::Refused { what, code, message: None });
        }
        connection.apis = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, VersionRange { min: api.min_version, max: api.max_version }))
            .collect();
        connection.features = features::Features::of(&answer);
        Ok(connection)
    }

    /// The features that the broker knew of when the connection was opened.
    pub const fn features(&self) -> &features::Features {
        &self.features
    }

    /// Makes a call in the newest version that both sides know.
    pub async fn call<C: Call>(&mut self, call: &C) -> Result<C::Answer, WireError> {
        let theirs = self.apis.get(&(C::API as i16));
        let both = theirs.map(|theirs| theirs.intersect(&C::VERSIONS).intersect(&C::Answer::VERSIONS));
        let both = both.filter(|both| !both.is_empty()).ok_or(WireError::Unsupported(C::WHAT))?;
        self.exchange(call, both.max).await
    }

    async fn exchange<C: Call>(&mut self, call: &C, version: i16) -> Result<C::Answer, WireError> {
        self.correlation = self.correlation.wrapping_add(1);
        let request = frame::request(call, version, self.correlation)?;
        let answered = timeout(CALL, self.send_and_read(&request)).await;
        let frame = match answered {
            Err(_) => return Err(WireError::Timeout { what: C::WHAT, limit: CALL }),
            Ok(Err(Ended::Io(source))) => return Err(WireError::Broken { what: C::WHAT, source }),
            Ok(Err(Ended::Frame(source))) => return Err(WireError::Frame { what: C::WHAT, source }),
            Ok(Ok(frame)) => frame,
        };
        frame::answer::<C>(frame.freeze(), version, self.correlation)
    }

    async fn send_and_read(&mut self, request: &[u8]) -> Result<BytesMut, Ended> {
        self.socket.write_all(request).await?;
        self.socket.flush().await?;
        let mut prefix = [0; 4];
        self.socket.read_exact(&mut prefix).await?;
        let length = frame::length(prefix).map_err(Ended::Frame)?;
        // Grows with what really comes: a length is only a claim.
        let mut body = BytesMut::new();
        let mut rest = (&mut self.socket).take(length as u64);
        while body.len() < length {
            if rest.read_buf(&mut body).await? == 0 {
                return Err(Ended::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(body)
    }
}

/// How an exchange ended early.
enum Ended {
    Io(io::Error),
    Frame(frame::FrameError),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
