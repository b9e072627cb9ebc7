//! The binary on somebody else's Kafka: TLS, a name and a password, rights for a prefix only.
#![allow(clippy::unwrap_used)] // helpers of tests, too, end the test

mod support;

use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::io::Read as _;
use std::process::{Command, Stdio};
use support::{Gateway, SOON, free_port, request, until};
use tidegate_testkit::Kafka;
use tidegate_testkit::memory::everybody_in_directory;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::secured::{Operation as O, Right};

#[test]
fn a_gateway_writes_and_reads_over_sasl_ssl_with_no_rights_outside_its_prefix() {
    let authority = Authority::new("their own").unwrap();
    let kafka = Kafka::start_secured(&authority, &[("tidegate", "hard-to-guess")]).unwrap();
    kafka.allow("tidegate", Right::Topics("acme."), &[O::Describe, O::Read, O::Write]).unwrap();
    kafka.allow("tidegate", Right::Groups("acme."), &[O::Read]).unwrap();
    kafka.kafka.create_topic("acme.telemetry", 3, 1, &[]).unwrap();
    kafka.kafka.create_topic("acme.tg-directory", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
    let operator: ThreadedProducer<_> = kafka.kafka.client_config().create().unwrap();
    let entry = r#"{"name":"telemetry","kafkaName":"acme.telemetry","filters":["sites/+/telemetry/#"],
        "partitions":3,"maxMessageBytes":1114112}"#;
    let (fleet, everybody) = everybody_in_directory().unwrap();
    let records = [
        (fleet.as_str(), everybody.as_str()),
        ("owner/platform", r#"{"namespace":"acme","name":"acme","uid":"u"}"#),
        ("made/acme.telemetry", r#"{"adopted":false}"#),
        ("topic/telemetry", entry),
    ];
    for (key, value) in records {
        operator.send(BaseRecord::to("acme.tg-directory").key(key).payload(value)).unwrap();
    }
    operator.flush(SOON).unwrap();

    let (port, admin) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.crt", authority.pem());
    let password = file("password", "hard-to-guess\n");
    let bootstrap = kafka.scram();
    let config = format!(
        r#"{{"namespace":"acme","platform":"acme","gateway":"http","adminPort":{admin},"drainMs":2000,
        "protocol":{{"http":{{"listeners":[{{"name":"http","port":{port}}}]}}}},
        "kafka":{{"bootstrap":"{bootstrap}","prefix":"acme.","tls":{{"ca":"{ca}"}},
            "sasl":{{"mechanism":"SCRAM-SHA-512","username":"tidegate","password":"{password}"}}}}}}"#
    );
    let config = file("gateway.json", &config);
    let command = Command::new(env!("CARGO_BIN_EXE_tidegate-gateway"))
        .args(["--config", &config])
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
    let held = kafka.kafka.read_all("acme.telemetry").unwrap();
    assert_eq!((held.len(), held[0].key.as_str(), held[0].value.as_slice()), (1, path, b"42".as_slice()));
    let answer = request(port, &format!("GET /{path}"), "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n42"), "{answer}");

    gateway.0.kill().unwrap();
    let mut logs = String::new();
    gateway.0.stderr.take().unwrap().read_to_string(&mut logs).unwrap();
    assert!(!logs.contains("hard-to-guess"), "{logs}");
    assert!(!logs.contains("\"ERROR\""), "{logs}");
}
