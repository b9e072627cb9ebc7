//! Whole passes over gateways with TLS against an API server in memory: which Secret pods mount, and what is said of it.

use super::issued::Data;
use super::samples::{iot_platform, resource};
use super::shown::judge;
use super::tests::World;
use crate::pki::{Authority, CA_CRT, TLS_CRT, TLS_KEY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_crds::ProtocolGateway;
use time::OffsetDateTime;

const GATEWAY: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/protocolgateways/mqtt";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/plant/deployments/mqtt";
const SERVICE: &str = "/api/v1/namespaces/plant/services/mqtt";
const SECRETS: &str = "/api/v1/namespaces/plant/secrets";

/// The clock of the API server in memory stands here.
fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn days(count: i64) -> time::Duration {
    time::Duration::days(count)
}

/// A server's certificate of some authority, with its key.
struct Made {
    from: OffsetDateTime,
    until: OffsetDateTime,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            from: now() - days(10),
            until: now() + days(80),
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        }
    }
}

impl Made {
    /// Chain, key, and the authority's certificate alone.
    fn pem(self) -> (String, String, String) {
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "somebody's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let mut params = CertificateParams::new(["mqtt.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "mqtt.example.com");
        params.extended_key_usages = self.usages;
        params.not_before = self.from;
        params.not_after = self.until;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (format!("{}{}", certificate.pem(), authority.pem()), key.serialize_pem(), authority.pem())
    }

    fn parts(self) -> Vec<(&'static str, String)> {
        let (chain, key, _) = self.pem();
        vec![(TLS_CRT, chain), (TLS_KEY, key)]
    }
}

fn secret(name: &str, parts: &[(&'static str, String)]) -> Value {
    let data: serde_json::Map<_, _> =
        parts.iter().map(|(key, text)| ((*key).to_owned(), STANDARD.encode(text).into())).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "plant", "uid": name}, "data": data})
}

