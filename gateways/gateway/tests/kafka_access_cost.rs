//! What it costs to let devices in, and what guessing costs, on the binary with a real Kafka: connects per second of a core
//! for each method against none, a flood of wrong passwords beside a device that works, and whether the time of a refusal tells
//! who exists. The figures go into the report `access-cost`; asserted are ratios of this run.
//!
//! `TIDEGATE_GATEWAY` names another binary than this build's, as the campaign does: one of the release profile.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests are tests"
)]

mod access_support;
mod support;

use access_support::{Http, Mqtt, Who, from};
use futures::{StreamExt as _, stream};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Gateway, SOON, free_port, request, until};
use tempfile::TempDir;
use tidegate_contract::Principal;
use tidegate_contract::config::ClientCertificates;
use tidegate_contract::credential::Credential;
use tidegate_contract::directory::Key;
use tidegate_contract::fleet::{DeviceEntry, DeviceFrom, DeviceLimits, FleetEntry, Provision};
use tidegate_ledger::report::{Report, Row, campaign, reports};
use tidegate_testkit::Kafka;
use tidegate_testkit::certificates;
use tidegate_testkit::pki::{Authority, Leaf};
use tidegate_testkit::rights::{PASSWORD, device, fleet};
use tidegate_testkit::statistics::{apart, quantile};
use tidegate_testkit::tls::{Hello, listener};
use tokio::time::{MissedTickBehavior, interval};

/// A person's password, of every device that has one.
const HUMAN: &str = "secret";
/// A wrong one that a machine could have made.
const MACHINE: &str = "fedcba9876543210fedcba9876543210";
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Devices that come at a time.
const AT_ONCE: usize = 16;
/// Guesses a second.
const GUESSES: u32 = 1_000;

/// How much is measured.
struct Scale {
    /// Each method's turns.
    rounds: usize,
    /// Connects in a turn: of cheap methods, and of argon2id.
    connects: (usize, usize),
    /// How long the flood lasts, and the quiet before it.
    flood: Duration,
}

impl Scale {
    fn chosen() -> Self {
        if campaign() {
            Self { rounds: 5, connects: (2_000, 100), flood: Duration::from_secs(20) }
        } else {
            Self { rounds: 2, connects: (200, 10), flood: Duration::from_secs(3) }
        }
    }
}

/// A gateway's process.
struct Running<'a> {
    process: Gateway,
    address: SocketAddr,
    /// The listener with TLS.
    encrypted: SocketAddr,
    tls: &'a Tls,
    admin: u16,
    _folder: TempDir,
}

/// Who signed the listeners' certificates and the devices', and a device.
struct Tls {
    server: Authority,
    devices: Authority,
    device: Leaf,
}

impl Tls {
    fn new() -> Self {
        let (server, devices) = (Authority::new("server's").unwrap(), Authority::new("devices'").unwrap());
        let device = devices.device("a1").unwrap();
        Self { server, devices, device }
    }

    const fn hello<'a>(&'a self, shown: Option<&'a Leaf>) -> Hello<'a> {
        Hello::new(&self.server).with(shown)
    }
}

