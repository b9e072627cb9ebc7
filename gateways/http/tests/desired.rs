//! Desired documents, over real sockets.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use support::{Gateway, Response};
use tidegate_contract::Principal;
use tidegate_contract::fleet::{DeviceLimits, FleetEntry};
use tidegate_testkit::memory::FLEET;
use tidegate_testkit::request::{basic, path};
use tidegate_testkit::rights::{DESIRED, PASSWORD, Verb, configured, device, fleet};

const OWN: &str = ".tidegate/desired/meters/m1";

fn open() -> FleetEntry {
    fleet(&["#"], &["#"], DeviceLimits::default())
}

/// The fleets `meters` and `others` with devices `m1` and `m2` each, and different configurations.
async fn gateway() -> Gateway {
    let gateway = Gateway::start().await;
    gateway.kafka.topic("all", &["#"], 3);
    gateway.services.directory.publish(gateway.kafka.routes());
    let roster = gateway.services.directory.roster();
    roster.put_fleet(FLEET, None);
    for name in ["meters", "others"] {
        roster.put_fleet(name, Some(&configured(open(), name)));
        for each in ["m1", "m2"] {
            let principal = Principal::new(name, each).unwrap();
            assert!(roster.put_device(&principal, Some(&device(PASSWORD).unwrap())));
        }
    }
    gateway
}

async fn ask(gateway: &Gateway, line: &str, more: &str) -> Response {
    gateway.ask(&format!("{line}\n{}\n{more}", basic("meters/m1", PASSWORD)), "").await
}

#[tokio::test]
async fn a_device_reads_its_own_document_and_nobody_elses() {
    let gateway = gateway().await;
    for &(verb, address, allowed) in DESIRED.iter().filter(|(verb, ..)| *verb != Verb::Subscribe) {
        let what = format!("{verb:?} {address}");
        if verb == Verb::Publish {
            for method in ["PUT", "POST"] {
                let answer = ask(&gateway, &format!("{method} {}", path(address)), "").await;
                assert_eq!((answer.status, answer.refusal().1.as_str()), (403, "Denied"), "{what}");
            }
            continue;
        }
        let answer = ask(&gateway, &format!("GET {}", path(address)), "").await;
        let refused = if tidegate_contract::desired::owner(address).is_some() { 403 } else { 404 };
        assert_eq!(answer.status, if allowed { 200 } else { refused }, "{what}");
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(body == r#"{"v":"meters"}"#, allowed, "{what}: {body}");
        assert!(!body.contains(r#""v""#) || allowed, "{what}: {body}");
    }
    let answer = gateway.ask(&format!("GET /{OWN}"), "").await;
    assert_eq!(answer.refusal().1, "NoCredentials");
}

#[tokio::test]
async fn a_document_comes_as_json_with_a_tag_that_says_whether_it_is_another() {
    let gateway = gateway().await;
    let get = format!("GET /{OWN}");
    let answer = ask(&gateway, &get, "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &br#"{"v":"meters"}"#[..]));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let tag = answer.header("etag").unwrap().to_owned();
    let unchanged = ask(&gateway, &get, &format!("If-None-Match: {tag}")).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("etag"), Some(tag.as_str()));
    let head = ask(&gateway, &format!("HEAD /{OWN}"), "").await;
    assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some(tag.as_str()), 0));
    // the same for each device of the fleet and in each process, and for no other document
    let other = format!("GET /.tidegate/desired/meters/m2\n{}", basic("meters/m2", PASSWORD));
    assert_eq!(gateway.ask(&other, "").await.header("etag"), Some(tag.as_str()));
    assert_eq!(ask(&self::gateway().await, &get, "").await.header("etag"), Some(tag.as_str()));
    let roster = gateway.services.directory.roster();
    roster.put_fleet("meters", Some(&configured(open(), "second")));
    let answer = ask(&gateway, &get, &format!("If-None-Match: {tag}")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &br#"{"v":"second"}"#[..]));
    roster.put_fleet("meters", Some(&open()));
    let answer = ask(&gateway, &get, "").await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (404, "NoConfiguration"));
}

#[tokio::test]
async fn a_document_is_served_while_kafka_is_away() {
    let gateway = gateway().await;
    gateway.kafka.away(true);
    assert_eq!(ask(&gateway, &format!("GET /{OWN}"), "").await.status, 200);
}

#[tokio::test]
async fn a_document_has_no_history_and_its_path_is_an_address_like_any_other() {
    let gateway = gateway().await;
    let answer = ask(&gateway, &format!("GET /{OWN}?last=1"), "").await;
    assert_eq!((answer.status, answer.refusal().1.as_str()), (400, "QueryOnDesired"));
    // one address, however it is spelt
    let spelt = "GET /%2Etidegate%2Fdesired/%6Deters/m1";
    assert_eq!(ask(&gateway, spelt, "").await.status, 200);
    let roster = gateway.services.directory.roster();
    let odd = Principal::new("meters", "Zähler%2F.1@y").unwrap();
    assert!(roster.put_device(&odd, Some(&device(PASSWORD).unwrap())));
    let get = format!("GET {}\n{}", path(&format!(".tidegate/desired/{odd}")), basic(odd.as_str(), PASSWORD));
    assert_eq!(gateway.ask(&get, "").await.status, 200);
}
