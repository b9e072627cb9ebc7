//! Many devices in generated fleets, on a bare API server and a real Kafka: how long until gateways could know all of them,
//! what that asks of the API server, how large operator and gateway grow, and how long a gateway takes to start with them.
//! The figures go into the report `fleets-scale`. `TIDEGATE_FLEETS` says how many fleets of 256 devices there are; the campaign
//! takes 391, which are 100,000 devices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests"
)]

mod apiserver_support;

use apiserver_support::World;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_crds::DeviceFleet;
use tidegate_ledger::report::{Report, Row, campaign, reports};
use tidegate_operator::kafka::access::Access;
use tidegate_operator::kafka::directory;
use tidegate_testkit::Kafka;

/// As many as a fleet may have.
const DEVICES: usize = 256;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(900);

fn fleets() -> usize {
    let said = std::env::var("TIDEGATE_FLEETS").ok().and_then(|text| text.parse().ok());
    said.unwrap_or(if campaign() { 391 } else { 8 })
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

/// A field of a process's status, in MiB.
fn memory(process: &Child, field: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let number: f64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    number / 1024.0
}

/// The sum of a metric.
fn metric(listen: &str, name: &str) -> f64 {
    let url = format!("http://{listen}/metrics");
    let output = Command::new("curl").args(["-sSf", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The gateway's program beside the operator's; where the whole workspace is tested it is there already.
fn built() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "tidegate-gateway"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_tidegate-operator")).with_file_name("tidegate-gateway")
}

/// A gateway on the directory as it is: after how many seconds it is ready, and its memory then, in MiB.
fn gateway(kafka: &Kafka, devices: usize) -> (f64, f64) {
    let program = std::env::var_os("TIDEGATE_GATEWAY").map_or_else(built, PathBuf::from);
    let (port, admin, folder) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let config = json!({
        "namespace": "plant", "platform": "plant", "gateway": "mqtt", "adminPort": admin,
        "protocol": {"mqtt": {"listeners": [{"name": "mqtt", "port": port}]}},
        "kafka": {"bootstrap": kafka.bootstrap()},
    });
    let path = folder.path().join("gateway.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let began = Instant::now();
    let mut child = Command::new(program).arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{admin}/readyz");
    let ready =
        || Command::new("curl").args(["-sSf", "-o", "/dev/null", &url]).stderr(Stdio::null()).status();
    while !ready().unwrap().success() {
        assert!(began.elapsed() < PATIENCE, "the gateway is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = began.elapsed().as_secs_f64();
    let known = metric(&format!("127.0.0.1:{admin}"), "tidegate_directory_devices");
    let memory = memory(&child, "VmRSS:");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(known as usize, devices);
    (seconds, memory)
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
    let listen = format!("127.0.0.1:{}", free_port());
    let environment = [("TIDEGATE_LISTEN", listen.as_str())];
    let operator = world.operator_with("scale", &environment);
    world.condition("iotp/plant", "Ready", "Ready");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = Instant::now();
    runtime.block_on(async {
        let client = world.client().await;
        let (secrets, own): (Api<Secret>, Api<DeviceFleet>) =
            (Api::namespaced(client.clone(), "plant"), Api::namespaced(client, "plant"));
        let all = (0..fleets).flat_map(|fleet| (0..DEVICES).map(move |device| secret(fleet, device)));
        let secrets = stream::iter(all).map(|secret| {
            let secrets = secrets.clone();
            async move { secrets.create(&PostParams::default(), &secret).await.map(drop) }
        });
        secrets.buffer_unordered(32).for_each(|made| async { made.unwrap() }).await;
        for index in 0..fleets {
            own.create(&PostParams::default(), &fleet(index)).await.unwrap();
        }
    });
    let secrets_s = made.elapsed().as_secs_f64();
    let known_after_s = known(&access, &world, fleets * DEVICES);
    let mut report = Report::start("fleets-scale");
    let mut row = Row::new("declared");
    row.extend(json!({
        "fleets": fleets, "devices": fleets * DEVICES, "declared_after_s": secrets_s, "known_after_s": known_after_s,
        "operator_memory_mib": memory(&operator.child, "VmRSS:"), "operator_peak_mib": memory(&operator.child, "VmHWM:"),
        "api_calls": metric(&listen, "tidegate_kubernetes_requests_total"),
    }));
    report.push(row);
    for index in 0..fleets {
        world.condition(&format!("dfl/meters-{index:03}"), "Ready", "Ready");
    }
    let before = kafka.read_all("tg-directory").unwrap().len();
    assert!(operator.stop().0);

    let (ready_after_s, memory_mib) = gateway(&kafka, fleets * DEVICES);
    let mut row = Row::new("a gateway starts");
    row.extend(json!({
        "devices": fleets * DEVICES, "ready_after_s": ready_after_s, "gateway_memory_mib": memory_mib,
    }));
    report.push(row);

    let began = Instant::now();
    let operator = world.operator_with("again", &environment);
    world.apply(&json!(fleet(fleets)));
    world.condition(&format!("dfl/meters-{fleets:03}"), "ResolvedRefs", "SecretNotFound");
    // The new fleet's records, and nothing else: no Secret was hashed again.
    let own = DEVICES + 1;
    world.wait_until("the new fleet is told", || {
        kafka.read_all("tg-directory").unwrap().len() >= before + own
    });
    assert_eq!(kafka.read_all("tg-directory").unwrap().len(), before + own);
    let mut row = Row::new("the operator starts again, and one more fleet");
    row.extend(json!({
        "devices": fleets * DEVICES, "known_after_s": began.elapsed().as_secs_f64(),
        "operator_memory_mib": memory(&operator.child, "VmRSS:"), "operator_peak_mib": memory(&operator.child, "VmHWM:"),
        "api_calls": metric(&listen, "tidegate_kubernetes_requests_total"),
    }));
    report.push(row);
    println!("{}", report.write(&reports()).unwrap().display());
    assert!(operator.stop().0);
}
