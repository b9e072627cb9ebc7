//! The load against a broker in this process that keeps what it gets in memory and fails as it is told, and the judge
//! on what came of it.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    Disconnect, DisconnectProperties, DisconnectReasonCode, Packet, PubAck, PubAckReason,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_ledger::device::{Device, Heard};
use tidegate_ledger::judge::Rules;
use tidegate_ledger::log::wall_us;
use tidegate_ledger::payload::decode;
use tidegate_ledger::probe::EVERY;
use tidegate_ledger::stored::{Line, StoredRecord, TimeKind};
use tidegate_ledger::{Judge, Load, LoadOptions, Login, PayloadSize, Verdict};

const LIMIT: Duration = Duration::from_secs(30);

/// What the broker does with one message, counted from 0 over all connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Store,
    /// Stores and closes without a word.
    StoreAndClose,
    /// Closes and stores nothing.
    Close,
    /// Says that it is busy.
    Busy,
    /// Acknowledges and stores nothing.
    Lose,
    /// Acknowledges, and stores 40 ms later by its own timestamps.
    Early,
    Repeat,
    /// Stores it before the record that came before it.
    Overtake,
    Refuse,
}

#[derive(Default)]
struct Stored {
    records: Vec<(u16, u32, i64)>,
    seen: usize,
    /// What clients said in CONNECT: username and password, if any.
    logins: Vec<Option<(String, String)>>,
}

struct Broker {
    address: String,
    stored: Arc<Mutex<Stored>>,
}

impl Broker {
    fn start(deeds: impl Fn(usize) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stored = Arc::new(Mutex::new(Stored::default()));
        let (shared, deeds) = (Arc::clone(&stored), Arc::new(deeds));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (shared, deeds) = (Arc::clone(&shared), Arc::clone(&deeds));
                std::thread::spawn(move || serve(socket, &shared, &*deeds));
            }
        });
        Self { address, stored }
    }

    fn options(&self, folder: &tempfile::TempDir) -> LoadOptions {
        let mut options = LoadOptions::new(&self.address, folder.path().join("log"));
        options.publishers = 1;
        options.rate = 500.0;
        options.in_flight = 5;
        options.payload = PayloadSize::fixed(64);
        options
    }

    /// What the reader would print.
    fn judge(&self, options: &LoadOptions) -> Verdict {
        let stored = self.stored.lock().unwrap();
        let mut judge = Judge::read_log(Rules::default(), &*std::fs::read(&options.log).unwrap()).unwrap();
        for (offset, (publisher, sequence, time_ms)) in (0..).zip(&stored.records) {
            let (publisher, sequence, kind) = (*publisher, *sequence, TimeKind::Append);
            let partition = i32::from(publisher);
            let record = StoredRecord { partition, offset, time_ms: *time_ms, kind, publisher, sequence };
            judge.stored(&Line::Record(record)).unwrap();
        }
        judge.stored(&Line::End { records: stored.records.len() as u64, others: 0 }).unwrap();
        judge.verdict()
    }
}

fn send(socket: &mut TcpStream, packet: &Packet) {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    // The other side may have gone: then the load has, too.
    let _ = socket.write_all(&bytes);
}

/// A connection: everything until a deed ends it.
fn serve(mut socket: TcpStream, stored: &Mutex<Stored>, deeds: &dyn Fn(usize) -> Deed) {
    let (mut input, mut buffer) = (BytesMut::new(), [0; 4096]);
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        input.extend_from_slice(&buffer[..count]);
        while let Ok(packet) = Packet::read(&mut input, None) {
            match packet {
                Packet::Connect(_, _, login) => {
                    let login = login.map(|login| (login.username, login.password));
                    stored.lock().unwrap().logins.push(login);
                    // CONNACK, accepted, with a Receive Maximum of 3.
                    let _ = socket.write_all(&[0x20, 6, 0, 0, 3, 0x21, 0, 3]);
                }
                Packet::Publish(publish) => {
                    // a device's own words have none
                    let stamp = decode(&publish.payload).ok();
                    let mut stored = stored.lock().unwrap();
                    let deed = deeds(stored.seen);
                    stored.seen += 1;
                    let now_ms = i64::try_from(wall_us() / 1000).unwrap();
                    let record =
                        stamp.map_or((0, 0, now_ms), |stamp| (stamp.publisher, stamp.sequence, now_ms));
                    match deed {
                        Deed::Store | Deed::StoreAndClose => stored.records.push(record),
                        Deed::Early => stored.records.push((record.0, record.1, now_ms + 40)),
                        Deed::Repeat => stored.records.extend([record, record]),
                        Deed::Overtake => {
                            let place = stored.records.len() - 1;
                            stored.records.insert(place, record);
                        }
                        Deed::Close | Deed::Busy | Deed::Lose | Deed::Refuse => {}
                    }
                    drop(stored);
                    if deed == Deed::Busy {
                        send(
                            &mut socket,
                            &Packet::Disconnect(Disconnect::new(DisconnectReasonCode::ServerBusy)),
                        );
                    }
                    if matches!(deed, Deed::Close | Deed::StoreAndClose | Deed::Busy) {
                        return;
                    }
                    let mut ack = PubAck::new(publish.pkid, None);
                    if deed == Deed::Refuse {
                        ack.reason = PubAckReason::TopicNameInvalid;
                    }
                    send(&mut socket, &Packet::PubAck(ack));
                }
                Packet::PingReq(_) => {
                    send(&mut socket, &Packet::PingResp(rumqttc::v5::mqttbytes::v5::PingResp));
                }
                _ => return,
            }
        }
    }
}

