//! Kafka's frames: a length, a header with a correlation id, a body. Pure.

use super::call::Call;
use super::error::WireError;
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion, StrBytes};
use std::fmt::Display;

/// The longest answer that is read. Thousands of brokers and voters fit.
pub const LONGEST: usize = 4 << 20;
/// The shortest: a correlation id.
const SHORTEST: usize = 4;

/// What came is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing fits into it, or more than we take.
    #[error("an answer of {0} bytes is none (between {SHORTEST} and {LONGEST} are)")]
    Length(i32),
    /// It answers something else.
    #[error("the answer is to request {found}, not to {expected}")]
    Correlation {
        /// What was asked.
        expected: i32,
        /// What was answered.
        found: i32,
    },
    /// The answer is longer than what it says.
    #[error("{0} bytes are left over behind the answer")]
    Tail(usize),
}

/// How many bytes follow the prefix.
pub fn length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let said = i32::from_be_bytes(prefix);
    let length = usize::try_from(said).ok().filter(|length| (SHORTEST..=LONGEST).contains(length));
    length.ok_or(FrameError::Length(said))
}

/// A whole request, prefix included.
pub fn request<C: Call>(call: &C, version: i16, correlation: i32) -> Result<Bytes, WireError> {
    let header = RequestHeader::default()
        .with_request_api_key(C::API as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("tidegate-operator")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, C::header_version(version)).map_err(codec::<C, _>)?;
    call.encode(&mut frame, version).map_err(codec::<C, _>)?;
    let length = i32::try_from(frame.len() - 4).map_err(|_| codec::<C, _>("the request is too long"))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// The answer in a frame without its prefix.
pub fn answer<C: Call>(mut frame: Bytes, version: i16, expected: i32) -> Result<C::Answer, WireError> {
    let wrong = |source| WireError::Frame { what: C::WHAT, source };
    let header =
        ResponseHeader::decode(&mut frame, C::Answer::header_version(version)).map_err(codec::<C, _>)?;
    let found = header.correlation_id;
    if found != expected {
        return Err(wrong(FrameError::Correlation { expected, found }));
    }
    let answer = <C::Answer as kafka_protocol::protocol::Decodable>::decode(&mut frame, version);
    let answer = answer.map_err(codec::<C, _>)?;
    if frame.is_empty() { Ok(answer) } else { Err(wrong(FrameError::Tail(frame.len()))) }
}

fn codec<C: Call, E: Display>(error: E) -> WireError {
    WireError::Codec { what: C::WHAT, detail: error.to_string() }
}