fn put(world: &World, name: &str, parts: &[(&'static str, String)]) {
    world.server.put(&format!("{SECRETS}/{name}"), secret(name, parts));
}

/// What the Secret of this name holds.
fn held(world: &World, name: &str) -> Option<Data> {
    let stored: Secret = serde_json::from_value(world.server.get(&format!("{SECRETS}/{name}"))?).unwrap();
    Some(crate::platform::secrets::data(&stored))
}

fn gateway(tls: &str, more: &str) -> ProtocolGateway {
    resource(&format!(
        "{{platformRef: {{name: plant}}, mqtt: {{listeners: [{{name: mqtts, port: 8883, tls: {tls}}}]}}, replicas: 2{more}}}"
    ))
}

fn own() -> World {
    World::new(gateway("{secretRef: {name: mine}}", ""))
}

/// A gateway whose certificate is issued, and its platform's authority.
fn issued() -> (World, Authority) {
    let world = World::new(gateway("{}", ""));
    let authority = Authority::keep_or_make(None, "plant devices", now()).unwrap();
    put_authority(&world, &authority);
    (world, authority)
}

fn put_authority(world: &World, authority: &Authority) {
    let data = authority.data();
    put(world, "plant-device-ca", &["ca.crt", "ca.key"].map(|key| (key, data[key].clone())));
}

fn names(world: &World) -> Vec<String> {
    let text = held(world, "mqtt-listeners").unwrap()[TLS_CRT].clone();
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let all = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    // Addresses are shown as their bytes: `IPAddress(ac:1f:00:c8)`.
    all.iter().map(ToString::to_string).collect()
}

/// The judgement of a Secret in its own words.
fn told(parts: &[(&'static str, String)]) -> String {
    let secret: Secret = serde_json::from_value(secret("mine", parts)).unwrap();
    judge(Some(&secret), "mine").unwrap_err().to_string()
}

#[test]
fn a_secret_that_a_listener_cannot_show_is_told_with_what_to_write() {
    let (chain, key, authority) = Made::default().pem();
    let (_, other, _) = Made::default().pem();
    let with = |chain: &str, key: &str| told(&[(TLS_CRT, chain.to_owned()), (TLS_KEY, key.to_owned())]);
    let own = chain.strip_suffix(&authority).unwrap();
    let client = Made { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Made::default() };
    for (text, words) in [
        (
            told(&[("tls.pem", chain.clone())]),
            "Secret \"mine\" has no key \"tls.crt\" (it has \"tls.pem\"); write",
        ),
        (told(&[(TLS_CRT, chain.clone())]), "has no key \"tls.key\""),
        (told(&[]), "(it has none)"),
        (with("", &key), "key \"tls.crt\" of Secret \"mine\" is empty: write"),
        (with("MIIB", &key), "holds no certificate: write"),
        (with(&chain[..200], &key), "cannot be read: write"),
        (
            with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key),
            "what cannot be read: write",
        ),
        (with(&chain, ""), "key \"tls.key\" of Secret \"mine\" is empty"),
        (with(&chain, "AAAA"), "holds no private key: write"),
        (with(&chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "is protected with a passphrase"),
        (with(&chain, &other), "is not the key of the certificate in \"tls.crt\""),
        (
            with(&format!("{authority}{own}"), &key),
            "is the key of certificate 2 in \"tls.crt\": write the server's own",
        ),
        (told(&client.parts()), "(CN=mqtt.example.com) that is not for servers"),
    ] {
        assert!(text.contains(words), "{words} is missing in {text}");
        assert!(!text.contains("PRIVATE KEY-----\nM"), "{text}");
    }
    let good: Secret = serde_json::from_value(secret("mine", &Made::default().parts())).unwrap();
    assert_eq!(judge(Some(&good), "mine").unwrap().until, now() + days(80));
}

#[tokio::test]
async fn a_secret_is_mounted_as_it_is_and_its_coming_is_waited_for() {
    let world = own();
    world.pass().await;
    let message = world.server.says(GATEWAY, "ResolvedRefs", "False", "SecretNotFound");
    assert!(
        message.starts_with("spec.mqtt.listeners[mqtts].tls.secretRef: there is no Secret \"mine\" in this namespace; create it"),
        "{message}"
    );
    world.server.says(GATEWAY, "Stalled", "True", "SecretNotFound");
    world.server.says(GATEWAY, "Ready", "False", "SecretNotFound");
    assert!(world.server.get(DEPLOYMENT).is_none(), "its pods could not start");
    assert!(world.server.get(SERVICE).is_some(), "its address goes into a certificate");

    put(&world, "mine", &Made::default().parts());
    world.pass().await;
    world.server.says(GATEWAY, "ResolvedRefs", "True", "ResolvedRefs");
    world.server.says(GATEWAY, "CertificateExpiring", "False", "CertificateValid");
    let pod = world.server.get(DEPLOYMENT).unwrap()["spec"]["template"]["spec"].clone();
    insta::assert_yaml_snapshot!(
        json!({"volumes": pod["volumes"], "mounts": pod["containers"][0]["volumeMounts"]})
    );
    assert!(held(&world, "mqtt-listeners").is_none(), "nothing is issued");
    world.serve();
    world.pass().await;
    let url = world.server.get(GATEWAY).unwrap()["status"]["endpoints"][0]["url"].clone();
    assert_eq!(url, "mqtts://172.31.0.200:8883");
}

#[tokio::test]
async fn a_broken_secret_leaves_pods_as_they_are_and_its_content_never_rolls_them() {
    let world = own();
    put(&world, "mine", &Made::default().parts());
    world.pass().await;
    world.serve();
    world.pass().await;
    let before = world.server.get(DEPLOYMENT).unwrap();

    world.server.remove(&format!("{SECRETS}/mine"));
    world.server.edit(GATEWAY, |gateway| gateway["spec"]["limits"] = json!({"inFlight": 3}));
    world.pass().await;
    world.server.says(GATEWAY, "ResolvedRefs", "False", "SecretNotFound");
    world.server.says(GATEWAY, "Ready", "True", "Ready");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap(), before);
    put(&world, "mine", &[(TLS_CRT, "x".to_owned())]);
    world.pass().await;
    world.server.says(GATEWAY, "ResolvedRefs", "False", "SecretUnusable");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap(), before);
    let told = world.server.events().iter().filter(|event| event.1.starts_with("Secret")).count();
    assert_eq!(told, 2, "{:?}", world.server.events());

    world.server.edit(GATEWAY, |gateway| gateway["spec"]["limits"] = json!({}));
    put(&world, "mine", &Made::default().parts());
    world.pass().await;
    world.server.says(GATEWAY, "ResolvedRefs", "True", "ResolvedRefs");
    world.server.says(GATEWAY, "Stalled", "False", "UpToDate");
    assert_eq!(world.server.get(DEPLOYMENT).unwrap(), before, "another certificate is no other pod");
}

#[tokio::test]
async fn a_certificate_that_expires_is_told_before_and_after_and_holds_nothing_back() {
    let world = own();
    let pass = async |from: i64, until: i64, replicas: i32| {
        let made = Made { from: now() + days(from), until: now() + days(until), ..Made::default() };
        put(&world, "mine", &made.parts());
        world.server.edit(GATEWAY, |gateway| gateway["spec"]["replicas"] = replicas.into());
        world.pass().await;
        assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"], replicas);
    };
    pass(-80, 15, 1).await;
    let message = world.server.says(GATEWAY, "CertificateExpiring", "False", "CertificateValid");
    assert_eq!(message, "mqtts: until 2027-01-30 08:00 UTC");
    pass(-80, 13, 2).await;
    let message = world.server.says(GATEWAY, "CertificateExpiring", "True", "CertificateExpiresSoon");
    assert!(message.contains("put a newer certificate into Secret \"mine\""), "{message}");
    world.server.says(GATEWAY, "ResolvedRefs", "True", "ResolvedRefs");
    pass(-1, 1, 3).await;
    world.server.says(GATEWAY, "CertificateExpiring", "False", "CertificateValid");
    pass(-9, -1, 4).await;
    world.server.says(GATEWAY, "CertificateExpiring", "True", "CertificateExpired");
    let message = world.server.says(GATEWAY, "ResolvedRefs", "False", "CertificateExpired");
    assert!(message.contains("the one there was valid until 2027-01-14 08:00 UTC"), "{message}");
    pass(1, 9, 5).await;
    world.server.says(GATEWAY, "ResolvedRefs", "False", "CertificateNotYetValid");
    let reasons: Vec<_> = world.server.events().into_iter().map(|(_, reason, _)| reason).collect();
    for reason in ["CertificateExpiresSoon", "CertificateExpired", "CertificateNotYetValid"] {
        assert_eq!(reasons.iter().filter(|one| *one == reason).count(), 1, "{reason}: {reasons:?}");
    }
}

#[tokio::test]
async fn what_changes_within_the_resync_is_looked_at_in_time() {
    let world = own();
    let until = now() + time::Duration::minutes(2);
    put(&world, "mine", &Made { until, ..Made::default() }.parts());
    let wait = world.pass().await.unwrap();
    assert!(wait <= Duration::from_secs(121), "{wait:?}");
}

#[tokio::test]
async fn without_a_secret_the_platforms_authority_issues_a_certificate_and_names_what_comes_later() {
    let (world, authority) = issued();
    world.pass().await;
    let first = held(&world, "mqtt-listeners").unwrap();
    assert_eq!(first[CA_CRT], authority.bundle());
    let stored = world.server.get(&format!("{SECRETS}/mqtt-listeners")).unwrap();
    assert_eq!(stored["metadata"]["ownerReferences"][0]["kind"], "ProtocolGateway");
    let volume = world.server.get(DEPLOYMENT).unwrap()["spec"]["template"]["spec"]["volumes"][1].clone();
    assert_eq!(volume["secret"]["secretName"], "mqtt-listeners");
    let template = world.server.get(DEPLOYMENT).unwrap()["spec"]["template"].clone();

    world.pass().await;
    assert_eq!(held(&world, "mqtt-listeners").unwrap(), first, "it is kept");
    world.serve();
    world.pass().await;
    assert!(names(&world).iter().any(|name| name.contains("ac:1f:00:c8")), "{:?}", names(&world));
    assert_eq!(world.server.get(DEPLOYMENT).unwrap()["spec"]["template"], template, "no pod rolls for it");
    world.server.says(GATEWAY, "CertificateExpiring", "False", "CertificateValid");
}

#[tokio::test]
async fn a_new_authority_means_a_new_certificate_and_a_broken_or_absent_one_leaves_the_old() {
    let (world, _) = issued();
    world.pass().await;
    let first = held(&world, "mqtt-listeners").unwrap();
    put(&world, "plant-device-ca", &[("ca.crt", "x".to_owned()), ("ca.key", "x".to_owned())]);
    world.pass().await;
    world.server.remove(&format!("{SECRETS}/plant-device-ca"));
    world.pass().await;
    assert_eq!(held(&world, "mqtt-listeners").unwrap(), first);
    let next = Authority::keep_or_make(None, "plant devices", now()).unwrap();
    put_authority(&world, &next);
    world.pass().await;
    let second = held(&world, "mqtt-listeners").unwrap();
    assert_ne!(second[TLS_CRT], first[TLS_CRT]);
    assert_eq!(second[CA_CRT], next.bundle());
}

#[tokio::test]
async fn a_broken_secret_keeps_no_issued_certificate_from_being_made_and_kept() {
    let world = World::new(resource(
        "{platformRef: {name: plant}, mqtt: {listeners: [{name: own, port: 8883, tls: {secretRef: {name: mine}}}, {name: issued, port: 8884, tls: {}}]}}",
    ));
    put_authority(&world, &Authority::keep_or_make(None, "plant devices", now()).unwrap());
    world.pass().await;
    world.server.says(GATEWAY, "ResolvedRefs", "False", "SecretNotFound");
    let first = held(&world, "mqtt-listeners").unwrap();
    world.pass().await;
    assert_eq!(held(&world, "mqtt-listeners").unwrap(), first);
    assert!(world.server.get(DEPLOYMENT).is_none());
}

#[tokio::test]
async fn what_somebody_makes_of_an_issued_certificate_is_put_back_and_deleting_it_asks_for_another() {
    let (world, _) = issued();
    world.pass().await;
    let first = held(&world, "mqtt-listeners").unwrap();
    let path = format!("{SECRETS}/mqtt-listeners");
    for key in [TLS_CRT, TLS_KEY, CA_CRT] {
        world.server.edit(&path, |secret| secret["data"][key] = "eA==".into());
        world.pass().await;
        assert_eq!(held(&world, "mqtt-listeners").unwrap(), first, "{key}");
    }
    world.server.remove(&path);
    world.pass().await;
    assert_ne!(held(&world, "mqtt-listeners").unwrap()[TLS_CRT], first[TLS_CRT]);
}

#[tokio::test]
async fn pods_wait_for_the_authority_and_a_new_gateways_for_its_address() {
    let world = World::new(gateway("{}", ""));
    world.pass().await;
    world.server.says(GATEWAY, "Ready", "False", "Progressing");
    assert!(world.server.get(DEPLOYMENT).is_none());
    put_authority(&world, &Authority::keep_or_make(None, "plant devices", now()).unwrap());
    let made = now() - time::Duration::seconds(4);
    let text = format!("{}T{:02}:{:02}:{:02}Z", made.date(), made.hour(), made.minute(), made.second());
    world.server.edit(GATEWAY, |gateway| gateway["metadata"]["creationTimestamp"] = text.into());
    let wait = world.pass().await.unwrap();
    world.server.says(GATEWAY, "Ready", "False", "LoadBalancerPending");
    assert!(wait <= Duration::from_secs(6), "{wait:?}");
    assert!(
        world.server.get(DEPLOYMENT).is_none(),
        "a changed certificate would reach its pods only after a minute"
    );
    world.server.edit(SERVICE, |service| {
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "172.31.0.201"}]}});
    });
    world.pass().await;
    assert!(world.server.get(DEPLOYMENT).is_some());
    assert!(names(&world).iter().any(|name| name.contains("ac:1f:00:c9")));
}

#[tokio::test]
async fn a_paused_gateways_certificate_is_looked_at_and_not_made() {
    let (world, _) = issued();
    world.server.edit(GATEWAY, |gateway| {
        gateway["metadata"]["annotations"] = json!({"tidegate.io/paused": "true"});
    });
    world.pass().await;
    assert!(held(&world, "mqtt-listeners").is_none());
    assert_eq!(world.server.writes(), [format!("PATCH {GATEWAY}/status")]);
    // Its platform is the one of the other tests.
    assert_eq!(iot_platform().metadata.name.as_deref(), Some("plant"));
}
