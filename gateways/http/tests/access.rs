//! Who comes in and what they may do, over real sockets: every way to be let in and to be refused, with the answer that
//! the device sees.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::time::Instant;
use support::{Gateway, Response};
use tidegate_contract::Principal;
use tidegate_contract::config::Limits;
use tidegate_contract::fleet::{DeviceEntry, DeviceLimits};
use tidegate_testkit::memory::{Bounds, FLEET};
use tidegate_testkit::request::{basic, path};
use tidegate_testkit::rights::{CASES, PASSWORD, Verb, declare, device, fleet};
use tidegate_testkit::statistics::apart;

const HUMAN: &str = "secret";

/// A gateway that lets nobody in yet, with a topic for every address.
async fn closed() -> Gateway {
    // a test knocks faster than devices do
    let limits = Limits { connect_rate: 10_000, ..Limits::default() };
    let gateway = Gateway::with(Bounds::default(), limits).await;
    gateway.kafka.topic("all", &["#"], 3);
    gateway.services.directory.publish(gateway.kafka.routes());
    gateway.services.directory.roster().put_fleet(FLEET, None);
    gateway
}

/// The same with the fleet `meters`: devices `machine` and `human` by their passwords, `off`, which is disabled, and
/// `none`, which has no password.
async fn with_fleet(limits: DeviceLimits) -> Gateway {
    let gateway = closed().await;
    let roster = gateway.services.directory.roster();
    roster.put_fleet("meters", Some(&fleet(&["up/{device}"], &["down/{device}"], limits)));
    let off = DeviceEntry { disabled: true, ..device(HUMAN).unwrap() };
    let devices = [
        ("machine", device(PASSWORD).unwrap()),
        ("human", device(HUMAN).unwrap()),
        ("off", off),
        ("none", DeviceEntry::default()),
    ];
    for (name, entry) in devices {
        assert!(roster.put_device(&Principal::new("meters", name).unwrap(), Some(&entry)));
    }
    gateway
}

async fn put(gateway: &Gateway, username: &str, password: &str, address: &str) -> Response {
    gateway.ask(&format!("PUT {}\n{}", path(address), basic(username, password)), "x").await
}

#[tokio::test]
async fn a_device_may_do_what_its_fleet_permits_and_nothing_else() {
    let (mut tried, mut denied) = (0, 0);
    for case in CASES {
        let gateway = closed().await;
        declare(gateway.services.directory.roster(), case.username, case.publish, case.subscribe).unwrap();
        for &(verb, address, allowed) in case.tries.iter().filter(|(verb, ..)| *verb != Verb::Subscribe) {
            let what = format!("{} {verb:?} {address}", case.username);
            let before = gateway.kafka.stored(address).len();
            if verb == Verb::Publish {
                let answer = put(&gateway, case.username, PASSWORD, address).await;
                assert_eq!(answer.status, if allowed { 204 } else { 403 }, "{what}");
                assert_eq!(gateway.kafka.stored(address).len() - before, usize::from(allowed), "{what}");
            } else {
                gateway.kafka.append(address, b"of another").unwrap();
                for query in ["", "?last=1"] {
                    let get = format!("GET {}{query}\n{}", path(address), basic(case.username, PASSWORD));
                    let answer = gateway.ask(&get, "").await;
                    assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{what}");
                    let body = String::from_utf8(answer.body).unwrap();
                    assert_eq!(body.contains("of another"), allowed, "{what}: {body}");
                }
            }
            (tried, denied) = (tried + 1, denied + usize::from(!allowed));
        }
    }
    assert!(tried >= 40 && denied >= 20, "{tried} cases, {denied} denials");
}

#[tokio::test]
async fn every_way_to_be_let_in_or_refused_has_its_answer() {
    let gateway = with_fleet(DeviceLimits::default()).await;
    let long = "x".repeat(8_000);
    let cases = [
        ("meters/machine", PASSWORD, "up/machine", 204, None),
        ("meters/human", HUMAN, "up/human", 204, None),
        ("meters/human", HUMAN, "up/machine", 403, Some("Denied")),
        ("meters/off", HUMAN, "up/off", 403, Some("DeviceDisabled")),
        ("meters/machine", HUMAN, "up/machine", 401, Some("WrongCredentials")),
        ("meters/human", PASSWORD, "up/human", 401, Some("WrongCredentials")),
        ("meters/human", "", "up/human", 401, Some("WrongCredentials")),
        ("meters/none", "", "up/none", 401, Some("WrongCredentials")),
        ("meters/nobody", HUMAN, "up/nobody", 401, Some("WrongCredentials")),
        ("others/human", HUMAN, "up/human", 401, Some("WrongCredentials")),
        ("human", HUMAN, "up/human", 401, Some("WrongCredentials")),
        (&long, HUMAN, "up/human", 401, Some("WrongCredentials")),
        ("meters/human", &long, "up/human", 401, Some("WrongCredentials")),
    ];
    for (username, password, address, status, reason) in cases {
        let answer = put(&gateway, username, password, address).await;
        assert_eq!(answer.status, status, "{username}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{username}");
        if let Some(reason) = reason {
            assert_eq!(answer.refusal().1, reason, "{username}");
        }
    }
    for head in [
        "PUT /up/human",
        "GET /up/human",
        "GET /+",
        "BREW /up/human",
        "GET /up/human\nAuthorization: Bearer x",
    ] {
        let answer = gateway.ask(head, "").await;
        assert_eq!((answer.status, answer.header("www-authenticate").is_some()), (401, true), "{head}");
    }
    assert_eq!(gateway.ask("OPTIONS /up/human", "").await.status, 204);
    assert!(gateway.kafka.stored("up/none").is_empty() && gateway.kafka.stored("up/off").is_empty());
}

