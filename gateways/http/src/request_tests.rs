use super::*;
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;

fn parsed(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Request, Problem> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers = headers
        .iter()
        .map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect();
    parse(&method.parse().unwrap(), path, query, &headers)
}

fn address_of(path: &str) -> String {
    address(path).unwrap().to_string()
}

fn refused(method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, &'static str) {
    let problem = parsed(method, target, headers).unwrap_err();
    (problem.status().as_u16(), problem.reason())
}

#[test]
fn the_path_behind_the_first_slash_is_the_address() {
    assert_eq!(address_of("/sites/berlin/telemetry/meter-7/power"), "sites/berlin/telemetry/meter-7/power");
    assert_eq!(address_of("//a"), "/a");
    assert_eq!(address_of("/a/"), "a/");
    assert_eq!(address_of("/a//b"), "a//b");
}

#[test]
fn the_path_is_decoded_once() {
    assert_eq!(address_of("/a%20b/%E5%B7%A5%E5%A0%B4"), "a b/工場");
    assert_eq!(address_of("/a%2Fb"), "a/b");
    assert_eq!(address_of("/100%2525"), "100%25");
}

#[test]
fn a_path_that_is_no_address_is_refused_with_its_reason() {
    let cases = [
        ("/", 404, "NoAddress"),
        ("*", 404, "NoAddress"),
        ("", 404, "NoAddress"),
        ("/a%2", 400, "PathEncoding"),
        ("/a%zz", 400, "PathEncoding"),
        ("/%", 400, "PathEncoding"),
        ("/a%ff", 400, "PathNotUtf8"),
        ("/a/%2B/b", 400, "AddressWildcard"),
        ("/a/+", 400, "AddressWildcard"),
        ("/a/%23", 400, "AddressWildcard"),
        ("/a%00", 400, "AddressNul"),
        ("/$SYS/x", 400, "AddressReserved"),
        ("/a/../b", 400, "AddressDotLevel"),
        ("/a/%2e%2e/b", 400, "AddressDotLevel"),
        ("/.well-known/core", 404, "AddressHiddenFirstLevel"),
        ("/.tidegate", 404, "AddressHiddenFirstLevel"),
    ];
    for (path, status, reason) in cases {
        assert_eq!(refused("GET", path, &[]), (status, reason), "{path}");
    }
    assert_eq!(refused("GET", &format!("/{}", "x".repeat(513)), &[]), (400, "AddressTooLong"));
    assert_eq!(refused("GET", &format!("/{}", "x".repeat(2048)), &[]), (414, "TargetTooLong"));
    assert_eq!(refused("PUT", &format!("/a?{}", "x".repeat(2048)), &[]), (414, "TargetTooLong"));
}

#[test]
fn a_read_is_of_the_newest_or_of_the_last_n() {
    let address = Address::parse("a/b").unwrap();
    assert_eq!(parsed("GET", "/a/b", &[]), Ok(Request::Newest(address.clone())));
    assert_eq!(parsed("HEAD", "/a/b?", &[]), Ok(Request::Newest(address.clone())));
    assert_eq!(parsed("GET", "/a/b?last=1", &[]), Ok(Request::Last(address.clone(), 1)));
    assert_eq!(parsed("GET", "/a/b?last=1000", &[]), Ok(Request::Last(address, 1000)));
    for query in
        ["last=0", "last=1001", "last=x", "last=", "last", "since=1", "last=1&last=2", "LAST=1", "last=-1"]
    {
        assert_eq!(refused("GET", &format!("/a?{query}"), &[]), (400, "Query"), "{query}");
    }
}

