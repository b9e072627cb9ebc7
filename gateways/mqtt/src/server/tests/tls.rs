//! TLS: what a device sees for each certificate, and what happens to its connection when something changes.

use super::access::connect;
use super::host::{Client, Host, within};
use super::*;
use std::io;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tidegate_contract::Principal;
use tidegate_contract::config::ClientCertificates;
use tidegate_contract::fleet::{DeviceEntry, DeviceFrom, Provision};
use tidegate_testkit::certificates::{Cast, Fate, device, fleet};
use tidegate_testkit::memory::{FLEET, everybody};
use tidegate_testkit::pki::{Authority, Leaf};
use tidegate_testkit::rights::PASSWORD;
use tidegate_testkit::tls::{Hello, VERSIONS, alert, listener};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::rustls::AlertDescription;

/// A server with TLS and the fleets of a cast.
struct Place {
    host: Host,
    cast: Cast,
    /// Who signed the server's certificate.
    server: Authority,
    folder: TempDir,
}

impl Place {
    async fn with(client_certificates: ClientCertificates) -> Self {
        let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let tls = listener(folder.path(), &server.leaf("server").unwrap(), client_certificates).unwrap();
        let limits = Limits { connect_rate: 10_000, ..Limits::default() };
        let host = Host::start_tls(limits, tls).await;
        let roster = host.services.directory.roster();
        roster.put_fleet(FLEET, None);
        cast.declare(roster).unwrap();
        Self { host, cast, server, folder }
    }

    fn hello<'a>(&'a self, shown: Option<&'a Leaf>) -> Hello<'a> {
        Hello::new(&self.server).with(shown)
    }

    /// What a device is told that does this.
    async fn knock(&self, hello: Hello<'_>, connect: &[u8]) -> io::Result<(Client, u8)> {
        let stream = within(hello.connect(self.host.address)).await?;
        let mut client = Client::on(stream, true);
        // the server may have closed already: what it said is still to be read
        client.send_unless_closed(connect).await;
        within(client.read()).await?;
        match client.hear().await {
            Heard::ConnAck { code, .. } => Ok((client, code)),
            other => panic!("{other:?}"),
        }
    }

    async fn inside(&self, shown: &Leaf) -> Client {
        let connect = connect(true, "", None, None);
        let (client, code) = self.knock(self.hello(Some(shown)), &connect).await.unwrap();
        assert_eq!(code, 0);
        client
    }

    /// Who wrote the newest record.
    fn wrote(&self, principal: &str) -> bool {
        !self.host.kafka.stored(&format!("sites/{principal}")).is_empty()
    }
}

