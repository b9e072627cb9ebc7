//! The server on real sockets, with Kafka in memory.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use serde_json::Value;
use support::{ADDRESS, Client, Gateway, SOON, request};
use tidegate_contract::config::Limits;
use tidegate_core::PublishFailure;
use tidegate_testkit::compliance::{self, Answer, Device};
use tidegate_testkit::memory::Bounds;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_record_that_was_put_is_read_as_it_was_sent() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let put = client.ask(&format!("PUT /{ADDRESS}\nContent-Type: application/json"), r#"{"kW":3}"#).await;
    assert_eq!((put.status, put.body.len()), (204, 0));
    assert_eq!(put.header("tidegate-topic"), Some("telemetry"));
    let (partition, offset) = (
        put.header("tidegate-partition").unwrap().to_owned(),
        put.header("tidegate-offset").unwrap().to_owned(),
    );
    let get = client.ask(&format!("GET /{ADDRESS}"), "").await;
    assert_eq!((get.status, get.body.as_slice()), (200, &br#"{"kW":3}"#[..]));
    assert_eq!(get.header("content-type"), Some("application/json"));
    assert_eq!(get.header("etag").unwrap(), format!("\"{partition}-{offset}\""));
    assert_eq!(get.header("tidegate-device"), Some("test/guest"));
    assert!(get.header("last-modified").is_some() && get.header("tidegate-time").is_some());
    let head = client.ask(&format!("HEAD /{ADDRESS}"), "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("8")));
    let tag = get.header("etag").unwrap();
    let unchanged = client.ask(&format!("GET /{ADDRESS}\nIf-None-Match: {tag}"), "").await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
}

#[tokio::test]
async fn an_empty_record_is_a_record() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.ask(&format!("POST /{ADDRESS}"), "").await.status, 204);
    let get = gateway.ask(&format!("GET /{ADDRESS}"), "").await;
    assert_eq!(
        (get.status, get.body.len(), get.header("content-type")),
        (200, 0, Some("application/octet-stream"))
    );
}

#[tokio::test]
async fn the_last_records_come_oldest_first_as_lines_of_json() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    for number in 0..5 {
        let head = format!("PUT /{ADDRESS}\nTidegate-Time: {number}\nTidegate-User-Unit: kW");
        assert_eq!(client.ask(&head, &format!("value {number}")).await.status, 204);
    }
    let read = client.ask(&format!("GET /{ADDRESS}?last=3"), "").await;
    assert_eq!((read.status, read.header("content-type")), (200, Some("application/x-ndjson")));
    let lines: Vec<Value> = read
        .body
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let data: Vec<_> =
        lines.iter().map(|line| (line["data"].as_str().unwrap(), line["time"].as_i64().unwrap())).collect();
    assert_eq!(data, [("value 2", 2), ("value 3", 3), ("value 4", 4)]);
    assert_eq!(
        (&lines[0]["address"], &lines[0]["device"]),
        (&Value::from(ADDRESS), &Value::from("test/guest"))
    );
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_what_to_do() {
    let gateway = Gateway::start().await;
    let no = Value::from("no");
    let cases = [
        ("PUT /sites/berlin/+/x", 400, "AddressWildcard", &no),
        ("PUT /elsewhere", 404, "NoTopic", &no),
        ("GET /elsewhere", 404, "NoTopic", &Value::Null),
        ("GET /sites/berlin/telemetry/nothing", 404, "NoRecord", &Value::Null),
        ("GET /sites/berlin/telemetry/nothing?last=5", 404, "NoRecord", &Value::Null),
        ("GET /sites/berlin/telemetry/x?since=1", 400, "Query", &Value::Null),
        ("GET /.well-known/core", 404, "AddressHiddenFirstLevel", &Value::Null),
        ("GET /.tidegate/metrics", 404, "AddressHiddenFirstLevel", &Value::Null),
        ("GET /", 404, "NoAddress", &Value::Null),
        ("DELETE /sites/berlin/telemetry/x", 405, "Method", &Value::Null),
        ("PUT /sites/berlin/telemetry/x\nContent-Encoding: gzip", 415, "ContentEncoding", &no),
        ("PUT /sites/berlin/telemetry/x\nTidegate-Time: noon", 400, "Header", &no),
    ];
    let mut client = gateway.connect().await;
    for (head, status, reason, stored) in cases {
        let response = client.ask(head, "").await;
        assert_eq!(response.refusal(), (status, reason.to_owned(), stored.clone()), "{head}");
    }
    let long = client.ask(&format!("GET /{}", "x".repeat(3000)), "").await;
    assert_eq!(long.refusal().0, 414);
    let method = client.ask("DELETE /x", "").await;
    assert_eq!(method.header("allow"), Some("GET, HEAD, PUT, POST, OPTIONS"));
    let options = client.ask("OPTIONS *", "").await;
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, PUT, POST, OPTIONS")));
    gateway.metric("tidegate_http_problems_total{reason=\"NoTopic\"} 2").await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let gateway = Gateway::with(Bounds::default(), Limits { packet_bytes: 1000, ..Limits::default() }).await;
    let mut client = gateway.connect().await;
    client.send(format!("PUT /{ADDRESS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")).await;
    let response = client.response(false).await.unwrap();
    assert_eq!(response.refusal(), (413, "TooLarge".to_owned(), "no".into()));
    assert!(response.json()["detail"].as_str().unwrap().contains("1000"));
    assert!(client.is_closed().await);

    let mut client = gateway.connect().await;
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    client
        .send(format!(
            "PUT /{ADDRESS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
        ))
        .await;
    assert_eq!(client.response(false).await.unwrap().refusal().0, 413);
    assert_eq!(gateway.ask(&format!("PUT /{ADDRESS}"), &"x".repeat(1000)).await.status, 204);
}

#[tokio::test]
async fn chunked_and_expecting_bodies_are_taken() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let head = format!("PUT /{ADDRESS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{head}3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")).await;
    assert_eq!(client.response(false).await.unwrap().status, 204);
    client
        .send(format!(
            "PUT /{ADDRESS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    client.read().await.unwrap();
    assert!(client.input.starts_with(b"HTTP/1.1 100"));
    client.send("fg").await;
    assert_eq!(client.response(false).await.unwrap().status, 204);
    let stored = gateway.kafka.stored(ADDRESS);
    assert_eq!(stored, ["abcde", "fg"]);
}

#[tokio::test]
async fn malformed_and_ambiguous_requests_close_that_connection_only() {
    let gateway = Gateway::start().await;
    let mut bystander = gateway.connect().await;
    assert_eq!(bystander.ask("GET /", "").await.status, 404);
    let put = format!("PUT /{ADDRESS} HTTP/1.1\r\nHost: x\r\n");
    let cases = [
        ("\0\0\0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_owned(), 400),
        // HTTP/2 with prior knowledge understands no answer of HTTP/1.1.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        (format!("{put}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{put}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400),
        (format!("{put}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400),
        (format!("{put}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400),
        (format!("{put}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{put}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(70)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000)), 431),
    ];
    for (text, status) in cases {
        let mut client = gateway.connect().await;
        client.send(&text).await;
        let response = client.response(false).await;
        assert_eq!(response.map_or(0, |response| response.status), status, "{text:?}");
        assert!(client.is_closed().await, "{text:?}");
    }
    assert_eq!(bystander.ask("GET /", "").await.status, 404);
    assert!(gateway.kafka.stored(ADDRESS).is_empty());
    gateway.metric("tidegate_http_connections_closed_total{reason=\"Malformed\"} 5").await;
    gateway.metric("tidegate_http_connections_closed_total{reason=\"HeadTooLarge\"} 2").await;
}

#[tokio::test]
async fn a_request_without_exactly_one_host_is_refused() {
    let gateway = Gateway::start().await;
    for (text, status) in [
        ("GET /x HTTP/1.1\r\n\r\n", 400),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /x HTTP/1.0\r\n\r\n", 404),
    ] {
        let mut client = gateway.connect().await;
        client.send(text).await;
        assert_eq!(client.response(false).await.unwrap().status, status, "{text:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    let head = format!("PUT /{ADDRESS}");
    let get = request(&format!("GET /{ADDRESS}"), "");
    client.send([request(&head, "one"), get.clone(), request(&head, "two"), get].concat()).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let response = client.response(false).await.unwrap();
        answers.push((response.status, String::from_utf8(response.body).unwrap()));
    }
    let expected = [(204, ""), (200, "one"), (204, ""), (200, "two")];
    assert_eq!(answers, expected.map(|(status, body)| (status, body.to_owned())));
}

/// An HTTP device: one request at a time on its connection.
struct HttpDevice(Client);

impl Device for HttpDevice {
    async fn publish(&mut self, address: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.0.send(request(&format!("PUT /{address}"), std::str::from_utf8(payload)?)).await;
        Ok(())
    }

    async fn answer(&mut self) -> Answer {
        match self.0.response(false).await.map(|response| response.status) {
            Some(204) => Answer::Acknowledged,
            Some(503) => Answer::Unavailable,
            Some(other) => panic!("status {other}"),
            None => Answer::Closed,
        }
    }
}

#[tokio::test]
async fn a_write_is_answered_only_after_kafka_confirmed_it() {
    let gateway = Gateway::start().await;
    let mut device = HttpDevice(gateway.connect().await);
    compliance::acks_only_after_delivery(&gateway.kafka, &mut device, ADDRESS).await.unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_on_a_connection_after_a_failure() {
    let gateway = Gateway::start().await;
    let mut device = HttpDevice(gateway.connect().await);
    compliance::nothing_is_acknowledged_after_a_failure(&gateway.kafka, &mut device, ADDRESS, 1)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_write_that_kafka_did_not_confirm_says_that_it_may_be_stored() {
    let gateway = Gateway::start().await;
    gateway.kafka.hold();
    let mut client = gateway.connect().await;
    client.send(request(&format!("PUT /{ADDRESS}"), "x")).await;
    let kafka = gateway.kafka.clone();
    assert!(tokio::task::spawn_blocking(move || kafka.wait_held(1)).await.unwrap());
    gateway.kafka.fail(PublishFailure::TimedOut, true);
    let response = client.response(false).await.unwrap();
    assert_eq!(response.refusal(), (503, "Unknown".to_owned(), "unknown".into()));
    assert!(response.header("retry-after").is_some());
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn writes_beyond_the_budget_are_told_to_come_again() {
    let mut bounds = Bounds::default();
    bounds.publish.messages = 1;
    let gateway = Gateway::with(bounds, Limits::default()).await;
    gateway.kafka.hold();
    let mut first = gateway.connect().await;
    first.send(request(&format!("PUT /{ADDRESS}"), "x")).await;
    let kafka = gateway.kafka.clone();
    assert!(tokio::task::spawn_blocking(move || kafka.wait_held(1)).await.unwrap());
    let second = gateway.ask(&format!("PUT /{ADDRESS}"), "y").await;
    assert_eq!(second.refusal(), (503, "Busy".to_owned(), "no".into()));
    gateway.kafka.release(1);
    assert_eq!(first.response(false).await.unwrap().status, 204);
}

#[tokio::test]
async fn a_read_while_kafka_is_away_is_told_to_come_again() {
    let gateway = Gateway::start().await;
    gateway.kafka.away(true);
    let response = gateway.ask(&format!("GET /{ADDRESS}"), "").await;
    assert_eq!(response.refusal().0, 503);
    assert!(response.header("retry-after").is_some());
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_and_a_place_is_given_back() {
    let gateway = Gateway::with(Bounds::default(), Limits { connections: 1, ..Limits::default() }).await;
    let mut first = gateway.connect().await;
    assert_eq!(first.ask("GET /", "").await.status, 404);
    let mut second = gateway.connect().await;
    assert_eq!(second.response(false).await.unwrap().status, 503);
    assert!(second.is_closed().await);
    drop(first);
    timeout(SOON, async {
        while gateway.connect().await.response_to("GET /").await != Some(404) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

impl Client {
    async fn response_to(&mut self, head: &str) -> Option<u16> {
        self.send(request(head, "")).await;
        self.response(false).await.map(|response| response.status)
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_after_its_time() {
    let gateway = Gateway::with(Bounds::default(), Limits { idle_time_ms: 50, ..Limits::default() }).await;
    let mut client = gateway.connect().await;
    assert!(client.is_closed().await);
    gateway.metric("tidegate_http_connections_closed_total{reason=\"Idle\"} 1").await;
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_closes() {
    let gateway = Gateway::start().await;
    let mut idle = gateway.connect().await;
    assert_eq!(idle.ask("GET /", "").await.status, 404);
    gateway.kafka.hold();
    let mut busy = gateway.connect().await;
    busy.send(request(&format!("PUT /{ADDRESS}"), "x")).await;
    let kafka = gateway.kafka.clone();
    assert!(tokio::task::spawn_blocking(move || kafka.wait_held(1)).await.unwrap());
    gateway.services.shutdown.begin();
    assert!(idle.is_closed().await);
    gateway.kafka.release(1);
    let response = busy.response(false).await.unwrap();
    assert_eq!((response.status, response.header("connection")), (204, Some("close")));
    assert!(busy.is_closed().await);
    timeout(SOON, gateway.serving).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(gateway.address).await.is_err());
}
