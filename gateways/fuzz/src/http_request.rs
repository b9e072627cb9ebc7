//! Method, path, query and headers of a client through the HTTP request parser, and the same bytes through the watch
//! over message lengths.
//!
//! Holds: no panic; an address that came out is one, and comes out again when it is written as a path; whatever is
//! refused is the client's fault and its answer is JSON; what is said about lengths does not depend on how the stream
//! was torn.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tidegate_contract::{Address, desired};
use tidegate_http::framing::Framing;
use tidegate_http::problem::Problem;
use tidegate_http::request::{self, MAX_LAST, MAX_USER, Request};

/// The first byte says which method it is and how the stream is torn; the rest is `path?query`, a line end, and a header
/// per line.
///
/// # Panics
/// Where the parser breaks what it holds: that is the finding.
pub fn run(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let torn = usize::from(mode / 6 % 7) + 1;
    assert_eq!(
        lengths(rest, rest.len().max(1)),
        lengths(rest, torn),
        "lengths depend on how the stream was torn"
    );
    let mut lines = rest.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let method = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::OPTIONS, Method::DELETE];
    match request::parse(&method[usize::from(mode % 6)], path, query, &headers) {
        Ok(Request::Publish(publish)) => {
            address(&publish.address);
            assert!(publish.headers.user.len() <= MAX_USER);
        }
        Ok(Request::Newest(found)) => address(&found),
        Ok(Request::Last(found, count)) => {
            address(&found);
            assert!((1..=MAX_LAST).contains(&count));
        }
        Ok(Request::Desired(owner)) => {
            assert!(Address::parse(&format!("{}{owner}", desired::PREFIX)).is_err());
        }
        Ok(Request::Options) => {}
        Err(problem) => refused(&problem),
    }
}

fn lengths(stream: &[u8], piece: usize) -> (bool, String) {
    let mut framing = Framing::default();
    for piece in stream.chunks(piece) {
        framing.feed(piece);
    }
    (framing.inside_head(), format!("{:?}", framing.refused()))
}

fn address(address: &Address) {
    assert_eq!(Address::parse(address.as_str()).as_ref(), Ok(address));
    let path = format!("/{}", utf8_percent_encode(address.as_str(), NON_ALPHANUMERIC));
    assert_eq!(request::address(&path).as_ref(), Ok(address));
}

fn refused(problem: &Problem) {
    assert!(problem.status().is_client_error(), "{problem:?} is not the client's fault");
    for write in [false, true] {
        let response = problem.response(write);
        assert!(serde_json::from_slice::<serde_json::Value>(response.body()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_committed_input_holds() {
        crate::corpus::replay("http_request", super::run);
    }
}
