//! One HTTP/1.1 connection as a careful device makes it. IO; the protocol is hyper's client.

use crate::login::Login;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// TCP connect takes this long at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The largest answer that is taken, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The socket failed.
    #[error("socket: {}", .0.kind())]
    Io(#[from] io::Error),
    /// The other side closed, or what it said is no HTTP.
    #[error("failed to get an answer: {0}")]
    Protocol(#[from] hyper::Error),
    /// The request cannot be made, or its answer is too large.
    #[error("failed to make a request or to take its answer: {0}")]
    Request(String),
    /// No answer in time.
    #[error("failed to get an answer in time")]
    Silent,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What `Retry-After` says, in seconds.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Bytes,
}

/// An open connection, one request at a time.
#[derive(Debug)]
pub struct HttpConnection {
    host: String,
    authorization: Option<HeaderValue>,
    requests: SendRequest<Full<Bytes>>,
}

impl HttpConnection {
    /// Connects to `target` (`host:port`); each request says who sends it where there is a `login`.
    ///
    /// # Errors
    /// When nobody accepts within 5 s.
    pub async fn open(target: &str, login: Option<&Login>) -> Result<Self, HttpError> {
        let authorization = login.map(basic).transpose()?;
        let connecting = timeout(CONNECT_LIMIT, TcpStream::connect(target));
        let socket = connecting.await.map_err(|_| HttpError::Silent)??;
        socket.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(socket)).await?;
        // It ends with the last request, and what ended it comes out of that one.
        tokio::spawn(connection);
        Ok(Self { host: target.to_owned(), authorization, requests })
    }

    /// Writes a payload to an address.
    ///
    /// # Errors
    /// When there is no answer within `limit`.
    pub async fn put(
        &mut self,
        address: &str,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, HttpError> {
        self.ask(Method::PUT, address, payload, limit).await
    }

    /// Reads the newest payload of an address.
    ///
    /// # Errors
    /// When there is no answer within `limit`.
    pub async fn get(&mut self, address: &str, limit: Duration) -> Result<Answer, HttpError> {
        self.ask(Method::GET, address, Vec::new(), limit).await
    }

    async fn ask(
        &mut self,
        method: Method,
        address: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, HttpError> {
        let mut request =
            Request::builder().method(method).uri(format!("/{address}")).header(header::HOST, &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| HttpError::Request(error.to_string()))?;
        timeout(limit, async {
            self.requests.ready().await?;
            let answer = self.requests.send_request(request).await?;
            let status = answer.status().as_u16();
            let retry_after = answer.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| HttpError::Request(error.to_string()))?.to_bytes();
            Ok(Answer { status, retry_after, body })
        })
        .await
        .unwrap_or(Err(HttpError::Silent))
    }
}

/// `Authorization: Basic` (RFC 7617).
fn basic(login: &Login) -> Result<HeaderValue, HttpError> {
    let secrets = STANDARD.encode(format!("{}:{}", login.username, login.password));
    let mut value = HeaderValue::try_from(format!("Basic {secrets}"))
        .map_err(|error| HttpError::Request(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}
