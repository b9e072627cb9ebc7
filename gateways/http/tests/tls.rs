//! TLS over real sockets: what a device sees for each certificate, and what happens to its connection when something
//! changes.

#![allow(clippy::panic, clippy::unwrap_used)] // helpers of tests are tests

mod support;

use std::io;
use support::{Client, Gateway, Response, SOON, request};
use tempfile::TempDir;
use tidegate_contract::Principal;
use tidegate_contract::config::{ClientCertificates, Limits};
use tidegate_contract::fleet::{DeviceEntry, DeviceFrom, Provision};
use tidegate_testkit::certificates::{Cast, Fate, fleet};
use tidegate_testkit::memory::{FLEET, everybody};
use tidegate_testkit::pki::{Authority, Leaf};
use tidegate_testkit::request::basic;
use tidegate_testkit::rights::{PASSWORD, declare};
use tidegate_testkit::tls::{Hello, VERSIONS, alert, listener};
use tokio::time::timeout;
use tokio_rustls::rustls::AlertDescription;

const WRITE: &str = "PUT /sites/berlin/telemetry/x";

/// A gateway with TLS and the fleets of a cast.
struct Place {
    gateway: Gateway,
    cast: Cast,
    /// Who signed the gateway's certificate.
    server: Authority,
    folder: TempDir,
}

impl Place {
    async fn with(client_certificates: ClientCertificates) -> Self {
        let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let tls = listener(folder.path(), &server.leaf("server").unwrap(), client_certificates).unwrap();
        let limits = Limits { connect_rate: 10_000, ..Limits::default() };
        let gateway = Gateway::with_tls(limits, tls).await;
        let roster = gateway.services.directory.roster();
        roster.put_fleet(FLEET, None);
        cast.declare(roster).unwrap();
        Self { gateway, cast, server, folder }
    }

    fn hello<'a>(&'a self, shown: Option<&'a Leaf>) -> Hello<'a> {
        Hello::new(&self.server).with(shown)
    }

    async fn connect(&self, hello: Hello<'_>) -> io::Result<Client> {
        Ok(Client::on(timeout(SOON, hello.connect(self.gateway.address)).await.unwrap()?))
    }

    /// What a device is told that does this.
    async fn ask(&self, hello: Hello<'_>, head: &str) -> io::Result<Response> {
        let mut client = self.connect(hello).await?;
        client.send(request(head, "x")).await;
        // the gateway may have closed already: what it said is still to be read
        timeout(SOON, client.fill()).await.unwrap()?;
        Ok(client.response(false).await.unwrap())
    }
}

#[tokio::test]
async fn each_certificate_gets_what_it_deserves_in_both_versions_of_tls() {
    for required in [ClientCertificates::Optional, ClientCertificates::Required] {
        let place = Place::with(required).await;
        // whoever would be taken for nobody would be let in
        place.gateway.services.directory.roster().put_fleet(FLEET, Some(&everybody()));
        for case in place.cast.cases().unwrap() {
            for version in VERSIONS {
                let hello = Hello { version, ..place.hello(case.shown.as_ref()) };
                let name = case.name;
                match (case.fate, place.ask(hello, WRITE).await) {
                    (Fate::In(_), Ok(answer)) => assert_eq!(answer.status, 204, "{name}"),
                    (Fate::Refused(reason), Ok(answer)) => {
                        let (status, told, stored) = answer.refusal();
                        assert_eq!((status, told.as_str(), stored), (403, reason, "no".into()), "{name}");
                    }
                    (Fate::Alert(expected), Err(error)) => {
                        assert_eq!(alert(&error).unwrap(), expected, "{name}");
                    }
                    (fate, Ok(answer)) => panic!("{name}: {} and not {fate:?}", answer.status),
                    (fate, Err(error)) => panic!("{name}: {error} and not {fate:?}"),
                }
            }
        }
        place.gateway.metric("tidegate_tls_handshakes_total{outcome=\"ChainTooLong\"} 2").await;
    }
}

