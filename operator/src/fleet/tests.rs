//! Whole passes over fleets against an API server in memory; the sweep is pretended.

use super::FleetController;
use super::samples::Certificate;
use crate::frame::driver::Driver;
use crate::frame::metrics::Metrics;
use crate::frame::testing::FakeServer;
use crate::kafka::fleets::{FleetRecords, Fleets};
use crate::kafka::hub::{Hub, Key};
use crate::kafka::snapshot::{Health, Snapshot};
use kube::core::DeserializeGuard;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_contract::credential::{Credential, Memory};
use tidegate_contract::fleet::DeviceEntry;
use tidegate_crds::DeviceFleet;
use time::OffsetDateTime;

const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/iotplatforms/plant";
const MACHINE: &str = "0123456789abcdef0123456789abcdef";

fn path(name: &str) -> String {
    format!("/apis/tidegate.io/v1alpha1/namespaces/plant/devicefleets/{name}")
}

/// The controller with everything that it meets.
struct World {
    server: FakeServer,
    hub: Arc<Hub>,
    driver: Driver<FleetController>,
}

impl World {
    /// A platform whose directory holds nothing of fleets yet.
    fn new() -> Self {
        let server = FakeServer::default();
        let platform = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "plant", "namespace": "plant"}, "spec": {"kafka": {"managed": {}}},
        });
        server.put(PLATFORM, platform);
        let hub = Hub::new(&Metrics::default());
        let controller = FleetController::new(Arc::clone(&hub), Arc::default(), 0);
        controller.secrets.pretend("plant", &[]);
        let driver = Driver::new(Arc::new(controller), server.context());
        let world = Self { server, hub, driver };
        world.holds(Fleets::new());
        world
    }

    fn key() -> Key {
        Key::new("plant", "plant")
    }

    /// The sweep found this in the directory.
    fn holds(&self, fleets: Fleets) {
        let snapshot = Snapshot { health: Health::Up, fleets: Some(Arc::new(fleets)), ..Snapshot::default() };
        self.hub.pretend(&Self::key(), snapshot);
    }

    fn declare(&self, name: &str, spec: &Value) {
        let mut fleet = serde_json::to_value(super::samples::fleet(name, spec)).unwrap();
        if let Some(before) = self.server.get(&path(name)) {
            fleet["status"] = before["status"].clone();
        }
        self.server.put(&path(name), fleet);
    }

    fn secret(&self, name: &str, key: &str, value: &str) {
        use base64::Engine as _;
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        let object = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "plant", "uid": name}, "data": {key: value}});
        let path = format!("/api/v1/namespaces/plant/secrets/{name}");
        self.server.put(&path, object);
        // The server in memory counts versions itself.
        let there = self.server.get(&path).unwrap();
        let version = there["metadata"]["resourceVersion"].as_str().unwrap();
        self.driver.reconciler.secrets.pretend("plant", &[(name, version)]);
    }

    async fn pass(&self, name: &str) -> Option<Duration> {
        let fleet: DeserializeGuard<DeviceFleet> =
            serde_json::from_value(self.server.get(&path(name)).unwrap()).unwrap();
        self.driver.pass(Arc::new(fleet)).await
    }

    /// Passes until the controller wishes for this.
    async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&FleetRecords) -> bool,
    ) -> Arc<FleetRecords> {
        let began = Instant::now();
        loop {
            self.pass(name).await;
            let wishes = self.hub.wishes(&Self::key());
            if let Some(records) = wishes.get(name).filter(|records| holds(records)) {
                return Arc::clone(records);
            }
            assert!(began.elapsed() < Duration::from_secs(20), "never: {what}; {wishes:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Passes until the stored fleet says this.
    async fn at_last(&self, name: &str, words: &str) {
        let began = Instant::now();
        loop {
            self.pass(name).await;
            let stored = self.server.get(&path(name)).unwrap().to_string();
            if stored.contains(words) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{stored}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How often Secrets were read.
    fn reads(&self) -> usize {
        self.server.asked().iter().filter(|one| one.path.contains("/secrets")).count()
    }
}

fn device(records: &FleetRecords, name: &str) -> Option<DeviceEntry> {
    records.devices.get(name).map(|json| serde_json::from_slice(json).unwrap())
}

fn credential(records: &FleetRecords, name: &str) -> Option<String> {
    device(records, name)?.credential
}

fn verify(credential: &str, password: &str) -> bool {
    Credential::parse(credential).unwrap().verify(password.as_bytes(), &mut Memory::default())
}

fn two_devices() -> Value {
    let device = |name: &str| json!({"name": name, "passwordSecretRef": {"name": name, "key": "password"}});
    json!({"authentication": {"password": {}}, "devices": [device("a"), device("b")]})
}

#[tokio::test]
async fn a_fleet_is_ready_once_gateways_know_its_devices() {
    let world = World::new();
    world.secret("a", "password", MACHINE);
    world.secret("b", "password", "made by a person\n");
    world.declare("meters", &two_devices());
    let both =
        |records: &FleetRecords| credential(records, "a").is_some() && credential(records, "b").is_some();
    let records = world.until("meters", "both are hashed", both).await;
    assert!(verify(&credential(&records, "a").unwrap(), MACHINE));
    assert!(verify(&credential(&records, "b").unwrap(), "made by a person"));
    world.holds([("meters".to_owned(), records)].into());
    // A status that was just written rests.
    world.at_last("meters", "\"reason\":\"Ready\"").await;
    world.server.says(&path("meters"), "Ready", "True", "Ready");
    world.server.says(&path("meters"), "Accepted", "True", "Accepted");
    let status = world.server.get(&path("meters")).unwrap()["status"].clone();
    assert_eq!(status["devices"], json!({"registered": 2}), "what nobody counts is not there");
    assert_eq!(status["observedGeneration"], 4);
    for asked in world.server.asked() {
        assert!(!asked.body.to_string().contains(MACHINE), "{asked:?}");
    }
}

#[tokio::test]
async fn an_operator_that_starts_again_reads_no_secret_and_hashes_nothing() {
    let first = World::new();
    first.secret("a", "password", MACHINE);
    first.secret("b", "password", MACHINE);
    first.declare("meters", &two_devices());
    let both =
        |records: &FleetRecords| credential(records, "a").is_some() && credential(records, "b").is_some();
    let records = first.until("meters", "both are hashed", both).await;

    let again = World::new();
    again.secret("a", "password", MACHINE);
    again.secret("b", "password", MACHINE);
    again.declare("meters", &two_devices());
    again.holds([("meters".to_owned(), Arc::clone(&records))].into());
    let wished = again.until("meters", "as before", |_| true).await;
    assert!(Arc::ptr_eq(&wished, &records), "nothing is to be written");
    assert_eq!(again.reads(), 0);
    again.server.says(&path("meters"), "Ready", "True", "Ready");
}

#[tokio::test]
async fn before_the_directory_was_read_nothing_is_hashed() {
    let world = World::new();
    world.hub.pretend(&World::key(), Snapshot { health: Health::Up, ..Snapshot::default() });
    world.secret("a", "password", MACHINE);
    world.declare("meters", &two_devices());
    world.pass("meters").await;
    assert!(world.hub.wishes(&World::key()).is_empty());
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn a_missing_secret_is_named_and_the_others_are_in_effect() {
    let world = World::new();
    world.secret("a", "password", MACHINE);
    world.declare("meters", &two_devices());
    let records = world.until("meters", "a is hashed", |records| credential(records, "a").is_some()).await;
    assert_eq!(device(&records, "b"), Some(DeviceEntry::default()));
    let message = world.server.says(&path("meters"), "ResolvedRefs", "False", "SecretNotFound");
    assert!(message.contains("\"b\", passwordSecretRef: there is no Secret \"b\""), "{message}");
    world.secret("b", "passwort", "x");
    world.until("meters", "b was read", |_| world.reads() >= 2).await;
    world.at_last("meters", "has no key").await;
    world.server.says(&path("meters"), "ResolvedRefs", "False", "SecretUnusable");
}

#[tokio::test]
async fn the_younger_fleet_of_a_shared_authority_is_told_and_takes_no_certificates() {
    let world = World::new();
    let pem = Certificate::authority("devices", OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    world.secret("ca", "ca.crt", &pem.pem());
    let spec = json!({"authentication": {"x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}}});
    let fleets = ["old", "young"].map(|name| {
        world.declare(name, &spec);
        let mut fleet = world.server.get(&path(name)).unwrap();
        let day = if name == "old" { 1 } else { 2 };
        fleet["metadata"]["creationTimestamp"] = json!(format!("2026-01-0{day}T00:00:00Z"));
        world.server.put(&path(name), &fleet);
        fleet
    });
    let (store, mut writer) = kube::runtime::reflector::store();
    for fleet in fleets {
        let fleet: DeserializeGuard<DeviceFleet> = serde_json::from_value(fleet).unwrap();
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(fleet));
    }
    world.hub.add_fleets(store);
    let x509 = |records: &FleetRecords| {
        String::from_utf8_lossy(records.fleet.as_ref().unwrap()).contains("BEGIN CERTIFICATE")
    };
    // The younger comes first, and waits.
    let records = world.until("young", "looked at", |_| true).await;
    assert!(!x509(&records));
    assert!(x509(&*world.until("old", "looked at", |_| true).await));
    assert!(!x509(&*world.until("young", "looked at again", |_| true).await));
    let message = world.server.says(&path("young"), "Ready", "False", "AuthorityConflict");
    assert!(message.contains("DeviceFleet \"old\" is older"), "{message}");
    crate::frame::Reconciler::gone(&*world.driver.reconciler, "plant", "old");
    assert!(!world.hub.wishes(&World::key()).contains_key("old"));
}

#[tokio::test]
async fn a_fleet_that_cannot_be_keeps_what_it_has() {
    let world = World::new();
    world.declare("meters", &json!({"authentication": {"password": {}}}));
    let records = world.until("meters", "there", |_| true).await;
    world.holds([("meters".to_owned(), Arc::clone(&records))].into());
    let broken = json!({"authentication": {"password": {}}, "permissions": {"publish": ["a/{Device}"]}});
    world.declare("meters", &broken);
    world.pass("meters").await;
    assert_eq!(world.hub.wishes(&World::key())["meters"], records);
}

#[tokio::test]
async fn a_fleet_without_its_platform_is_told() {
    let world = World::new();
    world.server.remove(PLATFORM);
    world.declare("meters", &json!({"authentication": {"password": {}}}));
    world.pass("meters").await;
    world.server.says(&path("meters"), "ResolvedRefs", "False", "PlatformNotFound");
    world.server.says(&path("meters"), "Stalled", "True", "PlatformNotFound");
}

#[tokio::test]
async fn a_paused_fleet_changes_nothing() {
    let world = World::new();
    world.secret("a", "password", MACHINE);
    world.declare("meters", &two_devices());
    world.server.edit(&path("meters"), |fleet| {
        fleet["metadata"]["annotations"] = json!({"tidegate.io/paused": "true"});
    });
    world.pass("meters").await;
    assert!(world.hub.wishes(&World::key()).is_empty());
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn authorities_follow_their_secret_whatever_becomes_of_it() {
    let world = World::new();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let day = time::Duration::DAY;
    let spec = json!({"authentication": {"x509": {"caSecretRef": {"name": "ca", "key": "ca.crt"}}}});
    world.declare("meters", &spec);
    // How many authorities gateways are told of.
    let told = async || {
        world.pass("meters").await;
        let wishes = world.hub.wishes(&World::key());
        let record = String::from_utf8_lossy(wishes["meters"].fleet.as_ref().unwrap()).into_owned();
        record.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(told().await, 0);
    let message = world.server.says(&path("meters"), "ResolvedRefs", "False", "SecretNotFound");
    assert!(message.contains("there is no Secret \"ca\""), "{message}");

    let good = Certificate::authority("one", now).pem();
    let device = Certificate { authority: false, ..Certificate::authority("meter-7", now) }.pem();
    let old =
        Certificate { from: now - day * 2, until: now - day, ..Certificate::authority("old", now) }.pem();
    let broken = [
        ("other.crt", good.as_str()),
        ("ca.crt", ""),
        ("ca.crt", "x"),
        ("ca.crt", &good[..200]),
        ("ca.crt", &device),
        ("ca.crt", &old),
    ];
    for (key, text) in broken {
        world.secret("ca", "ca.crt", &good);
        assert_eq!(told().await, 1);
        world.secret("ca", key, text);
        assert_eq!(told().await, 0, "nobody gets in by what cannot be read: {key} {text}");
    }
    let both = format!("{good}{old}{}", Certificate::authority("two", now).pem());
    world.secret("ca", "ca.crt", &both);
    assert_eq!(told().await, 2, "and the one that is out of date is left out");
    world.server.remove("/api/v1/namespaces/plant/secrets/ca");
    world.driver.reconciler.secrets.saw("plant", "ca", None);
    assert_eq!(told().await, 0);
    world.secret("ca", "ca.crt", &both);
    assert_eq!(told().await, 2);
    // A status that was just written rests.
    world.at_last("meters", "\"reason\":\"ResolvedRefs\"").await;
    world.server.says(&path("meters"), "ResolvedRefs", "True", "ResolvedRefs");
}
