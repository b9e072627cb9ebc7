//! Fleets on a bare API server and a real Kafka, with the operator's own program and its generated rights: from
//! `kubectl apply` to the records that gateways read, and back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;

use apiserver_support::World;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::credential::{Credential, Memory};
use tidegate_contract::fleet::{DeviceEntry, FleetEntry};
use tidegate_operator::kafka::access::Access;
use tidegate_operator::kafka::directory;
use tidegate_operator::kafka::fleets::FleetRecords;
use tidegate_testkit::Kafka;
use tidegate_testkit::pki::Authority;

const DIRECTORY: &str = "tg-directory";
/// A password that a machine made, and one that a person did.
const MACHINE: &str = "Zm9vYmFyYmF6cXV4-Zm9vYmFyYmF6_X8";
const PERSON: &str = "correct horse";
const LIMIT: Duration = Duration::from_secs(30);

/// A platform on somebody's Kafka, and what its directory holds.
struct Here {
    world: World,
    kafka: Kafka,
    access: Access,
}

impl Here {
    fn new() -> Self {
        let kafka = Kafka::start(1).unwrap();
        let (bootstrap, prefix) = (kafka.bootstrap().to_owned(), String::new());
        let access = Access { bootstrap, prefix, tls: None, sasl: None, external: true };
        let world = World::new();
        world.apply(&json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "plant", "namespace": "plant"},
            "spec": {
                "kafka": {"external": {"bootstrapServers": [kafka.bootstrap()]}},
                "topicDefaults": {"replicas": 1, "minInSyncReplicas": 1},
            },
        }));
        Self { world, kafka, access }
    }

    fn secret(&self, name: &str, key: &str, value: &str) {
        self.world.apply(&json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "plant"}, "stringData": {key: value}}));
    }

    fn fleet(&self, name: &str, spec: &Value) {
        self.world.apply(&fleet(name, spec));
    }

    /// What the directory holds of a fleet.
    fn held(&self, name: &str) -> Option<Arc<FleetRecords>> {
        directory::read(&self.access, DIRECTORY).ok()?.fleets.get(name).cloned()
    }

    fn device(&self, fleet: &str, device: &str) -> Option<DeviceEntry> {
        serde_json::from_slice(self.held(fleet)?.devices.get(device)?).ok()
    }

    fn entry(&self, fleet: &str) -> Option<FleetEntry> {
        serde_json::from_slice(self.held(fleet)?.fleet.as_ref()?).ok()
    }

    /// Waits until the directory is like this, and says after how long.
    fn until<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found() {
                eprintln!("{what}: after {:.1} s", began.elapsed().as_secs_f64());
                return found;
            }
            assert!(began.elapsed() < LIMIT, "never: {what}\n{}", self.world.everything());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a device to have this password.
    fn takes(&self, fleet: &str, device: &str, password: &str) -> DeviceEntry {
        self.until(&format!("{fleet}/{device} has its password"), || {
            let entry = self.device(fleet, device)?;
            let credential = Credential::parse(entry.credential.as_ref()?).unwrap();
            credential.verify(password.as_bytes(), &mut Memory::default()).then_some(entry)
        })
    }

    fn ready(&self, fleet: &str) {
        self.world.condition(&format!("dfl/{fleet}"), "Ready", "Ready");
        self.world.condition(&format!("dfl/{fleet}"), "Stalled", "UpToDate");
    }

    fn message(&self, fleet: &str, type_: &str) -> String {
        self.world
            .value(&format!("dfl/{fleet}"), &format!(".status.conditions[?(@.type=='{type_}')].message"))
    }

    /// How often each key that begins so was written.
    fn writes(&self, begin: &str) -> Vec<(i64, String)> {
        let all = self.kafka.read_all(DIRECTORY).unwrap();
        let own = all.into_iter().filter(|record| record.key.starts_with(begin));
        own.map(|record| (record.offset, record.key)).collect()
    }
}

fn fleet(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["platformRef"] = json!({"name": "plant"});
    json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet",
        "metadata": {"name": name, "namespace": "plant"}, "spec": spec})
}

fn device(name: &str) -> Value {
    json!({"name": name, "passwordSecretRef": {"name": name, "key": "password"}})
}

fn meters(devices: &[Value]) -> Value {
    json!({
        "authentication": {"password": {}}, "devices": devices,
        "permissions": {"publish": ["sites/+/telemetry/{device}/#"], "subscribe": ["commands/{fleet}/{device}/#"]},
        "limits": {"publishRate": 50, "publishBytes": "1Mi", "connectionsPerDevice": 2},
        "configuration": {"interval": "15m"},
    })
}

