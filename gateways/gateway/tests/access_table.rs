//! Every way to be let in and to be refused, over every protocol, as the device sees it: a table, over real sockets. What was
//! seen becomes the report `access-table`, and what was seen has to be what the table says.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod access_support;

use access_support::permissions::{Count, delivered, tried_over_http, tried_over_mqtt};
use access_support::world::{HUMAN, MACHINE, World, meters, put};
use access_support::{Http, Mqtt, Who, end_of};
use tidegate_contract::config::ClientCertificates;
use tidegate_contract::fleet::{DeviceEntry, DeviceLimits, FleetEntry};
use tidegate_core::Roster;
use tidegate_ledger::report::{Report, Row, reports};
use tidegate_testkit::certificates::{Cast, Fate};
use tidegate_testkit::pki::Authority;
use tidegate_testkit::request::path;
use tidegate_testkit::rights::{PASSWORD, device, fleet};
use tidegate_testkit::tls::{Hello, listener};

/// What a device does, and what happens to it.
enum Deed {
    /// Comes, after so many wrong tries with the same username.
    Enter(Who<'static>, usize),
    /// Comes with a username of 64 KiB.
    EnterHuge,
    /// Comes, anonymous devices being let in.
    EnterAnonymous,
    /// Comes while as many connections of it are open as it may have.
    EnterAgain,
    /// Comes with a Will for this topic.
    Will(&'static str),
    Publish(&'static str),
    Read(&'static str),
    /// Publishes more than it may.
    Hurry,
    /// Is in, and then this happens to the directory.
    Change(fn(&Roster)),
}

/// A row: a case, the method by which the device proves who it is, what it does, and what it sees over MQTT 5, MQTT 3.1.1 and
/// HTTP.
type Case = (&'static str, &'static str, Deed, [&'static str; 3]);

#[allow(clippy::too_many_lines, reason = "it is one table")]
fn cases() -> Vec<Case> {
    use Deed::{Change, Enter, EnterAgain, EnterAnonymous, EnterHuge, Hurry, Publish, Read, Will};
    const IN: [&str; 3] = ["CONNACK 0x00", "CONNACK 0", "204"];
    const WRONG: [&str; 3] = ["CONNACK 0x86", "CONNACK 4", "401 WrongCredentials, WWW-Authenticate"];
    const GONE: [&str; 3] = ["DISCONNECT 0x87", "closed", "401 WrongCredentials, WWW-Authenticate"];
    const DENIED: [&str; 3] = ["PUBACK 0x87", "closed", "403 Denied"];
    const UNREADABLE: [&str; 3] = ["SUBACK 0x87", "SUBACK 0x80", "403 Denied"];
    let enter = |username, password| Enter(Who::new(username, password), 0);
    vec![
        ("in: a machine's password", "password", enter("meters/machine", PASSWORD), IN),
        ("in: a person's password", "password", enter("meters/human", HUMAN), IN),
        ("in: says nothing, and a fleet is anonymous", "anonymous", EnterAnonymous, IN),
        ("in: right after five wrong passwords of others", "password", Enter(MACHINE, 5), IN),
        (
            "says nothing, and no fleet is anonymous",
            "none",
            Enter(Who::NOBODY, 0),
            ["CONNACK 0x87", "CONNACK 5", "401 NoCredentials, WWW-Authenticate"],
        ),
        (
            "a wrong password that could be a machine's",
            "password",
            enter("meters/machine", "0123456789abcdef0123456789abcdeF"),
            WRONG,
        ),
        ("a wrong password", "password", enter("meters/human", "Secret"), WRONG),
        ("an empty password", "password", enter("meters/human", ""), WRONG),
        ("a device without a password", "password", enter("meters/none", "x"), WRONG),
        ("a device whose Secret is malformed", "password", enter("meters/broken", "x"), WRONG),
        ("an unknown device", "password", enter("meters/nobody", HUMAN), WRONG),
        ("an unknown fleet", "password", enter("others/human", HUMAN), WRONG),
        ("a username without a fleet", "password", enter("human", HUMAN), WRONG),
        ("a fleet that takes no passwords", "password", enter("certified/machine", PASSWORD), WRONG),
        ("a username of 64 KiB", "password", EnterHuge, ["CONNACK 0x86", "CONNACK 4", "431"]),
        ("disabled, wrong password", "password", enter("meters/off", "x"), WRONG),
        (
            "disabled, right password",
            "password",
            enter("meters/off", HUMAN),
            ["CONNACK 0x87", "CONNACK 5", "403 DeviceDisabled"],
        ),
        (
            "wrong for the fifth time",
            "password",
            Enter(Who::new("meters/human", "x"), 4),
            ["CONNACK 0x9F", "CONNACK 3", "429 TooManyFailures, Retry-After"],
        ),
        (
            "as many connections as it may have",
            "password",
            EnterAgain,
            ["CONNACK 0x97", "CONNACK 3", "429 TooManyConnections, Retry-After"],
        ),
        ("a Will that it may not publish", "password", Will("up/human"), ["CONNACK 0x87", "CONNACK 5", "-"]),
        ("publish: allowed", "password", Publish("up/machine"), ["PUBACK 0x00", "PUBACK", "204"]),
        ("publish: not allowed", "password", Publish("up/human"), DENIED),
        (
            "publish: no Topic holds it",
            "password",
            Publish("up/machine/nowhere"),
            ["PUBACK 0x90", "closed", "404 NoTopic"],
        ),
        ("publish: to its desired document", "password", Publish(".tidegate/desired/meters/machine"), DENIED),
        (
            "publish: elsewhere in what is kept",
            "password",
            Publish(".tidegate/x"),
            ["PUBACK 0x90", "closed", "404 AddressHiddenFirstLevel"],
        ),
        (
            "publish: faster than it may",
            "password",
            Hurry,
            ["read more slowly", "read more slowly", "429 TooFast, Retry-After"],
        ),
        ("read: allowed", "password", Read("down/machine"), ["SUBACK 0x00", "SUBACK 0x00", "200"]),
        ("read: not allowed", "password", Read("down/human"), UNREADABLE),
        (
            "read: its desired document",
            "password",
            Read(".tidegate/desired/meters/machine"),
            ["SUBACK 0x00", "SUBACK 0x00", "200"],
        ),
        ("read: another's desired document", "password", Read(".tidegate/desired/meters/human"), UNREADABLE),
        ("connected, then removed", "password", Change(|roster| put(roster, "machine", None)), GONE),
        (
            "connected, then disabled",
            "password",
            Change(|roster| {
                put(roster, "machine", Some(&DeviceEntry { disabled: true, ..device(PASSWORD).unwrap() }));
            }),
            ["DISCONNECT 0x87", "closed", "403 DeviceDisabled"],
        ),
        (
            "connected, then another password",
            "password",
            Change(|roster| put(roster, "machine", Some(&device(HUMAN).unwrap()))),
            GONE,
        ),
        (
            "connected, then its fleet is removed",
            "password",
            Change(|roster| roster.put_fleet("meters", None)),
            GONE,
        ),
        (
            "connected, then its fleet takes no passwords",
            "password",
            Change(|roster| roster.put_fleet("meters", Some(&FleetEntry::default()))),
            GONE,
        ),
    ]
}

fn slow() -> DeviceLimits {
    DeviceLimits { publish_rate: Some(2), ..DeviceLimits::default() }
}

fn alone() -> DeviceLimits {
    DeviceLimits { connections_per_device: Some(1), ..DeviceLimits::default() }
}

fn let_everybody_in(world: &World) {
    let mut entry = fleet(&["up/#"], &[], DeviceLimits::default());
    entry.authentication.anonymous = Some("guest".to_owned());
    world.roster().put_fleet("guests", Some(&entry));
}

async fn over_mqtt(world: &World, v5: bool, deed: &Deed) -> String {
    let mut client = world.mqtt(v5).await;
    match deed {
        Deed::Enter(who, before) => {
            for _ in 0..*before {
                let wrong = Who { password: Some("wrong"), ..*who };
                world.mqtt(v5).await.enter("x", wrong, None).await;
            }
            return client.enter("x", *who, None).await;
        }
        Deed::EnterHuge => {
            let long = "x".repeat(65_535);
            return client.enter("x", Who::new(&long, HUMAN), None).await;
        }
        Deed::EnterAnonymous => {
            let_everybody_in(world);
            return client.enter("x", Who::NOBODY, None).await;
        }
        Deed::EnterAgain => {
            world.roster().put_fleet("meters", Some(&meters(alone())));
            let mut first = world.mqtt(v5).await;
            assert!(first.enter("first", MACHINE, None).await.ends_with('0'));
            return client.enter("second", MACHINE, None).await;
        }
        Deed::Will(topic) => return client.enter("x", MACHINE, Some(topic)).await,
        _ => {}
    }
    assert!(client.enter("x", MACHINE, None).await.ends_with('0'));
    match deed {
        Deed::Publish(topic) => {
            client.publish(topic).await;
            client.hear().await
        }
        Deed::Read(address) => client.subscribe(address).await,
        Deed::Hurry => {
            world.roster().put_fleet("meters", Some(&meters(slow())));
            let begun = std::time::Instant::now();
            for _ in 0..6 {
                client.publish("up/machine").await;
                assert!(client.hear().await.starts_with("PUBACK"));
            }
            let slowed = begun.elapsed() > std::time::Duration::from_secs(1);
            if slowed { "read more slowly" } else { "not slowed" }.to_owned()
        }
        Deed::Change(change) => {
            change(world.roster());
            client.hear().await
        }
        _ => panic!("done before"),
    }
}

async fn over_http(world: &World, deed: &Deed) -> String {
    let mut client = world.http().await;
    match deed {
        Deed::Enter(who, before) => {
            let name =
                who.username.and_then(|username| username.split_once('/')).map_or("x", |(_, name)| name);
            for _ in 0..*before {
                client
                    .ask("PUT", &path(&format!("up/{name}")), Who { password: Some("wrong"), ..*who })
                    .await;
            }
            client.ask("PUT", &path(&format!("up/{name}")), *who).await
        }
        Deed::EnterHuge => {
            let long = "x".repeat(65_535);
            client.ask("PUT", "/up/x", Who::new(&long, HUMAN)).await
        }
        Deed::EnterAnonymous => {
            let_everybody_in(world);
            client.ask("PUT", "/up/x", Who::NOBODY).await
        }
        Deed::EnterAgain => {
            world.roster().put_fleet("meters", Some(&meters(alone())));
            world.kafka.hold();
            let mut busy = world.http().await;
            let waiting = tokio::spawn(async move { busy.ask("PUT", "/up/machine", MACHINE).await });
            let kafka = world.kafka.clone();
            assert!(tokio::task::spawn_blocking(move || kafka.wait_held(1)).await.unwrap());
            let told = client.ask("PUT", "/up/machine", MACHINE).await;
            world.kafka.release(1);
            assert_eq!(waiting.await.unwrap(), "204");
            told
        }
        Deed::Will(_) => "-".to_owned(),
        Deed::Publish(address) => client.ask("PUT", &path(address), MACHINE).await,
        Deed::Read(address) => {
            if !address.starts_with('.') {
                world.kafka.append(address, b"of another").unwrap();
            }
            client.ask("GET", &path(address), MACHINE).await
        }
        Deed::Hurry => {
            world.roster().put_fleet("meters", Some(&meters(slow())));
            let mut told = String::new();
            for _ in 0..6 {
                told = client.ask("PUT", "/up/machine", MACHINE).await;
            }
            told
        }
        Deed::Change(change) => {
            assert_eq!(client.ask("PUT", "/up/machine", MACHINE).await, "204");
            change(world.roster());
            client.ask("PUT", "/up/machine", MACHINE).await
        }
    }
}

/// What devices see behind TLS, each with what it shows. Where certificates are required, only who shows none.
async fn by_certificate(clients: ClientCertificates) -> Vec<(String, [String; 3], [String; 3])> {
    let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let tls = listener(folder.path(), &server.leaf("server").unwrap(), clients).unwrap();
    let world = World::behind(&["up/+"], Some(tls)).await;
    cast.declare(world.roster()).unwrap();
    let asked = clients == ClientCertificates::Optional;
    let mut cases: Vec<_> = if asked { cast.cases().unwrap() } else { Vec::new() }
        .into_iter()
        .map(|case| {
            let what = if matches!(case.fate, Fate::In(_)) { "in: a certificate" } else { "a certificate" };
            (format!("{what}: {}", case.name), case.shown, expected(case.fate))
        })
        .collect();
    cases.push(if asked {
        let told = ["CONNACK 0x87", "CONNACK 5", "401 NoCredentials, WWW-Authenticate"];
        ("no certificate where one is asked for".to_owned(), None, told.map(str::to_owned))
    } else {
        let told = "alert CertificateRequired".to_owned();
        ("no certificate where one is required".to_owned(), None, [told.clone(), told.clone(), told])
    });
    let mut rows = Vec::new();
    for (case, shown, expected) in cases {
        let hello = Hello::new(&server).with(shown.as_ref());
        let mut seen = Vec::new();
        for v5 in [true, false] {
            seen.push(match hello.connect(world.mqtt).await {
                Ok(stream) => Mqtt::new(stream, v5).enter("x", Who::NOBODY, None).await,
                Err(error) => end_of(&error),
            });
        }
        seen.push(match hello.connect(world.http).await {
            Ok(stream) => Http::new(stream).ask("PUT", "/up/x", Who::NOBODY).await,
            Err(error) => end_of(&error),
        });
        rows.push((case, expected, seen.try_into().unwrap()));
    }
    rows
}

fn expected(fate: Fate) -> [String; 3] {
    match fate {
        Fate::In(_) => ["CONNACK 0x00", "CONNACK 0", "204"].map(str::to_owned),
        Fate::Alert(alert) => [(); 3].map(|()| format!("alert {alert:?}")),
        Fate::Refused(reason) => ["CONNACK 0x87".to_owned(), "CONNACK 5".to_owned(), format!("403 {reason}")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_be_let_in_and_to_be_refused_looks_as_the_table_says() {
    let mut report = Report::start("access-table");
    let mut wrong = Vec::new();
    for (case, method, deed, expected) in cases() {
        let mut seen = Vec::new();
        for v5 in [true, false] {
            seen.push(over_mqtt(&World::with_fleet().await, v5, &deed).await);
        }
        seen.push(over_http(&World::with_fleet().await, &deed).await);
        if seen != expected {
            wrong.push(format!("{case}: {seen:?}, not {expected:?}"));
        }
        let mut row = Row::new(case);
        row.set("method", method).set("mqtt_5", &seen[0]).set("mqtt_3_1_1", &seen[1]).set("http", &seen[2]);
        report.push(row);
    }
    for clients in [ClientCertificates::Optional, ClientCertificates::Required] {
        for (case, expected, seen) in by_certificate(clients).await {
            if seen != expected {
                wrong.push(format!("{case}: {seen:?}, not {expected:?}"));
            }
            let mut row = Row::new(&case);
            row.set("method", "certificate").set("mqtt_5", &seen[0]).set("mqtt_3_1_1", &seen[1]);
            row.set("http", &seen[2]);
            report.push(row);
        }
    }
    let permissions = [tried_over_mqtt(true).await, tried_over_mqtt(false).await, tried_over_http().await];
    let deliveries = [delivered(true).await, delivered(false).await];
    let told =
        |count: &Count| format!("{} tried, {} denied, {} leaks", count.tried, count.denied, count.leaks);
    let mut row = Row::new("permissions of the table");
    row.set("method", "password")
        .set("mqtt_5", told(&permissions[0]))
        .set("mqtt_3_1_1", told(&permissions[1]));
    row.set("http", told(&permissions[2]));
    report.push(row);
    let mut row = Row::new("deliveries under a wildcard whose right shrank");
    row.set("method", "password").set("mqtt_5", told(&deliveries[0])).set("mqtt_3_1_1", told(&deliveries[1]));
    row.set("http", "-");
    report.push(row);
    println!("{}", report.write(&reports()).unwrap().display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for count in permissions.iter().chain(&deliveries) {
        assert_eq!((count.leaks, count.missing), (0, 0));
    }
    assert!(permissions.iter().all(|count| count.tried >= 40 && count.denied >= 20));
    assert!(deliveries.iter().all(|count| count.denied >= 10));
}
