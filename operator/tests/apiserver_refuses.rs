//! The API server takes no certificate that Tidegate makes: neither a device's, nor a listener's, nor one for Kafka, nor none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::fs;
use std::process::Command;
use tidegate_cluster::BareControlPlane;
use tidegate_operator::pki::{Authority, LeafSpec, keep_or_issue};
use time::OffsetDateTime;

#[test]
fn the_api_server_refuses_every_certificate_of_tidegates_authorities_and_none_at_all() {
    let server = BareControlPlane::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let view = ["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}"];
    let address = server.kubectl().args(view).output().unwrap();
    let address = String::from_utf8(address.stdout).unwrap();
    assert!(address.starts_with("https://"), "{address}");

    let listener = LeafSpec::server("mqtt", ["127.0.0.1".to_owned()].into());
    let cases = [
        ("none", None),
        ("device", Some(("plant devices", LeafSpec::client("meters/meter-7")))),
        ("device that is called as the administrator is", Some(("plant devices", LeafSpec::client("admin")))),
        ("listener", Some(("plant devices", listener))),
        ("application", Some(("plant Kafka", LeafSpec::client("app-analytics")))),
        ("operator towards Kafka", Some(("plant Kafka", LeafSpec::client("operator")))),
    ];
    for (what, shown) in cases {
        let mut command = Command::new("curl");
        command.args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        if let Some((title, spec)) = shown {
            let authority = Authority::keep_or_make(None, title, now).unwrap();
            let (issued, _) = keep_or_issue(None, &spec, &authority, now).unwrap();
            let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
            fs::write(&certificate, issued.certificate).unwrap();
            fs::write(&key, issued.key.pem()).unwrap();
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let output = command.arg(format!("{address}/api/v1/namespaces")).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        eprintln!("{what}: {answer}");
        assert!(["401", "403"].contains(&answer.as_ref()), "{what}: {answer}");
    }
}
