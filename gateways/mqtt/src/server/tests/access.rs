//! Who comes in and what they may do: every way to be let in and to be refused, with the code that the client sees.

use super::host::{Client, Host, within};
use super::*;
use mqtt_protocol_core::mqtt::packet::v3_1_1 as v3;
use std::time::{Duration, Instant};
use tidegate_contract::Principal;
use tidegate_contract::fleet::{DeviceEntry, DeviceLimits};
use tidegate_testkit::memory::FLEET;
use tidegate_testkit::rights::{CASES, PASSWORD, Verb, declare, device, fleet};

const HUMAN: &str = "secret";

/// A server that lets nobody in yet, with a topic for every address.
pub(super) async fn closed() -> Host {
    let host = Host::start(Limits::default()).await;
    host.kafka.topic("all", &["#"], 3);
    host.services.directory.publish(host.kafka.routes());
    host.services.directory.roster().put_fleet(FLEET, None);
    host
}

/// The same with the fleet `meters`: devices `machine` and `human` by their passwords, `off`, which is disabled, and
/// `none`, which has no password.
async fn with_fleet(limits: DeviceLimits) -> Host {
    let host = closed().await;
    let roster = host.services.directory.roster();
    roster.put_fleet("meters", Some(&fleet(&["up/{device}"], &["down/#"], limits)));
    let off = DeviceEntry { disabled: true, ..device(HUMAN).unwrap() };
    for (name, entry) in [
        ("machine", device(PASSWORD).unwrap()),
        ("human", device(HUMAN).unwrap()),
        ("off", off),
        ("none", DeviceEntry::default()),
    ] {
        assert!(roster.put_device(&meter(name), Some(&entry)));
    }
    host
}

fn meter(name: &str) -> Principal {
    Principal::new("meters", name).unwrap()
}

pub(super) fn connect(
    is_v5: bool,
    client_id: &str,
    username: Option<&str>,
    password: Option<&str>,
) -> Vec<u8> {
    macro_rules! build {
        ($builder:expr) => {{
            let mut builder = $builder.client_id(client_id).unwrap().keep_alive(20);
            if let Some(username) = username {
                builder = builder.user_name(username).unwrap();
            }
            if let Some(password) = password {
                builder = builder.password(password.as_bytes().to_vec()).unwrap();
            }
            builder
        }};
    }
    if is_v5 {
        build!(v5::Connect::builder().clean_start(true)).build().unwrap().to_continuous_buffer()
    } else {
        build!(v3::Connect::builder().clean_session(true)).build().unwrap().to_continuous_buffer()
    }
}

