//! What it costs a gateway to let a device in, by the way in which it comes: connects for each second of a core, from
//! the first byte of TCP to CONNACK and the close. The gateway's threads are counted alone; its clients run beside
//! them. With `TIDEGATE_CAMPAIGN` in the environment it runs at length; figures worth
//! keeping come from the release profile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)] // helpers of tests are tests

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tidegate_contract::Principal;
use tidegate_contract::config::{ClientCertificates, Limits, Listener};
use tidegate_contract::fleet::DeviceLimits;
use tidegate_core::Services;
use tidegate_ledger::report::{Report, Row, campaign, reports};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::certificates::Cast;
use tidegate_testkit::memory::Bounds;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::rights::{PASSWORD, device, fleet};
use tidegate_testkit::tls::{Hello, Socket, VERSIONS, listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// The gateway's threads, by name.
const THREADS: &str = "gateway";
/// Clients at a time.
const CLIENTS: usize = 8;
const HUMAN: &str = "secret";

/// A way in.
#[derive(Clone)]
struct Way {
    case: &'static str,
    connects: usize,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    password: Option<&'static str>,
    /// Each connect is another device.
    each_its_own: bool,
}

#[test]
fn what_a_connect_costs_by_the_way_in() {
    let many = if campaign() { 20 } else { 1 };
    let gateway = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(THREADS)
        .enable_all()
        .build()
        .unwrap();
    let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let kafka = MemoryKafka::new();
    let (plain, secret) = gateway.block_on(serve(&kafka, &cast, &server, folder.path(), 20 * many));
    let (shown, hello) = (cast.auto.device("a1").unwrap(), Hello::new(&server));
    let [tls12, tls13] = VERSIONS.map(|version| Hello { version, ..hello });
    let way = |case, connects, password| Way {
        case,
        connects: connects * many,
        address: plain,
        tls: None,
        password,
        each_its_own: false,
    };
    let tls = |case, hello: Hello<'_>, password| Way {
        address: secret,
        tls: Some(hello.config().unwrap()),
        ..way(case, 100, password)
    };
    let ways = [
        way("anonymous", 500, None),
        way("password made by a machine", 500, Some(PASSWORD)),
        Way { each_its_own: true, ..way("password of a person, the first time", 20, Some(HUMAN)) },
        Way { each_its_own: true, ..way("password of a person, remembered", 20, Some(HUMAN)) },
        tls("TLS 1.3, password made by a machine", tls13, Some(PASSWORD)),
        tls("TLS 1.3, certificate", tls13.with(Some(&shown)), None),
        tls("TLS 1.2, certificate", tls12.with(Some(&shown)), None),
    ];
    let mut report = Report::start("access-cost");
    let mut figures = Vec::new();
    for way in ways {
        // code and caches that are not there yet are not what is measured
        if !way.each_its_own {
            clients.block_on(connect_all(Way { connects: CLIENTS, ..way.clone() }));
        }
        let before = cpu_us();
        clients.block_on(connect_all(way.clone()));
        let used = (cpu_us() - before) as f64 / way.connects as f64;
        figures.push(used);
        let mut row = Row::new(way.case);
        row.set("connects", way.connects)
            .set("connects_per_s_and_core", (1e6 / used).round())
            .set("cpu_us_per_connect", used.round());
        report.push(row);
    }
    println!("{}", report.json());
    report.write(&reports()).unwrap();
    // a hash of a person's password is meant to be the most expensive, and to be made once
    let [_, _, first, remembered, ..] = figures[..] else { unreachable!() };
    assert!(first > 3.0 * remembered, "{figures:?}");
}

/// A gateway with a plain listener and one with TLS.
async fn serve(
    kafka: &MemoryKafka,
    cast: &Cast,
    server: &Authority,
    folder: &Path,
    people: usize,
) -> (SocketAddr, SocketAddr) {
    let limits = Limits { connect_rate: 1_000_000, ..Limits::default() };
    let services = kafka.services_with(Bounds::default(), limits).unwrap();
    declare(&services, cast, people);
    let leaf = server.leaf("server").unwrap();
    let tls = listener(folder, &leaf, ClientCertificates::Optional).unwrap();
    let mut listeners = Vec::new();
    for (name, tls) in [("mqtt", None), ("mqtts", Some(tls))] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        listeners.push((Listener { tls, ..Listener::plain(name, port) }, socket));
    }
    let addresses: Vec<_> = listeners.iter().map(|(_, socket)| socket.local_addr().unwrap()).collect();
    tokio::spawn(tidegate_mqtt::serve(listeners, services));
    (addresses[0], addresses[1])
}

fn declare(services: &Services, cast: &Cast, people: usize) {
    let roster = services.directory.roster();
    cast.declare(roster).unwrap();
    let entry = fleet(&["#"], &["#"], DeviceLimits::default());
    for (name, password) in [("machines", PASSWORD), ("people", HUMAN)] {
        roster.put_fleet(name, Some(&entry));
        let device = device(password).unwrap();
        for number in 0..people {
            roster.put_device(&Principal::new(name, &number.to_string()).unwrap(), Some(&device));
        }
    }
}

async fn connect_all(way: Way) {
    let way = Arc::new(way);
    let clients = (0..CLIENTS).map(|first| {
        let way = Arc::clone(&way);
        tokio::spawn(async move {
            for number in (first..way.connects).step_by(CLIENTS) {
                connect(&way, number).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

async fn connect(way: &Way, number: usize) {
    let socket = TcpStream::connect(way.address).await.unwrap();
    let mut socket: Box<dyn Socket> = match &way.tls {
        None => Box::new(socket),
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            Box::new(TlsConnector::from(Arc::clone(config)).connect(name, socket).await.unwrap())
        }
    };
    let fleet = if way.password == Some(HUMAN) { "people" } else { "machines" };
    let device = if way.each_its_own { number } else { 0 };
    let user = way.password.map(|password| (format!("{fleet}/{device}"), password));
    socket.write_all(&packet(number, user.as_ref())).await.unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "{}", way.case);
    // DISCONNECT
    socket.write_all(&[0xE0, 0]).await.unwrap();
    let _ = socket.read(&mut answer).await;
}

/// CONNECT of MQTT 3.1.1 (§3.1).
fn packet(number: usize, user: Option<&(String, &str)>) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, if user.is_some() { 0xC2 } else { 2 }, 0, 60];
    let client_id = format!("client-{number}");
    let texts = user.iter().flat_map(|(name, password)| [name.as_str(), password]).collect::<Vec<_>>();
    for text in std::iter::once(client_id.as_str()).chain(texts) {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 128).unwrap();
    [&[0x10, length][..], &body].concat()
}

/// What the gateway's threads have used of the processor, in nanoseconds where `stat` counts in hundredths of a second.
/// Blocking threads stay for 10 s after their work, so none that worked has ended.
fn cpu_us() -> u64 {
    let mut all = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let folder = task.unwrap().path();
        let Ok(name) = std::fs::read_to_string(folder.join("comm")) else { continue };
        if name.trim() == THREADS {
            let text = std::fs::read_to_string(folder.join("schedstat")).unwrap();
            all += text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000;
        }
    }
    all
}