#[test]
fn a_fleet_from_its_first_device_to_its_deletion() {
    let here = Here::new();
    let operator = here.world.operator("fleets");

    two_devices_are_in_the_directory(&here);
    a_changed_secret_is_a_new_credential_and_a_label_is_none(&here);
    a_disabled_device_is_kept_out(&here);
    what_is_wrong_with_a_secret_is_told(&here);
    the_oldest_has_a_shared_authority_and_the_next_gets_it(&here);
    what_cannot_be_is_refused(&here);

    here.fleet("going", &meters(&[device("a")]));
    here.takes("going", "a", "another, longer one");
    let before = here.writes("device/meters/");
    let (clean, log) = operator.stop();
    assert!(clean, "{log}");
    // While nobody looks: one fleet goes, and one comes.
    here.world.kubectl(&["--namespace=plant", "delete", "dfl/going"]);
    here.fleet("later", &meters(&[]));
    let operator = here.world.operator("fleets-again");
    here.until("the new fleet is told", || here.entry("later"));
    here.until("the deleted fleet is gone", || here.held("going").is_none().then_some(()));
    here.ready("meters");
    assert_eq!(here.writes("device/meters/"), before, "an unchanged Secret is not hashed again");

    here.world.kubectl(&["--namespace=plant", "delete", "dfl/meters"]);
    here.until("nothing of the fleet is left", || here.held("meters").is_none().then_some(()));
    let (clean, again) = operator.stop();
    assert!(clean, "{again}");
    for line in log.lines().chain(again.lines()) {
        assert!(!line.contains("forbidden") && !line.contains("\"ERROR\""), "{line}");
        assert!(!line.contains(MACHINE) && !line.contains(PERSON), "{line}");
        assert!(!line.contains("$argon2id$") && !line.contains("$hmac-sha256$"), "{line}");
    }
}

fn two_devices_are_in_the_directory(here: &Here) {
    here.secret("a", "password", MACHINE);
    here.secret("b", "password", &format!("{PERSON}\n"));
    here.fleet("meters", &meters(&[device("a"), device("b")]));
    let (a, b) = (here.takes("meters", "a", MACHINE), here.takes("meters", "b", PERSON));
    assert!(a.credential.unwrap().starts_with("$hmac-sha256$"));
    assert!(b.credential.unwrap().starts_with("$argon2id$"));
    let entry = here.entry("meters").unwrap();
    assert!(entry.authentication.password && entry.authentication.x509.is_none());
    assert_eq!(entry.permissions.publish, ["sites/+/telemetry/{device}/#"]);
    assert_eq!(entry.limits.publish_bytes, Some(1 << 20));
    assert_eq!(entry.configuration.unwrap()["interval"], "15m");
    here.ready("meters");
    here.world.wait("dfl/meters", ".status.devices", "{\"registered\":2}");
    here.world.wait("dfl/meters", ".status.observedGeneration", "1");
    for topic in here.kafka.read_all(DIRECTORY).unwrap() {
        assert!(!String::from_utf8_lossy(&topic.value).contains(PERSON), "a password in the directory");
    }
}

fn a_changed_secret_is_a_new_credential_and_a_label_is_none(here: &Here) {
    let (a, b) = (here.device("meters", "a").unwrap(), here.device("meters", "b").unwrap());
    here.secret("a", "password", "another, longer one");
    let changed = here.takes("meters", "a", "another, longer one");
    assert_ne!(changed.credential, a.credential);
    here.world.kubectl(&["--namespace=plant", "label", "secret/b", "some=label"]);
    let labelled = here
        .until("the label is seen", || here.device("meters", "b").filter(|entry| entry.source != b.source));
    assert_eq!(labelled.credential, b.credential, "nobody is disconnected because of a label");
    here.ready("meters");
}

fn a_disabled_device_is_kept_out(here: &Here) {
    let mut off = device("b");
    off["disabled"] = json!(true);
    here.fleet("meters", &meters(&[device("a"), off]));
    here.until("b is disabled", || here.device("meters", "b").filter(|entry| entry.disabled));
    here.world.wait("dfl/meters", ".status.devices.registered", "1");
    here.fleet("meters", &meters(&[device("a")]));
    here.until("b is gone", || here.device("meters", "b").is_none().then_some(()));
    assert!(here.device("meters", "a").is_some());
}