/// A device's connection and the code that it was told.
async fn knock(host: &Host, is_v5: bool, id: &str, username: &str, password: &str) -> (Client, u8) {
    let mut client = host.connect(is_v5, &connect(is_v5, id, Some(username), Some(password))).await;
    match client.hear().await {
        Heard::ConnAck { code, .. } => (client, code),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn inside(host: &Host, is_v5: bool, id: &str, username: &str, password: &str) -> Client {
    let (client, code) = knock(host, is_v5, id, username, password).await;
    assert_eq!(code, 0, "{username}");
    client
}

/// What a SUBSCRIBE with QoS 1 is answered with.
pub(super) async fn subscribe(client: &mut Client, is_v5: bool, filter: &str) -> u8 {
    client.send(&testing::subscribe(is_v5, 1, &[(filter, 1)], Properties::new())).await;
    match client.hear().await {
        Heard::SubAck { codes, .. } => codes[0],
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_device_may_do_what_its_fleet_permits_and_nothing_else() {
    for is_v5 in [true, false] {
        let (mut tried, mut denied) = (0, 0);
        for case in CASES {
            let host = closed().await;
            declare(host.services.directory.roster(), case.username, case.publish, case.subscribe).unwrap();
            let mut client = inside(&host, is_v5, "x", case.username, PASSWORD).await;
            for &(verb, target, allowed) in case.tries {
                let what = format!("{} {verb:?} {target}, version 5: {is_v5}", case.username);
                if verb == Verb::Publish {
                    client.publish(target, 1, 7).await;
                    let answer = client.next().await;
                    let expected = match (allowed, is_v5) {
                        (true, _) => Some(Heard::PubAck { id: 7, code: 0 }),
                        (false, true) => Some(Heard::PubAck { id: 7, code: 0x87 }),
                        // 3.1.1 cannot refuse but by closing
                        (false, false) => None,
                    };
                    assert_eq!(answer, expected, "{what}");
                    assert_eq!(host.kafka.stored(target).len(), usize::from(allowed), "{what}");
                    if answer.is_none() {
                        client = inside(&host, is_v5, "x", case.username, PASSWORD).await;
                    }
                } else {
                    let refused = if is_v5 { 0x87 } else { 0x80 };
                    let code = subscribe(&mut client, is_v5, target).await;
                    assert_eq!(code, if allowed { 1 } else { refused }, "{what}");
                }
                (tried, denied) = (tried + 1, denied + usize::from(!allowed));
            }
            // what was refused is not read either
            for (verb, target, allowed) in case.tries {
                if *verb == Verb::Read && !allowed {
                    host.kafka.append(target, b"of another").unwrap();
                }
            }
            client.send(PING).await;
            let heard = client.hear().await;
            assert_eq!(heard, Heard::PingResp, "{}", case.username);
        }
        assert!(tried >= 40 && denied >= 20, "{tried} cases, {denied} denials");
    }
}

/// Rights shrink under a subscription that was granted: what it matches and the device may not have any more is not
/// delivered, and nothing is closed.
#[tokio::test]
async fn every_delivery_under_a_wildcard_is_asked_for_as_of_now() {
    let denied = [
        "plant/secret",
        "plant/a",
        "plant",
        "plant/a/m2",
        "plant/a/m1",
        "plant/open",
        "plant/open/m2/x",
        "plant/open/m11",
        "plant/open/M1",
        "plant//m1",
        "plant/open//m1",
        "plant/x/open/m1",
        "plant/b/c/d/e/f",
    ];
    let allowed = ["plant/open/m1", "plant/open/m1/x", "plant/open/m1/x/y"];
    for is_v5 in [true, false] {
        let host = closed().await;
        let roster = host.services.directory.roster();
        declare(roster, "meters/m1", &[], &["plant/#"]).unwrap();
        declare(roster, "others/all", &[], &["plant/#"]).unwrap();
        let mut client = inside(&host, is_v5, "x", "meters/m1", PASSWORD).await;
        let mut other = inside(&host, is_v5, "x", "others/all", PASSWORD).await;
        for client in [&mut client, &mut other] {
            assert_eq!(subscribe(client, is_v5, "plant/#").await, 1);
        }
        host.kafka.append("plant/secret", b"before").unwrap();
        let before = |heard: Heard| matches!(heard, Heard::Publish { payload, .. } if payload == b"before");
        assert!(before(client.hear().await) && before(other.hear().await));
        roster.put_fleet("meters", Some(&fleet(&[], &["plant/open/{device}/#"], DeviceLimits::default())));
        for address in denied.iter().chain(&allowed) {
            host.kafka.append(address, b"after").unwrap();
        }
        let mut got = Vec::new();
        while got.len() < allowed.len() {
            match client.hear().await {
                Heard::Publish { topic, .. } => got.push(topic),
                heard => panic!("{heard:?}"),
            }
        }
        got.sort_unstable();
        assert_eq!(got, allowed);
        // the other one, whose rights are as they were, got every record: so all were read, and none is on its way
        for _ in 0..denied.len() + allowed.len() {
            assert!(matches!(other.hear().await, Heard::Publish { .. }));
        }
        host.metric(&format!("deliveries_dropped_total{{reason=\"Denied\"}} {}", denied.len())).await;
        client.send(PING).await;
        assert_eq!(client.hear().await, Heard::PingResp);
        assert_ne!(subscribe(&mut client, is_v5, "plant/+").await, 1);
    }
}

#[tokio::test]
async fn every_way_to_be_let_in_or_refused_has_its_code() {
    let long = "x".repeat(65_535);
    let cases = [
        ("a machine's password", Some("meters/machine"), Some(PASSWORD), 0, 0),
        ("a person's password", Some("meters/human"), Some(HUMAN), 0, 0),
        ("nothing", None, None, 0x87, 5),
        ("disabled", Some("meters/off"), Some(HUMAN), 0x87, 5),
        (
            "a wrong machine's password",
            Some("meters/machine"),
            Some("0123456789abcdef0123456789abcdeF"),
            0x86,
            4,
        ),
        ("a wrong password", Some("meters/human"), Some("Secret"), 0x86, 4),
        ("no password", Some("meters/human"), None, 0x86, 4),
        ("an empty one", Some("meters/human"), Some(""), 0x86, 4),
        ("a device without a password", Some("meters/none"), Some(""), 0x86, 4),
        ("an unknown device", Some("meters/nobody"), Some(HUMAN), 0x86, 4),
        ("an unknown fleet", Some("others/human"), Some(HUMAN), 0x86, 4),
        ("no fleet", Some("human"), Some(HUMAN), 0x86, 4),
        ("64 KiB of each", Some(long.as_str()), Some(long.as_str()), 0x86, 4),
    ];
    for is_v5 in [true, false] {
        let host = with_fleet(DeviceLimits::default()).await;
        for (what, username, password, v5, v3) in cases {
            let mut client = host.connect(is_v5, &connect(is_v5, "x", username, password)).await;
            let expected = if is_v5 { v5 } else { v3 };
            let heard = client.hear().await;
            assert!(matches!(heard, Heard::ConnAck { code, .. } if code == expected), "{what}: {heard:?}");
            if expected != 0 {
                assert_eq!(client.rest().await, [], "{what}");
            }
        }
        let version = if is_v5 { "5" } else { "3.1.1" };
        host.metric(&format!("connects_total{{version=\"{version}\"}} 2")).await;
    }
}

#[tokio::test]
async fn the_platform_is_closed_until_a_fleet_names_who_is_anonymous() {
    let host = closed().await;
    let mut client = host.connect(true, &testing::connect(true)).await;
    assert!(matches!(client.hear().await, Heard::ConnAck { code: 0x87, .. }));
    let mut entry = fleet(&["a"], &["a"], DeviceLimits::default());
    entry.authentication.anonymous = Some("guest".to_owned());
    host.services.directory.roster().put_fleet("guests", Some(&entry));
    let mut client = host.client(true).await;
    for (id, topic, code) in [(1, "a", 0), (2, "b", 0x87)] {
        client.publish(topic, 1, id).await;
        assert_eq!(client.hear().await, Heard::PubAck { id, code });
    }
}

#[tokio::test]
async fn a_will_that_the_device_may_not_publish_is_refused_when_it_connects() {
    let host = with_fleet(DeviceLimits::default()).await;
    for (topic, expected) in [("up/machine", 0), ("up/human", 0x87)] {
        let builder = v5::Connect::builder().client_id("x").unwrap().user_name("meters/machine").unwrap();
        let builder = builder.password(PASSWORD.as_bytes().to_vec()).unwrap();
        let will = builder.will_message(topic, b"x".to_vec(), theirs::Qos::AtMostOnce, false).unwrap();
        let mut client = host.connect(true, &will.build().unwrap().to_continuous_buffer()).await;
        assert!(matches!(client.hear().await, Heard::ConnAck { code, .. } if code == expected), "{topic}");
    }
}

#[tokio::test]
async fn wrong_too_often_has_to_wait_and_nobody_is_locked_out_by_it() {
    for (is_v5, wrong, late) in [(true, 0x86, 0x9F), (false, 4, 3)] {
        let host = with_fleet(DeviceLimits::default()).await;
        for username in ["meters/machine", "meters/nobody"] {
            let mut codes = Vec::new();
            for _ in 0..5 {
                codes.push(knock(&host, is_v5, "x", username, "wrong").await.1);
            }
            assert_eq!(codes, [wrong, wrong, wrong, wrong, late], "{username}");
        }
        inside(&host, is_v5, "x", "meters/machine", PASSWORD).await;
    }
}

#[tokio::test]
async fn a_device_that_is_changed_or_removed_is_disconnected_within_two_seconds() {
    for is_v5 in [true, false] {
        let host = with_fleet(DeviceLimits::default()).await;
        let roster = host.services.directory.roster();
        let disabled = DeviceEntry { disabled: true, ..device(PASSWORD).unwrap() };
        for change in [Some(disabled), Some(device(HUMAN).unwrap()), None] {
            roster.put_device(&meter("machine"), Some(&device(PASSWORD).unwrap()));
            let device = inside(&host, is_v5, "x", "meters/machine", PASSWORD).await;
            let mut other = inside(&host, is_v5, "x", "meters/human", HUMAN).await;
            let begun = Instant::now();
            roster.put_device(&meter("machine"), change.as_ref());
            let expected = if is_v5 { vec![Heard::Disconnect { code: 0x87 }] } else { vec![] };
            assert_eq!(device.rest().await, expected, "{change:?}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{change:?}");
            other.send(PING).await;
            assert_eq!(other.hear().await, Heard::PingResp);
        }
        host.metric("connections_closed_total{reason=\"Revoked\"} 3").await;
    }
}

#[tokio::test]
async fn a_device_has_as_many_connections_as_it_may_have_and_takes_its_own_over() {
    let limits = DeviceLimits { connections_per_device: Some(1), ..DeviceLimits::default() };
    for (is_v5, refused) in [(true, 0x97), (false, 3)] {
        let host = with_fleet(limits).await;
        let first = inside(&host, is_v5, "x", "meters/machine", PASSWORD).await;
        assert_eq!(knock(&host, is_v5, "y", "meters/machine", PASSWORD).await.1, refused);
        let mut second = inside(&host, is_v5, "x", "meters/machine", PASSWORD).await;
        let expected = if is_v5 { vec![Heard::Disconnect { code: 0x8E }] } else { vec![] };
        assert_eq!(first.rest().await, expected);
        second.send(PING).await;
        assert_eq!(second.hear().await, Heard::PingResp);
    }
}

#[tokio::test]
async fn a_client_identifier_is_a_devices_own() {
    let host = with_fleet(DeviceLimits::default()).await;
    let mut machine = inside(&host, true, "x", "meters/machine", PASSWORD).await;
    let mut human = inside(&host, true, "x", "meters/human", HUMAN).await;
    for client in [&mut machine, &mut human] {
        client.send(PING).await;
        assert_eq!(client.hear().await, Heard::PingResp);
    }
}

#[tokio::test]
async fn a_device_that_publishes_too_much_is_read_more_slowly_and_loses_nothing() {
    let limits = DeviceLimits { publish_rate: Some(10), ..DeviceLimits::default() };
    for is_v5 in [true, false] {
        let host = with_fleet(limits).await;
        let mut client = inside(&host, is_v5, "x", "meters/machine", PASSWORD).await;
        let (begun, count) = (Instant::now(), 30);
        for id in 1..=count {
            client.publish("up/machine", 1, id).await;
        }
        for id in 1..=count {
            assert_eq!(within(client.hear()).await, Heard::PubAck { id, code: 0 });
        }
        // a second's worth at once, the rest at its rate
        assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
        assert_eq!(host.kafka.stored("up/machine").len(), usize::from(count));
    }
}
