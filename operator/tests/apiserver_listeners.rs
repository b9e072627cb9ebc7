//! `examples/fleet-x509`, and listeners with certificates of somebody's own, on a bare API server with the operator's own
//! program and its generated rights: what is mounted, what is issued with which names, and how a Secret that comes late,
//! breaks, goes and changes is followed by events alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod apiserver_support;

use apiserver_support::World;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/fleet-x509");

/// Runs openssl in a folder, as the example's reader does.
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").current_dir(folder).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A self-signed server's certificate `<name>.crt` with `<name>.key`.
fn certificate(folder: &Path, name: &str) {
    let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
    let subject = format!("/CN={name}");
    let key_of =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key];
    let rest = ["-out", &crt, "-subj", &subject, "-addext", "subjectAltName=DNS:mqtt.example.com"];
    openssl(folder, &[&key_of[..], &rest, &["-addext", "basicConstraints=critical,CA:FALSE"]].concat());
}

fn gateway(spec: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "ProtocolGateway",
        "metadata": {"name": "own", "namespace": "plant"}, "spec": spec,
    })
}

/// The version of the pods' template: it changes with what rolls them.
fn template(world: &World) -> String {
    world.value("deployment/own", ".metadata.generation")
}

#[test]
fn listeners_certificates_are_issued_mounted_and_followed() {
    let world = World::new();
    let operator = world.operator_with("tls", &[("TIDEGATE_RESYNC", "1h"), ("TIDEGATE_LOOK_AGAIN", "1h")]);
    world.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", EXAMPLE]);
    the_example_is_issued_certificates(&world);
    a_secret_of_somebodys_own_is_followed(&world);
    an_issued_secret_follows_its_authority(&world);
    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    for line in log.lines() {
        assert!(!line.contains("forbidden") && !line.contains("\"ERROR\""), "{line}");
        assert!(!line.contains("PRIVATE KEY"), "{line}");
    }
}

fn the_example_is_issued_certificates(world: &World) {
    for (gateway, listener) in [("mqtt", "mqtts"), ("http", "https")] {
        let secret = format!("secret/{gateway}-listeners");
        // Nobody gives addresses here, and pods do not wait for ever.
        world.wait(
            &format!("deployment/{gateway}"),
            ".spec.template.spec.volumes[1].secret.secretName",
            &format!("{gateway}-listeners"),
        );
        world.wait(&secret, ".type", "kubernetes.io/tls");
        let mount = world.value(
            &format!("deployment/{gateway}"),
            ".spec.template.spec.containers[0].volumeMounts[1].mountPath",
        );
        assert_eq!(mount, format!("/etc/tidegate/listeners/{listener}"));
        world.condition(&format!("pgw/{gateway}"), "CertificateExpiring", "CertificateValid");
    }
    let address = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.10"}]}}}"#;
    let generation = world.value("deployment/mqtt", ".metadata.generation");
    world.kubectl(&[
        "--namespace=plant",
        "patch",
        "service/mqtt",
        "--subresource=status",
        "--type=merge",
        "-p",
        address,
    ]);
    world.wait("pgw/mqtt", ".status.endpoints[0].url", "mqtts://192.0.2.10:8883");
    let folder = world.folder.path();
    world.wait_until("the certificate names the address", || verify(world, folder, "mqtt", "192.0.2.10"));
    assert!(!verify(world, folder, "mqtt", "192.0.2.11"), "it names nobody else");
    assert_eq!(world.value("deployment/mqtt", ".metadata.generation"), generation, "no pod rolls for it");

    // The fleet waits for its authority; README.md makes one like this.
    world.condition("dfl/meters", "Accepted", "Accepted");
}

/// Whether openssl trusts the issued certificate at this address, knowing only what devices are given.
fn verify(world: &World, folder: &Path, gateway: &str, address: &str) -> bool {
    let text = |object: &str, path: &str| world.value(object, path);
    fs::write(folder.join("ca.crt"), text("configmap/plant-devices-ca", ".data.ca\\.crt")).unwrap();
    fs::write(folder.join("leaf.b64"), text(&format!("secret/{gateway}-listeners"), ".data.tls\\.crt"))
        .unwrap();
    openssl(folder, &["base64", "-d", "-A", "-in", "leaf.b64", "-out", "leaf.crt"]);
    let check = ["verify", "-CAfile", "ca.crt", "-purpose", "sslserver", "-verify_ip", address, "leaf.crt"];
    Command::new("openssl").current_dir(folder).args(check).output().unwrap().status.success()
}

