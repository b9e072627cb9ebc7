//! The whole of `start` and `close` on a real Kafka, looked at through the admin port.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, too, end the test

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use support::{SOON, record, route};
use tidegate_contract::GatewayConfig;
use tidegate_contract::config::{KafkaClientCertificate, KafkaConfig, KafkaTls, Limits, Listeners, Protocol};
use tidegate_core::{StartError, start};
use tidegate_testkit::Kafka;

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn config(kafka: KafkaConfig) -> GatewayConfig {
    GatewayConfig {
        namespace: "plant".to_owned(),
        platform: "plant".to_owned(),
        gateway: "mqtt".to_owned(),
        protocol: Protocol::Mqtt(Listeners { listeners: Vec::new() }),
        kafka,
        limits: Limits::default(),
        admin_port: free_port(),
        drain_ms: 1_000,
    }
}

fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

async fn asked(port: u16, path: &'static str) -> (u16, String) {
    tokio::task::spawn_blocking(move || get(port, path)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_after_the_directory_and_stays_so_without_kafka() {
    let mut kafka = Kafka::start(1).unwrap();
    let config = config(kafka.config());
    let port = config.admin_port;
    let (services, runtime) = start(config).await.unwrap();
    assert_eq!(asked(port, "/healthz").await.0, 200);
    assert_eq!(asked(port, "/nothing").await.0, 404);
    let (status, text) = asked(port, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("the directory was not read yet"), "{text}");

    kafka.create_topic("t", 1, 1, &[]).unwrap();
    kafka.create_topic("tg-directory", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
    tokio::time::timeout(SOON, services.directory.ready()).await.unwrap();
    assert_eq!(asked(port, "/readyz").await.0, 200);
    let entries = [support::entry("t", &["t/#"], 1)];
    services.directory.publish(tidegate_contract::Routes::new(&entries));
    let target = route(&services.directory, "t/a");
    services.publisher.publish_once(&target, &record("t/a", "x")).await.unwrap().unwrap();
    let (_, text) = asked(port, "/metrics").await;
    assert!(text.contains("tidegate_publish_records_total{outcome=\"acknowledged\"} 1\n"), "{text}");

    kafka.kill(0).unwrap();
    let telemetry = services.telemetry.clone();
    support::until("Kafka is missed", || telemetry.encode().contains("tidegate_kafka_available 0\n")).await;
    assert_eq!(asked(port, "/readyz").await.0, 200);

    services.shutdown.begin();
    assert_eq!(asked(port, "/readyz").await.0, 503);
    runtime.close().await;
    support::until("the admin port is closed", || TcpStream::connect(("127.0.0.1", port)).is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_admin_port_and_a_missing_certificate_are_told() {
    let taken = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let nowhere = KafkaConfig::plain("127.0.0.1:1");
    let mut first = config(nowhere.clone());
    first.admin_port = taken.local_addr().unwrap().port();
    assert!(matches!(start(first).await, Err(StartError::Admin { .. })));

    let missing = std::path::PathBuf::from("/nowhere/tls.crt");
    let tls = KafkaTls {
        ca: Some(missing.clone()),
        client: Some(KafkaClientCertificate { certificate: missing.clone(), key: missing }),
    };
    let second = config(KafkaConfig { tls: Some(tls), ..nowhere });
    assert!(matches!(start(second).await, Err(StartError::Kafka(_))));
}