/// The reason code that stands for a refusal.
fn code(reason: &str) -> u8 {
    match reason {
        "WrongCredentials" | "OtherUsername" => 0x86,
        "NoCredentials" | "DeviceDisabled" | "NotDeclared" | "CertificateWithoutName" | "AuthorityGone" => {
            0x87
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_certificate_gets_what_it_deserves_in_both_versions_of_tls() {
    for required in [ClientCertificates::Optional, ClientCertificates::Required] {
        let place = Place::with(required).await;
        // whoever would be taken for nobody would be let in
        place.host.services.directory.roster().put_fleet(FLEET, Some(&everybody()));
        for case in place.cast.cases().unwrap() {
            for version in VERSIONS {
                let hello = Hello { version, ..place.hello(case.shown.as_ref()) };
                let name = case.name;
                let result = place.knock(hello, &connect(true, "", None, None)).await;
                match (case.fate, result) {
                    (Fate::In(principal), Ok((mut client, 0))) => {
                        let topic = format!("sites/{principal}");
                        client.publish(&topic, 1, 1).await;
                        assert_eq!(client.hear().await, Heard::PubAck { id: 1, code: 0 }, "{name}");
                    }
                    (Fate::Refused(reason), Ok((_, told))) => assert_eq!(told, code(reason), "{name}"),
                    (Fate::Alert(expected), Err(error)) => {
                        assert_eq!(alert(&error).unwrap(), expected, "{name}");
                    }
                    (fate, Ok((_, told))) => panic!("{name}: {told:#x} and not {fate:?}"),
                    (fate, Err(error)) => panic!("{name}: {error} and not {fate:?}"),
                }
            }
        }
        assert!(place.wrote("auto/a1") && place.wrote("declared/d1") && place.wrote("uris/u1"));
        let line = "tidegate_tls_handshakes_total{outcome=\"UnknownAuthority\"} 8";
        place.host.metric_of(line).await;
    }
}

#[tokio::test]
async fn without_a_certificate_another_way_is_open_unless_one_is_required() {
    for version in VERSIONS {
        for (clients, told) in [
            (ClientCertificates::None, Some(0x87)),
            (ClientCertificates::Optional, Some(0x87)),
            (ClientCertificates::Required, None),
        ] {
            let place = Place::with(clients).await;
            let hello = Hello { version, ..place.hello(None) };
            let result = place.knock(hello, &connect(true, "", None, None)).await;
            let Some(expected) = told else {
                let expected = [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
                let heard = alert(&result.err().unwrap()).unwrap();
                assert!(expected.contains(&heard), "{heard:?}");
                place.host.metric_of("tidegate_tls_handshakes_total{outcome=\"NoCertificate\"} 1").await;
                continue;
            };
            assert_eq!(result.unwrap().1, expected);
            let roster = place.host.services.directory.roster();
            tidegate_testkit::rights::declare(roster, "meters/m1", &["#"], &[]).unwrap();
            let by_password = connect(true, "", Some("meters/m1"), Some(PASSWORD));
            assert_eq!(place.knock(hello, &by_password).await.unwrap().1, 0);
            // nobody asked for it, so nobody looked at it
            if clients == ClientCertificates::None {
                let stranger = place.cast.stranger.device("m1").unwrap();
                let shown = place.hello(Some(&stranger));
                assert_eq!(place.knock(shown, &by_password).await.unwrap().1, 0);
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_says_who_it_is_and_a_username_beside_it_may_say_nothing_else() {
    let place = Place::with(ClientCertificates::Optional).await;
    let shown = place.cast.auto.device("a1").unwrap();
    for (username, password, expected) in [
        (Some("auto/a1"), Some("anything"), 0),
        (Some("auto/a1"), None, 0),
        (Some(""), None, 0),
        (Some("auto/a2"), None, code("OtherUsername")),
        (Some("a1"), None, code("OtherUsername")),
    ] {
        let connect = connect(true, "", username, password);
        let told = place.knock(place.hello(Some(&shown)), &connect).await.unwrap().1;
        assert_eq!(told, expected, "{username:?}");
    }
}

/// Which changes of the directory end the connection of `auto/a1`.
#[tokio::test]
async fn whoever_may_not_stay_goes_within_two_seconds() {
    use DeviceFrom::{CommonName, UriSan};
    use Provision::{Automatic, Declared};
    type Change = fn(&Place);
    let changes: [(&str, bool, Change); 10] = [
        ("its authority beside another", false, |place| {
            let both = [&place.cast.stranger, &place.cast.auto];
            put(place, "auto", Some(&fleet(&both, CommonName, Automatic)));
        }),
        ("its authority renewed", false, |place| {
            let renewed = place.cast.auto.renewed("auto's authority").unwrap();
            put(place, "auto", Some(&fleet(&[&renewed], CommonName, Automatic)));
        }),
        ("another fleet", false, |place| put(place, "uris", None)),
        ("its authority replaced", true, |place| {
            put(place, "auto", Some(&fleet(&[&place.cast.stranger], CommonName, Automatic)));
        }),
        ("its authority replaced by one of the same name", true, |place| {
            put(place, "auto", Some(&fleet(&[&place.cast.twin], CommonName, Automatic)));
        }),
        ("certificates are taken no more", true, |place| put(place, "auto", Some(&everybody()))),
        ("names are elsewhere", true, |place| {
            put(place, "auto", Some(&fleet(&[&place.cast.auto], UriSan, Automatic)));
        }),
        ("it has to be declared", true, |place| {
            put(place, "auto", Some(&fleet(&[&place.cast.auto], CommonName, Declared)));
        }),
        ("its fleet is gone", true, |place| put(place, "auto", None)),
        ("it is disabled", true, |place| {
            let entry = DeviceEntry { disabled: true, ..DeviceEntry::default() };
            let roster = place.host.services.directory.roster();
            roster.put_device(&Principal::parse("auto/a1").unwrap(), Some(&entry));
        }),
    ];
    for (what, ends, change) in changes {
        let place = Place::with(ClientCertificates::Required).await;
        let shown = place.cast.auto.device("a1").unwrap();
        let mut client = place.inside(&shown).await;
        let begun = Instant::now();
        change(&place);
        if ends {
            assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x87 }], "{what}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{what}: {:?}", begun.elapsed());
            let again = place.knock(place.hello(Some(&shown)), &connect(true, "", None, None)).await;
            assert!(again.map_or(true, |(_, told)| told != 0), "{what}");
        } else {
            client.send(PING).await;
            assert_eq!(client.hear().await, Heard::PingResp, "{what}");
            place.inside(&shown).await;
        }
    }
}

fn put(place: &Place, name: &str, entry: Option<&tidegate_contract::fleet::FleetEntry>) {
    place.host.services.directory.roster().put_fleet(name, entry);
}

/// Another fleet whose name comes first takes an authority over.
#[tokio::test]
async fn an_authority_is_one_fleets() {
    let place = Place::with(ClientCertificates::Required).await;
    let shown = place.cast.auto.device("a1").unwrap();
    let client = place.inside(&shown).await;
    put(&place, "aaa", Some(&fleet(&[&place.cast.auto], DeviceFrom::CommonName, Provision::Automatic)));
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x87 }]);
    let mut client = place.inside(&shown).await;
    client.publish("sites/aaa/a1", 1, 1).await;
    assert_eq!(client.hear().await, Heard::PubAck { id: 1, code: 0 });
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let place = Place::with(ClientCertificates::Required).await;
    let mut params = device("a1");
    params.not_after = (SystemTime::now() + Duration::from_secs(3)).into();
    let mut client = place.inside(&place.cast.auto.with(&params).unwrap()).await;
    client.send(PING).await;
    assert_eq!(client.hear().await, Heard::PingResp);
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x87 }]);
}