#[tokio::test]
async fn without_a_certificate_another_way_is_open_unless_one_is_required() {
    for version in VERSIONS {
        for clients in [ClientCertificates::None, ClientCertificates::Optional, ClientCertificates::Required]
        {
            let place = Place::with(clients).await;
            declare(place.gateway.services.directory.roster(), "meters/m1", &["#"], &[]).unwrap();
            let hello = Hello { version, ..place.hello(None) };
            let basic = format!("{WRITE}\n{}", basic("meters/m1", PASSWORD));
            if clients == ClientCertificates::Required {
                let expected = [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
                let heard = alert(&place.ask(hello, &basic).await.unwrap_err()).unwrap();
                assert!(expected.contains(&heard), "{heard:?}");
            } else {
                assert_eq!(place.ask(hello, WRITE).await.unwrap().status, 401);
                assert_eq!(place.ask(hello, &basic).await.unwrap().status, 204);
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_says_who_it_is_and_a_username_beside_it_may_say_nothing_else() {
    let place = Place::with(ClientCertificates::Optional).await;
    let shown = place.cast.auto.device("a1").unwrap();
    for (username, expected) in [("auto/a1", 204), ("", 204), ("auto/a2", 403), ("a1", 403)] {
        let head = format!("{WRITE}\n{}", basic(username, "anything"));
        assert_eq!(place.ask(place.hello(Some(&shown)), &head).await.unwrap().status, expected, "{username}");
    }
}

#[tokio::test]
async fn each_request_on_a_connection_is_asked_for_anew() {
    let place = Place::with(ClientCertificates::Required).await;
    let roster = place.gateway.services.directory.roster();
    let shown = place.cast.auto.device("a1").unwrap();
    let mut client = place.connect(place.hello(Some(&shown))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.ask(WRITE, "x").await.status, 204);
    }
    let off = DeviceEntry { disabled: true, ..DeviceEntry::default() };
    let a1 = Principal::parse("auto/a1").unwrap();
    roster.put_device(&a1, Some(&off));
    assert_eq!(client.ask(WRITE, "x").await.refusal().1, "DeviceDisabled");
    roster.put_device(&a1, None);
    assert_eq!(client.ask(WRITE, "x").await.status, 204);
    let both = [&place.cast.stranger, &place.cast.auto];
    roster.put_fleet("auto", Some(&fleet(&both, DeviceFrom::CommonName, Provision::Automatic)));
    assert_eq!(client.ask(WRITE, "x").await.status, 204);
    let other = fleet(&[&place.cast.stranger], DeviceFrom::CommonName, Provision::Automatic);
    roster.put_fleet("auto", Some(&other));
    let answer = client.ask(WRITE, "x").await;
    assert_eq!((answer.header("connection"), answer.refusal().1.as_str()), (Some("close"), "AuthorityGone"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_new_certificate_of_the_gateway_is_shown_to_new_clients_and_open_connections_stay() {
    let place = Place::with(ClientCertificates::Required).await;
    let shown = place.cast.auto.device("a1").unwrap();
    let mut old = place.connect(place.hello(Some(&shown))).await.unwrap();
    assert_eq!(old.ask(WRITE, "x").await.status, 204);
    let authority = Authority::new("the new gateway's").unwrap();
    let leaf = authority.leaf("server").unwrap();
    listener(place.folder.path(), &leaf, ClientCertificates::Required).unwrap();
    place.gateway.metric("tidegate_tls_certificate_reloads_total 1").await;
    let hello = Hello::new(&authority).with(Some(&shown));
    assert_eq!(place.ask(hello, WRITE).await.unwrap().status, 204);
    assert!(place.connect(place.hello(Some(&shown))).await.is_err());
    assert_eq!(old.ask(WRITE, "x").await.status, 204);
}

#[tokio::test]
async fn the_protocol_that_a_client_names_has_to_be_this_one() {
    let place = Place::with(ClientCertificates::None).await;
    let address = place.gateway.address;
    for alpn in [&["h2", "http/1.1"][..], &[]] {
        let stream = Hello { alpn, ..place.hello(None) }.connect(address).await.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen, (!alpn.is_empty()).then(|| b"http/1.1".to_vec()));
    }
    let error = Hello { alpn: &["h2"], ..place.hello(None) }.connect(address).await.unwrap_err();
    assert_eq!(alert(&error).unwrap(), AlertDescription::NoApplicationProtocol);
}

/// Nothing is said in plain text where a handshake is expected.
#[tokio::test]
async fn one_connection_too_many_is_closed_without_a_word() {
    let (server, folder) = (Authority::new("server's").unwrap(), tempfile::tempdir().unwrap());
    let leaf = server.leaf("server").unwrap();
    let tls = listener(folder.path(), &leaf, ClientCertificates::None).unwrap();
    let gateway = Gateway::with_tls(Limits { connections: 1, ..Limits::default() }, tls).await;
    let _first = Hello::new(&server).connect(gateway.address).await.unwrap();
    assert!(gateway.connect().await.read().await.is_none());
}
