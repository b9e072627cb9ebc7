//! From what core returns to HTTP responses. Pure.

use crate::problem::TRUNCATED;
use crate::request::{ALLOW, EXPIRY, TIME};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Serialize;
use tidegate_contract::desired::Document;
use tidegate_core::{HistoryRead, Place, Stored};

/// The Kafka topic of a record.
pub const TOPIC: HeaderName = HeaderName::from_static("tidegate-topic");
/// The partition of a record.
pub const PARTITION: HeaderName = HeaderName::from_static("tidegate-partition");
/// The offset of a record; absent where Kafka confirmed a repeat and did not say where it is.
pub const OFFSET: HeaderName = HeaderName::from_static("tidegate-offset");
/// Who wrote a record: `fleet/device` or `anonymous`.
pub const DEVICE: HeaderName = HeaderName::from_static("tidegate-device");

/// The most bytes of payloads that one read returns; the oldest records are left out beyond it.
pub const MAX_READ_BYTES: usize = 8 << 20;

/// The answer to a write, after the delivery report.
pub fn written(place: &Place) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    set_place(response.headers_mut(), place);
    response
}

/// The newest record as it was sent. `request` are the request's headers: where they name the record's tag, only
/// that it is unchanged is said (RFC 9110 §13.1.2).
pub fn newest(stored: &Stored, request: &HeaderMap) -> Response<Bytes> {
    let Stored { record, place, timestamp_ms } = stored;
    let tag = format!("\"{}-{}\"", place.partition, place.offset);
    let unchanged = is_known(&tag, request);
    let mut response = Response::new(if unchanged { Bytes::new() } else { record.payload.clone() });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set_place(headers, place);
    set(headers, header::ETAG, &tag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let time_ms = record.metadata.time_ms.unwrap_or(*timestamp_ms);
    headers.insert(TIME, time_ms.into());
    if let Some(date) = http_date(*timestamp_ms) {
        set(headers, header::LAST_MODIFIED, &date);
    }
    if let Some(expiry_ms) = record.metadata.expiry_ms {
        headers.insert(EXPIRY, expiry_ms.into());
    }
    if !record.metadata.device.is_empty() {
        set(headers, DEVICE, &record.metadata.device);
    }
    if !unchanged {
        let content_type = record.metadata.content_type.as_deref();
        let sent = content_type.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok());
        let sent = sent.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_TYPE, sent);
        protect(headers);
    }
    response
}

/// A device's desired document.
pub fn desired(document: &Document, request: &HeaderMap) -> Response<Bytes> {
    let tag = format!("\"{}\"", document.tag());
    let unchanged = is_known(&tag, request);
    let mut response =
        Response::new(if unchanged { Bytes::new() } else { Bytes::copy_from_slice(document.json()) });
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set(headers, header::ETAG, &tag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if !unchanged {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        protect(headers);
    }
    response
}

/// Whether the request says that it has what has this tag.
fn is_known(tag: &str, request: &HeaderMap) -> bool {
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

/// The records of a read, oldest first, one JSON object per line.
pub fn lines(read: &HistoryRead, now_ms: i64) -> Response<Bytes> {
    let mut lines = Vec::new();
    let (mut bytes, mut truncated) = (0_usize, read.truncated);
    // From the newest, so that it is the oldest that is left out.
    for stored in read.records.iter().rev().filter(|stored| !is_expired(stored, now_ms)) {
        bytes += stored.record.payload.len();
        if bytes > MAX_READ_BYTES && !lines.is_empty() {
            truncated = true;
            break;
        }
        lines.push(stored);
    }
    let mut body = Vec::with_capacity(bytes + lines.len() * 160);
    for stored in lines.into_iter().rev() {
        // Serializing these fields into memory cannot fail.
        if serde_json::to_writer(&mut body, &Line::from(stored)).is_ok() {
            body.push(b'\n');
        }
    }
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if truncated {
        headers.insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    protect(headers);
    response
}

/// Whether a record is of no more use (`tg-expiry`).
pub fn is_expired(stored: &Stored, now_ms: i64) -> bool {
    stored.record.metadata.expiry_ms.is_some_and(|expiry_ms| expiry_ms <= now_ms)
}

/// The answer to `OPTIONS`.
pub fn options() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOW));
    response
}

fn set_place(headers: &mut HeaderMap, place: &Place) {
    set(headers, TOPIC, &place.topic);
    headers.insert(PARTITION, place.partition.into());
    if place.offset >= 0 {
        headers.insert(OFFSET, place.offset.into());
    }
}

/// A payload is what some device sent: a browser must not run it as a page of this origin.
fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
}