#[tokio::test]
async fn the_platform_is_closed_until_a_fleet_names_who_is_anonymous() {
    let gateway = closed().await;
    assert_eq!(gateway.ask("PUT /a", "x").await.refusal().1, "NoCredentials");
    let mut entry = fleet(&["a"], &["a"], DeviceLimits::default());
    entry.authentication.anonymous = Some("guest".to_owned());
    gateway.services.directory.roster().put_fleet("guests", Some(&entry));
    assert_eq!(gateway.ask("PUT /a", "x").await.status, 204);
    assert_eq!(gateway.ask("GET /a", "").await.header("tidegate-device"), Some("guests/guest"));
    assert_eq!(gateway.ask("PUT /b", "x").await.status, 403);
}

#[tokio::test]
async fn wrong_too_often_has_to_wait_and_is_told_how_long() {
    let gateway = with_fleet(DeviceLimits::default()).await;
    for username in ["meters/machine", "meters/nobody"] {
        for _ in 0..4 {
            assert_eq!(put(&gateway, username, "wrong", "up/machine").await.status, 401);
        }
        let answer = put(&gateway, username, "wrong", "up/machine").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{username}");
    }
    assert_eq!(put(&gateway, "meters/machine", PASSWORD, "up/machine").await.status, 204);
}

#[tokio::test]
async fn a_device_that_publishes_too_much_is_told_when_it_may_go_on() {
    let limits = [
        DeviceLimits { publish_rate: Some(2), ..DeviceLimits::default() },
        DeviceLimits { publish_bytes: Some(1), ..DeviceLimits::default() },
    ];
    for limits in limits {
        let gateway = with_fleet(limits).await;
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let answer = put(&gateway, "meters/machine", PASSWORD, "up/machine").await;
            statuses.push((answer.status, answer.header("retry-after").map(str::to_owned)));
        }
        assert_eq!(statuses[0], (204, None));
        assert!(statuses.contains(&(429, Some("1".to_owned()))), "{statuses:?}");
        // another device of the fleet has its own, and to read costs nothing
        assert_eq!(put(&gateway, "meters/human", HUMAN, "up/human").await.status, 204);
        let get = format!("GET /down/machine\n{}", basic("meters/machine", PASSWORD));
        assert_eq!(gateway.ask(&get, "").await.status, 404);
    }
}

#[tokio::test]
async fn a_device_has_as_many_requests_at_once_as_it_may_have_connections() {
    let limits = DeviceLimits { connections_per_device: Some(1), ..DeviceLimits::default() };
    let gateway = with_fleet(limits).await;
    gateway.kafka.hold();
    let mut busy = gateway.connect().await;
    let head = format!("PUT /up/machine\n{}", basic("meters/machine", PASSWORD));
    busy.send(support::request(&head, "x")).await;
    let kafka = gateway.kafka.clone();
    assert!(tokio::task::spawn_blocking(move || kafka.wait_held(1)).await.unwrap());
    let answer = put(&gateway, "meters/machine", PASSWORD, "up/machine").await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (429, "TooManyConnections"));
    gateway.kafka.release(1);
    assert_eq!(busy.response(false).await.unwrap().status, 204);
    let get = format!("GET /down/machine\n{}", basic("meters/machine", PASSWORD));
    assert_eq!(busy.ask(&get, "").await.status, 404);
}

#[tokio::test]
async fn what_changes_in_the_directory_counts_for_the_next_request_on_an_open_connection() {
    let gateway = with_fleet(DeviceLimits::default()).await;
    let roster = gateway.services.directory.roster();
    let machine = Principal::parse("meters/machine").unwrap();
    let mut client = gateway.connect().await;
    let head = format!("PUT /up/machine\n{}", basic("meters/machine", PASSWORD));
    assert_eq!(client.ask(&head, "x").await.status, 204);
    roster.put_fleet("meters", Some(&fleet(&["other"], &[], DeviceLimits::default())));
    assert_eq!(client.ask(&head, "x").await.status, 403);
    roster.put_device(&machine, Some(&device(HUMAN).unwrap()));
    assert_eq!(client.ask(&head, "x").await.status, 401);
    roster.put_device(&machine, None);
    assert_eq!(client.ask(&head, "x").await.status, 401);
}

/// Each try comes from an address of its own, or it would only be told to wait.
#[tokio::test]
async fn a_refusal_takes_as_long_for_an_unknown_device_as_for_a_wrong_password() {
    let gateway = with_fleet(DeviceLimits::default()).await;
    let machine = "fedcba9876543210fedcba9876543210";
    let tries = [("meters/human", "wrong"), ("meters/machine", machine), ("meters/human", machine)];
    for (block, (known, password)) in (0_u8..).zip(tries) {
        let mut times = [Vec::new(), Vec::new()];
        for number in 0..200_u8 {
            let which = usize::from(number % 2);
            let username = [known, "meters/nobody"][which];
            let source = [127, 1, block, number + 1];
            let mut client = gateway.connect_from(source.into()).await;
            let begun = Instant::now();
            let head = format!("GET /down/human\n{}", basic(username, password));
            assert_eq!(client.ask(&head, "").await.status, 401);
            times[which].push(begun.elapsed().as_secs_f64());
        }
        let [wrong, unknown] = times;
        let (deviations, ratio) = apart(&wrong, &unknown);
        println!("{known}: wrong to unknown {ratio:.3}, {deviations:.2} standard deviations apart");
        assert!(deviations.abs() < 4.0, "{known}: {deviations} standard deviations, ratio {ratio}");
    }
}