#[test]
fn a_write_carries_what_its_headers_say() {
    let headers = [
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("tidegate-time", "1795400000123"),
        ("tidegate-expiry", "1795400060000"),
        ("tidegate-response-address", "answers/7"),
        ("Tidegate-User-Room", "Küche"),
        ("tidegate-user-", "nameless"),
        ("x-other", "left alone"),
    ];
    let Ok(Request::Publish(publish)) = parsed("POST", "/a/b", &headers) else { panic!("no publish") };
    assert_eq!(publish.address.as_str(), "a/b");
    assert_eq!(publish.content_length, Some(12));
    assert_eq!(
        publish.headers,
        Headers {
            content_type: Some("application/json".to_owned()),
            time_ms: Some(1_795_400_000_123),
            expiry_ms: Some(1_795_400_060_000),
            response_address: Some(Address::parse("answers/7").unwrap()),
            user: vec![("room".to_owned(), "Küche".to_owned())],
        }
    );
    let Ok(Request::Publish(publish)) = parsed("PUT", "/a/b", &[]) else { panic!("no publish") };
    assert_eq!((publish.headers, publish.content_length), (Headers::default(), None));
}

#[test]
fn a_write_that_cannot_be_taken_as_it_is_is_refused() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], (u16, &'a str));
    let cases: [Case<'_>; 12] = [
        ("/a?x=1", &[], (400, "QueryOnWrite")),
        ("/a", &[("content-encoding", "gzip")], (415, "ContentEncoding")),
        ("/a", &[("content-range", "bytes 0-1/2")], (400, "ContentRange")),
        ("/a", &[("content-type", "a/b"), ("content-type", "c/d")], (400, "Header")),
        ("/a", &[("content-length", "1"), ("content-length", "1")], (400, "Header")),
        ("/a", &[("content-length", "+1")], (400, "Header")),
        ("/a", &[("content-length", "99999999999999999999")], (400, "Header")),
        ("/a", &[("tidegate-time", "now")], (400, "Header")),
        ("/a", &[("tidegate-time", "-5")], (400, "Header")),
        ("/a", &[("tidegate-expiry", "1.5")], (400, "Header")),
        ("/a", &[("tidegate-response-address", "a/#")], (400, "ResponseAddress")),
        ("/a/#", &[], (400, "AddressWildcard")),
    ];
    for (target, headers, expected) in cases {
        assert_eq!(refused("PUT", target, headers), expected, "{target} {headers:?}");
    }
    let many: Vec<_> = (0..33).map(|number| format!("tidegate-user-{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(refused("PUT", "/a", &many), (400, "TooManyUser"));
}

#[test]
fn header_text_that_is_not_utf8_is_refused() {
    let mut headers = HeaderMap::new();
    headers.insert("tidegate-user-x", HeaderValue::from_bytes(b"\xff").unwrap());
    let problem = parse(&Method::PUT, "/a", None, &headers).unwrap_err();
    assert_eq!(problem, Problem::Header("tidegate-user-x".to_owned()));
}

#[test]
fn other_methods_are_told_which_there_are() {
    assert_eq!(parsed("OPTIONS", "*", &[]), Ok(Request::Options));
    assert_eq!(parsed("OPTIONS", "/a", &[]), Ok(Request::Options));
    for method in ["DELETE", "PATCH", "CONNECT", "TRACE", "BREW"] {
        assert_eq!(refused(method, "/a", &[]), (405, "Method"));
    }
}

#[test]
fn every_refusal_is_a_client_error() {
    for problem in [Problem::Method, Problem::Query, Problem::NoAddress] {
        assert!(problem.status().is_client_error() && problem.status() != StatusCode::OK);
    }
}

proptest! {
    #[test]
    fn any_address_that_is_percent_encoded_comes_back(text in "[^+#\\x00$.]\\PC{0,60}") {
        prop_assume!(Address::parse(&text).is_ok());
        let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
        prop_assert_eq!(address_of(&format!("/{encoded}")), text);
    }

    #[test]
    fn parsing_never_panics(
        method in "[A-Z]{1,8}", path in "[/%a-zA-Z0-9+#$.~é]{0,40}", query in proptest::option::of("[a-z=&0-9%]{0,20}"),
        name in "(tidegate-time|tidegate-user-[a-z]{1,4}|content-type|content-length)", value in "[ -~]{0,12}",
    ) {
        let headers = HeaderMap::from_iter([(
            name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&value).unwrap(),
        )]);
        let _ = parse(&method.parse().unwrap(), &path, query.as_deref(), &headers);
    }
}