fn a_secret_of_somebodys_own_is_followed(world: &World) {
    let folder = world.folder.path();
    for name in ["first", "second"] {
        certificate(folder, name);
    }
    let make = |certificate: &str, key: &str| {
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own-tls", "namespace": "plant"},
            "stringData": {"tls.crt": text(certificate), "tls.key": text(key)},
        }));
    };
    let says = |reason: &str| world.condition("pgw/own", "ResolvedRefs", reason);
    let spec = json!({
        "platformRef": {"name": "plant"}, "expose": {"type": "ClusterIP"},
        "mqtt": {"listeners": [{"name": "mqtts", "port": 8883, "tls": {"secretRef": {"name": "own-tls"}}}]},
    });
    world.apply(&gateway(&spec));
    says("SecretNotFound");
    world.wait("service/own", ".spec.ports[0].port", "8883");
    assert_eq!(template(world), "", "its pods could not start");

    make("first.crt", "second.key");
    says("SecretUnusable");
    make("first.crt", "first.key");
    says("ResolvedRefs");
    world.wait("deployment/own", ".spec.template.spec.volumes[1].secret.secretName", "own-tls");
    world.wait("pgw/own", ".status.endpoints[0].url", "mqtts://own.plant.svc:8883");
    let before = template(world);

    // It breaks, and pods stay as they are, whatever else is asked for.
    make("second.crt", "first.key");
    says("SecretUnusable");
    let mut more = spec.clone();
    more["limits"] = json!({"inFlight": 3});
    world.apply(&gateway(&more));
    let generation = world.value("pgw/own", ".metadata.generation");
    world.wait("pgw/own", ".status.observedGeneration", &generation);
    assert_eq!(template(world), before);
    world.kubectl(&["--namespace=plant", "delete", "secret", "own-tls"]);
    says("SecretNotFound");
    assert_eq!(template(world), before);
    world.apply(&gateway(&spec));
    make("first.crt", "first.key");
    says("ResolvedRefs");

    // Another certificate is no other pod.
    let expires = || world.value("pgw/own", ".status.conditions[?(@.type=='CertificateExpiring')].message");
    let told = expires();
    openssl(
        folder,
        &["req", "-x509", "-key", "second.key", "-days", "90", "-out", "second.crt", "-subj", "/CN=second"],
    );
    make("second.crt", "second.key");
    world.wait_until("the new certificate is told", || !expires().is_empty() && expires() != told);
    assert_eq!(template(world), before);
    world.condition("pgw/own", "Stalled", "UpToDate");
}

fn an_issued_secret_follows_its_authority(world: &World) {
    let leaf = || world.value("secret/http-listeners", ".data.tls\\.crt");
    let before = leaf();
    let generation = world.value("deployment/http", ".metadata.generation");
    // Nobody signs with it: what the operator wrote last comes back, for the authority and for the certificate.
    let broken = r#"{"data":{"tls.crt":"eA=="}}"#;
    world.kubectl(&["--namespace=plant", "patch", "secret", "http-listeners", "-p", broken]);
    world.wait_until("it is put back", || leaf() == before);
    world.kubectl(&[
        "--namespace=plant",
        "patch",
        "configmap",
        "plant-devices-ca",
        "-p",
        r#"{"data":{"ca.crt":"x"}}"#,
    ]);
    world.wait_until("the authority is told as it is", || {
        world.value("configmap/plant-devices-ca", ".data.ca\\.crt").contains("BEGIN CERTIFICATE")
    });
    world.kubectl(&["--namespace=plant", "delete", "secret", "http-listeners"]);
    world.wait_until("another one is made", || !leaf().is_empty() && leaf() != before);
    assert_eq!(world.value("deployment/http", ".metadata.generation"), generation);
}
