//! The client that everybody has: `curl`, over TLS.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

mod support;

use std::process::Stdio;
use support::Gateway;
use tidegate_contract::config::{ClientCertificates, Limits};
use tidegate_testkit::certificates::Cast;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::tls::listener;

#[tokio::test(flavor = "multi_thread")]
async fn curl_comes_in_with_its_certificate_in_both_versions_of_tls() {
    let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let leaf = server.leaf("server").unwrap();
    let tls = listener(folder.path(), &leaf, ClientCertificates::Required).unwrap();
    let gateway = Gateway::with_tls(Limits::default(), tls).await;
    cast.declare(gateway.services.directory.roster()).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.crt", server.pem());
    let shown = cast.auto.device("a1").unwrap();
    let (certificate, key) = (file("a1.crt", &shown.certificate), file("a1.key", &shown.key));
    let url = format!("https://localhost:{}/sites/berlin/telemetry/curl", gateway.address.port());
    let curl = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
        command.args(["--cacert", &ca, "--data", "x", "-X", "PUT", &url]).args(arguments);
        let output = command.stderr(Stdio::piped()).kill_on_drop(true).output().await;
        let output = output.expect("curl is there: apt-get install curl");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for version in ["1.2", "1.3"] {
        let own = ["--cert", &certificate, "--key", &key, "--tls-max", version];
        assert_eq!(curl(&own).await, "204 1.1");
        let without = curl(&["--tls-max", version]).await;
        assert!(without.contains("alert"), "{without}");
    }
    assert_eq!(gateway.kafka.stored("sites/berlin/telemetry/curl").len(), 2);
}