impl<'a> Running<'a> {
    fn start(kafka: &Kafka, protocol: &str, tls: &'a Tls) -> Self {
        let (port, encrypted, admin) = (free_port(), free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let shown = tls.server.leaf("server").unwrap();
        let files = listener(folder.path(), &shown, ClientCertificates::Optional).unwrap();
        let files = serde_json::to_string(&files).unwrap();
        let path = folder.path().join("gateway.json");
        let bootstrap = kafka.bootstrap();
        let config = format!(
            r#"{{"namespace":"plant","platform":"plant","gateway":"{protocol}","adminPort":{admin},"drainMs":2000,
            "protocol":{{"{protocol}":{{"listeners":[{{"name":"{protocol}","port":{port}}},
                {{"name":"encrypted","port":{encrypted},"tls":{files}}}]}}}},
            "limits":{{"connectRate":100000}},"kafka":{{"bootstrap":"{bootstrap}"}}}}"#
        );
        std::fs::write(&path, config).unwrap();
        let own = || PathBuf::from(env!("CARGO_BIN_EXE_tidegate-gateway"));
        let program = std::env::var_os("TIDEGATE_GATEWAY").map_or_else(own, PathBuf::from);
        let child = Command::new(program).arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
        let process = Gateway(child);
        until("the gateway is ready", || {
            request(admin, "GET /readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        let (address, encrypted) = ((HERE, port).into(), (HERE, encrypted).into());
        Self { process, address, encrypted, tls, admin, _folder: folder }
    }

    /// The processor's time that it took so far, in seconds.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        // behind the program's name, which may hold anything: user and system time are fields 14 and 15
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        ticks / 100.0
    }

    /// How many admissions had this outcome.
    fn admissions(&self, outcome: &str) -> f64 {
        let text = request(self.admin, "GET /metrics", "").unwrap();
        let start = format!("tidegate_access_admissions_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A device with a person's password and a salt of its own.
fn person(number: usize) -> DeviceEntry {
    let mut salt = [9; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let credential = Credential::new(HUMAN.as_bytes(), salt).unwrap().to_string();
    DeviceEntry { credential: Some(credential), ..DeviceEntry::default() }
}

/// A Kafka whose directory lets in everybody who says nothing, `meters/machine`, and `meters/human-<n>`.
fn kafka(people: usize, tls: &Tls) -> Kafka {
    let kafka = Kafka::start(1).unwrap();
    kafka.create_topic("up", 3, 1, &[]).unwrap();
    kafka.create_topic("tg-directory", 1, 1, &[("cleanup.policy", "compact")]).unwrap();
    let operator: ThreadedProducer<_> = kafka.client_config().create().unwrap();
    let put = |key: Key, value: String| {
        let key = key.to_string();
        operator.send(BaseRecord::to("tg-directory").key(&key).payload(&value)).unwrap();
    };
    let json = |entry: &FleetEntry| serde_json::to_string(entry).unwrap();
    let mut meters = fleet(&["up/#"], &[], DeviceLimits::default());
    meters.authentication.anonymous = Some("guest".to_owned());
    put(Key::Fleet("meters".to_owned()), json(&meters));
    let certified = certificates::fleet(&[&tls.devices], DeviceFrom::CommonName, Provision::Automatic);
    put(Key::Fleet("certified".to_owned()), json(&certified));
    let topic =
        r#"{"name":"up","kafkaName":"up","filters":["up/#"],"partitions":3,"maxMessageBytes":1114112}"#;
    put(Key::Topic("up".to_owned()), topic.to_owned());
    let one = |name: &str, entry: &DeviceEntry| {
        let principal = Principal::new("meters", name).unwrap();
        put(Key::Device(principal), serde_json::to_string(entry).unwrap());
    };
    one("machine", &device(PASSWORD).unwrap());
    for number in 0..people {
        one(&format!("human-{number}"), &person(number));
    }
    operator.flush(SOON).unwrap();
    kafka
}

/// How devices prove who they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Nothing,
    Machine,
    First,
    Remembered,
    /// Nothing, behind TLS.
    Tls,
    Certificate,
}

impl Method {
    const ALL: [Self; 6] =
        [Self::Nothing, Self::Machine, Self::Remembered, Self::First, Self::Tls, Self::Certificate];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "connect: anonymous",
            Self::Machine => "connect: password that a machine made (HMAC)",
            Self::Remembered => "connect: password of a person (argon2id), remembered",
            Self::First => "connect: password of a person (argon2id), for the first time",
            Self::Tls => "connect: anonymous, behind TLS 1.3 (a whole handshake)",
            Self::Certificate => "connect: certificate, TLS 1.3 (a whole handshake)",
        }
    }

    const fn connects(self, scale: &Scale) -> usize {
        if matches!(self, Self::First) { scale.connects.1 } else { scale.connects.0 }
    }
}

/// One turn of a method: devices connect, are let in and leave. How many seconds of the processor that took.
async fn turn(gateway: &Running<'_>, method: Method, round: usize, scale: &Scale) -> f64 {
    let before = gateway.cpu_s();
    let tries = (0..method.connects(scale)).map(|number| async move {
        // one more was let in before, for the remembered ones
        let human = format!("meters/human-{}", 1 + round * scale.connects.1 + number);
        let who = match method {
            Method::Nothing | Method::Tls | Method::Certificate => Who::NOBODY,
            Method::Machine => Who::new("meters/machine", PASSWORD),
            Method::Remembered => Who::new("meters/human-0", HUMAN),
            Method::First => Who::new(&human, HUMAN),
        };
        let mut client = match method {
            Method::Tls => Mqtt::new(gateway.tls.hello(None).connect(gateway.encrypted).await.unwrap(), true),
            Method::Certificate => {
                let hello = gateway.tls.hello(Some(&gateway.tls.device));
                Mqtt::new(hello.connect(gateway.encrypted).await.unwrap(), true)
            }
            _ => Mqtt::new(from(HERE, gateway.address).await, true),
        };
        assert_eq!(client.enter(&format!("c{number}"), who, None).await, "CONNACK 0x00");
    });
    stream::iter(tries).buffer_unordered(AT_ONCE).collect::<()>().await;
    gateway.cpu_s() - before
}

async fn connects(gateway: &Running<'_>, scale: &Scale) -> Vec<Row> {
    let mut spent = [0.0; Method::ALL.len()];
    for round in 0..scale.rounds {
        for (method, spent) in Method::ALL.into_iter().zip(&mut spent) {
            *spent += turn(gateway, method, round, scale).await;
        }
    }
    let per_core: Vec<_> = Method::ALL
        .into_iter()
        .zip(spent)
        // a tick at least, which is what can be told
        .map(|(method, spent)| (scale.rounds * method.connects(scale)) as f64 / f64::max(spent, 0.01))
        .collect();
    let rows = Method::ALL.into_iter().zip(spent).zip(&per_core).map(|((method, spent), per_core_s)| {
        let mut row = Row::new(method.name());
        row.extend(serde_json::json!({
            "connects": scale.rounds * method.connects(scale), "cpu_s": spent,
            "connects_per_core_s": per_core_s.round(), "to_anonymous": per_core_s / per_core[0],
        }));
        row
    });
    let rows: Vec<_> = rows.collect();
    let [_, machine, remembered, first, _, _] = per_core[..] else { panic!() };
    assert!(remembered > machine / 3.0, "what is remembered costs no hash: {remembered} against {machine}");
    assert!(first < remembered, "argon2id costs something: {first} against {remembered}");
    rows
}

/// What a device that works notices for a while: the time of each connect by its password, and of each publish on a connection
/// that it keeps, in milliseconds.
async fn works(gateway: &Running<'_>, lasting: Duration) -> (Vec<f64>, Vec<f64>) {
    let (mut connects, mut publishes) = (Vec::new(), Vec::new());
    let mut kept = Mqtt::new(from(HERE, gateway.address).await, true);
    assert_eq!(kept.enter("kept", Who::new("meters/machine", PASSWORD), None).await, "CONNACK 0x00");
    let begun = Instant::now();
    for number in 0.. {
        if begun.elapsed() >= lasting {
            break;
        }
        let at = Instant::now();
        kept.publish("up/machine").await;
        assert_eq!(kept.hear().await, "PUBACK 0x00");
        publishes.push(at.elapsed().as_secs_f64() * 1_000.0);
        // a machine's password and a person's that is remembered
        let who = [Who::new("meters/machine", PASSWORD), Who::new("meters/human-0", HUMAN)][number % 2];
        let at = Instant::now();
        let mut client = Mqtt::new(from(HERE, gateway.address).await, true);
        assert_eq!(client.enter("good", who, None).await, "CONNACK 0x00");
        connects.push(at.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (connects, publishes)
}

/// Guesses with usernames that change, from so many sources; how many were told.
async fn guess(address: SocketAddr, sources: u32, lasting: Duration) -> u32 {
    let mut due = interval(Duration::from_secs(1) / GUESSES);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut tries) = (Instant::now(), tokio::task::JoinSet::new());
    for number in 0_u32.. {
        if begun.elapsed() >= lasting {
            break;
        }
        due.tick().await;
        let [_, high, middle, low] = (number % sources + 1).to_be_bytes();
        assert_eq!(high, 0);
        tries.spawn(async move {
            let mut client = Mqtt::new(from(Ipv4Addr::new(127, 9, middle, low), address).await, true);
            let (username, password) =
                (format!("meters/human-{number}"), ["guess", MACHINE][number as usize % 2]);
            let told = client.enter("x", Who::new(&username, password), None).await;
            // wrong, wrong too often, or too many passwords wait
            assert!(["CONNACK 0x86", "CONNACK 0x9F", "CONNACK 0x89"].contains(&told.as_str()), "{told}");
        });
        while tries.try_join_next().is_some_and(|told| told.map(|()| true).unwrap()) {}
    }
    let mut told = 0;
    while let Some(one) = tries.join_next().await {
        one.unwrap();
        told += 1;
    }
    told
}

async fn flood(gateway: &Running<'_>, scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut shares = Vec::new();
    for (case, sources) in [
        ("a device that works, nobody guesses", 0),
        ("the same beside 1,000 wrong passwords a second from one source", 1),
        ("the same beside 1,000 wrong passwords a second from 1,000 sources", 1_000),
    ] {
        let (cpu_s, begun) = (gateway.cpu_s(), Instant::now());
        let outcomes =
            || ["WrongCredentials", "TooManyFailures", "VerifierBusy"].map(|name| gateway.admissions(name));
        let before = outcomes();
        let guessing = (sources > 0).then(|| tokio::spawn(guess(gateway.address, sources, scale.flood)));
        let (connects, publishes) = works(gateway, scale.flood).await;
        if let Some(guessing) = guessing {
            guessing.await.unwrap();
        }
        let took = begun.elapsed().as_secs_f64();
        let share = (gateway.cpu_s() - cpu_s) / took;
        shares.push(share);
        let after = outcomes();
        let of = |index: usize| (after[index] - before[index]) / took;
        let mut row = Row::new(case);
        row.extend(serde_json::json!({
            "guesses_per_s": of(0) + of(1) + of(2), "looked_at_per_s": of(0), "cpu_cores": share,
            "connect_p50_ms": quantile(&connects, 50), "connect_p99_ms": quantile(&connects, 99),
            "publish_p50_ms": quantile(&publishes, 50), "publish_p99_ms": quantile(&publishes, 99),
        }));
        rows.push(row);
    }
    rows
}

/// How far the times of refusals are apart, for a device that there is and one that there is not.
async fn refusals(protocol: &str, gateway: &Running<'_>, block: u8) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, (case, known, password)) in (0_u8..).zip([
        ("a person's device, a person's password", "meters/human-0", "wrong"),
        ("a machine's device, a machine's password", "meters/machine", MACHINE),
        ("a person's device, a machine's password", "meters/human-0", MACHINE),
    ]) {
        let mut times = [Vec::new(), Vec::new()];
        for index in 0..200_u8 {
            let which = usize::from(index % 2);
            let who = Who::new([known, "meters/nobody"][which], password);
            let stream = from(Ipv4Addr::new(127, block, number, index + 1), gateway.address).await;
            let at = if protocol == "mqtt" {
                let mut client = Mqtt::new(stream, true);
                let at = Instant::now();
                assert_eq!(client.enter("x", who, None).await, "CONNACK 0x86");
                at
            } else {
                let mut client = Http::new(stream);
                let at = Instant::now();
                let told = client.ask("GET", "/up/x", who).await;
                assert_eq!(told, "401 WrongCredentials, WWW-Authenticate");
                at
            };
            times[which].push(at.elapsed().as_secs_f64());
        }
        let (deviations, ratio) = apart(&times[0], &times[1]);
        let mut row = Row::new(&format!("refusal over {protocol}: {case}, wrong to unknown"));
        row.extend(serde_json::json!({
            "tries": 200, "ratio": ratio, "deviations": deviations, "p50_ms": quantile(&times[0], 50) * 1_000.0,
        }));
        assert!(deviations.abs() < 4.0, "{protocol}, {case}: {deviations} deviations, ratio {ratio}");
        rows.push(row);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn letting_devices_in_costs_what_the_report_says_and_guessing_costs_others_little() {
    let scale = Scale::chosen();
    let people = 1 + scale.rounds * scale.connects.1;
    let tls = Tls::new();
    let kafka = tokio::task::block_in_place(|| kafka(people, &tls));
    let mut report = Report::start("access-cost");
    let mqtt = tokio::task::block_in_place(|| Running::start(&kafka, "mqtt", &tls));
    let http = tokio::task::block_in_place(|| Running::start(&kafka, "http", &tls));
    // remembered from here on
    let mut first = Mqtt::new(from(HERE, mqtt.address).await, true);
    assert_eq!(first.enter("first", Who::new("meters/human-0", HUMAN), None).await, "CONNACK 0x00");
    let mut rows = connects(&mqtt, &scale).await;
    rows.extend(refusals("mqtt", &mqtt, 1).await);
    rows.extend(refusals("http", &http, 2).await);
    rows.extend(flood(&mqtt, &scale).await);
    for row in rows {
        report.push(row);
    }
    println!("{}", report.write(&reports()).unwrap().display());
}