fn what_is_wrong_with_a_secret_is_told(here: &Here) {
    here.fleet("meters", &meters(&[device("a"), device("c")]));
    here.world.condition("dfl/meters", "ResolvedRefs", "SecretNotFound");
    let message = here.message("meters", "ResolvedRefs");
    assert!(message.contains("\"c\", passwordSecretRef: there is no Secret \"c\""), "{message}");
    assert_eq!(here.device("meters", "c"), Some(DeviceEntry::default()), "known, and nothing lets it in");
    assert!(here.device("meters", "a").unwrap().credential.is_some(), "the others are in effect");
    for (key, value, words) in [
        ("pass", "x", "has no key \"password\" (it has \"pass\")"),
        ("password", "\n", "the password is empty"),
        ("password", &*"x".repeat(1025), "at most 1024 bytes, this one has 1025"),
    ] {
        here.secret("c", key, value);
        here.world.wait_until(words, || here.message("meters", "ResolvedRefs").contains(words));
        here.world.condition("dfl/meters", "Ready", "SecretUnusable");
    }
    here.secret("c", "password", MACHINE);
    here.takes("meters", "c", MACHINE);
    here.ready("meters");
    here.world.kubectl(&["--namespace=plant", "delete", "secret/c"]);
    here.until("the hash of a Secret that is gone is gone", || {
        (here.device("meters", "c")?.credential.is_none()).then_some(())
    });
    here.world.condition("dfl/meters", "ResolvedRefs", "SecretNotFound");
    here.fleet("meters", &meters(&[device("a")]));
    here.ready("meters");
}

fn the_oldest_has_a_shared_authority_and_the_next_gets_it(here: &Here) {
    let authority = Authority::new("devices").unwrap();
    let spec = json!({
        "authentication": {
            "x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}, "provision": "Automatic"},
            "anonymous": {"device": "guest"},
        },
    });
    let x509 = |fleet: &str| here.entry(fleet).is_some_and(|entry| entry.authentication.x509.is_some());
    here.fleet("old", &spec);
    here.world.condition("dfl/old", "ResolvedRefs", "SecretNotFound");
    here.secret("ca", "ca.crt", &authority.leaf("meter-7").unwrap().certificate);
    here.world.condition("dfl/old", "ResolvedRefs", "SecretUnusable");
    let message = here.message("old", "ResolvedRefs");
    assert!(message.contains("certificate 1 in it (CN=meter-7) is signed by CN=devices"), "{message}");
    here.secret("ca", "ca.crt", authority.pem());
    here.until("the authority is in the record", || x509("old").then_some(()));
    here.ready("old");
    // Of fleets of one second the name decides.
    here.fleet("young", &spec);
    here.world.condition("dfl/young", "Ready", "AuthorityConflict");
    let message = here.message("young", "Ready");
    assert_eq!(message.matches("DeviceFleet \"old\" is older").count(), 2, "{message}");
    let entry = here.entry("young").unwrap().authentication;
    assert!(entry.x509.is_none() && entry.anonymous.is_none(), "{entry:?}");
    here.world.kubectl(&["--namespace=plant", "delete", "dfl/old"]);
    here.until("the next has the authority", || x509("young").then_some(()));
    assert_eq!(here.entry("young").unwrap().authentication.anonymous.as_deref(), Some("guest"));
    here.ready("young");
}

fn what_cannot_be_is_refused(here: &Here) {
    let password = json!({"password": {}});
    let named = |name: &str| json!({"authentication": password, "devices": [{"name": name}]});
    for (what, spec, words) in [
        ("a dot", named("."), "write another name"),
        ("a slash", named("a/b"), "should match"),
        (
            "two of one name",
            json!({"authentication": password, "devices": [{"name": "a"}, {"name": "a"}]}),
            "duplicate entries",
        ),
        (
            "a misspelt placeholder",
            json!({"authentication": password, "permissions": {"publish": ["a/{Device}"]}}),
            "only {device} and {fleet} stand in braces",
        ),
        (
            "a broken filter",
            json!({"authentication": password, "permissions": {"subscribe": ["a/#/b"]}}),
            "a filter is levels joined by /",
        ),
    ] {
        let file = here.world.folder.path().join("refused.json");
        std::fs::write(&file, fleet("refused", &spec).to_string()).unwrap();
        let refused = here.world.try_kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
        let error = refused.expect_err(what);
        assert!(error.contains(words), "{what}: {error}");
    }
    // What the API server cannot count: it counts characters.
    let long = "ä".repeat(65);
    here.fleet("bytes", &named(&long));
    here.world.condition("dfl/bytes", "Accepted", "Invalid");
    let message = here.message("bytes", "Accepted");
    assert!(message.contains("1 to 128 bytes of UTF-8, this one has 130"), "{message}");
    assert!(here.held("bytes").is_none());
}
