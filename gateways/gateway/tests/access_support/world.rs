//! Gateways of both protocols on one Kafka in memory and one directory, and their devices.

use super::{Http, Mqtt, Who};
use std::net::SocketAddr;
use tidegate_contract::Principal;
use tidegate_contract::config::{Limits, Listener, ListenerTls};
use tidegate_contract::fleet::{DeviceEntry, DeviceLimits, FleetEntry};
use tidegate_core::{Roster, Services};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::{Bounds, FLEET};
use tidegate_testkit::rights::{PASSWORD, configured, device, fleet};
use tokio::net::{TcpListener, TcpStream};

/// A person's password.
pub const HUMAN: &str = "secret";
pub const MACHINE: Who<'static> = Who::new("meters/machine", PASSWORD);

/// Changes a device of `meters`.
pub fn put(roster: &Roster, name: &str, entry: Option<&DeviceEntry>) {
    roster.put_device(&Principal::new("meters", name).unwrap(), entry);
}

/// Gateways of both protocols on one Kafka and one directory.
pub struct World {
    pub kafka: MemoryKafka,
    pub services: Services,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
}

impl World {
    /// Nobody is let in yet; one topic holds these addresses.
    pub async fn new(filters: &[&str]) -> Self {
        Self::behind(filters, None).await
    }

    /// The same behind TLS.
    pub async fn behind(filters: &[&str], tls: Option<ListenerTls>) -> Self {
        let kafka = MemoryKafka::new();
        kafka.topic("some", filters, 3);
        // a test knocks faster than devices do
        let limits = Limits { connect_rate: 10_000, ..Limits::default() };
        let services = kafka.services_with(Bounds::default(), limits).unwrap();
        services.directory.publish(kafka.routes());
        services.directory.roster().put_fleet(FLEET, None);
        let (mqtt, http) = (socket("mqtt", tls.clone()).await, socket("http", tls).await);
        let addresses = (mqtt.1.local_addr().unwrap(), http.1.local_addr().unwrap());
        tokio::spawn(tidegate_mqtt::serve(vec![mqtt], services.clone()));
        tokio::spawn(tidegate_http::serve(vec![http], services.clone()));
        Self { kafka, services, mqtt: addresses.0, http: addresses.1 }
    }

    /// The fleet `meters` with its devices.
    pub async fn with_fleet() -> Self {
        let world = Self::new(&["up/+", "down/+"]).await;
        let roster = world.services.directory.roster();
        roster.put_fleet("meters", Some(&meters(DeviceLimits::default())));
        put(roster, "machine", Some(&device(PASSWORD).unwrap()));
        put(roster, "human", Some(&device(HUMAN).unwrap()));
        put(roster, "none", Some(&DeviceEntry::default()));
        put(
            roster,
            "broken",
            Some(&DeviceEntry { credential: Some("x".to_owned()), ..DeviceEntry::default() }),
        );
        put(roster, "off", Some(&DeviceEntry { disabled: true, ..device(HUMAN).unwrap() }));
        roster.put_fleet("certified", Some(&FleetEntry::default()));
        let certified = Principal::parse("certified/machine").unwrap();
        roster.put_device(&certified, Some(&device(PASSWORD).unwrap()));
        world
    }

    pub fn roster(&self) -> &Roster {
        self.services.directory.roster()
    }

    pub async fn mqtt(&self, v5: bool) -> Mqtt {
        Mqtt::new(TcpStream::connect(self.mqtt).await.unwrap(), v5)
    }

    pub async fn http(&self) -> Http {
        Http::new(TcpStream::connect(self.http).await.unwrap())
    }
}

/// The fleet of the devices that the table is about.
pub fn meters(limits: DeviceLimits) -> FleetEntry {
    let entry = fleet(&["up/{device}/#", ".tidegate/#"], &["down/{device}"], limits);
    configured(entry, "first")
}

async fn socket(name: &str, tls: Option<ListenerTls>) -> (Listener, TcpListener) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (Listener { tls, ..Listener::plain(name, socket.local_addr().unwrap().port()) }, socket)
}
