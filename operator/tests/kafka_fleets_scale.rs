//! Many devices in generated fleets, on a bare API server and a real Kafka: how long until gateways could know all of them,
//! what that asks of the API server, and how large the operator grows. `TIDEGATE_FLEETS` says how many fleets of 256 devices
//! there are; 391 make 100,000 devices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod apiserver_support;

use apiserver_support::{Operator, World};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tidegate_crds::DeviceFleet;
use tidegate_operator::kafka::access::Access;
use tidegate_operator::kafka::directory;
use tidegate_testkit::Kafka;

/// As many as a fleet may have.
const DEVICES: usize = 256;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(900);

fn fleets() -> usize {
    std::env::var("TIDEGATE_FLEETS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

fn name(fleet: usize, device: usize) -> String {
    format!("meter-{fleet:03}-{device:03}")
}

fn fleet(index: usize) -> DeviceFleet {
    let devices: Vec<_> = (0..DEVICES)
        .map(|device| {
            let name = name(index, device);
            json!({"name": name, "passwordSecretRef": {"name": name, "key": "password"}})
        })
        .collect();
    let object = json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet",
        "metadata": {"name": format!("meters-{index:03}"), "namespace": "plant"},
        "spec": {
            "platformRef": {"name": "plant"}, "authentication": {"password": {}}, "devices": devices,
            "permissions": {"publish": ["sites/+/telemetry/{device}/#"]},
        },
    });
    serde_json::from_value(object).unwrap()
}

fn secret(fleet: usize, device: usize) -> Secret {
    let name = name(fleet, device);
    let password = format!("0123456789abcdef0123456789-{name}");
    let object =
        json!({"metadata": {"name": name, "namespace": "plant"}, "stringData": {"password": password}});
    serde_json::from_value(object).unwrap()
}

/// A field of the process's status, in MiB.
fn memory(operator: &Operator, field: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", operator.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let number: f64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    number / 1024.0
}

/// What the operator asked of the API server so far.
fn requests(listen: &str) -> String {
    let url = format!("http://{listen}/metrics");
    let output = std::process::Command::new("curl").args(["-sSf", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("tidegate_kubernetes_requests_total"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Waits until every device has a credential; after how many seconds.
fn known(access: &Access, world: &World, wanted: usize) -> f64 {
    let began = Instant::now();
    loop {
        let held = directory::read(access, "tg-directory").map(|held| held.fleets).unwrap_or_default();
        let devices = held.values().flat_map(|fleet| fleet.devices.values());
        let count = devices.filter(|json| String::from_utf8_lossy(json).contains("$hmac-sha256$")).count();
        if count == wanted {
            return began.elapsed().as_secs_f64();
        }
        assert!(began.elapsed() < PATIENCE, "{count} of {wanted} devices\n{}", world.everything());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn many_devices_in_generated_fleets_are_all_known_to_gateways() {
    let (kafka, world, fleets) = (Kafka::start(1).unwrap(), World::new(), fleets());
    let (bootstrap, prefix) = (kafka.bootstrap().to_owned(), String::new());
    let access = Access { bootstrap, prefix, tls: None, sasl: None, external: true };
    world.apply(&json!({
        "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
        "metadata": {"name": "plant", "namespace": "plant"},
        "spec": {
            "kafka": {"external": {"bootstrapServers": [kafka.bootstrap()]}},
            "topicDefaults": {"replicas": 1, "minInSyncReplicas": 1},
        },
    }));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let environment = [("TIDEGATE_LISTEN", listen.as_str())];
    let operator = world.operator_with("scale", &environment);
    world.condition("iotp/plant", "Ready", "Ready");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let began = Instant::now();
    runtime.block_on(async {
        let client = world.client().await;
        let (secrets, own): (Api<Secret>, Api<DeviceFleet>) =
            (Api::namespaced(client.clone(), "plant"), Api::namespaced(client, "plant"));
        let all = (0..fleets).flat_map(|fleet| (0..DEVICES).map(move |device| secret(fleet, device)));
        let made = stream::iter(all).map(|secret| {
            let secrets = secrets.clone();
            async move { secrets.create(&PostParams::default(), &secret).await.map(drop) }
        });
        made.buffer_unordered(32).for_each(|made| async { made.unwrap() }).await;
        eprintln!("{} Secrets made in {:.0} s", fleets * DEVICES, began.elapsed().as_secs_f64());
        for index in 0..fleets {
            own.create(&PostParams::default(), &fleet(index)).await.unwrap();
        }
    });
    let seconds = known(&access, &world, fleets * DEVICES);
    eprintln!("{} devices known {seconds:.1} s after the last fleet was made", fleets * DEVICES);
    eprintln!("memory: {:.0} MiB, at most {:.0}", memory(&operator, "VmRSS:"), memory(&operator, "VmHWM:"));
    eprintln!("requests: {}", requests(&listen));
    for index in 0..fleets {
        world.condition(&format!("dfl/meters-{index:03}"), "Ready", "Ready");
    }
    let before = kafka.read_all("tg-directory").unwrap().len();
    assert!(operator.stop().0);

    let operator = world.operator_with("again", &environment);
    world.apply(&json!(fleet(fleets)));
    world.condition(&format!("dfl/meters-{fleets:03}"), "ResolvedRefs", "SecretNotFound");
    // The new fleet's records, and nothing else: no Secret was hashed again.
    let own = DEVICES + 1;
    world.wait_until("the new fleet is told", || {
        kafka.read_all("tg-directory").unwrap().len() >= before + own
    });
    assert_eq!(kafka.read_all("tg-directory").unwrap().len(), before + own);
    eprintln!(
        "after a restart: {:.0} MiB, at most {:.0}; requests: {}",
        memory(&operator, "VmRSS:"),
        memory(&operator, "VmHWM:"),
        requests(&listen)
    );
    assert!(operator.stop().0);
}