/// The address of a server that accepts a connection and names another server to use.
fn sends_away(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut bye = Disconnect::new(DisconnectReasonCode::UseAnotherServer);
    bye.properties = Some(DisconnectProperties {
        session_expiry_interval: None,
        reason_string: None,
        user_properties: Vec::new(),
        server_reference: Some(to.to_owned()),
    });
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(&[0x20, 3, 0, 0, 0]);
            send(&mut socket, &Packet::Disconnect(bye.clone()));
        }
    });
    address
}

/// Publishes until `count` messages are acknowledged, under these deeds.
fn run(count: u64, deeds: impl Fn(usize) -> Deed + Send + Sync + 'static) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(deeds);
    let options = broker.options(&folder);
    let load = Load::start(options.clone()).unwrap();
    load.wait_acknowledged(count, LIMIT).unwrap();
    load.stop(LIMIT).unwrap();
    broker.judge(&options)
}

fn once(at: usize, deed: Deed) -> impl Fn(usize) -> Deed + Send + Sync {
    move |seen| if seen == at { deed } else { Deed::Store }
}

#[test]
fn a_run_against_a_faithful_broker_is_clean() {
    let verdict = run(200, |_| Deed::Store);
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!((verdict.duplicates, verdict.unanswered, verdict.refused), (0, 0, 0));
    assert_eq!(
        (verdict.acknowledged, verdict.connections, verdict.connections_broken),
        (verdict.offered, 1, 0)
    );
}

#[test]
fn what_is_unanswered_when_a_connection_ends_is_sent_again_in_order() {
    let verdict = run(200, |seen| match seen {
        20 => Deed::Close,
        60 => Deed::StoreAndClose,
        100 => Deed::Busy,
        _ => Deed::Store,
    });
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!((verdict.acknowledged, verdict.unanswered), (verdict.offered, 0));
    assert_eq!((verdict.connections_broken, verdict.most_breaks, verdict.duplicates), (3, 3, 1));
    assert_eq!(verdict.connects_failed, 0);
    assert_eq!(verdict.broken_by["DISCONNECT 0x89 ServerBusy"], 1);
    assert_eq!(verdict.broken_by.values().sum::<u64>(), 3);
}

#[test]
fn a_broker_that_loses_an_acknowledged_message_is_caught() {
    let verdict = run(100, once(50, Deed::Lose));
    assert_eq!(verdict.acknowledged_lost, 1);
    assert_eq!(verdict.examples.0, ["acknowledged and lost: 0/50"]);
}

#[test]
fn a_broker_that_stores_twice_is_counted() {
    let verdict = run(100, once(50, Deed::Repeat));
    assert!(verdict.is_clean());
    assert_eq!(verdict.duplicates, 1);
}

#[test]
fn a_broker_that_changes_the_order_is_caught() {
    let verdict = run(100, once(50, Deed::Overtake));
    assert_eq!(verdict.disorder, 1);
    assert!(!verdict.is_clean());
}

#[test]
fn a_broker_that_acknowledges_before_it_stores_is_caught() {
    let verdict = run(100, once(50, Deed::Early));
    assert_eq!(verdict.early_acknowledged, 1);
    assert!(!verdict.is_clean());
}

#[test]
fn a_refused_message_is_not_sent_again() {
    let verdict = run(100, once(50, Deed::Refuse));
    assert!(verdict.is_clean());
    assert_eq!(
        (verdict.refused, verdict.acknowledged + 1, verdict.connections_broken),
        (1, verdict.offered, 0)
    );
}

