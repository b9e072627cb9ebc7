//! The binary on a real Kafka: from its configuration file to exit code 0.
#![allow(clippy::unwrap_used)] // helpers of tests, too, end the test

mod support;

use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::io::Read as _;
use std::process::{Command, Stdio};
use support::{Gateway, SOON, free_port, request, until};
use tidegate_testkit::Kafka;
use tidegate_testkit::memory::everybody_in_directory;

#[test]
fn a_gateway_serves_its_protocol_and_ends_with_0_when_asked_to() {
    let kafka = Kafka::start(1).unwrap();
    kafka.create_topic("telemetry", 3, 1, &[]).unwrap();
    kafka.create_topic("tg-directory", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
    let operator: ThreadedProducer<_> = kafka.client_config().create().unwrap();
    let entry = r#"{"name":"telemetry","kafkaName":"telemetry","filters":["sites/+/telemetry/#"],
        "partitions":3,"maxMessageBytes":1114112}"#;
    operator.send(BaseRecord::to("tg-directory").key("topic/telemetry").payload(entry)).unwrap();
    let (fleet, everybody) = everybody_in_directory().unwrap();
    operator.send(BaseRecord::to("tg-directory").key(&fleet).payload(&everybody)).unwrap();
    operator.flush(SOON).unwrap();

    let (port, admin) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.json");
    let bootstrap = kafka.bootstrap();
    let config = format!(
        r#"{{"namespace":"plant","platform":"plant","gateway":"http","adminPort":{admin},"drainMs":2000,
        "protocol":{{"http":{{"listeners":[{{"name":"http","port":{port}}}]}}}},"kafka":{{"bootstrap":"{bootstrap}"}}}}"#
    );
    std::fs::write(&path, config).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_tidegate-gateway"))
        .arg("--config")
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut gateway = Gateway(command);
    until("the gateway is ready", || {
        request(admin, "GET /readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });

    let path = "sites/berlin/telemetry/meter-7/power";
    let answer = request(port, &format!("PUT /{path}"), "42").unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let held = kafka.read_all("telemetry").unwrap();
    assert_eq!((held.len(), held[0].key.as_str(), held[0].value.as_slice()), (1, path, b"42".as_slice()));
    let answer = request(port, &format!("GET /{path}"), "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n42"), "{answer}");

    let pid = gateway.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    until("the gateway ends", || gateway.0.try_wait().unwrap().is_some());
    let status = gateway.0.wait().unwrap();
    let mut logs = String::new();
    gateway.0.stderr.take().unwrap().read_to_string(&mut logs).unwrap();
    assert_eq!(status.code(), Some(0), "{logs}");
    assert!(logs.lines().all(|line| line.starts_with('{')), "{logs}");
    assert!(!logs.contains("\"ERROR\"") && !logs.contains("\"WARN\""), "{logs}");
}

#[test]
fn a_bad_configuration_is_one_clear_line_and_exit_code_1() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-gateway"))
        .args(["--config", "/nowhere/gateway.json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("failed to read /nowhere/gateway.json"), "{said}");
}