/// Sets a header unless the value holds what no header may (a line feed in a content type that MQTT took).
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// RFC 9110 §5.6.7.
fn http_date(ms: i64) -> Option<String> {
    let time = Timestamp::from_millisecond(ms).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

/// One line of a read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    address: &'a str,
    time: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl<'a> From<&'a Stored> for Line<'a> {
    fn from(stored: &'a Stored) -> Self {
        let Stored { record, place, timestamp_ms } = stored;
        let data = std::str::from_utf8(&record.payload).ok();
        Self {
            address: record.address.as_str(),
            time: record.metadata.time_ms.unwrap_or(*timestamp_ms),
            device: &record.metadata.device,
            content_type: record.metadata.content_type.as_deref(),
            partition: place.partition,
            offset: place.offset,
            data,
            data_base64: data.is_none().then(|| BASE64.encode(&record.payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use tidegate_contract::Address;
    use tidegate_core::{Metadata, Record};

    fn stored(payload: &'static [u8]) -> Stored {
        let metadata = Metadata {
            device: "meters/1".to_owned(),
            content_type: Some("text/plain".to_owned()),
            ..Metadata::default()
        };
        let address = Address::parse("sites/berlin").unwrap();
        Stored {
            record: Arc::new(Record { address, payload: Bytes::from_static(payload), metadata }),
            place: Place { topic: "telemetry".into(), partition: 3, offset: 42 },
            timestamp_ms: 1_795_400_000_123,
        }
    }

    fn metadata(stored: &mut Stored) -> &mut Metadata {
        &mut Arc::get_mut(&mut stored.record).unwrap().metadata
    }

    #[test]
    fn a_write_is_answered_with_its_place() {
        let response = written(&stored(b"").place);
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()["tidegate-topic"], "telemetry");
        assert_eq!(response.headers()["tidegate-partition"], "3");
        assert_eq!(response.headers()["tidegate-offset"], "42");
        let unknown = written(&Place { offset: -1, ..stored(b"").place });
        assert!(!unknown.headers().contains_key("tidegate-offset"));
    }

    #[test]
    fn the_newest_record_comes_as_it_was_sent() {
        let response = newest(&stored(b"21.5"), &HeaderMap::new());
        assert_eq!((response.status(), &response.body()[..]), (StatusCode::OK, &b"21.5"[..]));
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/plain");
        assert_eq!(header("etag"), "\"3-42\"");
        assert_eq!(header("last-modified"), "Mon, 23 Nov 2026 02:13:20 GMT");
        assert_eq!(header("tidegate-time"), "1795400000123");
        assert_eq!(header("tidegate-device"), "meters/1");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }

    #[test]
    fn the_devices_own_time_is_the_records_time() {
        let mut stored = stored(b"");
        metadata(&mut stored).time_ms = Some(7);
        assert_eq!(newest(&stored, &HeaderMap::new()).headers()["tidegate-time"], "7");
    }

    #[test]
    fn a_reader_that_has_the_newest_record_is_told_so() {
        for tags in ["\"3-42\"", "\"3-41\", \"3-42\"", "W/\"3-42\"", "*"] {
            let request =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(tags).unwrap())]);
            let response = newest(&stored(b"21.5"), &request);
            assert_eq!((response.status(), response.body().len()), (StatusCode::NOT_MODIFIED, 0), "{tags}");
            assert_eq!(response.headers()["etag"], "\"3-42\"");
        }
        let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("\"3-41\""))]);
        assert_eq!(newest(&stored(b"21.5"), &request).status(), StatusCode::OK);
    }

    #[test]
    fn a_content_type_that_no_header_can_carry_is_left_out() {
        let mut stored = stored(b"x");
        metadata(&mut stored).content_type = Some("text/html\r\nSet-Cookie: x".to_owned());
        let response = newest(&stored, &HeaderMap::new());
        assert_eq!(response.headers()["content-type"], "application/octet-stream");
        assert!(!response.headers().contains_key("set-cookie"));
    }

    fn json_lines(response: &Response<Bytes>) -> Vec<Value> {
        response
            .body()
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    #[test]
    fn several_records_are_lines_of_json_and_bytes_that_are_no_text_are_base64() {
        let mut second = stored(b"\xff\x00");
        *metadata(&mut second) = Metadata::default();
        second.place.offset = 43;
        let read = HistoryRead { records: vec![stored(b"21.5"), second], truncated: true };
        let response = lines(&read, 0);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        assert_eq!(response.headers()["tidegate-truncated"], "true");
        let expected = [
            json!({"address": "sites/berlin", "time": 1_795_400_000_123_i64, "device": "meters/1",
                "contentType": "text/plain", "partition": 3, "offset": 42, "data": "21.5"}),
            json!({"address": "sites/berlin", "time": 1_795_400_000_123_i64, "partition": 3, "offset": 43,
                "dataBase64": "/wA="}),
        ];
        assert_eq!(json_lines(&response), expected);
    }

    #[test]
    fn a_read_leaves_out_what_has_expired() {
        let mut expired = stored(b"old");
        metadata(&mut expired).expiry_ms = Some(1000);
        let read = HistoryRead { records: vec![expired, stored(b"new")], truncated: false };
        assert_eq!(json_lines(&lines(&read, 999)).len(), 2);
        let response = lines(&read, 1000);
        assert_eq!(json_lines(&response)[0]["data"], "new");
        assert!(!response.headers().contains_key("tidegate-truncated"));
    }

    #[test]
    fn a_read_is_bounded_in_bytes_and_keeps_the_newest() {
        static BIG: [u8; 3 << 20] = [b'x'; 3 << 20];
        let mut records: Vec<_> = (0..4).map(|_| stored(&BIG)).collect();
        for (offset, stored) in (0..).zip(&mut records) {
            stored.place.offset = offset;
        }
        let response = lines(&HistoryRead { records, truncated: false }, 0);
        let offsets: Vec<_> =
            json_lines(&response).iter().map(|line| line["offset"].as_i64().unwrap()).collect();
        assert_eq!(offsets, [2, 3]);
        assert_eq!(response.headers()["tidegate-truncated"], "true");
    }
}