#[test]
fn a_load_without_a_broker_offers_and_tells_that_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = LoadOptions::new(&unused.to_string(), folder.path().join("log"));
    options.rate = 200.0;
    let load = Load::start(options.clone()).unwrap();
    load.wait("failed connections", LIMIT, |progress| progress.disconnected >= 10).unwrap();
    load.mark("nobody listens");
    assert!(load.wait_caught_up(Duration::ZERO).is_err());
    let progress = load.stop(Duration::ZERO).unwrap();
    assert!(progress.offered > 0 && progress.acknowledged == 0);
    let mut judge = Judge::read_log(Rules::default(), &*std::fs::read(&options.log).unwrap()).unwrap();
    judge.stored(&Line::End { records: 0, others: 0 }).unwrap();
    let verdict = judge.verdict();
    assert!(verdict.is_clean() && verdict.unanswered == progress.offered);
    assert_eq!(verdict.marks[0].served_after_s, None);
    // nothing broke: nothing had been there
    assert!(verdict.connections_broken == 0 && verdict.connects_failed >= 10);
}

#[test]
fn a_client_that_is_sent_to_another_server_goes_there() {
    let other = Broker::start(|_| Deed::Store);
    let folder = tempfile::tempdir().unwrap();
    let mut options = other.options(&folder);
    options.target = sends_away(&other.address);
    let load = Load::start(options.clone()).unwrap();
    load.wait_acknowledged(20, LIMIT).unwrap();
    load.stop(LIMIT).unwrap();
    let verdict = other.judge(&options);
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!(verdict.broken_by["DISCONNECT 0x9C UseAnotherServer"], 1);
    assert_eq!((verdict.connections_broken, verdict.unanswered), (1, 0));
}

#[test]
fn probes_count_who_answers_and_who_does_not() {
    let probed = |target: &str| {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(|_| Deed::Store);
        let mut options = broker.options(&folder);
        (options.probe, options.target) = (true, target.replace("{broker}", &broker.address));
        let load = Load::start(options.clone()).unwrap();
        // the time of some attempts is what is tested
        std::thread::sleep(EVERY * 5);
        load.stop(Duration::ZERO).unwrap();
        broker.judge(&options).probed.unwrap()
    };
    let seen = probed("{broker}");
    assert!(seen.probes >= 2 && seen.probes_failed == 0, "{seen:?}");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seen = probed(&unused.to_string());
    assert!(seen.probes >= 2 && seen.probes_failed == seen.probes, "{seen:?}");
    assert_eq!(seen.probes_failed_by.len(), 1, "{seen:?}");
}

#[test]
fn every_client_says_who_it_is_where_there_is_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let logins = |login: Option<Login>| {
        let broker = Broker::start(|_| Deed::Store);
        let mut options = broker.options(&folder);
        (options.login, options.probe) = (login, true);
        let load = Load::start(options).unwrap();
        load.wait_acknowledged(5, LIMIT).unwrap();
        // the time of some attempts is what is tested
        std::thread::sleep(EVERY * 5);
        load.stop(LIMIT).unwrap();
        std::mem::take(&mut broker.stored.lock().unwrap().logins)
    };
    let said = logins(Some(Login { username: "f/d".to_owned(), password: "p".to_owned() }));
    assert!(said.len() >= 2 && said.iter().all(|one| *one == Some(("f/d".to_owned(), "p".to_owned()))));
    assert!(logins(None).iter().all(Option::is_none));
}

#[test]
fn a_device_tells_when_what_it_hears_changes() {
    let broker = Broker::start(|seen| match seen {
        3..6 => Deed::Refuse,
        6 => Deed::Close,
        _ => Deed::Store,
    });
    let login = Login { username: "f/d".to_owned(), password: "p".to_owned() };
    let device = Device::start(&broker.address, &login, "a/b").unwrap();
    let hears = |wanted: &Heard| device.hears("it", LIMIT, |heard| heard == wanted).unwrap();
    let stored = hears(&Heard::Stored);
    let refused = hears(&Heard::Refused(0x90));
    let out =
        device.hears("the end of its connection", LIMIT, |heard| matches!(heard, Heard::Out(_))).unwrap();
    let again = hears(&Heard::Stored);
    assert!(stored < refused && refused < out && out < again);
    let told = device.hears("what never comes", Duration::ZERO, |_| false).unwrap_err().to_string();
    assert!(told.contains("what never comes") && told.contains("Stored"), "{told}");
}

#[test]
fn a_load_whose_options_make_no_sense_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let wrong: [fn(&mut LoadOptions); 5] = [
        |options| options.readers = 1,
        |options| options.publishers = 0,
        |options| options.rate = 0.0,
        |options| options.in_flight = 0,
        |options| options.address = "one/address/for/all".to_owned(),
    ];
    for change in wrong {
        let mut options = LoadOptions::new("127.0.0.1:1", folder.path().join("log"));
        change(&mut options);
        assert!(Load::start(options).is_err());
    }
}
