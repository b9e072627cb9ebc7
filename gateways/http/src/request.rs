//! From method, path, query and headers to an address and what is wanted of it. Pure.

use crate::problem::Problem;
use http::{HeaderMap, HeaderName, Method, header};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use tidegate_contract::{Address, AddressError, desired};

/// The longest path with its query, in bytes: an address of 512 bytes with each byte percent-encoded, and a query.
pub const MAX_TARGET_BYTES: usize = 2048;
/// The most records that one read returns.
pub const MAX_LAST: usize = 1000;
/// The most user properties of one record.
pub const MAX_USER: usize = 32;

/// The methods of an address, as `Allow` says them (RFC 9110 §10.2.1).
pub const ALLOW: &str = "GET, HEAD, PUT, POST, OPTIONS";

/// The device's own time, in milliseconds since 1970 UTC; on replies the record's.
pub const TIME: HeaderName = HeaderName::from_static("tidegate-time");
/// When the record is of no more use, in milliseconds since 1970 UTC.
pub const EXPIRY: HeaderName = HeaderName::from_static("tidegate-expiry");
/// The address for the answer.
pub const RESPONSE_ADDRESS: HeaderName = HeaderName::from_static("tidegate-response-address");
/// The start of the name of a user property: `Tidegate-User-Room: kitchen`. Names are lower case in the record.
pub const USER_PREFIX: &str = "tidegate-user-";

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `PUT` or `POST`: write the body as a record.
    Publish(Publish),
    /// `GET` or `HEAD`: the newest record as it was sent.
    Newest(Address),
    /// `GET` or `HEAD` with `?last=n`: the newest `n` records as lines of JSON.
    Last(Address, usize),
    /// `GET` or `HEAD` of somebody's desired document: `<fleet>/<device>`, not checked.
    Desired(String),
    /// `OPTIONS`: which methods there are.
    Options,
}

/// What the headers of a request say about its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The body's media type (RFC 9110 §8.3), as it was sent.
    pub content_type: Option<String>,
    /// The device's own time, in milliseconds since 1970 UTC.
    pub time_ms: Option<i64>,
    /// When it is of no more use, in milliseconds since 1970 UTC.
    pub expiry_ms: Option<i64>,
    /// The address for the answer.
    pub response_address: Option<Address>,
    /// User properties, names in lower case.
    pub user: Vec<(String, String)>,
}

/// A record to write, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where it belongs.
    pub address: Address,
    /// What is said about it.
    pub headers: Headers,
    /// The body's length where the request says it.
    pub content_length: Option<u64>,
}

/// Reads a request. `path` is the path as it was sent: it is percent-decoded here, once.
pub fn parse(
    method: &Method,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Request, Problem> {
    if path.len() + query.map_or(0, |query| query.len() + 1) > MAX_TARGET_BYTES {
        return Err(Problem::TargetTooLong);
    }
    match *method {
        Method::OPTIONS => Ok(Request::Options),
        Method::GET | Method::HEAD => {
            let (text, query) = (decode(path)?, query.unwrap_or_default());
            match desired::owner(&text) {
                Some(owner) if query.is_empty() => Ok(Request::Desired(owner.to_owned())),
                Some(_) => Err(Problem::QueryOnDesired),
                None => read(parse_address(&text)?, query),
            }
        }
        Method::PUT | Method::POST => {
            let text = decode(path)?;
            // the operator alone writes there
            if desired::owner(&text).is_some() {
                return Err(Problem::Denied);
            }
            let address = parse_address(&text)?;
            if query.is_some_and(|query| !query.is_empty()) {
                return Err(Problem::QueryOnWrite);
            }
            let content_length = single(headers, &header::CONTENT_LENGTH)?;
            let content_length =
                content_length.map(|text| number(&header::CONTENT_LENGTH, text)).transpose()?;
            Ok(Request::Publish(Publish { address, headers: self::headers(headers)?, content_length }))
        }
        _ => Err(Problem::Method),
    }
}

/// The address of a path, which is what a record is written to and read from.
pub fn address(path: &str) -> Result<Address, Problem> {
    parse_address(&decode(path)?)
}

fn parse_address(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(Problem::Address)
}

/// The text of a path: everything behind the first `/`, decoded once (RFC 3986 §2.4), whatever it decodes to.
fn decode(path: &str) -> Result<Cow<'_, str>, Problem> {
    let text = path.strip_prefix('/').ok_or(Problem::NoAddress)?;
    if text.is_empty() {
        return Err(Problem::NoAddress);
    }
    let mut rest = text;
    while let Some(place) = rest.find('%') {
        let digits = rest.as_bytes().get(place + 1..place + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(Problem::PathEncoding);
        }
        rest = &rest[place + 3..];
    }
    percent_decode_str(text).decode_utf8().map_err(|_| Problem::PathNotUtf8)
}

fn read(address: Address, query: &str) -> Result<Request, Problem> {
    let mut last = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let count = pair.strip_prefix("last=").and_then(|text| text.parse().ok());
        match count {
            Some(count) if last.is_none() && (1..=MAX_LAST).contains(&count) => last = Some(count),
            _ => return Err(Problem::Query),
        }
    }
    Ok(last.map_or(Request::Newest(address.clone()), |count| Request::Last(address, count)))
}

fn headers(headers: &HeaderMap) -> Result<Headers, Problem> {
    let encoding = single(headers, &header::CONTENT_ENCODING)?;
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::ContentEncoding);
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(Problem::ContentRange);
    }
    let response_address = single(headers, &RESPONSE_ADDRESS)?;
    Ok(Headers {
        content_type: single(headers, &header::CONTENT_TYPE)?.map(str::to_owned),
        time_ms: single(headers, &TIME)?.map(|text| number(&TIME, text)).transpose()?,
        expiry_ms: single(headers, &EXPIRY)?.map(|text| number(&EXPIRY, text)).transpose()?,
        response_address: response_address
            .map(Address::parse)
            .transpose()
            .map_err(Problem::ResponseAddress)?,
        user: user(headers)?,
    })
}

fn user(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let mut user = Vec::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(USER_PREFIX).filter(|name| !name.is_empty()) {
            let value =
                text(value.as_bytes()).ok_or_else(|| Problem::Header(format!("{USER_PREFIX}{name}")))?;
            user.push((name.to_owned(), value.to_owned()));
            if user.len() > MAX_USER {
                return Err(Problem::TooManyUser);
            }
        }
    }
    Ok(user)
}

/// The value of a header that comes once at most, as UTF-8 text (records' header values are text).
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value = text(value.as_bytes()).filter(|_| values.next().is_none());
    value.map(Some).ok_or_else(|| Problem::Header(name.to_string()))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number<T: std::str::FromStr>(name: &HeaderName, text: &str) -> Result<T, Problem> {
    // `parse` takes a sign, which none of these numbers has.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| Problem::Header(name.to_string()))
}

/// Whether the address is one that HTTP keeps for itself (`/.well-known`, `/.tidegate`).
pub const fn is_kept(error: AddressError) -> bool {
    matches!(error, AddressError::HiddenFirstLevel)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