#[tokio::test]
async fn a_new_certificate_of_the_server_is_shown_to_new_clients_and_the_old_ones_stay() {
    let place = Place::with(ClientCertificates::Required).await;
    let shown = place.cast.auto.device("a1").unwrap();
    let mut old = place.inside(&shown).await;
    let folder = place.folder.path();
    std::fs::write(folder.join("tls.key"), "no key").unwrap();
    place.host.metric_of("tidegate_tls_certificate_failures_total{reason=\"unusable\"}").await;
    place.host.metric_of("tidegate_tls_certificates_pending 1").await;
    drop(place.inside(&shown).await);

    let authority = Authority::new("the new server's").unwrap();
    listener(folder, &authority.leaf("server").unwrap(), ClientCertificates::Required).unwrap();
    place.host.metric_of("tidegate_tls_certificate_reloads_total 1").await;
    place.host.metric_of("tidegate_tls_certificates_pending 0").await;
    let connect = connect(true, "", None, None);
    let hello = Hello::new(&authority).with(Some(&shown));
    assert_eq!(place.knock(hello, &connect).await.unwrap().1, 0);
    assert!(place.knock(place.hello(Some(&shown)), &connect).await.is_err());
    old.publish("sites/1", 1, 1).await;
    assert_eq!(old.hear().await, Heard::PubAck { id: 1, code: 0 });
    place.host.metric_of("tidegate_tls_handshakes_total{outcome=\"RefusedByDevice\"} 1").await;
}

#[tokio::test]
async fn the_protocol_that_a_client_names_has_to_be_this_one() {
    let place = Place::with(ClientCertificates::Optional).await;
    let names: [&[&str]; 3] = [&["mqtt"], &["h2", "mqtt"], &[]];
    for alpn in names {
        let stream = Hello { alpn, ..place.hello(None) }.connect(place.host.address).await.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(chosen, (!alpn.is_empty()).then(|| b"mqtt".to_vec()));
    }
    let error =
        Hello { alpn: &["http/1.1"], ..place.hello(None) }.connect(place.host.address).await.unwrap_err();
    assert_eq!(alert(&error).unwrap(), AlertDescription::NoApplicationProtocol);
}

/// Each handshake is a connection before it is done, and ends by itself.
#[tokio::test]
async fn a_handshake_that_does_not_go_on_has_its_place_for_a_while_only() {
    let (server, folder) = (Authority::new("server's").unwrap(), tempfile::tempdir().unwrap());
    let leaf = server.leaf("server").unwrap();
    let tls = listener(folder.path(), &leaf, ClientCertificates::Optional).unwrap();
    let host = Host::start_tls(Limits { connections: 1, ..Limits::default() }, tls).await;
    let silent = TcpStream::connect(host.address).await.unwrap();
    host.until(|| host.services.limits.open() == 1).await;
    assert!(Hello::new(&server).connect(host.address).await.is_err());
    host.metric("connections_refused_total{reason=\"TooManyConnections\"} 1").await;
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(20), host.until_ever(|| host.services.limits.open() == 0))
        .await
        .unwrap();
    assert!(begun.elapsed() > Duration::from_secs(5));
    host.metric_of("tidegate_tls_handshakes_total{outcome=\"TooSlow\"} 1").await;
    Hello::new(&server).connect(host.address).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn what_is_no_tls_is_turned_away() {
    let place = Place::with(ClientCertificates::Optional).await;
    let mut plain = TcpStream::connect(place.host.address).await.unwrap();
    plain.write_all(&testing::connect(true)).await.unwrap();
    let mut client = Client::on(plain, true);
    while within(client.read()).await.unwrap_or(0) > 0 {}
    place.host.metric_of("tidegate_tls_handshakes_total{outcome=\"NotTls\"} 1").await;
    // a hello that never ends: more than a handshake message may have
    let mut endless = TcpStream::connect(place.host.address).await.unwrap();
    let record = [&[22, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF][..], &[0; 0x4000 - 4]].concat();
    let _ = endless.write_all(&record).await;
    let mut client = Client::on(endless, true);
    while within(client.read()).await.unwrap_or(0) > 0 {}
    place.host.metric_of("tidegate_tls_handshakes_total{outcome=\"NotTls\"} 2").await;
}

/// Larger than what TLS keeps: the rest has to be sent by itself.
#[tokio::test]
async fn large_messages_reach_a_subscriber_that_says_nothing() {
    let place = Place::with(ClientCertificates::Required).await;
    let mut subscriber = place.inside(&place.cast.auto.device("a1").unwrap()).await;
    subscriber.subscribe(&[("sites/#", 0)]).await;
    let payload = vec![7; 900_000];
    for number in 0..5 {
        place.host.kafka.append(&format!("sites/{number}"), &payload).unwrap();
        let Heard::Publish { payload: got, .. } = subscriber.hear().await else { panic!() };
        assert_eq!(got.len(), payload.len());
    }
}
